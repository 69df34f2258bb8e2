//! ETags, where they are checksums: the MD5 of an object that was sent in one piece; the MD5 of the MD5s of the
//! parts, a hyphen and their number of one that was sent in parts.

use md5::{Digest, Md5};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ETag {
    /// As S3 gave it, with its quotation marks.
    pub text: String,
    /// Length of all parts but the last, where the object's metadata tells it.
    part_bytes: Option<u64>,
}

impl ETag {
    pub fn new(text: &str, part_bytes: Option<u64>) -> ETag {
        ETag { text: text.to_owned(), part_bytes }
    }

    pub fn of_parts<'a>(parts: impl ExactSizeIterator<Item = &'a [u8; 16]>) -> String {
        let count = parts.len();
        let mut all = Md5::new();
        parts.for_each(|md5| all.update(md5));
        format!("{}-{count}", hex(&all.finalize()))
    }

    pub fn bare(&self) -> &str {
        self.text.trim_matches('"')
    }

    /// The sum that an object or a part in one piece has if it is undamaged.
    pub fn md5(&self) -> Option<[u8; 16]> {
        let text = self.bare();
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut md5 = [0; 16];
        for (place, byte) in md5.iter_mut().enumerate().filter(|_| digits) {
            *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
        }
        digits.then_some(md5)
    }

    /// What to run the bytes of the whole object through; `None` where the ETag is no checksum that we know.
    pub fn check(&self) -> Option<Check> {
        let part_bytes = match (self.md5(), self.part_bytes) {
            (Some(_), _) => u64::MAX,
            (None, Some(part_bytes)) if part_bytes > 0 && self.bare().contains('-') => part_bytes,
            _ => return None,
        };
        Some(Check {
            expected: self.bare().to_owned(),
            part_bytes,
            left: part_bytes,
            running: Md5::new(),
            parts: vec![],
        })
    }
}

/// Computes an ETag again while the object is read.
pub(super) struct Check {
    expected: String,
    part_bytes: u64,
    /// Of the part that is running.
    left: u64,
    running: Md5,
    parts: Vec<[u8; 16]>,
}

impl Check {
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left == 0 {
                self.end_part();
            }
            let (now, later) =
                bytes.split_at(bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX)));
            self.running.update(now);
            self.left -= now.len() as u64;
            bytes = later;
        }
    }

    fn end_part(&mut self) {
        self.parts.push(std::mem::take(&mut self.running).finalize().into());
        self.left = self.part_bytes;
    }

    pub fn holds(mut self) -> bool {
        self.end_part();
        let found = match self.part_bytes {
            u64::MAX => hex(&self.parts[0]),
            _ => ETag::of_parts(self.parts.iter()),
        };
        found.eq_ignore_ascii_case(&self.expected)
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_computes_the_etag_again() {
        let bytes: Vec<u8> = (0..1000_u32).map(|i| (i * 7) as u8).collect();
        let md5 = |bytes: &[u8]| <[u8; 16]>::from(Md5::digest(bytes));
        let whole = ETag::new(&format!("\"{}\"", hex(&md5(&bytes))), None);
        let parts = [md5(&bytes[..400]), md5(&bytes[400..800]), md5(&bytes[800..])];
        let in_parts = ETag::new(&ETag::of_parts(parts.iter()), Some(400));
        let exactly = ETag::new(&ETag::of_parts([md5(&bytes[..500]), md5(&bytes[500..])].iter()), Some(500));
        for etag in [whole, in_parts, exactly] {
            for frame in [1, 3, 400, 1000] {
                let mut check = etag.check().expect("a checksum");
                bytes.chunks(frame).for_each(|frame| check.update(frame));
                assert!(check.holds(), "{etag:?}");
                let mut check = etag.check().expect("a checksum");
                let mut flipped = bytes.clone();
                flipped[999] ^= 1;
                check.update(&flipped);
                assert!(!check.holds(), "{etag:?}");
            }
        }
    }

    #[test]
    fn other_etags_are_no_checksums() {
        for text in ["", "\"\"", "\"abc\"", "\"0123456789abcdef0123456789abcdeg\"", "W/\"1\""] {
            assert_eq!(ETag::new(text, None).md5(), None, "{text}");
            assert!(ETag::new(text, None).check().is_none(), "{text}");
        }
        let in_parts = "\"0123456789abcdef0123456789abcdef-2\"";
        assert!(ETag::new(in_parts, None).check().is_none(), "without the length of its parts");
    }
}

//! The boxes at the top of an ISO base media file (ISO/IEC 14496-12 §4.2), and the one correction of ours.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Where one box lies in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoxSpan {
    pub kind: [u8; 4],
    pub offset: u64,
    /// Of size and kind: 8, or 16 where the size takes 64 bits.
    pub header_bytes: u64,
    /// Header and body.
    pub bytes: u64,
}

/// Largest body read into memory, in bytes: the sample table of one fragment, or a header.
const BODY_BYTES_MAX: u64 = 64 << 20;

/// Every box at the top of the file, in order. The boxes fill the file to its end.
pub fn top_level(file: &mut (impl Read + Seek)) -> io::Result<Vec<BoxSpan>> {
    let end = file.seek(SeekFrom::End(0))?;
    let mut spans = Vec::new();
    let mut offset = 0;
    while offset < end {
        file.seek(SeekFrom::Start(offset))?;
        let span = header(file, offset)?;
        if span.bytes < span.header_bytes || span.bytes > end - offset {
            return Err(broken(format!("a box of {} bytes at {offset} in a file of {end}", span.bytes)));
        }
        offset += span.bytes;
        spans.push(span);
    }
    Ok(spans)
}

/// A whole box, header included.
pub fn read(file: &mut File, span: BoxSpan) -> io::Result<Vec<u8>> {
    if span.bytes > BODY_BYTES_MAX {
        return Err(broken(format!("a box of {} bytes to be read at once", span.bytes)));
    }
    let mut bytes = vec![0; span.bytes as usize];
    file.seek(SeekFrom::Start(span.offset))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// libavformat says in `sidx` that every reference starts with a stream access point, of type 0. They are
/// closed points, type 1 (ISO/IEC 14496-12 §8.16.3); strict players ask for it.
pub fn mark_access_points(path: &Path) -> io::Result<()> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let Some(span) = top_level(&mut file)?.into_iter().find(|span| &span.kind == b"sidx") else {
        return Err(broken("no sidx".to_owned()));
    };
    let mut sidx = read(&mut file, span)?;
    for sap in access_points(&mut sidx)? {
        sap[0] = 0x90;
    }
    file.seek(SeekFrom::Start(span.offset))?;
    file.write_all(&sidx)
}

/// The last four bytes of each reference: `starts_with_SAP(1) SAP_type(3) SAP_delta_time(28)`.
fn access_points(sidx: &mut [u8]) -> io::Result<impl Iterator<Item = &mut [u8]>> {
    let times_bytes = if sidx.get(8) == Some(&0) { 8 } else { 16 };
    // Header 8, version and flags 4, reference id 4, timescale 4, times, reserved 2, count 2.
    let first = 8 + 4 + 4 + 4 + times_bytes + 2 + 2;
    let references = sidx.get_mut(first..).ok_or_else(|| broken("a short sidx".to_owned()))?;
    Ok(references.chunks_exact_mut(12).map(|reference| &mut reference[8..]))
}

fn header(file: &mut impl Read, offset: u64) -> io::Result<BoxSpan> {
    let mut short = [0; 8];
    file.read_exact(&mut short)?;
    let (size, kind) = short.split_at(4);
    let kind = [kind[0], kind[1], kind[2], kind[3]];
    let size = u32::from_be_bytes([size[0], size[1], size[2], size[3]]);
    if size != 1 {
        return Ok(BoxSpan { kind, offset, header_bytes: 8, bytes: u64::from(size) });
    }
    let mut long = [0; 8];
    file.read_exact(&mut long)?;
    Ok(BoxSpan { kind, offset, header_bytes: 16, bytes: u64::from_be_bytes(long) })
}

fn broken(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut bytes = (8 + body.len() as u32).to_be_bytes().to_vec();
        bytes.extend(kind);
        bytes.extend(body);
        bytes
    }

    fn written(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn boxes_fill_the_file() {
        let mut bytes = boxed(b"ftyp", b"isom");
        let mut large = 1_u32.to_be_bytes().to_vec();
        large.extend(b"mdat");
        large.extend(20_u64.to_be_bytes());
        large.extend(b"abcd");
        bytes.extend(large);
        let spans = top_level(&mut written(&bytes).reopen().unwrap()).unwrap();
        assert_eq!(spans.len(), 2);
        assert_eq!(spans[1], BoxSpan { kind: *b"mdat", offset: 12, header_bytes: 16, bytes: 20 });
    }

    #[test]
    fn lying_sizes_are_errors() {
        for size in [0_u32, 7, 100] {
            let mut bytes = boxed(b"ftyp", b"isom");
            bytes[..4].copy_from_slice(&size.to_be_bytes());
            assert!(top_level(&mut written(&bytes).reopen().unwrap()).is_err(), "{size}");
        }
    }

    #[test]
    fn access_points_become_type_1() {
        for version in [0_u8, 1] {
            let mut body = vec![version, 0, 0, 0];
            body.extend([0; 8]);
            body.extend(vec![0; if version == 0 { 8 } else { 16 }]);
            body.extend([0, 0, 0, 2]);
            body.extend([0, 0, 0, 9, 0, 0, 0, 8, 0x80, 0, 0, 0].repeat(2));
            let file = written(&boxed(b"sidx", &body));
            mark_access_points(file.path()).unwrap();
            let sidx = std::fs::read(file.path()).unwrap();
            let tail = &sidx[sidx.len() - 24..];
            assert_eq!(tail, [0, 0, 0, 9, 0, 0, 0, 8, 0x90, 0, 0, 0].repeat(2));
        }
    }
}

//! A form as it streams (Z3): however its bytes are cut, the same events come out, and little is held meanwhile.

use crate::multipart::{Event, MultipartError, Parser};

/// A part header and the delimiter that may follow it, with the bounds that tests have.
const HELD_BYTES_MAX: usize = 256 + 100;

/// `input`: how the body is cut, the value of `Content-Type`, a line end, the body.
pub fn run(input: &[u8]) {
    let Some((&seed, input)) = input.split_first() else { return };
    let end = memchr::memchr(b'\n', input).unwrap_or(input.len());
    let content_type = String::from_utf8_lossy(&input[..end]);
    let body = input.get(end + 1..).unwrap_or_default();
    let whole = read(&content_type, std::iter::once(body));
    let is_mark = |byte: &u8| matches!(byte, b'\r' | b'\n' | b'-');
    match seed {
        b'1' => assert_eq!(read(&content_type, body.chunks(1)), whole, "byte by byte"),
        b'-' => {
            assert_eq!(read(&content_type, body.split_inclusive(is_mark)), whole, "within every boundary")
        }
        _ => assert_eq!(read(&content_type, cut(body, seed)), whole, "cut by chance"),
    }
}

/// Pieces of 0 to 63 bytes.
fn cut(body: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let (mut state, mut rest) = (u64::from(seed), body);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bytes = (state >> 58) as usize;
        let (piece, after) = rest.split_at(bytes.min(rest.len()));
        rest = after;
        Some(piece)
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Read {
    file: Option<(Option<String>, Option<String>)>,
    bytes: Vec<u8>,
    ended: bool,
    outcome: Result<(), MultipartError>,
}

fn read<'a>(content_type: &str, frames: impl Iterator<Item = &'a [u8]>) -> Read {
    let mut read = Read { file: None, bytes: Vec::new(), ended: false, outcome: Ok(()) };
    read.outcome = read.take(content_type, frames);
    if read.outcome.is_ok() {
        assert!(read.ended, "a form that is whole has a whole file");
    }
    read
}

impl Read {
    fn take<'a>(
        &mut self,
        content_type: &str,
        frames: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), MultipartError> {
        let mut parser = Parser::new(content_type)?;
        for frame in frames {
            parser.push(frame);
            while let Some(event) = parser.next_event()? {
                self.note(event);
            }
            assert!(parser.held_bytes() <= HELD_BYTES_MAX, "{} bytes are held", parser.held_bytes());
        }
        parser.finish()
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::File { name, content_type } => {
                assert!(self.file.is_none(), "there is one file");
                self.file = Some((name, content_type));
            }
            Event::Bytes(bytes) => {
                assert!(self.file.is_some() && !self.ended, "bytes are of the file");
                assert!(!bytes.is_empty());
                self.bytes.extend_from_slice(&bytes);
            }
            Event::FileEnd => {
                assert!(!std::mem::replace(&mut self.ended, true), "it ends once");
            }
        }
    }
}

//! `multipart/form-data` (RFC 7578) with one file part, read as it streams: the file's bytes pass through, and
//! everything else is bounded.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem;

/// Before the first boundary; form data has nothing there.
const PREAMBLE_BYTES_MAX: usize = within_reach(4 * 1024, 64);
const PART_HEADER_BYTES_MAX: usize = within_reach(8 * 1024, 256);
const HEADER_END: &[u8] = b"\r\n\r\n";
/// Form fields before the file; they are read and forgotten.
const FIELDS_MAX: usize = 16;
const FIELD_BYTES_MAX: usize = within_reach(64 * 1024, 256);
/// RFC 2046 §5.1.1.
const BOUNDARY_BYTES_MAX: usize = 70;

/// Short forms made by chance are to reach the bounds too.
const fn within_reach(bytes_max: usize, of_tests: usize) -> usize {
    if cfg!(any(test, fuzzing)) { of_tests } else { bytes_max }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The file begins.
    File {
        name: Option<String>,
        content_type: Option<String>,
    },
    Bytes(Bytes),
    /// The file is whole. What follows may only be the end of the form.
    FileEnd,
}

/// What is wrong with a form; the text is for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MultipartError {
    #[error("`Content-Type` names no boundary of 1 to {BOUNDARY_BYTES_MAX} characters")]
    Boundary,
    #[error("there is something else before the first boundary")]
    Preamble,
    #[error("the header of a part is no header, or longer than {PART_HEADER_BYTES_MAX} bytes")]
    PartHeader,
    #[error("there are more than {FIELDS_MAX} fields before the file")]
    TooManyFields,
    #[error("a field is longer than {FIELD_BYTES_MAX} bytes")]
    FieldTooLong,
    #[error("there is another part after the file; send one file, as the last part")]
    AfterFile,
    #[error("there is no part with a `filename`")]
    NoFile,
    #[error("it ends before its closing boundary")]
    Truncated,
}

/// Push bytes in, take events out; never holds more than one pushed frame and a part header.
pub struct Parser {
    /// CRLF, two dashes, the boundary.
    delimiter: Vec<u8>,
    buffer: BytesMut,
    state: State,
    fields: usize,
    file_seen: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Preamble,
    /// Right behind a delimiter: the next part, or the end.
    Delimiter,
    PartHeader,
    /// How many bytes of the field were skipped.
    Field(usize),
    File,
    End,
}

/// A step of the machine.
enum Step {
    Emit(Event),
    /// The state changed; go on.
    Again,
    MoreInput,
}

impl Parser {
    /// `content_type` is the value of the request's header.
    pub fn new(content_type: &str) -> Result<Parser, MultipartError> {
        let boundary = parameter(content_type, "boundary").ok_or(MultipartError::Boundary)?;
        if boundary.is_empty() || boundary.len() > BOUNDARY_BYTES_MAX {
            return Err(MultipartError::Boundary);
        }
        Ok(Parser {
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            // Makes the first boundary like every other.
            buffer: BytesMut::from(&b"\r\n"[..]),
            state: State::Preamble,
            fields: 0,
            file_seen: false,
        })
    }

    pub fn push(&mut self, bytes: &[u8]) {
        // What comes after the end of a form means nothing.
        if self.state != State::End {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// `None`: push more.
    pub fn next_event(&mut self) -> Result<Option<Event>, MultipartError> {
        loop {
            match self.step()? {
                Step::Emit(event) => return Ok(Some(event)),
                Step::Again => {}
                Step::MoreInput => return Ok(None),
            }
        }
    }

    #[cfg(any(test, fuzzing))]
    pub fn held_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// To be called when the body has ended.
    pub fn finish(&self) -> Result<(), MultipartError> {
        match self.state {
            State::End if self.file_seen => Ok(()),
            State::End => Err(MultipartError::NoFile),
            _ => Err(MultipartError::Truncated),
        }
    }

    fn step(&mut self) -> Result<Step, MultipartError> {
        match self.state {
            State::Preamble => self.preamble(),
            State::Delimiter => self.delimiter(),
            State::PartHeader => self.part_header(),
            State::Field(skipped) => self.field(skipped),
            State::File => Ok(self.file()),
            State::End => {
                self.buffer.clear();
                Ok(Step::MoreInput)
            }
        }
    }

    fn preamble(&mut self) -> Result<Step, MultipartError> {
        match memmem::find(&self.buffer, &self.delimiter) {
            Some(at) if at <= PREAMBLE_BYTES_MAX => {
                self.buffer.advance(at + self.delimiter.len());
                self.state = State::Delimiter;
                Ok(Step::Again)
            }
            None if self.may_begin_within(PREAMBLE_BYTES_MAX, &self.delimiter) => Ok(Step::MoreInput),
            _ => Err(MultipartError::Preamble),
        }
    }

    fn delimiter(&mut self) -> Result<Step, MultipartError> {
        // RFC 2046 lets white space stand behind a boundary.
        let padding = self.buffer.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        if padding > BOUNDARY_BYTES_MAX {
            return Err(MultipartError::PartHeader);
        }
        let Some(end) = self.buffer.get(padding..padding + 2) else { return Ok(Step::MoreInput) };
        let (length, next) = match end {
            b"--" => (2, State::End),
            // The line end stays: with an empty header it is half of the empty line.
            b"\r\n" if !self.file_seen => (0, State::PartHeader),
            b"\r\n" => return Err(MultipartError::AfterFile),
            _ => return Err(MultipartError::PartHeader),
        };
        self.buffer.advance(padding + length);
        self.state = next;
        Ok(Step::Again)
    }

    fn part_header(&mut self) -> Result<Step, MultipartError> {
        let Some(end) = memmem::find(&self.buffer, HEADER_END) else {
            let fits = self.may_begin_within(PART_HEADER_BYTES_MAX, HEADER_END);
            return if fits { Ok(Step::MoreInput) } else { Err(MultipartError::PartHeader) };
        };
        if end > PART_HEADER_BYTES_MAX {
            return Err(MultipartError::PartHeader);
        }
        let header = self.buffer.split_to(end + HEADER_END.len());
        // The boundary line before an empty body is part of the next delimiter.
        let header = PartHeader::parse(&String::from_utf8_lossy(&header));
        if header.is_file {
            self.file_seen = true;
            self.state = State::File;
            return Ok(Step::Emit(Event::File { name: header.file_name, content_type: header.content_type }));
        }
        self.fields += 1;
        if self.fields > FIELDS_MAX {
            return Err(MultipartError::TooManyFields);
        }
        self.state = State::Field(0);
        Ok(Step::Again)
    }

    fn field(&mut self, skipped: usize) -> Result<Step, MultipartError> {
        let (length, ended) = self.content();
        self.buffer.advance(length);
        let skipped = skipped + length;
        if skipped > FIELD_BYTES_MAX {
            return Err(MultipartError::FieldTooLong);
        }
        self.state = State::Field(skipped);
        if ended {
            self.pass_delimiter();
            return Ok(Step::Again);
        }
        Ok(Step::MoreInput)
    }

    fn file(&mut self) -> Step {
        let (length, ended) = self.content();
        if length > 0 {
            return Step::Emit(Event::Bytes(self.buffer.split_to(length).freeze()));
        }
        if ended {
            self.pass_delimiter();
            return Step::Emit(Event::FileEnd);
        }
        Step::MoreInput
    }

    /// What is not there yet may have its first bytes at the end of the buffer: however the body is cut, it is too late
    /// at the same byte.
    fn may_begin_within(&self, bytes_max: usize, mark: &[u8]) -> bool {
        self.buffer.len() < bytes_max + mark.len()
    }

    /// How many bytes at the front of the buffer are the part's for certain, and whether a delimiter follows them.
    fn content(&self) -> (usize, bool) {
        match memmem::find(&self.buffer, &self.delimiter) {
            Some(at) => (at, true),
            // The last bytes may be the beginning of a delimiter.
            None => (self.buffer.len().saturating_sub(self.delimiter.len() - 1), false),
        }
    }

    fn pass_delimiter(&mut self) {
        self.buffer.advance(self.delimiter.len());
        self.state = State::Delimiter;
    }
}

struct PartHeader {
    is_file: bool,
    file_name: Option<String>,
    content_type: Option<String>,
}

impl PartHeader {
    fn parse(text: &str) -> PartHeader {
        let field = |wanted: &str| {
            let lines = text.split("\r\n").filter_map(|line| line.split_once(':'));
            lines
                .into_iter()
                .find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))
                .map(|(_, value)| value.trim())
        };
        let file_name = field("content-disposition").and_then(|value| parameter(value, "filename"));
        PartHeader {
            is_file: file_name.is_some(),
            file_name: file_name.filter(|name| !name.is_empty()),
            content_type: field("content-type").map(str::to_owned),
        }
    }
}

/// A parameter of a header value such as `form-data; name="x"; filename="y"`.
pub fn parameter(value: &str, wanted: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (name, after) = rest.split_once('=')?;
        let (found, after) = parameter_value(after.trim_start());
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(found);
        }
        rest = after.split_once(';')?.1;
    }
}

/// The value at the front, quoted or not, and what follows it.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        return (text[..end].trim().to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (value, &quoted[at + 1..]),
            // Browsers write a quote as %22 and a backslash as itself; only an escaped quote is an escape.
            '\\' if quoted[at + 1..].starts_with('"') => {
                value.push('"');
                chars.next();
            }
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TYPE: &str = "multipart/form-data; boundary=\"b-o\"";

    /// File name, content type, bytes of the file; fed in frames of `frame` bytes.
    type Parsed = (Option<String>, Option<String>, Vec<u8>);

    fn parse(body: &[u8], frame: usize) -> Result<Parsed, MultipartError> {
        let mut parser = Parser::new(TYPE)?;
        let (mut header, mut bytes, mut ended) = (None, Vec::new(), false);
        for frame in body.chunks(frame.max(1)) {
            parser.push(frame);
            while let Some(event) = parser.next_event()? {
                match event {
                    Event::File { name, content_type } => header = Some((name, content_type)),
                    Event::Bytes(more) => bytes.extend_from_slice(&more),
                    Event::FileEnd => ended = true,
                }
            }
        }
        parser.finish()?;
        assert!(ended);
        let (name, content_type) = header.unwrap();
        Ok((name, content_type, bytes))
    }

    fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (header, content) in parts {
            body.extend_from_slice(format!("--b-o\r\n{header}\r\n\r\n").as_bytes());
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--b-o--\r\nepilogue");
        body
    }

    const FILE: &str = "Content-Disposition: form-data; name=\"file\"; filename=\"cl\\\"ip; x.mp4\"\r\ncontent-type: video/mp4";
    const FIELD: &str = "Content-Disposition: form-data; name=\"title\"";

    #[test]
    fn one_file_after_some_fields() {
        let body = form(&[(FIELD, b"A title"), (FIELD, b""), (FILE, b"bytes")]);
        for frame in 1..body.len() {
            let (name, content_type, bytes) = parse(&body, frame).unwrap();
            assert_eq!(name.as_deref(), Some("cl\"ip; x.mp4"));
            assert_eq!(content_type.as_deref(), Some("video/mp4"));
            assert_eq!(bytes, b"bytes");
        }
    }

    #[test]
    fn bad_forms_are_named() {
        use MultipartError::*;
        let long = "x".repeat(PART_HEADER_BYTES_MAX);
        let many: Vec<(&str, &[u8])> = vec![(FIELD, b"x"); 10_000];
        let field = vec![b'x'; FIELD_BYTES_MAX + 1];
        let cases: [(&str, Vec<u8>, MultipartError); 10] = [
            ("empty", Vec::new(), Truncated),
            (
                "no closing boundary",
                b"--b-o\r\nContent-Disposition: form-data; filename=x\r\n\r\nabc".to_vec(),
                Truncated,
            ),
            ("only the end", b"--b-o--".to_vec(), NoFile),
            ("no file", form(&[(FIELD, b"x")]), NoFile),
            ("two files", form(&[(FILE, b"x"), (FILE, b"y")]), AfterFile),
            ("a field after the file", form(&[(FILE, b"x"), (FIELD, b"y")]), AfterFile),
            ("a long header", form(&[(&format!("{FILE}\r\nx: {long}"), b"x")]), PartHeader),
            ("10,000 parts", form(&many), TooManyFields),
            ("a long field", form(&[(FIELD, &field), (FILE, b"x")]), FieldTooLong),
            ("a long preamble", vec![b'x'; PREAMBLE_BYTES_MAX * 2], Preamble),
        ];
        for (name, body, expected) in cases {
            for frame in [1, 7, 1000, body.len()] {
                assert_eq!(parse(&body, frame), Err(expected), "{name}, frames of {frame}");
            }
        }
        for bad in
            ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; x=\"boundary=a\""]
        {
            assert!(matches!(Parser::new(bad), Err(Boundary)), "{bad}");
        }
        assert!(Parser::new(&format!("multipart/form-data; boundary={}", "x".repeat(71))).is_err());
    }

    /// A mark of which the bound cuts off the end.
    #[test]
    fn bounds_hold_at_the_same_byte_however_a_form_is_cut() {
        use MultipartError::*;
        let form = form(&[(FILE, b"x")]);
        for (bytes, expected) in [(0, Ok(())), (1, Err(Preamble))] {
            let body = [vec![b'x'; PREAMBLE_BYTES_MAX - 2 + bytes], b"\r\n".to_vec(), form.clone()].concat();
            for frame in [1, 2, 3, body.len()] {
                assert_eq!(parse(&body, frame).map(drop), expected, "{bytes} beyond, frames of {frame}");
            }
        }
        let line = "\r\n".len() + FILE.len() + "\r\nx: ".len();
        for (bytes, expected) in [(0, Ok(())), (1, Err(PartHeader))] {
            let header = format!("{FILE}\r\nx: {}", "y".repeat(PART_HEADER_BYTES_MAX - line + bytes));
            let body = self::form(&[(&header, b"x")]);
            for frame in [1, 2, 3, body.len()] {
                assert_eq!(parse(&body, frame).map(drop), expected, "{bytes} beyond, frames of {frame}");
            }
        }
    }

    proptest! {
        #[test]
        fn every_content_passes_through_unharmed(
            content in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'-'), Just(b'b'), any::<u8>()], 0..300),
            frame in 1usize..80,
        ) {
            prop_assume!(memmem::find(&content, b"\r\n--b-o").is_none() && !content.starts_with(b"--b-o"));
            let body = form(&[(FIELD, b"x"), (FILE, &content)]);
            prop_assert_eq!(parse(&body, frame).unwrap().2, content);
        }

        #[test]
        fn junk_never_panics(body in proptest::collection::vec(any::<u8>(), 0..300), frame in 1usize..80) {
            let mut parser = Parser::new(TYPE).unwrap();
            for frame in body.chunks(frame) {
                parser.push(frame);
                while let Ok(Some(_)) = parser.next_event() {}
            }
            prop_assert!(parser.finish().is_err());
        }
    }
}

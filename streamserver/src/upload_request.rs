//! What the head of an upload request says, checked before its body is touched.

use axum::body::HttpBody;
use chassis::Problem;
use http::header::{CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName};

use crate::digest::Wishes;
use crate::failure;
use crate::multipart::{self, Parser};

/// What a form may carry beside the file.
const FORM_OVERHEAD_BYTES_MAX: u64 = 2 * 1024 * 1024;
const FILENAME_CHARS_MAX: usize = 255;
const MEDIA_TYPES: &str = "`video/*`, `application/octet-stream` or `multipart/form-data`";

pub struct UploadRequest {
    pub shape: Shape,
    pub wishes: Wishes,
    pub filename: Option<String>,
    /// Bytes of the content, if somebody said so.
    pub length_bytes: Option<u64>,
}

/// How the file lies in the body.
pub enum Shape {
    File,
    Form(Parser),
}

impl Shape {
    pub fn is_file(&self) -> bool {
        matches!(self, Shape::File)
    }
}

impl UploadRequest {
    /// Refuses what can be refused without reading: type, length, headers that make no sense.
    pub fn read(headers: &HeaderMap, body: &impl HttpBody, bytes_max: u64) -> Result<UploadRequest, Problem> {
        let shape = shape(headers)?;
        let overhead = if shape.is_file() { 0 } else { FORM_OVERHEAD_BYTES_MAX };
        check_length(headers, body, bytes_max, overhead)?;
        let wishes = Wishes::read(headers).map_err(|error| Problem::bad_request(format!("{error}.")))?;
        Ok(UploadRequest { shape, wishes, filename: filename(headers), length_bytes: None })
    }
}

/// The name of a file that comes in several requests; refused where it cannot, as in a form.
pub fn filename_of_part(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    if shape(headers)?.is_file() {
        Ok(filename(headers))
    } else {
        Err(Problem::unsupported_media_type("`video/*` or `application/octet-stream`"))
    }
}

/// A name to show to a person later; never a path.
pub fn clean_filename(name: &str) -> Option<String> {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let clean: String = last.chars().filter(|c| !c.is_control()).take(FILENAME_CHARS_MAX).collect();
    (!clean.is_empty()).then_some(clean)
}

/// Of the file itself; none said is as good as `application/octet-stream` (RFC 9110 §8.3).
pub fn check_media_type(content_type: Option<&str>) -> Result<(), Problem> {
    let essence = content_type.map(essence).unwrap_or_default();
    let accepted = matches!(essence.as_str(), "" | "application/octet-stream" | "application/mp4")
        || essence.starts_with("video/");
    if accepted { Ok(()) } else { Err(Problem::unsupported_media_type(MEDIA_TYPES)) }
}

fn shape(headers: &HeaderMap) -> Result<Shape, Problem> {
    let coded =
        text(headers, CONTENT_ENCODING).is_some_and(|coding| !coding.eq_ignore_ascii_case("identity"));
    if coded {
        return Err(Problem::unsupported_media_type("it is, without `Content-Encoding`"));
    }
    let content_type = text(headers, CONTENT_TYPE);
    match content_type {
        Some(form) if essence(form) == "multipart/form-data" => {
            let parser = Parser::new(form).map_err(|error| Problem::bad_request(format!("{error}.")))?;
            Ok(Shape::Form(parser))
        }
        _ => check_media_type(content_type).map(|()| Shape::File),
    }
}

fn filename(headers: &HeaderMap) -> Option<String> {
    let disposition = text(headers, CONTENT_DISPOSITION).unwrap_or_default();
    multipart::parameter(disposition, "filename")
}

fn check_length(
    headers: &HeaderMap,
    body: &impl HttpBody,
    bytes_max: u64,
    overhead_bytes_max: u64,
) -> Result<(), Problem> {
    if !headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(TRANSFER_ENCODING) {
        return Err(Problem::length_required());
    }
    if body.size_hint().lower() > bytes_max.saturating_add(overhead_bytes_max) {
        return Err(failure::upload_too_large(bytes_max));
    }
    Ok(())
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    // A value that is no text is an unknown one, not a missing one.
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

/// The type without its parameters.
pub fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn status(headers: &[(HeaderName, &str)], body: &'static str) -> u16 {
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        UploadRequest::read(&headers, &Body::from(body), 10).map_or_else(|p| p.status().as_u16(), |_| 200)
    }

    #[test]
    fn heads_are_judged_before_bodies() {
        let length = (CONTENT_LENGTH, "5");
        for (content_type, expected) in [
            ("video/mp4", 200),
            ("Video/QuickTime; x=y", 200),
            ("application/octet-stream", 200),
            ("application/x-www-form-urlencoded", 415),
            ("text/plain", 415),
            ("videos/mp4", 415),
            ("multipart/form-data; boundary=x", 200),
            ("multipart/form-data", 400),
            ("multipart/mixed; boundary=x", 415),
        ] {
            assert_eq!(
                status(&[length.clone(), (CONTENT_TYPE, content_type)], "12345"),
                expected,
                "{content_type}"
            );
        }
        assert_eq!(status(std::slice::from_ref(&length), "12345"), 200);
        assert_eq!(status(&[], ""), 411);
        assert_eq!(status(&[(TRANSFER_ENCODING, "chunked")], ""), 200);
        assert_eq!(status(std::slice::from_ref(&length), "12345678901"), 413);
        assert_eq!(status(&[length.clone(), (CONTENT_ENCODING, "gzip")], "12345"), 415);
        let digest = HeaderName::from_static("content-digest");
        assert_eq!(status(&[length, (digest, "sha-256=nonsense")], "12345"), 400);
    }

    #[test]
    fn names_of_files_are_no_paths() {
        assert_eq!(clean_filename("../../etc/pass\u{0}wd").as_deref(), Some("passwd"));
        assert_eq!(clean_filename("C:\\Users\\me\\clip.mp4").as_deref(), Some("clip.mp4"));
        assert_eq!(clean_filename("..."), Some("...".to_owned()));
        assert_eq!(clean_filename("a/"), None);
        assert_eq!(clean_filename(&"ü".repeat(1000)).unwrap().chars().count(), FILENAME_CHARS_MAX);
    }
}

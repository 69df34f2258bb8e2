//! The heads of tus requests (Z2): what is read is what a naive reading says, what is not is refused with 400, and
//! reading takes no more memory than a few times the head's.

use base64::prelude::{BASE64_STANDARD, Engine};
use chassis::Problem;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::resumable::checksum::{Checksum, Expected};
use crate::resumable::tus::headers::{
    Concat, UPLOAD_CHECKSUM, UPLOAD_CONCAT, UPLOAD_DEFER_LENGTH, UPLOAD_METADATA, checksum,
    checksum_in_trailers, concat, has_bytes, length, length_or_deferred, metadata, offset,
};
use crate::resumable::{UPLOAD_LENGTH, UPLOAD_OFFSET};
use crate::upload_request::clean_filename;

/// As many as the server takes.
const HEADERS_MAX: usize = 100;
/// The text of a refusal, and lists that are small however much was sent.
const ALLOWANCE_BYTES: usize = 16 * 1024;

/// `text`: lines of `name: value`.
pub fn run(text: &[u8]) {
    let headers = read_head(text);
    let head_bytes = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    numbers_are_plain_digits(&headers, head_bytes);
    metadata_is_what_it_says(&headers, head_bytes);
    checksums_are_canonical(&headers, head_bytes);
    partials_are_named_once(&headers, head_bytes);
    let _ = has_bytes(&headers);
}

/// Lines that cannot be headers are left out, as they do not come this far.
fn read_head(text: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in text.split(|&byte| byte == b'\n').take(HEADERS_MAX) {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

/// `read` keeps to the memory that `head_bytes` entitle it to, and refuses with 400 or not at all.
fn frugal<T>(head_bytes: usize, read: impl FnOnce() -> Result<T, Problem>) -> Option<T> {
    let mut outcome = None;
    let allocated = allocation_counter::measure(|| outcome = Some(read()));
    let allowed_bytes = 4 * head_bytes + ALLOWANCE_BYTES;
    assert!(allocated.bytes_max <= allowed_bytes as u64, "{head_bytes} bytes took {}", allocated.bytes_max);
    match outcome.expect("it was read") {
        Ok(read) => Some(read),
        Err(problem) => {
            assert_eq!(problem.status(), 400, "{problem:?}");
            None
        }
    }
}

/// The one value of that name, if it is text; `None` where it is not one or no text.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Option<&'a str>> {
    match headers.get_all(name).iter().collect::<Vec<_>>()[..] {
        [] => Some(None),
        [value] => value.to_str().ok().map(Some),
        _ => None,
    }
}

fn numbers_are_plain_digits(headers: &HeaderMap, head_bytes: usize) {
    let naive = |name: &HeaderName| {
        only(headers, name).and_then(|text| text.map_or(Some(None), |text| naive_number(text).map(Some)))
    };
    let said = frugal(head_bytes, || length(headers));
    assert_eq!(said, naive(&UPLOAD_LENGTH));
    assert_eq!(frugal(head_bytes, || offset(headers)), naive(&UPLOAD_OFFSET).flatten());
    let deferred = match only(headers, &UPLOAD_DEFER_LENGTH) {
        Some(None) => Some(false),
        Some(Some("1")) => Some(true),
        _ => None,
    };
    let expected = match (said, deferred) {
        (Some(Some(length)), Some(false)) => Some(Some(length)),
        (Some(None), Some(true)) => Some(None),
        _ => None,
    };
    assert_eq!(frugal(head_bytes, || length_or_deferred(headers)), expected);
}

/// Digits, however many zeros stand before them, up to 2^63 - 1.
fn naive_number(text: &str) -> Option<u64> {
    let digits = text.trim_start_matches('0');
    if text.is_empty() || digits.len() > 19 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = digits.bytes().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    Some(number).filter(|&number| number <= i64::MAX as u64)
}

fn metadata_is_what_it_says(headers: &HeaderMap, head_bytes: usize) {
    let Some(read) = frugal(head_bytes, || metadata(headers)) else { return };
    let sent = only(headers, &UPLOAD_METADATA).expect("what was read was there once").unwrap_or_default();
    assert_eq!(read.header, sent.trim());
    let of = |wanted: &str| naive_value(&read.header, wanted);
    assert_eq!(read.filename().map(String::into_bytes), of("filename").or(of("name")).map(lossy));
    match of("video_id").map(|id| String::from_utf8(id).ok().and_then(|id| id.parse().ok())) {
        Some(None) => assert_eq!(read.video().expect_err("it is no id").kind(), "/problems/invalid-id"),
        expected => assert_eq!(read.video().ok(), Some(expected.flatten())),
    }
    let echoed = HeaderMap::from_iter([(UPLOAD_METADATA, value(&read.header))]);
    assert_eq!(metadata(&echoed).ok(), Some(read.clone()), "what is echoed is read back");
    if let Some(name) = read.filename().as_deref().and_then(clean_filename) {
        assert!(!name.contains(['/', '\\']) && !name.contains(char::is_control), "{name:?}");
        assert!(name.chars().count() <= 255, "{name}");
    }
}

fn naive_value(header: &str, wanted: &str) -> Option<Vec<u8>> {
    let words = header.split(',').map(|pair| pair.trim().splitn(2, ' ').collect::<Vec<_>>());
    let found = words.into_iter().find(|words| words[0] == wanted)?;
    let base64 = found.get(1).copied().unwrap_or_default();
    Some(BASE64_STANDARD.decode(base64).expect("it was read"))
}

fn lossy(bytes: Vec<u8>) -> Vec<u8> {
    String::from_utf8_lossy(&bytes).into_owned().into_bytes()
}

fn checksums_are_canonical(headers: &HeaderMap, head_bytes: usize) {
    let sent = || only(headers, &UPLOAD_CHECKSUM).flatten().unwrap_or_default();
    if let Some(Some(Expected::Given(given))) = frugal(head_bytes, || checksum(headers)) {
        assert_eq!(written(&given), sent());
    }
    // The same header behind a body.
    if let Some(Some(given)) = frugal(head_bytes, || checksum_in_trailers(headers)) {
        assert_eq!(written(&given), sent());
    }
}

fn written(checksum: &Checksum) -> String {
    let name = if checksum.digest.len() == 20 { "sha1" } else { "sha256" };
    format!("{name} {}", BASE64_STANDARD.encode(&checksum.digest))
}

fn partials_are_named_once(headers: &HeaderMap, head_bytes: usize) {
    let Some(Concat::Final { header, partials }) = frugal(head_bytes, || concat(headers)) else { return };
    assert_eq!(Some(Some(header.as_str())), only(headers, &UPLOAD_CONCAT));
    let addresses: Vec<_> = partials.iter().map(|id| format!("/stream/uploads/{id}")).collect();
    let again = format!("final;{}", addresses.join(" "));
    let echoed = HeaderMap::from_iter([(UPLOAD_CONCAT, value(&again))]);
    assert_eq!(concat(&echoed).ok(), Some(Concat::Final { header: again, partials: partials.clone() }));
    let mut ids = partials.clone();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), partials.len());
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("what was read from a header can be one")
}

//! The header fields of the draft. They are structured (RFC 9651), and one that is not what the draft says is as good as
//! none.

use axum::body::HttpBody;
use chassis::Problem;
use domain::Timestamp;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{BareItem, Item, Parser};

use super::refusal;
use crate::digest;
use crate::resumable::checksum::{Algorithm, Checksum, Expected};
use crate::resumable::{UPLOAD_LENGTH, UPLOAD_OFFSET};
use crate::upload_request::essence;

pub const INTEROP_VERSION: HeaderName = HeaderName::from_static("upload-draft-interop-version");
pub const UPLOAD_COMPLETE: HeaderName = HeaderName::from_static("upload-complete");
pub const UPLOAD_LIMIT: HeaderName = HeaderName::from_static("upload-limit");
pub const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
pub const PARTIAL_UPLOAD: HeaderValue = HeaderValue::from_static("application/partial-upload");

pub const COMPLETE: HeaderValue = HeaderValue::from_static("?1");
pub const INCOMPLETE: HeaderValue = HeaderValue::from_static("?0");

/// A structured integer has no more than 15 digits.
const INTEGER_MAX: u64 = 999_999_999_999_999;
/// An empty file is no video.
const BYTES_MIN: u64 = 1;

/// What a client and a server must agree on while it is a draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interop {
    /// Draft -05.
    V6,
    /// Drafts -09 to -12.
    V8,
}

impl Interop {
    /// `None`: none is announced, or one that is not spoken here.
    pub fn announced(headers: &HeaderMap) -> Option<Interop> {
        match integer(headers, &INTEROP_VERSION)? {
            6 => Some(Interop::V6),
            8 => Some(Interop::V8),
            _ => None,
        }
    }

    pub fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Interop::V6 => "6",
            Interop::V8 => "8",
        })
    }

    /// `Upload-Limit`, of an upload that lives on for so long.
    pub fn limit(self, bytes_max: u64, lifetime_s: u64) -> HeaderValue {
        let max_age = match self {
            Interop::V6 => "expires",
            Interop::V8 => "max-age",
        };
        let [bytes_max, lifetime_s] = [bytes_max, lifetime_s].map(|number| number.min(INTEGER_MAX));
        let limits = format!("max-size={bytes_max}, min-size={BYTES_MIN}, {max_age}={lifetime_s}");
        HeaderValue::try_from(limits).expect("numbers are plain ASCII")
    }
}

/// Whole seconds that are left, none of them only begun.
pub fn lifetime_s(expires_at: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(expires_at.ms_since(now) / 1000).unwrap_or(0)
}

/// What a request with bytes says of them.
pub struct Said {
    /// They are the last.
    pub complete: bool,
    /// Of the whole upload, if it follows from this request.
    pub length_bytes: Option<u64>,
    pub checksum: Option<Expected>,
}

impl Said {
    /// `None`: it says nothing of an upload in pieces. `offset_bytes` is where its bytes begin.
    pub fn read(
        headers: &HeaderMap,
        body: &impl HttpBody,
        offset_bytes: u64,
    ) -> Result<Option<Said>, Problem> {
        let Some(complete) = is_complete(headers) else { return Ok(None) };
        let end_bytes = body.size_hint().exact().filter(|_| complete);
        let end_bytes = end_bytes.map(|bytes| offset_bytes.saturating_add(bytes));
        let length_bytes = integer(headers, &UPLOAD_LENGTH);
        if end_bytes.is_some_and(|end| length_bytes.is_some_and(|length| length != end)) {
            return Err(refusal::inconsistent_length());
        }
        let digest = digest::of_content(headers).map_err(|e| Problem::bad_request(format!("{e}.")))?;
        let checksum =
            digest.map(|digest| Checksum { algorithm: Algorithm::Sha256, digest: digest.to_vec() });
        let checksum = checksum.map(Expected::Given);
        Ok(Some(Said { complete, length_bytes: length_bytes.or(end_bytes), checksum }))
    }
}

/// `None`: it is not said.
pub fn is_complete(headers: &HeaderMap) -> Option<bool> {
    item(headers, &UPLOAD_COMPLETE)?.as_boolean()
}

pub fn offset(headers: &HeaderMap) -> Result<u64, Problem> {
    integer(headers, &UPLOAD_OFFSET).ok_or_else(|| {
        Problem::bad_request(
            "`Upload-Offset` has to say where the bytes of this request begin, in plain digits.",
        )
    })
}

/// The body is bytes for an upload that is there.
pub fn is_partial(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    essence(content_type).as_bytes() == PARTIAL_UPLOAD.as_bytes()
}

fn integer(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    item(headers, name)?.as_integer().and_then(|integer| u64::try_from(i64::from(integer)).ok())
}

/// One that is there twice is no item.
fn item(headers: &HeaderMap, name: &HeaderName) -> Option<BareItem> {
    let values: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    let item: Item = Parser::new(&values.join(&b", "[..])).parse().ok()?;
    Some(item.bare_item)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with(name: &HeaderName, values: &[&str]) -> HeaderMap {
        let values = values.iter().map(|value| HeaderValue::from_bytes(value.as_bytes()).unwrap());
        values.map(|value| (name.clone(), value)).fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        })
    }

    #[test]
    fn fields_are_structured_and_what_is_not_is_none() {
        for (text, expected) in [
            ("?1", Some(true)),
            ("?0", Some(false)),
            ("?1;a=b", Some(true)),
            (" ?0 ", Some(false)),
            ("1", None),
            ("true", None),
            ("?2", None),
            ("?1, ?1", None),
            ("", None),
        ] {
            assert_eq!(is_complete(&with(&UPLOAD_COMPLETE, &[text])), expected, "{text}");
        }
        assert_eq!(is_complete(&with(&UPLOAD_COMPLETE, &["?1", "?1"])), None, "said twice");
        for (text, expected) in [
            ("0", Some(0)),
            ("999999999999999", Some(INTEGER_MAX)),
            ("9999999999999999", None),
            ("-1", None),
            ("1.0", None),
            ("\"1\"", None),
            ("0x1", None),
        ] {
            assert_eq!(integer(&with(&UPLOAD_OFFSET, &[text]), &UPLOAD_OFFSET), expected, "{text}");
        }
    }

    #[test]
    fn versions_are_spoken_or_not() {
        for (text, expected) in [
            ("6", Some(Interop::V6)),
            ("8", Some(Interop::V8)),
            ("3", None),
            ("5", None),
            ("7", None),
            ("9", None),
            ("8.0", None),
            ("six", None),
        ] {
            assert_eq!(Interop::announced(&with(&INTEROP_VERSION, &[text])), expected, "{text}");
        }
        assert_eq!(Interop::announced(&HeaderMap::new()), None);
        assert_eq!(Interop::V6.limit(10, 20), "max-size=10, min-size=1, expires=20");
        assert_eq!(Interop::V8.limit(u64::MAX, 20), "max-size=999999999999999, min-size=1, max-age=20");
    }

    proptest! {
        #[test]
        fn no_value_panics_and_numbers_are_what_they_say(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let headers = HeaderMap::from_iter([(UPLOAD_COMPLETE, value.clone()), (UPLOAD_OFFSET, value)]);
                if let Some(number) = integer(&headers, &UPLOAD_OFFSET) {
                    prop_assert!(number <= INTEGER_MAX);
                }
                is_complete(&headers);
            }
        }
    }
}

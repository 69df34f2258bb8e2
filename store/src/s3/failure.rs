//! What S3 answered in place of what was asked for, sorted by what follows from it.

use std::error::Error;
use std::fmt;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::StoreError;

/// Servers may say anything at any length.
const TEXT_CHARS_MAX: usize = 400;

/// A call that failed, in one line for an operator. Never holds a secret.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    /// The operation and the object.
    pub call: String,
    pub status: Option<u16>,
    /// S3's own word for it, such as `SlowDown`.
    pub code: Option<Box<str>>,
    pub text: String,
    pub kind: Kind,
    /// Where S3 says that the bucket is.
    pub bucket_region: Option<Box<str>>,
    /// When it answered, by its own clock, as its `Date` header says.
    pub date: Option<Box<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    NotFound,
    OutOfSpace,
    /// Nobody answered, or not in time, or the answer was broken off.
    NoAnswer,
    /// It answered that it cannot now.
    Busy,
    /// The bytes that arrived are not those that were sent.
    Damaged,
    Refused,
}

impl Failure {
    pub fn new<E>(call: &str, path: &str, error: SdkError<E, HttpResponse>) -> Failure
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let raw = error.raw_response();
        let header = |name: &str| raw.and_then(|raw| raw.headers().get(name)).map(Box::from);
        let status = raw.map(|raw| raw.status().as_u16());
        let code = error.code().map(Box::from);
        let text = match &error {
            SdkError::ServiceError(service) => {
                service.err().message().unwrap_or("no reason given").to_owned()
            }
            other => chain(other),
        };
        let kind = match &error {
            SdkError::ServiceError(_) | SdkError::ResponseError(_) => sort(status, code.as_deref()),
            // Where the credentials come from may be away for a while; else the call makes no sense.
            SdkError::ConstructionFailure(_) if !text.contains("credentials") => Kind::Refused,
            _ => Kind::NoAnswer,
        };
        Failure {
            call: format!("{call} {path}"),
            status,
            code,
            text: one_line(&text),
            kind,
            bucket_region: header("x-amz-bucket-region"),
            date: header("date"),
        }
    }

    /// One that we found in an answer that looked well.
    pub fn found(call: &str, path: &str, kind: Kind, text: impl Into<String>) -> Failure {
        Failure {
            call: format!("{call} {path}"),
            status: None,
            code: None,
            text: text.into(),
            kind,
            bucket_region: None,
            date: None,
        }
    }

    pub fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// Whether the server does not know this kind of call at all.
    pub fn is_unknown_call(&self) -> bool {
        let codes = ["NotImplemented", "MethodNotAllowed", "MissingContentMD5", "UnsupportedOperation"];
        codes.into_iter().any(|code| self.is(code)) || matches!(self.status, Some(405 | 501))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.call)?;
        if let Some(status) = self.status {
            write!(f, "{status} ")?;
        }
        if let Some(code) = &self.code {
            write!(f, "{code}: ")?;
        }
        f.write_str(&self.text)
    }
}

impl Error for Failure {}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure.kind {
            Kind::NotFound => StoreError::NotFound,
            Kind::OutOfSpace => StoreError::OutOfSpace,
            Kind::NoAnswer | Kind::Busy | Kind::Damaged => StoreError::Transient(failure.into()),
            Kind::Refused => StoreError::Permanent(failure.into()),
        }
    }
}

fn sort(status: Option<u16>, code: Option<&str>) -> Kind {
    match (code, status) {
        (Some("NoSuchKey" | "NotFound"), _) => Kind::NotFound,
        // An unfinished upload that is gone was swept away; who wrote it begins anew.
        (Some("NoSuchUpload"), _) => Kind::Busy,
        (Some("QuotaExceeded" | "XMinioStorageFull" | "InsufficientCapacity"), _) | (_, Some(507)) => {
            Kind::OutOfSpace
        }
        (Some("BadDigest" | "XAmzContentSHA256Mismatch"), _) => Kind::Damaged,
        (Some("NoSuchBucket"), _) => Kind::Refused,
        (
            Some("SlowDown" | "InternalError" | "RequestTimeout" | "IncompleteBody" | "OperationAborted"),
            _,
        ) => Kind::Busy,
        (Some(code), _) if code.contains("Throttl") => Kind::Busy,
        (_, Some(501)) => Kind::Refused,
        (_, Some(408 | 425 | 429 | 500..)) => Kind::Busy,
        // HEAD has no body to say more.
        (None, Some(404)) => Kind::NotFound,
        // Something that is no S3 stands in between.
        (None, Some(200..400) | None) => Kind::NoAnswer,
        _ => Kind::Refused,
    }
}

/// An error and what caused it, without saying twice what an outer error repeats.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}

pub(super) fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_sorted_by_what_follows_from_them() {
        let cases = [
            (404, Some("NoSuchKey"), Kind::NotFound),
            (404, None, Kind::NotFound),
            (404, Some("NoSuchBucket"), Kind::Refused),
            (404, Some("NoSuchUpload"), Kind::Busy),
            (503, Some("SlowDown"), Kind::Busy),
            (200, Some("InternalError"), Kind::Busy),
            (429, None, Kind::Busy),
            (500, None, Kind::Busy),
            (502, None, Kind::Busy),
            (507, Some("XMinioStorageFull"), Kind::OutOfSpace),
            (403, Some("QuotaExceeded"), Kind::OutOfSpace),
            (400, Some("BadDigest"), Kind::Damaged),
            (403, Some("AccessDenied"), Kind::Refused),
            (403, None, Kind::Refused),
            (501, Some("NotImplemented"), Kind::Refused),
            (200, None, Kind::NoAnswer),
        ];
        for (status, code, kind) in cases {
            assert_eq!(sort(Some(status), code), kind, "{status} {code:?}");
        }
    }

    #[test]
    fn what_a_server_says_becomes_one_line() {
        assert_eq!(one_line(" a\n  b\r\n"), "a b");
        assert_eq!(one_line(&"ä".repeat(1000)).chars().count(), TEXT_CHARS_MAX + 1);
    }
}

//! Conditional requests in the order of RFC 9110 §13.2.2.

use std::time::{Duration, SystemTime};

use domain::Timestamp;
use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};
use http::{HeaderMap, HeaderName};

/// What identifies the bytes that would be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validators {
    /// Strong, without its quotes: the same bytes have the same tag on every replica, other bytes another one.
    pub etag: String,
    pub last_modified: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Send it. `range`: a `Range` header may be followed.
    Send { range: bool },
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
}

impl Validators {
    pub fn quoted_etag(&self) -> String {
        format!("\"{}\"", self.etag)
    }

    /// As `Last-Modified` writes it, to the second.
    pub fn http_date(&self) -> String {
        httpdate::fmt_http_date(self.last_modified_to_the_second())
    }

    /// For GET and HEAD of a resource that exists.
    pub fn decide(&self, headers: &HeaderMap) -> Decision {
        if headers.contains_key(IF_MATCH) {
            if !self.any_tag(headers, IF_MATCH, Comparison::Strong) {
                return Decision::PreconditionFailed;
            }
        } else if date(headers, IF_UNMODIFIED_SINCE)
            .is_some_and(|date| self.last_modified_to_the_second() > date)
        {
            return Decision::PreconditionFailed;
        }
        if headers.contains_key(IF_NONE_MATCH) {
            if self.any_tag(headers, IF_NONE_MATCH, Comparison::Weak) {
                return Decision::NotModified;
            }
        } else if date(headers, IF_MODIFIED_SINCE)
            .is_some_and(|date| self.last_modified_to_the_second() <= date)
        {
            return Decision::NotModified;
        }
        Decision::Send { range: self.if_range(headers) }
    }

    /// True without `If-Range`. A weak tag never matches, and a date only exactly (RFC 9110 §13.1.5).
    fn if_range(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(IF_RANGE) else { return true };
        let Ok(value) = value.to_str() else { return false };
        if value.starts_with('"') || value.starts_with("W/") {
            return value == self.quoted_etag();
        }
        httpdate::parse_http_date(value).is_ok_and(|date| date == self.last_modified_to_the_second())
    }

    fn any_tag(&self, headers: &HeaderMap, name: HeaderName, comparison: Comparison) -> bool {
        let values = headers.get_all(name);
        values.iter().filter_map(|value| value.to_str().ok()).any(|list| self.in_list(list, comparison))
    }

    /// A tag may hold a comma, so the list is cut at the quotes.
    fn in_list(&self, list: &str, comparison: Comparison) -> bool {
        let mut rest = list.trim();
        if rest == "*" {
            return true;
        }
        while let Some(start) = rest.find('"') {
            let weak = rest[..start].ends_with("W/");
            let Some(length) = rest[start + 1..].find('"') else { return false };
            let tag = &rest[start + 1..start + 1 + length];
            if tag == self.etag && (comparison == Comparison::Weak || !weak) {
                return true;
            }
            rest = &rest[start + 1 + length + 1..];
        }
        false
    }

    fn last_modified_to_the_second(&self) -> SystemTime {
        let seconds = u64::try_from(self.last_modified.unix_ms() / 1000).unwrap_or(0);
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// An invalid date is as good as none.
fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    headers.get(name)?.to_str().ok().and_then(|value| httpdate::parse_http_date(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "Mon, 21 Sep 2026 09:59:59 GMT";
    const EXACT: &str = "Mon, 21 Sep 2026 10:00:00 GMT";
    const AFTER: &str = "Mon, 21 Sep 2026 10:00:01 GMT";

    fn decide(headers: &[(&'static str, &str)]) -> Decision {
        let last_modified = Timestamp::parse_rfc3339("2026-09-21T10:00:00.700Z").unwrap();
        let validators = Validators { etag: "a,b".into(), last_modified };
        assert_eq!(validators.http_date(), EXACT);
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        validators.decide(&headers.collect())
    }

    #[test]
    fn one_condition_at_a_time() {
        use Decision::{NotModified, PreconditionFailed};
        let send = Decision::Send { range: true };
        let whole = Decision::Send { range: false };
        for (name, value, expected) in [
            ("if-none-match", "\"a,b\"", NotModified),
            ("if-none-match", "W/\"a,b\"", NotModified),
            ("if-none-match", "\"x\", W/\"y\" , \"a,b\"", NotModified),
            ("if-none-match", "*", NotModified),
            ("if-none-match", "\"a\"", send),
            ("if-none-match", "a,b", send),
            ("if-none-match", "\"", send),
            ("if-modified-since", BEFORE, send),
            ("if-modified-since", EXACT, NotModified),
            ("if-modified-since", AFTER, NotModified),
            ("if-modified-since", "yesterday", send),
            ("if-match", "\"a,b\"", send),
            ("if-match", "*", send),
            ("if-match", "W/\"a,b\"", PreconditionFailed),
            ("if-match", "\"x\"", PreconditionFailed),
            ("if-unmodified-since", BEFORE, PreconditionFailed),
            ("if-unmodified-since", EXACT, send),
            ("if-range", "\"a,b\"", send),
            ("if-range", "W/\"a,b\"", whole),
            ("if-range", "\"x\"", whole),
            ("if-range", EXACT, send),
            ("if-range", AFTER, whole),
            ("if-range", "junk", whole),
        ] {
            assert_eq!(decide(&[(name, value)]), expected, "{name}: {value}");
        }
        assert_eq!(decide(&[]), send);
    }

    #[test]
    fn conditions_have_an_order() {
        // A tag that differs outweighs a date that matches, both ways.
        assert_eq!(
            decide(&[("if-none-match", "\"x\""), ("if-modified-since", AFTER)]),
            Decision::Send { range: true }
        );
        assert_eq!(
            decide(&[("if-match", "\"a,b\""), ("if-unmodified-since", BEFORE)]),
            Decision::Send { range: true }
        );
        // If-Match comes before If-None-Match, and that before If-Range.
        assert_eq!(
            decide(&[("if-match", "\"x\""), ("if-none-match", "\"a,b\"")]),
            Decision::PreconditionFailed
        );
        assert_eq!(decide(&[("if-none-match", "\"a,b\""), ("if-range", "\"x\"")]), Decision::NotModified);
    }
}

//! How bytes are answered: validators, ranges, caching, and the headers that keep a browser from guessing.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::Response;
use chassis::{FairPermit, Problem, Repeatable};
use domain::{Layout, Piece};
use std::error::Error;
use std::net::IpAddr;

use futures::TryStreamExt;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use store::StoreError;

use crate::blocks::Lookup;
use crate::cache_tag::CacheTag;
use crate::conditional::{Decision, Validators};
use crate::layout_body::{self, Files};
use crate::objects::Objects;
use crate::range::{self, Selection};
use crate::suffix::Suffix;
use crate::track_file::Sliced;

/// Between the parts of a `multipart/byteranges` answer. Fixed, so that equal requests have equal answers; that a
/// film contains it by chance is as likely as guessing a key.
const PARTS_BOUNDARY: &str = "sluice-7c9d1f0b6e5a4c38-part";

/// A client waits this long for the first bytes; a stream that flows has the store's patience.
const OPEN_MAX: Duration = Duration::from_secs(5);

/// RFC 9213: for CDNs, in the place of `Cache-Control`.
const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// Of a name that points at what is live now.
const POINTER_S_MAX: u64 = 1;

/// How long an answer may be kept, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    /// Names that always mean the same bytes.
    Immutable,
    /// Names that point at what is live now: a deletion has to show within a second.
    Pointer,
    /// Not for everyone's eyes.
    Private,
    /// Opened by a link. `at_edge`: also by a CDN, for all that come with a good link.
    Signed { s_max: u64, at_edge: bool },
}

impl Caching {
    /// The same, of a video that was opened by a link: no longer than the link lasts.
    pub fn signed(self, left_s: u64) -> Caching {
        match self {
            Caching::Immutable => Caching::Signed { s_max: left_s, at_edge: true },
            Caching::Pointer => Caching::Signed { s_max: left_s.min(POINTER_S_MAX), at_edge: true },
            Caching::Private | Caching::Signed { .. } => self,
        }
    }

    /// The same, of an answer that passes the link on: what was written for one is nobody else's.
    pub fn passing_on(self) -> Caching {
        match self {
            Caching::Signed { s_max, .. } => Caching::Signed { s_max, at_edge: false },
            other => other,
        }
    }

    fn is_for_everybody(self) -> bool {
        matches!(self, Caching::Immutable | Caching::Pointer)
    }

    fn write(self, headers: &mut HeaderMap) {
        let cache_control = match self {
            Caching::Immutable => HeaderValue::from_static("public, max-age=31536000, immutable"),
            Caching::Pointer => HeaderValue::from_static("public, max-age=1"),
            Caching::Private => HeaderValue::from_static("private, no-store"),
            Caching::Signed { s_max, .. } => ascii(format!("private, max-age={s_max}")),
        };
        headers.insert(CACHE_CONTROL, cache_control);
        if let Caching::Signed { s_max, at_edge } = self {
            let edge = if at_edge {
                ascii(format!("max-age={s_max}"))
            } else {
                HeaderValue::from_static("no-store")
            };
            headers.insert(CDN_CACHE_CONTROL, edge);
        }
    }
}

/// What is known of an answer apart from its bytes.
pub struct Description {
    pub validators: Validators,
    pub content_type: &'static str,
    pub caching: Caching,
    pub cache_tag: CacheTag,
    pub disposition: Option<HeaderValue>,
    /// Until when it is known to be true.
    pub until: Option<Instant>,
}

impl Description {
    /// Of an answer that names addresses, each with `suffix` behind it.
    pub fn naming(mut self, suffix: &Suffix) -> Description {
        self.validators.etag.push_str(&suffix.tag());
        self.caching = self.caching.passing_on();
        self
    }
}

/// The parts of a request that decide about an answer.
pub struct Asked<'a> {
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
}

/// Where in the layout an answer begins, if not at its beginning: put into the response.
#[derive(Debug, Clone, Copy)]
pub struct FirstByte(pub u64);

/// Why a layout was not answered.
pub enum Refusal {
    Problem(Problem),
    /// The store could not begin; nothing was sent yet.
    Store(StoreError),
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Refusal::Problem(problem)
    }
}

fn slow() -> StoreError {
    StoreError::Transient("an object does not begin to arrive in time".into())
}

/// Answers with a layout over stored objects, or the ranges asked for. `take_place`: for as long as bytes flow.
pub async fn layout(
    asked: &Asked<'_>,
    objects: &Objects,
    take_place: impl FnOnce() -> Result<FairPermit<IpAddr>, Problem>,
    description: &Description,
    files: &Files,
    layout: &impl Sliced,
) -> Result<Response, Refusal> {
    let total = layout.bytes();
    let selection = match description.validators.decide(asked.headers) {
        Decision::NotModified => return Ok(not_modified(description)),
        Decision::PreconditionFailed => return Err(precondition_failed().into()),
        Decision::Send { range } => select(asked, range, total),
    };
    let mut response = Response::new(Body::empty());
    describe(response.headers_mut(), description);
    response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let sent = match selection {
        Selection::Unsatisfiable => return Err(unsatisfiable(total).into()),
        Selection::Whole => None,
        Selection::Parts(parts) => Some(parts_layout(&mut response, description, layout, &parts, total)),
    };
    let bytes = sent.as_ref().map_or(total, Layout::bytes);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    if asked.method == Method::HEAD {
        return Ok(response);
    }
    let permit = take_place()?;
    let sent = sent.unwrap_or_else(|| layout.slice(0, total));
    let began = Instant::now();
    let opened =
        tokio::time::timeout(OPEN_MAX, layout_body::open(objects.clone(), files.clone(), sent)).await;
    let (stream, lookup) = opened.unwrap_or_else(|_| Err(slow())).map_err(Refusal::Store)?;
    tell_how(response.headers_mut(), lookup, began.elapsed());
    // The place is taken for as long as the bytes flow.
    *response.body_mut() = Body::from_stream(stream.inspect_err(move |error| {
        let _taken = &permit;
        match error {
            // Its video was deleted meanwhile; were it not, the next request would say so.
            StoreError::NotFound => tracing::debug!("a stream broke off: its object is gone"),
            // The client sees the connection break; why, only the log can say.
            _ => tracing::error!(%error, source = error.source().map(tracing::field::display), "a stream broke off"),
        }
    }));
    Ok(response)
}

/// For the curious: whether the bytes were kept here (RFC 9211), and how long the first of them took.
fn tell_how(headers: &mut HeaderMap, lookup: Option<Lookup>, took: Duration) {
    let cache_status = lookup.map(|lookup| match lookup {
        Lookup::Hit => "\"streamserver\"; hit",
        Lookup::Miss => "\"streamserver\"; fwd=miss; stored",
        Lookup::Collapsed => "\"streamserver\"; fwd=miss; collapsed",
    });
    if let Some(cache_status) = cache_status {
        headers.insert(CACHE_STATUS, HeaderValue::from_static(cache_status));
    }
    headers.insert(SERVER_TIMING, ascii(format!("store;dur={:.1}", took.as_secs_f64() * 1000.0)));
}

/// Answers with a few bytes that are in memory.
pub fn bytes(asked: &Asked<'_>, description: &Description, bytes: bytes::Bytes) -> Result<Response, Problem> {
    match description.validators.decide(asked.headers) {
        Decision::NotModified => return Ok(not_modified(description)),
        Decision::PreconditionFailed => return Err(precondition_failed()),
        Decision::Send { .. } => {}
    }
    let mut response = Response::new(Body::empty());
    describe(response.headers_mut(), description);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    if asked.method != Method::HEAD {
        if let Some(until) = description.until.filter(|_| description.caching.is_for_everybody()) {
            response.extensions_mut().insert(Repeatable { body: bytes.clone(), until });
        }
        *response.body_mut() = Body::from(bytes);
    }
    Ok(response)
}

/// `Range` is defined for GET alone. Two `Range` headers are none.
fn select(asked: &Asked<'_>, allowed: bool, total: u64) -> Selection {
    let mut ranges = asked.headers.get_all(RANGE).iter();
    match (ranges.next(), ranges.next()) {
        (Some(range), None) if allowed && asked.method == Method::GET => {
            range.to_str().map_or(Selection::Whole, |range| range::select(range, total))
        }
        _ => Selection::Whole,
    }
}

/// Sets status and headers for some parts of the layout, and answers what to send.
fn parts_layout(
    response: &mut Response,
    description: &Description,
    layout: &impl Sliced,
    parts: &[std::ops::Range<u64>],
    total: u64,
) -> Layout {
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let slice = |part: &std::ops::Range<u64>| layout.slice(part.start, part.end - part.start);
    if let [part] = parts {
        response.headers_mut().insert(CONTENT_RANGE, ascii(content_range(part, total)));
        response.extensions_mut().insert(FirstByte(part.start));
        return slice(part);
    }
    let kind = format!("multipart/byteranges; boundary={PARTS_BOUNDARY}");
    response.headers_mut().insert(CONTENT_TYPE, ascii(kind));
    let mut body = Layout::default();
    for part in parts {
        let header = format!(
            "\r\n--{PARTS_BOUNDARY}\r\nContent-Type: {}\r\nContent-Range: {}\r\n\r\n",
            description.content_type,
            content_range(part, total)
        );
        body.pieces.push(Piece::Inline(header.into_bytes()));
        body.pieces.extend(slice(part).pieces);
    }
    body.pieces.push(Piece::Inline(format!("\r\n--{PARTS_BOUNDARY}--\r\n").into_bytes()));
    body
}

fn content_range(part: &std::ops::Range<u64>, total: u64) -> String {
    format!("bytes {}-{}/{total}", part.start, part.end - 1)
}

/// RFC 9110 §15.4.5: what a cache needs to refresh what it has.
fn not_modified(description: &Description) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    describe(response.headers_mut(), description);
    response.headers_mut().remove(CONTENT_TYPE);
    response.headers_mut().remove(CONTENT_DISPOSITION);
    response
}

fn describe(headers: &mut HeaderMap, description: &Description) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(description.content_type));
    headers.insert(ETAG, ascii(description.validators.quoted_etag()));
    headers.insert(LAST_MODIFIED, ascii(description.validators.http_date()));
    description.caching.write(headers);
    description.cache_tag.write(headers);
    if let Some(disposition) = &description.disposition {
        headers.insert(CONTENT_DISPOSITION, disposition.clone());
    }
    for (name, value) in &FOR_BROWSERS {
        headers.insert(name.clone(), HeaderValue::from_static(value));
    }
}

/// Uploaded bytes are data, wherever a browser meets them: they run nothing and load nothing. Other sites may
/// show them.
static FOR_BROWSERS: [(HeaderName, &str); 4] = [
    (http::header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'; media-src 'self'; img-src 'self'"),
    (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
    (HeaderName::from_static("timing-allow-origin"), "*"),
];

fn ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("made of ids, numbers and words of ours")
}

fn unsatisfiable(total: u64) -> Problem {
    Problem::new(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "/problems/range-not-satisfiable",
        "The range lies outside of the file",
        format!("The file has {total} bytes; ask for a part of them."),
    )
    .with_header(CONTENT_RANGE, ascii(format!("bytes */{total}")))
}

fn precondition_failed() -> Problem {
    Problem::new(
        StatusCode::PRECONDITION_FAILED,
        "/problems/precondition-failed",
        "It is not what you have",
        "The file is another one than `If-Match` or `If-Unmodified-Since` expects; ask again without them.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use domain::{IdParts, Timestamp, VideoId};

    fn is_given_again(method: Method, caching: Caching, until: Option<Instant>) -> bool {
        let parts = IdParts { now: Timestamp::from_unix_ms(0), random: [0; 10] };
        let description = Description {
            validators: Validators { etag: "a".to_owned(), last_modified: parts.now },
            content_type: "image/jpeg",
            caching,
            cache_tag: CacheTag { header: None, video: VideoId::from(parts) },
            disposition: None,
            until,
        };
        let asked = Asked { method: &method, headers: &HeaderMap::new() };
        let response = bytes(&asked, &description, Bytes::from_static(b"x")).unwrap();
        response.extensions().get::<Repeatable>().is_some()
    }

    #[test]
    fn only_what_everybody_may_have_is_given_again() {
        let until = Some(Instant::now());
        for caching in [Caching::Pointer, Caching::Immutable] {
            assert!(is_given_again(Method::GET, caching, until), "{caching:?}");
            assert!(!is_given_again(Method::HEAD, caching, until), "{caching:?}: it has no body");
            assert!(!is_given_again(Method::GET, caching, None), "{caching:?}: its video may end before");
        }
        for caching in [Caching::Private, Caching::Pointer.signed(60), Caching::Immutable.signed(60)] {
            assert!(!is_given_again(Method::GET, caching, until), "{caching:?}");
        }
    }
}

//! Answers that are given again, as they are, to everybody who asks the same within a moment: what a crowd asks for, from
//! playlists to covers, is made once, and the rest of the crowd does not pass the routes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::Response;
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, Method, Request, StatusCode};
use metrics::Histogram;
use moka::sync::Cache;

/// Of all answers together; their bytes are often those of another cache.
const REPEATS_BYTES_MAX: u64 = 16 << 20;
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// What their heads take beside their bytes, about.
const HEAD_BYTES: usize = 1024;
/// Whatever [`Repeatable`] says.
const KEPT_FOR_MAX: Duration = Duration::from_secs(1);

/// A handler puts this into the extensions of its answer: until then, and for a second at most, everybody who asks for the
/// same address gets it again if it is small, and no limit counts them. It depends on nothing else of a request but the encodings that are accepted.
#[derive(Debug, Clone)]
pub struct Repeatable {
    /// All of its body.
    pub body: Bytes,
    pub until: Instant,
}

/// What is given again.
pub(crate) struct Repeat {
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Where the time is noted that such answers take.
    pub seconds: Histogram,
    until: Instant,
}

pub(crate) struct Repeats(Cache<String, Arc<Repeat>>);

impl Repeats {
    pub fn new() -> Repeats {
        let weigh = |key: &String, repeat: &Arc<Repeat>| {
            u32::try_from(HEAD_BYTES + key.len() + repeat.body.len()).unwrap_or(u32::MAX)
        };
        let cache = Cache::builder().max_capacity(REPEATS_BYTES_MAX).weigher(weigh);
        Repeats(cache.time_to_live(KEPT_FOR_MAX).build())
    }

    pub fn get(&self, key: &str, now: Instant) -> Option<Arc<Repeat>> {
        self.0.get(key).filter(|repeat| now < repeat.until)
    }

    /// Keeps an answer if it may be given again; `seconds` is where its like are timed.
    pub fn keep(&self, key: String, response: &mut Response, seconds: &Histogram) {
        let Some(Repeatable { body, until }) = response.extensions_mut().remove() else { return };
        if response.status() == StatusCode::OK && body.len() <= ANSWER_BYTES_MAX {
            let headers = response.headers().clone();
            self.0.insert(key, Arc::new(Repeat { headers, body, seconds: seconds.clone(), until }));
        }
    }
}

/// These ask for something else than the whole answer for everybody, or bring a body.
const OTHERS: [HeaderName; 9] = [
    AUTHORIZATION,
    CONTENT_LENGTH,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    RANGE,
    TRANSFER_ENCODING,
];

/// The same for requests that may get the same answer; `None`: nobody else's will do.
pub(crate) fn key<B>(request: &Request<B>) -> Option<String> {
    let headers = request.headers();
    if request.method() != Method::GET || OTHERS.iter().any(|name| headers.contains_key(name)) {
        return None;
    }
    let mut key = request.uri().path_and_query()?.as_str().to_owned();
    for encodings in headers.get_all(ACCEPT_ENCODING) {
        // No address has a line's end in it.
        key.push('\n');
        key.push_str(encodings.to_str().ok()?);
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: Method, target: &str, headers: &[(&str, &str)]) -> Option<String> {
        let request = Request::builder().method(method).uri(target);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        key(&request.body(()).unwrap())
    }

    #[test]
    fn only_those_who_ask_the_same_get_the_same() {
        let plain = ask(Method::GET, "/a?w=1", &[]).unwrap();
        assert_eq!(ask(Method::GET, "/a?w=1", &[("user-agent", "x"), ("cookie", "y")]), Some(plain.clone()));
        assert_ne!(ask(Method::GET, "/a?w=2", &[]), Some(plain.clone()));
        assert_ne!(ask(Method::GET, "/a?w=1", &[("accept-encoding", "gzip")]), Some(plain));
        assert_eq!(ask(Method::HEAD, "/a", &[]), None);
        assert_eq!(ask(Method::POST, "/a", &[]), None);
        for name in OTHERS {
            assert_eq!(ask(Method::GET, "/a", &[(name.as_str(), "1")]), None, "{name}");
        }
    }

    #[test]
    fn nothing_is_given_again_that_was_not_meant_to_be_or_is_over() {
        let repeats = Repeats::new();
        let now = Instant::now();
        let keep = |key: &str, status: StatusCode, until: Option<Instant>| {
            let mut response = Response::new(axum::body::Body::empty());
            *response.status_mut() = status;
            if let Some(until) = until {
                response.extensions_mut().insert(Repeatable { body: Bytes::from_static(b"x"), until });
            }
            repeats.keep(key.to_owned(), &mut response, &Histogram::noop());
        };
        let soon = now + Duration::from_millis(500);
        keep("good", StatusCode::OK, Some(soon));
        keep("other", StatusCode::OK, None);
        keep("missing", StatusCode::NOT_FOUND, Some(soon));
        assert_eq!(repeats.get("good", now).unwrap().body, "x");
        assert!(repeats.get("good", soon).is_none());
        assert!(repeats.get("other", now).is_none() && repeats.get("missing", now).is_none());
    }
}

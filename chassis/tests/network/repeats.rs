//! Answers that a crowd gets of one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::response::Response;
use chassis::Repeatable;

use crate::server::Server;

static MADE: AtomicUsize = AtomicUsize::new(0);
/// Longer than a test takes to ask a few times, shorter than it has patience.
const FRESH: Duration = Duration::from_millis(900);

/// Says how many of it were made, all tests together: one alone may ask for it.
pub async fn answer() -> Response {
    let body = Bytes::from(format!("made {}", MADE.fetch_add(1, Ordering::SeqCst)));
    let mut response = Response::new(Body::from(body.clone()));
    response.extensions_mut().insert(Repeatable { body, until: Instant::now() + FRESH });
    response
}

fn ask(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n")
}

fn line<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[tokio::test]
async fn a_crowd_gets_what_was_made_for_one_for_a_moment() {
    let server = Server::start().await;
    let body = |answer: &str| answer.rsplit("\r\n\r\n").next().unwrap().to_owned();
    let first = server.ask(&ask("/crowd?a", "")).await;
    let second = server.ask(&ask("/crowd?a", "user-agent: other\r\nx-request-id: mine\r\n")).await;
    assert_eq!((body(&first), body(&second)), ("made 0".to_owned(), "made 0".to_owned()));
    assert_eq!(line(&second, "x-request-id"), Some("mine"), "each has its own");
    for name in ["access-control-allow-origin", "x-content-type-options", "content-length"] {
        assert!(
            line(&second, name).is_some() && line(&first, name) == line(&second, name),
            "{name}: {second}"
        );
    }
    for (made, (target, headers)) in [
        ("/crowd?b", ""),
        ("/crowd?a", "accept-encoding: gzip\r\n"),
        ("/crowd?a", "authorization: Bearer x\r\n"),
        ("/crowd?a", "range: bytes=0-1\r\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = server.ask(&ask(target, headers)).await;
        assert_eq!(body(&answer), format!("made {}", made + 1), "{target} {headers}");
    }
    let head = server.ask(&ask("/crowd?a", "").replace("GET", "HEAD")).await;
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    let began = Instant::now();
    while body(&server.ask(&ask("/crowd?a", "")).await) == "made 0" {
        assert!(began.elapsed() < FRESH + Duration::from_secs(2), "it is made again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

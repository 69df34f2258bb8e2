use std::time::Duration;

use domain::MediaProblem;
use reqwest::Method;

use crate::app::{App, Persona};

/// Reads a stream as far as a text that must come, and keeps the rest.
struct Stream {
    response: reqwest::Response,
    text: String,
}

impl Stream {
    async fn open(persona: &Persona, video: &str) -> Stream {
        let request = persona.request(Method::GET, &format!("{video}/events"));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        Stream { response, text: String::new() }
    }

    async fn until(&mut self, needle: &str) {
        while !self.text.contains(needle) {
            let read = tokio::time::timeout(Duration::from_secs(5), self.response.chunk()).await;
            let read = read.unwrap_or_else(|_| panic!("{needle:?} does not come after {}", self.text));
            let chunk = read.unwrap().unwrap_or_else(|| panic!("it ended without {needle:?}: {}", self.text));
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn until_it_ends(mut self) -> String {
        let rest = async {
            while let Some(chunk) = self.response.chunk().await.unwrap() {
                self.text.push_str(std::str::from_utf8(&chunk).unwrap());
            }
        };
        tokio::time::timeout(Duration::from_secs(5), rest).await.expect("the stream ends");
        self.text
    }
}

#[tokio::test]
async fn a_follower_sees_everything_up_until_it_ends() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    let video = alice.create("First").await;
    let mut stream = Stream::open(&alice, &video).await;
    for (name, value) in
        [("content-type", "text/event-stream"), ("cache-control", "no-cache"), ("x-accel-buffering", "no")]
    {
        assert_eq!(stream.response.headers()[name], value);
    }
    stream.until("\"awaiting_upload\"").await;
    assert!(stream.text.contains("retry: 3000"), "{}", stream.text);
    app.upload(&video).await;
    stream.until("\"uploaded\"").await;
    let lease = app.start_processing().await;
    stream.until("\"processing\"").await;
    app.publish_original(&lease).await;
    stream.until("\"playable\"").await;
    assert!(stream.text.contains("{\"name\":\"low\",\"state\":\"pending\"}"), "{}", stream.text);
    app.finish_encode().await;
    app.publish_renditions().await;
    let text = stream.until_it_ends().await;
    for needle in [
        "event: rendition\ndata: {\"name\":\"low\",\"state\":\"ready\"}",
        "event: state\ndata: {\"state\":\"ready\"}",
        "event: progress\ndata: {\"progress\":1.0}",
    ] {
        // The fields of an event come in the order that the library writes them.
        let lines: Vec<_> = needle.lines().collect();
        assert!(lines.iter().all(|line| text.contains(line)), "{needle} in {text}");
    }
    let ids: Vec<i64> = text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
    assert!(ids.len() > 5 && ids.is_sorted_by(|a, b| a < b), "{ids:?}");
}

#[tokio::test]
async fn a_finished_video_is_told_in_one_go() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    let video = alice.create("A text").await;
    app.upload(&video).await;
    let lease = app.start_processing().await;
    app.reject(&lease, MediaProblem::NotMedia, "It is a text.").await;
    let text = Stream::open(&alice, &video).await.until_it_ends().await;
    assert!(text.contains("\"rejected\"") && text.contains("/problems/media-not-media"), "{text}");
}

#[tokio::test]
async fn the_stream_ends_with_the_video() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    let video = alice.create("First").await;
    let mut stream = Stream::open(&alice, &video).await;
    stream.until("\"awaiting_upload\"").await;
    alice.delete(&video).await.expect(204);
    assert!(stream.until_it_ends().await.contains("\"deleted\""));
}

#[tokio::test]
async fn followers_are_bounded_and_told_to_wait() {
    let app = App::with(&[("SLUICE_EVENT_STREAMS_MAX", "1")]).await;
    let alice = app.user("alice").await;
    let video = alice.create("First").await;
    let mut first = Stream::open(&alice, &video).await;
    first.until("\"awaiting_upload\"").await;
    let refused = alice.get(&format!("{video}/events")).await;
    assert!(!refused.header("retry-after").is_empty());
    refused.problem(503, "/problems/overloaded");
    drop(first);
    // The place comes back when the connection is noticed to be gone: at the next event or comment.
    alice.delete(&video).await.expect(204);
    let other = alice.create("Second").await;
    app.upload(&other).await;
    let lease = app.start_processing().await;
    app.reject(&lease, MediaProblem::NotMedia, "It is a text.").await;
    let mut tries = 0;
    while alice.get(&format!("{other}/events")).await.status != 200 {
        tries += 1;
        assert!(tries < 100, "the place does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_shutdown_ends_the_streams() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    let video = alice.create("First").await;
    let mut stream = Stream::open(&alice, &video).await;
    stream.until("\"awaiting_upload\"").await;
    app.shutdown.cancel();
    stream.until_it_ends().await;
}

#[tokio::test]
async fn strange_and_unknown_videos_have_no_events() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    alice.get("/api/videos/nope/events").await.problem(400, "/problems/invalid-id");
    let unknown = format!("/api/videos/{}/events", app.unknown_id());
    alice.get(&unknown).await.problem(404, "/problems/not-found");
}

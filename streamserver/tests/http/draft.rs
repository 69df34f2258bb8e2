//! Uploads that go on where they broke off, in the IETF's draft (draft-ietf-httpbis-resumable-upload, interop versions 6
//! and 8).

use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine};
use chassis::Limits;
use domain::{ObjectFile, ObjectKey, VideoId, VideoState, Visibility};
use futures::TryStreamExt;
use reqwest::{Method, RequestBuilder, Response};
use ring::digest;
use store::Crc64Nvme;

use crate::raw::Connection;
use crate::world::{Person, World, expect_problem};

const MIB: usize = 1024 * 1024;
const MISMATCHING_OFFSET: &str = "https://iana.org/assignments/http-problem-types#mismatching-upload-offset";
const INCONSISTENT_LENGTH: &str =
    "https://iana.org/assignments/http-problem-types#inconsistent-upload-length";
const COMPLETED: &str = "https://iana.org/assignments/http-problem-types#completed-upload";

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha-256=:{}:", BASE64_STANDARD.encode(digest::digest(&digest::SHA256, bytes).as_ref()))
}

fn chunked(bytes: &[u8]) -> reqwest::Body {
    let chunks: Vec<_> = bytes.chunks(1000).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect();
    reqwest::Body::wrap_stream(futures::stream::iter(chunks))
}

/// A video of somebody, and how they upload it.
struct Uploader<'a> {
    world: &'a World,
    token: String,
    video: VideoId,
    interop: u16,
}

impl<'a> Uploader<'a> {
    async fn new(world: &'a World, person: &Person, interop: u16) -> Uploader<'a> {
        let video = world.video(person, Visibility::Public).await;
        Uploader { world, token: person.token.clone(), video, interop }
    }

    fn of_video(&self) -> String {
        format!("/stream/videos/{}", self.video)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.world.http.request(method, self.world.url(path)).bearer_auth(&self.token);
        request.header("upload-draft-interop-version", self.interop)
    }

    fn creation(&self, complete: &str) -> RequestBuilder {
        let request = self.request(Method::POST, &self.of_video()).header("upload-complete", complete);
        request
            .header("content-type", "video/mp4")
            .header("content-disposition", "inline; filename=\"a/clip.mp4\"")
    }

    /// The address of a new upload.
    async fn create(&self, length: Option<usize>) -> String {
        let request = self.creation("?0");
        let request = match length {
            Some(length) => request.header("upload-length", length),
            None => request,
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 201, "{response:?}");
        self.is_at(&response, 0, "?0");
        header(&response, "location").to_owned()
    }

    fn patch(
        &self,
        path: &str,
        offset: usize,
        complete: &str,
        bytes: impl Into<reqwest::Body>,
    ) -> RequestBuilder {
        let request = self.request(Method::PATCH, path).header("upload-offset", offset);
        let request = request.header("content-type", "application/partial-upload");
        request.header("upload-complete", complete).body(bytes)
    }

    async fn send(&self, path: &str, offset: usize, complete: &str, bytes: &[u8]) -> Response {
        self.patch(path, offset, complete, bytes.to_vec()).send().await.unwrap()
    }

    async fn appended(&self, path: &str, offset: usize, bytes: &[u8]) {
        let response = self.send(path, offset, "?0", bytes).await;
        assert_eq!(response.status(), 204, "{:?}", response.text().await);
        self.is_at(&response, offset + bytes.len(), "?0");
    }

    async fn head(&self, path: &str) -> Response {
        self.request(Method::HEAD, path).send().await.unwrap()
    }

    async fn offset(&self, path: &str) -> usize {
        let response = self.head(path).await;
        assert_eq!(response.status(), 204);
        header(&response, "upload-offset").parse().unwrap()
    }

    /// What every answer about an upload says.
    fn is_at(&self, response: &Response, offset: usize, complete: &str) {
        assert_eq!(header(response, "upload-offset"), offset.to_string());
        assert_eq!(header(response, "upload-complete"), complete);
        assert_eq!(header(response, "upload-draft-interop-version"), self.interop.to_string());
        let max_age = if self.interop == 6 { "expires" } else { "max-age" };
        let limit = header(response, "upload-limit");
        assert!(limit.contains(&format!(", min-size=1, {max_age}=")), "{limit}");
    }

    fn limit(&self, lifetime_s: impl std::fmt::Display) -> String {
        let max_age = if self.interop == 6 { "expires" } else { "max-age" };
        format!("max-size={}, min-size=1, {max_age}={lifetime_s}", 10_u64 << 30)
    }

    /// The answer of the address of the video to a whole upload.
    async fn is_complete(&self, response: Response, bytes: &[u8]) {
        assert_eq!(response.status(), 201, "{response:?}");
        self.is_at(&response, bytes.len(), "?1");
        assert_eq!(header(&response, "location"), self.of_video());
        let answer: serde_json::Value = response.json().await.unwrap();
        let mut crc = Crc64Nvme::default();
        crc.update(bytes);
        let expected = serde_json::json!({
            "id": self.video.to_string(),
            "state": "uploaded",
            "size_bytes": bytes.len(),
            "crc64nvme": BASE64_STANDARD.encode(crc.value().to_be_bytes()),
        });
        assert_eq!(answer, expected);
        self.is_uploaded(bytes).await;
    }

    async fn is_uploaded(&self, bytes: &[u8]) {
        let source = self.world.catalog.source(self.video).await.unwrap().expect("the video has a source");
        let key = ObjectKey { video: self.video, attempt: source.attempt, file: ObjectFile::Source };
        let blocks = self.world.store.read(&key, 0..source.bytes).await.unwrap();
        let blocks: Vec<bytes::Bytes> = blocks.try_collect().await.unwrap();
        assert!(blocks.concat() == bytes, "the source is what was sent");
        assert_eq!(self.world.state(self.video).await, VideoState::Uploaded);
        let row = self.world.catalog.video(self.video, self.world.clock.now()).await.unwrap().unwrap();
        assert_eq!(row.source_filename.as_deref(), Some("clip.mp4"));
    }

    /// A PATCH that has sent so much of its body, and the server has written it.
    async fn hanging(&self, path: &str, offset: usize, announced: usize, bytes: &[u8]) -> Connection {
        let mut connection = Connection::open(self.world).await;
        let head = format!(
            "PATCH {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nUpload-Draft-Interop-Version: {}\r\n\
             Upload-Offset: {offset}\r\nUpload-Complete: ?1\r\nContent-Type: application/partial-upload\r\n\
             Content-Length: {announced}\r\n\r\n",
            self.token, self.interop
        );
        connection.send(head).await;
        connection.send(bytes).await;
        let written = (offset + bytes.len()) as u64;
        while self.unfinished().await < written {
            tokio::task::yield_now().await;
        }
        connection
    }

    async fn unfinished(&self) -> u64 {
        let unfinished = self.world.store.list_unfinished(None, 100).await.unwrap();
        unfinished.iter().map(|unfinished| unfinished.bytes).sum()
    }

    /// As a tus client speaks of the same upload.
    fn by_tus(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.world.http.request(method, self.world.url(path)).bearer_auth(&self.token);
        request.header("tus-resumable", "1.0.0")
    }
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// A problem whose type is registered elsewhere.
async fn expect_registered(response: Response, status: u16, kind: &str) -> serde_json::Value {
    assert_eq!(header(&response, "content-type"), "application/problem+json");
    let found = response.status().as_u16();
    let problem: serde_json::Value = response.json().await.unwrap();
    assert_eq!((found, problem["type"].as_str()), (status, Some(kind)), "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
    problem
}

#[tokio::test]
async fn whoever_asks_hears_that_uploads_may_go_on_here() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    for (announced, interop) in [(Some(6_u16), 6), (Some(8), 8), (None, 8)] {
        let uploader = Uploader::new(&world, &alice, interop).await;
        for path in [&*uploader.of_video(), "/stream/uploads"] {
            let request = world.http.request(Method::OPTIONS, world.url(path));
            let request = match announced {
                Some(version) => request.header("upload-draft-interop-version", version),
                None => request,
            };
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 204);
            assert_eq!(header(&response, "upload-limit"), uploader.limit(86_400), "{path}");
            assert_eq!(header(&response, "accept-patch"), "application/partial-upload");
            assert_eq!(header(&response, "access-control-allow-origin"), "*");
            for name in ["upload-complete", "upload-draft-interop-version", "content-digest"] {
                assert!(header(&response, "access-control-allow-headers").contains(name), "{name}");
            }
        }
    }
    let uploader = Uploader::new(&world, &alice, 8).await;
    let response = uploader.head(&uploader.create(None).await).await;
    for name in ["upload-complete", "upload-limit", "upload-draft-interop-version", "accept-patch"] {
        assert!(header(&response, "access-control-expose-headers").contains(name), "{name}");
    }
    world.end().await;
}

#[tokio::test]
async fn begun_without_bytes_and_sent_in_three_pieces() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    for (interop, length_is_known) in [(6, true), (8, true), (6, false), (8, false)] {
        let uploader = Uploader::new(&world, &alice, interop).await;
        let bytes = content(20 * MIB);
        let path = uploader.create(length_is_known.then_some(bytes.len())).await;
        assert!(path.starts_with("/stream/uploads/"), "relative: {path}");
        let response = uploader.head(&path).await;
        assert_eq!(response.status(), 204);
        uploader.is_at(&response, 0, "?0");
        assert_eq!(header(&response, "cache-control"), "no-store");
        let length = if length_is_known { bytes.len().to_string() } else { String::new() };
        assert_eq!(header(&response, "upload-length"), length);
        let cuts = [0, 9 * MIB + 1, 18 * MIB];
        for cut in cuts.windows(2) {
            uploader.appended(&path, cut[0], &bytes[cut[0]..cut[1]]).await;
            assert_eq!(uploader.offset(&path).await, cut[1]);
            assert_eq!(world.state(uploader.video).await, VideoState::Uploading);
        }
        let last = uploader.send(&path, cuts[2], "?1", &bytes[cuts[2]..]).await;
        uploader.is_complete(last, &bytes).await;
        let response = uploader.head(&path).await;
        uploader.is_at(&response, bytes.len(), "?1");
        assert_eq!(header(&response, "upload-length"), bytes.len().to_string());
    }
    world.end().await;
}

#[tokio::test]
async fn bytes_that_come_with_the_first_request() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let bytes = content(300_000);
    // The last one is what tus-js-client calls its first bytes.
    for (interop, content_type) in [(6, ""), (8, "video/mp4"), (6, "application/partial-upload")] {
        let uploader = Uploader::new(&world, &alice, interop).await;
        let first = uploader.request(Method::PUT, &uploader.of_video()).header("upload-complete", "?0");
        let first = first.header("content-disposition", "attachment; filename=clip.mp4");
        let first = if content_type.is_empty() { first } else { first.header("content-type", content_type) };
        let first = first.header("upload-length", bytes.len()).body(bytes[..100_000].to_vec());
        let response = first.send().await.unwrap();
        assert_eq!(response.status(), 201);
        uploader.is_at(&response, 100_000, "?0");
        let path = header(&response, "location");
        uploader.is_complete(uploader.send(path, 100_000, "?1", &bytes[100_000..]).await, &bytes).await;
    }
    world.end().await;
}

#[tokio::test]
async fn all_in_one_request_leaves_no_upload_behind() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let bytes = content(300_000);
    for interop in [6, 8] {
        let uploader = Uploader::new(&world, &alice, interop).await;
        let request = uploader.creation("?1").header("upload-length", bytes.len());
        let request = request.header("want-repr-digest", "sha-256=1").header("repr-digest", sha256(&bytes));
        let response = request.body(bytes.clone()).send().await.unwrap();
        assert_eq!(header(&response, "repr-digest"), sha256(&bytes));
        uploader.is_complete(response, &bytes).await;

        let uploader = Uploader::new(&world, &alice, interop).await;
        let request = uploader.creation("?1").header("upload-length", bytes.len()).body(chunked(&bytes));
        uploader.is_complete(request.send().await.unwrap(), &bytes).await;

        let uploader = Uploader::new(&world, &alice, interop).await;
        for body in [bytes[1..].to_vec().into(), chunked(&bytes[1..])] {
            let other = uploader.creation("?1").header("upload-length", bytes.len()).body(body);
            expect_registered(other.send().await.unwrap(), 400, INCONSISTENT_LENGTH).await;
        }
        let wrong = uploader.creation("?1").header("repr-digest", sha256(b"other")).body(bytes.clone());
        expect_problem(wrong.send().await.unwrap(), 400, "digest-mismatch").await;
        let empty = uploader.creation("?1").body(chunked(b"")).send().await.unwrap();
        expect_problem(empty, 400, "bad-request").await;
        assert_eq!(world.state(uploader.video).await, VideoState::AwaitingUpload);
    }
    world.end().await;
}

/// `URLSession` sends all it has and asks to be told where it may go on; it is not, and the upload is as any other.
#[tokio::test]
async fn a_version_that_is_not_spoken_here_is_none() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    for version in ["3", "5", "7", "eight", ""] {
        let uploader = Uploader::new(&world, &alice, 8).await;
        let request = world.http.post(world.url(&uploader.of_video())).bearer_auth(&alice.token);
        let request = request.header("upload-draft-interop-version", version);
        let request = request.header("content-disposition", "inline; filename=clip.mp4").body("hello");
        let part = request.try_clone().unwrap().header("upload-complete", "?0");
        expect_problem(part.send().await.unwrap(), 400, "bad-request").await;
        let response = request.header("upload-complete", "?1").send().await.unwrap();
        assert_eq!((response.status().as_u16(), header(&response, "location")), (201, ""), "{version}");
        assert_eq!(header(&response, "upload-complete"), "");
        uploader.is_uploaded(b"hello").await;

        let uploader = Uploader::new(&world, &alice, 8).await;
        let path = uploader.create(None).await;
        for method in [Method::HEAD, Method::PATCH, Method::DELETE] {
            let request = world.http.request(method, world.url(&path)).bearer_auth(&alice.token);
            let request = request.header("upload-draft-interop-version", version);
            assert_eq!(request.send().await.unwrap().status(), 412, "{version}");
        }
    }
    // One that says nothing of an upload in pieces means a whole one, and a field that cannot be read says nothing.
    for complete in [None, Some("1"), Some("?2"), Some("true")] {
        let uploader = Uploader::new(&world, &alice, 8).await;
        let request = uploader.request(Method::POST, &uploader.of_video());
        let request = request.header("content-disposition", "inline; filename=clip.mp4").body("hello");
        let request = match complete {
            Some(complete) => request.header("upload-complete", complete),
            None => request,
        };
        assert_eq!(request.send().await.unwrap().status(), 201);
        uploader.is_uploaded(b"hello").await;
    }
    world.end().await;
}

#[tokio::test]
async fn an_offset_that_does_not_match() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    for interop in [6, 8] {
        let uploader = Uploader::new(&world, &alice, interop).await;
        let path = uploader.create(Some(10)).await;
        uploader.appended(&path, 0, b"hello").await;
        for (offset, complete) in [(0, "?0"), (6, "?0"), (4, "?1"), (9, "?1")] {
            let response = uploader.send(&path, offset, complete, b"world").await;
            assert_eq!(header(&response, "upload-offset"), "5");
            assert_eq!(header(&response, "upload-complete"), "?0");
            let problem = expect_registered(response, 409, MISMATCHING_OFFSET).await;
            assert_eq!(
                (problem["expected-offset"].as_u64(), problem["provided-offset"].as_u64()),
                (Some(5), Some(offset as u64))
            );
        }
        uploader.is_complete(uploader.send(&path, 5, "?1", b"world").await, b"helloworld").await;
    }
    world.end().await;
}

#[tokio::test]
async fn lengths_that_contradict_each_other() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    for interop in [6, 8] {
        let uploader = Uploader::new(&world, &alice, interop).await;
        let path = uploader.create(Some(10)).await;
        uploader.appended(&path, 0, b"hello").await;
        let said = |complete, length, bytes: &'static str| {
            uploader.patch(&path, 5, complete, bytes).header("upload-length", length)
        };
        for wrong in [
            // Less than was said, or more.
            uploader.patch(&path, 5, "?1", "worl"),
            uploader.patch(&path, 5, "?1", "world!"),
            uploader.patch(&path, 5, "?0", "world!"),
            uploader.patch(&path, 5, "?1", chunked(b"worl")),
            uploader.patch(&path, 5, "?1", chunked(b"world!")),
            uploader.patch(&path, 5, "?0", chunked(b"world!")),
            // Another one than before, or than that of the body.
            said("?0", 11, "w"),
            said("?0", 4, "w"),
            said("?1", 9, "world"),
        ] {
            expect_registered(wrong.send().await.unwrap(), 400, INCONSISTENT_LENGTH).await;
        }
        assert_eq!(uploader.offset(&path).await, 5, "nothing of them was kept");
        let same = uploader.patch(&path, 5, "?1", chunked(b"world")).header("upload-length", 10);
        uploader.is_complete(same.send().await.unwrap(), b"helloworld").await;

        // Said by a request that is not to be the last.
        let uploader = Uploader::new(&world, &alice, interop).await;
        let path = uploader.create(None).await;
        let said = uploader.patch(&path, 0, "?0", "hello").header("upload-length", 10);
        assert_eq!(said.send().await.unwrap().status(), 204);
        assert_eq!(header(&uploader.head(&path).await, "upload-length"), "10");
        let long = uploader.creation("?0").header("upload-length", 4).body("hello");
        expect_registered(long.send().await.unwrap(), 400, INCONSISTENT_LENGTH).await;
    }
    world.end().await;
}

#[tokio::test]
async fn a_length_that_only_the_end_tells() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    for (interop, last) in [(6, &b"world"[..]), (8, b"world"), (6, b""), (8, b"")] {
        let uploader = Uploader::new(&world, &alice, interop).await;
        let path = uploader.create(None).await;
        uploader.appended(&path, 0, b"hello").await;
        let response = uploader.patch(&path, 5, "?1", chunked(last)).send().await.unwrap();
        uploader.is_complete(response, &[b"hello", last].concat()).await;
    }
    let uploader = Uploader::new(&world, &alice, 8).await;
    let path = uploader.create(None).await;
    for empty in [uploader.patch(&path, 0, "?1", ""), uploader.patch(&path, 0, "?1", chunked(b""))] {
        expect_problem(empty.send().await.unwrap(), 400, "bad-request").await;
    }
    uploader.is_complete(uploader.send(&path, 0, "?1", b"hello").await, b"hello").await;
    world.end().await;
}

#[tokio::test]
async fn nothing_is_added_to_what_is_complete() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    for interop in [6, 8] {
        let uploader = Uploader::new(&world, &alice, interop).await;
        let path = uploader.create(Some(5)).await;
        // All that was announced, but the client has not said that it is all.
        uploader.appended(&path, 0, b"hello").await;
        uploader.is_uploaded(b"hello").await;
        // Now it does; and again, where the answer was lost.
        for _ in 0..2 {
            uploader.is_complete(uploader.send(&path, 5, "?1", b"").await, b"hello").await;
        }
        expect_registered(uploader.send(&path, 5, "?0", b"").await, 400, COMPLETED).await;
        for complete in ["?0", "?1"] {
            let more = uploader.send(&path, 5, complete, b"x").await;
            expect_registered(more, 400, INCONSISTENT_LENGTH).await;
        }
        expect_registered(uploader.send(&path, 0, "?1", b"hello").await, 409, MISMATCHING_OFFSET).await;
        uploader.is_at(&uploader.head(&path).await, 5, "?1");
        let again = uploader.creation("?0").send().await.unwrap();
        expect_problem(again, 409, "already-uploaded").await;
    }
    world.end().await;
}

#[tokio::test]
async fn what_came_before_the_line_broke_is_kept() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice, 8).await;
    let bytes = content(2 * MIB);
    let path = uploader.create(None).await;
    drop(uploader.hanging(&path, 0, bytes.len(), &bytes[..MIB + 7]).await);
    let mut offset = 0;
    while offset == 0 {
        offset = uploader.offset(&path).await;
    }
    assert_eq!(offset, MIB + 7);
    let response = uploader.head(&path).await;
    uploader.is_at(&response, offset, "?0");
    assert_eq!(header(&response, "upload-length"), bytes.len().to_string(), "that was to be the end of it");
    uploader.is_complete(uploader.send(&path, offset, "?1", &bytes[offset..]).await, &bytes).await;
    world.end().await;
}

/// A 4xx would be the end of the upload for its client.
#[tokio::test]
async fn a_new_request_ends_the_old_one_and_neither_is_told_to_give_up() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice, 6).await;
    let bytes = content(MIB);
    let path = uploader.create(Some(bytes.len())).await;
    let mut hanging = uploader.hanging(&path, 0, bytes.len(), &bytes[..300_000]).await;
    let asked = Instant::now();
    assert_eq!(uploader.offset(&path).await, 300_000, "what had come is kept");
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    let answer = hanging.head().await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after"), "{answer}");
    let rest = uploader.send(&path, 300_000, "?1", &bytes[300_000..]).await;
    uploader.is_complete(rest, &bytes).await;
    let path = uploader.create_of_another(&alice).await;
    world.catalog.close().await;
    let answer = uploader.head(&path).await;
    assert_eq!(answer.status(), 503);
    assert!(header(&answer, "retry-after").parse::<u32>().is_ok());
}

impl Uploader<'_> {
    async fn create_of_another(&self, person: &Person) -> String {
        Uploader::new(self.world, person, self.interop).await.create(Some(10)).await
    }
}

#[tokio::test]
async fn digests_of_what_a_request_brings() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    for interop in [6, 8] {
        let uploader = Uploader::new(&world, &alice, interop).await;
        let path = uploader.create(Some(10)).await;
        let digested = |complete, offset, bytes: &'static str, digest: &str| {
            uploader.patch(&path, offset, complete, bytes).header("content-digest", digest)
        };
        let wrong = digested("?0", 0, "hello", &sha256(b"other")).send().await.unwrap();
        expect_problem(wrong, 400, "digest-mismatch").await;
        let unreadable = digested("?0", 0, "hello", "sha-256=:AA==:").send().await.unwrap();
        expect_problem(unreadable, 400, "bad-request").await;
        assert_eq!(uploader.offset(&path).await, 0, "nothing of it was kept");
        let right = digested("?0", 0, "hello", &sha256(b"hello")).send().await.unwrap();
        assert_eq!(right.status(), 204);
        let right = digested("?1", 5, "world", &sha256(b"world")).send().await.unwrap();
        uploader.is_complete(right, b"helloworld").await;

        let uploader = Uploader::new(&world, &alice, interop).await;
        let first = uploader.creation("?0").header("content-digest", sha256(b"other")).body("hello");
        expect_problem(first.send().await.unwrap(), 400, "digest-mismatch").await;
    }
    world.end().await;
}

#[tokio::test]
async fn one_upload_two_protocols() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice, 8).await;
    let path = uploader.create(Some(15)).await;
    uploader.appended(&path, 0, b"hello").await;
    let by_tus = uploader.by_tus(Method::HEAD, &path).send().await.unwrap();
    assert_eq!((by_tus.status().as_u16(), header(&by_tus, "upload-offset")), (200, "5"));
    assert_eq!((header(&by_tus, "upload-length"), header(&by_tus, "upload-complete")), ("15", ""));
    let patch = uploader.by_tus(Method::PATCH, &path).header("upload-offset", 5).body("world");
    // Who says both speaks tus.
    let patch = patch.header("upload-draft-interop-version", 8);
    let by_tus = patch.header("content-type", "application/offset+octet-stream").send().await.unwrap();
    assert_eq!((by_tus.status().as_u16(), header(&by_tus, "upload-offset")), (204, "10"));
    uploader.is_at(&uploader.head(&path).await, 10, "?0");
    uploader.is_complete(uploader.send(&path, 10, "?1", b"again").await, b"helloworldagain").await;

    // And the other way round, but for what only tus puts together.
    let uploader = Uploader::new(&world, &alice, 8).await;
    let metadata = format!("video_id {}", BASE64_STANDARD.encode(uploader.video.to_string()));
    let created = |kind: &'static str| {
        let request = uploader.by_tus(Method::POST, "/stream/uploads").header("upload-metadata", &metadata);
        let request = request.header("upload-length", 5);
        if kind.is_empty() { request } else { request.header("upload-concat", kind) }
    };
    let whole = created("").send().await.unwrap();
    uploader.is_at(&uploader.head(header(&whole, "location")).await, 0, "?0");
    let partial = created("partial").send().await.unwrap();
    let path = header(&partial, "location");
    expect_problem(uploader.send(path, 0, "?1", b"hello").await, 403, "forbidden").await;
    world.end().await;
}

#[tokio::test]
async fn what_is_refused_and_how() {
    let world = World::with_limits(|limits: &mut Limits| limits.upload_bytes_max = 100).await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let uploader = Uploader::new(&world, &alice, 8).await;
    // Larger than allowed, told with the limit.
    let path = uploader.create(None).await;
    let large = content(101);
    for request in [
        uploader.creation("?0").header("upload-length", 101),
        uploader.creation("?0").body(large.clone()),
        uploader.creation("?1").body(large.clone()),
        uploader.patch(&path, 0, "?0", large.clone()),
        uploader.patch(&path, 0, "?0", chunked(&large)),
        uploader.patch(&path, 0, "?1", large.clone()),
        uploader.patch(&path, 0, "?0", "hello").header("upload-length", 101),
    ] {
        let response = request.send().await.unwrap();
        assert!(header(&response, "upload-limit").contains("max-size=100,"), "{response:?}");
        expect_problem(response, 413, "upload-too-large").await;
    }
    // Forms and codings do not come in pieces.
    for (name, value) in [
        ("content-type", "multipart/form-data; boundary=x"),
        ("content-type", "text/plain"),
        ("content-encoding", "gzip"),
    ] {
        let request = uploader.request(Method::POST, &uploader.of_video()).header("upload-complete", "?0");
        let response = request.header(name, value).send().await.unwrap();
        expect_problem(response, 415, "unsupported-media-type").await;
    }
    let typed = uploader.request(Method::PATCH, &path).header("upload-complete", "?0").body("hello");
    let typed = typed.header("upload-offset", 0).header("content-type", "application/offset+octet-stream");
    let response = typed.send().await.unwrap();
    assert_eq!(header(&response, "accept-patch"), "application/partial-upload");
    expect_problem(response, 415, "unsupported-media-type").await;
    // A PATCH says where its bytes begin, and whether they are the last.
    for left_out in ["upload-offset", "upload-complete"] {
        let mut request = uploader.patch(&path, 0, "?0", "hello").build().unwrap();
        request.headers_mut().remove(left_out);
        expect_problem(world.http.execute(request).await.unwrap(), 400, "bad-request").await;
    }
    expect_problem(
        uploader.creation("?0").header("upload-length", 0).send().await.unwrap(),
        400,
        "bad-request",
    )
    .await;
    // Of somebody else, or of nobody.
    let stranger = Uploader { world: &world, token: bob.token.clone(), video: uploader.video, interop: 8 };
    expect_problem(stranger.creation("?0").send().await.unwrap(), 404, "not-found").await;
    assert_eq!(stranger.head(&path).await.status(), 404);
    expect_problem(stranger.send(&path, 0, "?0", b"hello").await, 404, "not-found").await;
    // A token for the video is enough.
    let holder = Uploader {
        world: &world,
        token: world.upload_token(&alice, uploader.video),
        video: uploader.video,
        interop: 6,
    };
    holder.appended(&path, 0, b"hello").await;
    let ended = uploader.request(Method::DELETE, &path).send().await.unwrap();
    assert_eq!(ended.status(), 204);
    assert_eq!(uploader.head(&path).await.status(), 410);
    expect_problem(uploader.send(&path, 5, "?0", b"world").await, 410, "upload-gone").await;
    world.end().await;
}

#[tokio::test]
async fn its_time_is_told_and_slides() {
    let (world, clock) = World::with_manual_clock().await;
    let alice = world.user("alice").await;
    for interop in [6, 8] {
        let uploader = Uploader::new(&world, &alice, interop).await;
        let path = uploader.create(Some(10)).await;
        clock.advance_ms(80_000_000);
        uploader.appended(&path, 0, b"hello").await;
        clock.advance_ms(80_000_000);
        let response = uploader.head(&path).await;
        assert_eq!(header(&response, "upload-limit"), uploader.limit(86_400), "to ask is to go on");
        clock.advance_ms(86_400_001);
        assert_eq!(uploader.head(&path).await.status(), 410);
    }
    world.end().await;
}

//! `http-api` §3, uploads that go on where they broke off (tus 1.0.0).

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine};
use chassis::Limits;
use domain::{ObjectKey, Role, VideoId, VideoState, Visibility};
use futures::TryStreamExt;
use reqwest::{Method, RequestBuilder, Response};
use ring::digest;
use store::Disk;

use crate::raw::Connection;
use crate::world::{Person, World, expect_problem};

const MIB: usize = 1024 * 1024;

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

fn sha1(bytes: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    format!("sha1 {}", BASE64_STANDARD.encode(digest.as_ref()))
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256 {}", BASE64_STANDARD.encode(digest::digest(&digest::SHA256, bytes).as_ref()))
}

fn metadata(video: VideoId) -> String {
    format!(
        "video_id {},filename {}",
        BASE64_STANDARD.encode(video.to_string()),
        BASE64_STANDARD.encode("a/clip.mp4")
    )
}

/// A video of somebody, and how they upload it.
struct Uploader<'a> {
    world: &'a World,
    token: String,
    video: VideoId,
}

impl<'a> Uploader<'a> {
    async fn new(world: &'a World, person: &Person) -> Uploader<'a> {
        let video = world.video(person, Visibility::Public).await;
        Uploader { world, token: person.token.clone(), video }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.world.http.request(method, self.world.url(path)).bearer_auth(&self.token);
        request.header("tus-resumable", "1.0.0")
    }

    fn creation(&self) -> RequestBuilder {
        self.request(Method::POST, "/stream/uploads").header("upload-metadata", metadata(self.video))
    }

    /// The address of a new upload.
    async fn create(&self, length: usize) -> String {
        location(&self.creation().header("upload-length", length).send().await.unwrap())
    }

    async fn partial(&self, length: usize) -> String {
        let request = self.creation().header("upload-length", length).header("upload-concat", "partial");
        location(&request.send().await.unwrap())
    }

    fn patch(&self, path: &str, offset: usize, bytes: impl Into<reqwest::Body>) -> RequestBuilder {
        let request = self.request(Method::PATCH, path).header("upload-offset", offset);
        request.header("content-type", "application/offset+octet-stream").body(bytes)
    }

    async fn send(&self, path: &str, offset: usize, bytes: &[u8]) -> Response {
        self.patch(path, offset, bytes.to_vec()).send().await.unwrap()
    }

    async fn appended(&self, path: &str, offset: usize, bytes: &[u8]) {
        let response = self.send(path, offset, bytes).await;
        assert_eq!(response.status(), 204, "{:?}", response.text().await);
        assert_eq!(header(&response, "upload-offset"), (offset + bytes.len()).to_string());
        assert_eq!(header(&response, "tus-resumable"), "1.0.0");
    }

    async fn head(&self, path: &str) -> Response {
        self.request(Method::HEAD, path).send().await.unwrap()
    }

    async fn offset(&self, path: &str) -> usize {
        let response = self.head(path).await;
        assert_eq!(response.status(), 200);
        header(&response, "upload-offset").parse().unwrap()
    }

    /// What the rows call the video's source, read from the store.
    async fn source(&self) -> Vec<u8> {
        let source = self.world.catalog.source(self.video).await.unwrap().expect("the video has a source");
        let key = ObjectKey { video: self.video, attempt: source.attempt, file: domain::ObjectFile::Source };
        let blocks = self.world.store.read(&key, 0..source.bytes).await.unwrap();
        let blocks: Vec<bytes::Bytes> = blocks.try_collect().await.unwrap();
        blocks.concat()
    }

    async fn is_uploaded(&self, bytes: &[u8]) {
        assert!(self.source().await == bytes, "the source is what was sent");
        assert_eq!(self.world.state(self.video).await, VideoState::Uploaded);
        let row = self.world.catalog.video(self.video, self.world.clock.now()).await.unwrap().unwrap();
        assert_eq!(row.source_filename.as_deref(), Some("clip.mp4"));
    }

    /// The head of a PATCH, for a body that comes as the test likes.
    fn head_of_patch(&self, path: &str, offset: usize, more: &str) -> String {
        format!(
            "PATCH {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: \
             {offset}\r\nContent-Type: application/offset+octet-stream\r\n{more}\r\n\r\n",
            self.token
        )
    }

    /// Bytes of what is being written.
    async fn unfinished(&self) -> u64 {
        let unfinished = self.world.store.list_unfinished(None, 100).await.unwrap();
        unfinished.iter().map(|unfinished| unfinished.bytes).sum()
    }

    /// A PATCH that has sent so much of its body, and the server has written it.
    async fn hanging(&self, path: &str, offset: usize, announced: usize, bytes: &[u8]) -> Connection {
        let mut connection = Connection::open(self.world).await;
        connection.send(self.head_of_patch(path, offset, &format!("Content-Length: {announced}"))).await;
        connection.send(bytes).await;
        // All of it is in one piece.
        let written = (offset + bytes.len()) as u64;
        while self.unfinished().await < written {
            tokio::task::yield_now().await;
        }
        connection
    }
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

fn location(response: &Response) -> String {
    assert_eq!(response.status(), 201, "{response:?}");
    let location = header(response, "location");
    assert!(
        location.starts_with("/stream/uploads/"),
        "relative, so that a proxy cannot spoil it: {location}"
    );
    assert!(!header(response, "upload-expires").is_empty());
    assert_eq!(header(response, "tus-resumable"), "1.0.0");
    location.to_owned()
}

#[tokio::test]
async fn what_is_spoken_here() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let upload = world.upload_token(&alice, world.video(&alice, Visibility::Public).await);
    for path in ["/stream/uploads", "/stream/uploads/0199c5a8-5c6e-7a3b-8f00-0123456789ab"] {
        // Nobody is asked who they are, and a wrong version is no matter.
        for token in ["", "nonsense", &upload] {
            let request = world.http.request(Method::OPTIONS, world.url(path)).header("tus-resumable", "0.1");
            let request = if token.is_empty() { request } else { request.bearer_auth(token) };
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 204);
            assert_eq!(header(&response, "tus-version"), "1.0.0");
            assert_eq!(header(&response, "tus-max-size"), (10_u64 << 30).to_string());
            assert_eq!(header(&response, "tus-checksum-algorithm"), "sha1,sha256");
            for extension in [
                "creation",
                "creation-with-upload",
                "creation-defer-length",
                "checksum",
                "checksum-trailer",
                "expiration",
                "termination",
                "concatenation",
            ] {
                assert!(
                    header(&response, "tus-extension").split(',').any(|known| known == extension),
                    "{extension}"
                );
            }
            assert_eq!(header(&response, "access-control-allow-origin"), "*");
            for name in ["upload-offset", "tus-resumable", "x-http-method-override", "upload-checksum"] {
                assert!(header(&response, "access-control-allow-headers").contains(name), "{name}");
            }
            assert!(header(&response, "access-control-allow-methods").contains("PATCH"));
        }
    }
    world.end().await;
}

#[tokio::test]
async fn in_three_pieces() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice).await;
    let bytes = content(20 * MIB);
    let path = uploader.create(bytes.len()).await;
    let response = uploader.head(&path).await;
    assert_eq!((response.status().as_u16(), header(&response, "upload-offset")), (200, "0"));
    assert_eq!(header(&response, "upload-length"), bytes.len().to_string());
    assert_eq!(header(&response, "upload-metadata"), metadata(uploader.video));
    assert_eq!(header(&response, "cache-control"), "no-store");
    assert!(!header(&response, "upload-expires").is_empty());
    assert_eq!(world.state(uploader.video).await, VideoState::AwaitingUpload);
    let cuts = [0, 9 * MIB + 1, 18 * MIB, bytes.len()];
    for cut in cuts.windows(2) {
        uploader.appended(&path, cut[0], &bytes[cut[0]..cut[1]]).await;
        assert_eq!(uploader.offset(&path).await, cut[1]);
        let state = if cut[1] < bytes.len() { VideoState::Uploading } else { VideoState::Uploaded };
        assert_eq!(world.state(uploader.video).await, state);
    }
    uploader.is_uploaded(&bytes).await;
    let source = world.catalog.source(uploader.video).await.unwrap().unwrap();
    assert_eq!(source.bytes, bytes.len() as u64);
    // It stays there to be asked for; more of it is too much, and none is fine.
    uploader.appended(&path, bytes.len(), b"").await;
    expect_problem(uploader.send(&path, bytes.len(), b"x").await, 413, "upload-too-long").await;
    expect_problem(uploader.send(&path, 0, &bytes[..10]).await, 409, "upload-offset").await;
    let again = uploader.creation().header("upload-length", 5).send().await.unwrap();
    expect_problem(again, 409, "already-uploaded").await;
    world.end().await;
}

#[tokio::test]
async fn one_piece_becomes_the_source_as_it_is() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice).await;
    let bytes = content(3 * MIB);
    let path = uploader.create(bytes.len()).await;
    uploader.appended(&path, 0, &bytes).await;
    uploader.is_uploaded(&bytes).await;
    assert_eq!(world.objects().await.len(), 1, "no copy was made");
    world.end().await;
}

#[tokio::test]
async fn with_the_token_of_the_video_alone() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let mut uploader = Uploader::new(&world, &alice).await;
    uploader.token = world.upload_token(&alice, uploader.video);
    // Clients that always send metadata, and have none.
    let request = uploader.request(Method::POST, "/stream/uploads").header("upload-metadata", "");
    let path = location(&request.header("upload-length", 5).send().await.unwrap());
    uploader.appended(&path, 0, b"hello").await;
    assert_eq!(uploader.source().await, b"hello");
    assert_eq!(header(&uploader.head(&path).await, "upload-metadata"), "");
    // And for another video it is worth nothing.
    let other = world.video(&alice, Visibility::Public).await;
    let request =
        uploader.request(Method::POST, "/stream/uploads").header("upload-metadata", metadata(other));
    expect_problem(request.header("upload-length", 5).send().await.unwrap(), 403, "forbidden").await;
    world.end().await;
}

#[tokio::test]
async fn bytes_that_come_with_the_creation() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice).await;
    let bytes = content(300_000);
    let first = |to: usize| {
        let request = uploader.creation().header("upload-length", bytes.len());
        request.header("content-type", "application/offset+octet-stream").body(bytes[..to].to_vec())
    };
    let response = first(100_000).send().await.unwrap();
    assert_eq!(header(&response, "upload-offset"), "100000");
    let path = location(&response);
    uploader.appended(&path, 100_000, &bytes[100_000..]).await;
    uploader.is_uploaded(&bytes).await;

    let uploader = Uploader::new(&world, &alice).await;
    let whole = uploader.creation().header("upload-length", bytes.len());
    let whole = whole
        .header("content-type", "application/offset+octet-stream")
        .header("upload-checksum", sha1(&bytes));
    let response = whole.body(bytes.clone()).send().await.unwrap();
    assert_eq!(header(&response, "upload-offset"), "300000");
    location(&response);
    uploader.is_uploaded(&bytes).await;

    let uploader = Uploader::new(&world, &alice).await;
    let typed =
        uploader.creation().header("upload-length", 5).header("content-type", "video/mp4").body("hello");
    expect_problem(typed.send().await.unwrap(), 415, "unsupported-media-type").await;
    let wrong = uploader.creation().header("upload-length", 5).header("upload-checksum", sha1(b"other"));
    let wrong = wrong.header("content-type", "application/offset+octet-stream").body("hello");
    expect_problem(wrong.send().await.unwrap(), 460, "checksum-mismatch").await;
    let long = uploader.creation().header("upload-length", 4);
    let long = long.header("content-type", "application/offset+octet-stream").body("hello");
    expect_problem(long.send().await.unwrap(), 413, "upload-too-long").await;
    assert_eq!(world.state(uploader.video).await, VideoState::AwaitingUpload);
    world.end().await;
}

#[tokio::test]
async fn a_length_that_is_said_later() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    for empty_end in [false, true] {
        let uploader = Uploader::new(&world, &alice).await;
        let bytes = content(1000);
        let request = uploader.creation().header("upload-defer-length", "1");
        let path = location(&request.send().await.unwrap());
        let response = uploader.head(&path).await;
        assert_eq!((header(&response, "upload-length"), header(&response, "upload-defer-length")), ("", "1"));
        let end = if empty_end { 1000 } else { 600 };
        uploader.appended(&path, 0, &bytes[..end]).await;
        for (wrong, status, kind) in
            [(end - 1, 400, "upload-length"), (usize::MAX >> 1, 413, "upload-too-large")]
        {
            let request = uploader.patch(&path, end, "").header("upload-length", wrong);
            expect_problem(request.send().await.unwrap(), status, kind).await;
        }
        let long = uploader.patch(&path, end, content(1001 - end)).header("upload-length", 1000);
        expect_problem(long.send().await.unwrap(), 413, "upload-too-long").await;
        let last = uploader.patch(&path, end, bytes[end..].to_vec()).header("upload-length", 1000);
        assert_eq!(last.send().await.unwrap().status(), 204);
        assert_eq!(header(&uploader.head(&path).await, "upload-length"), "1000");
        uploader.is_uploaded(&bytes).await;
    }
    let uploader = Uploader::new(&world, &alice).await;
    let path = uploader.create(10).await;
    let other = uploader.patch(&path, 0, "hello").header("upload-length", 11);
    expect_problem(other.send().await.unwrap(), 400, "upload-length").await;
    let same = uploader.patch(&path, 0, "hello").header("upload-length", 10);
    assert_eq!(same.send().await.unwrap().status(), 204);
    world.end().await;
}

#[tokio::test]
async fn checksums_are_verified() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice).await;
    let bytes = content(9 * MIB);
    let path = uploader.create(bytes.len()).await;
    let (first, second) = bytes.split_at(5 * MIB);
    for wrong in [sha1(second), sha256(second)] {
        let request = uploader.patch(&path, 0, first.to_vec()).header("upload-checksum", wrong);
        expect_problem(request.send().await.unwrap(), 460, "checksum-mismatch").await;
        assert_eq!(uploader.offset(&path).await, 0, "nothing of it was kept");
    }
    let md5 = uploader.patch(&path, 0, first.to_vec()).header("upload-checksum", "md5 AAAA");
    expect_problem(md5.send().await.unwrap(), 400, "bad-request").await;
    let right = uploader.patch(&path, 0, first.to_vec()).header("upload-checksum", sha1(first));
    assert_eq!(right.send().await.unwrap().status(), 204);
    let wrong = uploader.patch(&path, first.len(), second.to_vec()).header("upload-checksum", sha256(first));
    expect_problem(wrong.send().await.unwrap(), 460, "checksum-mismatch").await;
    assert_eq!(uploader.offset(&path).await, first.len());

    // Behind the body.
    let trailing = async |sum: &str| {
        let mut connection = Connection::open(&world).await;
        let more = "Transfer-Encoding: chunked\r\nTrailer: Upload-Checksum";
        connection.send(uploader.head_of_patch(&path, first.len(), more)).await;
        connection.send(format!("{:x}\r\n", second.len())).await;
        connection.send(second).await;
        connection.send(format!("\r\n0\r\n{sum}\r\n")).await;
        connection.head().await
    };
    let wrong = trailing(&format!("Upload-Checksum: {}\r\n", sha256(first))).await;
    assert!(wrong.starts_with("HTTP/1.1 460 "), "{wrong}");
    let missing = trailing("").await;
    assert!(missing.starts_with("HTTP/1.1 400 "), "{missing}");
    assert_eq!(uploader.offset(&path).await, first.len());
    let right = trailing(&format!("Upload-Checksum: {}\r\n", sha256(second))).await;
    assert!(right.starts_with("HTTP/1.1 204 "), "{right}");
    uploader.is_uploaded(&bytes).await;
    world.end().await;
}

#[tokio::test]
async fn what_came_before_the_line_broke_is_kept() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice).await;
    let bytes = content(2 * MIB);
    let path = uploader.create(bytes.len()).await;
    let connection = uploader.hanging(&path, 0, bytes.len(), &bytes[..MIB + 7]).await;
    drop(connection);
    let mut offset = 0;
    while offset == 0 {
        offset = uploader.offset(&path).await;
    }
    assert_eq!(offset, MIB + 7);
    uploader.appended(&path, offset, &bytes[offset..]).await;
    uploader.is_uploaded(&bytes).await;

    // With a checksum nothing of it can be vouched for.
    let uploader = Uploader::new(&world, &alice).await;
    let path = uploader.create(bytes.len()).await;
    let mut connection = Connection::open(&world).await;
    let more = format!("Content-Length: {}\r\nUpload-Checksum: {}", bytes.len(), sha1(&bytes));
    connection.send(uploader.head_of_patch(&path, 0, &more)).await;
    connection.send(&bytes[..MIB]).await;
    while world.store.list_unfinished(None, 1).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(connection);
    while !world.store.list_unfinished(None, 1).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(uploader.offset(&path).await, 0);
    world.end().await;
}

#[tokio::test]
async fn another_connection_takes_over_from_one_that_hangs() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice).await;
    let bytes = content(MIB);
    let path = uploader.create(bytes.len()).await;
    let mut hanging = uploader.hanging(&path, 0, bytes.len(), &bytes[..300_000]).await;
    let asked = Instant::now();
    let offset = uploader.offset(&path).await;
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    assert_eq!(offset, 300_000, "what had come is kept");
    assert!(hanging.head().await.starts_with("HTTP/1.1 423 "));
    // And by PATCH at once, without asking first: it cannot know how much came.
    let mut hanging =
        uploader.hanging(&path, offset, bytes.len() - offset, &bytes[offset..offset + 1000]).await;
    let problem =
        expect_problem(uploader.send(&path, offset, &bytes[offset..]).await, 409, "upload-offset").await;
    assert!(problem["detail"].as_str().unwrap().contains("301000"), "{problem}");
    assert!(hanging.head().await.starts_with("HTTP/1.1 423 "));
    uploader.appended(&path, 301_000, &bytes[301_000..]).await;
    uploader.is_uploaded(&bytes).await;
    world.end().await;
}

/// As when the process that held it was killed.
#[tokio::test]
async fn a_holder_that_does_not_hear_is_passed_over() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice).await;
    let path = uploader.create(10).await;
    uploader.appended(&path, 0, b"hello").await;
    let id = path.rsplit('/').next().unwrap().parse().unwrap();
    let now = world.clock.now();
    let acquired = world.catalog.acquire_resumable(id, false, now.plus_s(3600), now).await.unwrap();
    assert!(matches!(acquired, sql::Acquire::Held(..)), "{acquired:?}");
    let asked = Instant::now();
    assert_eq!(uploader.offset(&path).await, 5);
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    uploader.appended(&path, 5, b"world").await;
    uploader.is_uploaded(b"helloworld").await;
    world.end().await;
}

#[tokio::test]
async fn all_bytes_there_and_nobody_left_to_finish() {
    let (world, clock) = World::with_manual_clock().await;
    let alice = world.user("alice").await;
    for comes_back in [true, false] {
        let uploader = Uploader::new(&world, &alice).await;
        let request = uploader.creation().header("upload-defer-length", "1");
        let path = location(&request.send().await.unwrap());
        uploader.appended(&path, 0, b"hello").await;
        // As a process would leave it that died between the last commit and the end.
        let id = path.rsplit('/').next().unwrap().parse().unwrap();
        let (now, expires_at) = (clock.now(), clock.now().plus_s(86_400));
        let acquired = world.catalog.acquire_resumable(id, false, expires_at, now).await.unwrap();
        let sql::Acquire::Held(upload, _) = acquired else { panic!("{acquired:?}") };
        let committed =
            world.catalog.commit_pieces(id, upload.token, false, &[], Some(5), expires_at, now).await;
        assert!(matches!(committed.unwrap(), sql::CommitPieces::Committed { offset_bytes: 5 }));
        assert_eq!(world.state(uploader.video).await, VideoState::Uploading);
        if comes_back {
            assert_eq!(uploader.offset(&path).await, 5);
        } else {
            world.finish_left_open().await;
            assert_eq!(world.state(uploader.video).await, VideoState::Uploading, "somebody may be at it");
            clock.advance_ms(61_000);
            world.finish_left_open().await;
        }
        uploader.is_uploaded(b"hello").await;
    }
    world.end().await;
}

#[tokio::test]
async fn a_thousand_little_requests_do_not_become_a_thousand_pieces() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice).await;
    let bytes = content(100_000);
    let path = uploader.create(bytes.len()).await;
    let id = path.rsplit('/').next().unwrap().parse().unwrap();
    for from in (0..bytes.len()).step_by(100) {
        if from == bytes.len() - 100 {
            let now = world.clock.now();
            let acquired = world.catalog.acquire_resumable(id, false, now.plus_s(3600), now).await.unwrap();
            let sql::Acquire::Held(upload, pieces) = acquired else { panic!("{acquired:?}") };
            assert_eq!(pieces.len(), 1);
            world.catalog.release_resumable(id, upload.token, now).await.unwrap();
        }
        uploader.appended(&path, from, &bytes[from..from + 100]).await;
    }
    uploader.is_uploaded(&bytes).await;
    world.end().await;
}

/// What a request brings is committed in between, so that little is lost with the process.
#[tokio::test]
async fn a_request_that_lasts_commits_now_and_then() {
    let (world, clock) = World::with_manual_clock().await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice).await;
    let bytes = content(20 * MIB);
    let path = uploader.create(bytes.len()).await;
    let id = path.rsplit('/').next().unwrap().parse().unwrap();
    let mut connection = uploader.hanging(&path, 0, bytes.len(), &bytes[..9 * MIB]).await;
    clock.advance_ms(31_000);
    connection.send(&bytes[9 * MIB..10 * MIB]).await;
    let committed = loop {
        let upload = world.catalog.resumable(id, clock.now()).await.unwrap().unwrap();
        if upload.offset_bytes > 0 {
            break upload.offset_bytes as usize;
        }
        tokio::task::yield_now().await;
    };
    assert!((8 * MIB..=10 * MIB).contains(&committed), "{committed}");
    connection.send(&bytes[10 * MIB..]).await;
    let answer = connection.head().await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    uploader.is_uploaded(&bytes).await;
    world.end().await;
}

#[tokio::test]
async fn parts_are_put_together() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice).await;
    let bytes = content(500_000);
    let parts = [&bytes[..200_000], &bytes[200_000..200_001], &bytes[200_001..], &[]];
    let mut paths = Vec::new();
    for part in parts {
        paths.push(uploader.partial(part.len()).await);
    }
    let joined =
        |paths: &[String]| uploader.creation().header("upload-concat", format!("final;{}", paths.join(" ")));
    expect_problem(joined(&paths).send().await.unwrap(), 400, "bad-request").await;
    for (path, part) in paths.iter().zip(parts).rev() {
        uploader.appended(path, 0, part).await;
        let response = uploader.head(path).await;
        assert_eq!(header(&response, "upload-concat"), "partial");
        assert_eq!(header(&response, "upload-offset"), part.len().to_string());
    }
    assert_eq!(world.state(uploader.video).await, VideoState::Uploading);
    // As the client saw them, absolute and relative.
    paths[0] = world.url(&paths[0]);
    let with_length = joined(&paths).header("upload-length", bytes.len());
    expect_problem(with_length.send().await.unwrap(), 400, "bad-request").await;
    let response = joined(&paths).send().await.unwrap();
    let path = location(&response);
    uploader.is_uploaded(&bytes).await;
    let response = uploader.head(&path).await;
    assert_eq!(header(&response, "upload-concat"), format!("final;{}", paths.join(" ")));
    assert_eq!(header(&response, "upload-length"), bytes.len().to_string());
    assert_eq!(header(&response, "upload-offset"), bytes.len().to_string());
    expect_problem(uploader.send(&path, bytes.len(), b"x").await, 403, "forbidden").await;
    // The answer may have been lost.
    assert_eq!(location(&joined(&paths).send().await.unwrap()), path);
    world.end().await;
}

#[tokio::test]
async fn a_part_alone_is_put_together_too() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice).await;
    let part = uploader.partial(5).await;
    uploader.appended(&part, 0, b"hello").await;
    // It has no bytes, and says so in a body.
    let empty = uploader.creation().header("upload-length", 0).header("upload-concat", "partial");
    let empty =
        empty.header("content-type", "application/offset+octet-stream").body("").send().await.unwrap();
    assert_eq!(empty.status(), 201);
    let joined = uploader.creation().header("upload-concat", format!("final;{part} {}", location(&empty)));
    assert_eq!(joined.send().await.unwrap().status(), 201);
    uploader.is_uploaded(b"hello").await;
    world.end().await;
}

#[tokio::test]
async fn whoever_asks_how_far_it_is_is_never_told_to_begin_anew() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let store = Arc::new(Disk::open(&root).unwrap());
    let world = World::build(folder, store, |_| {}).await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice).await;
    let path = uploader.create(16 << 20).await;
    let half = content(8 << 20);
    uploader.appended(&path, 0, &half).await;
    let object = root.join("objects").join(&world.objects().await[0]);
    std::fs::remove_file(&object).unwrap();
    // All bytes were said to be there. That they cannot be put together is no reason to send them again.
    let answer = uploader.send(&path, half.len(), &half).await;
    assert!(answer.status().is_server_error(), "{answer:?}");
    let answer = uploader.head(&path).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "upload-offset")), (200, "16777216"));
    world.catalog.close().await;
    let answer = uploader.head(&path).await;
    assert_eq!(answer.status(), 423);
    assert!(header(&answer, "retry-after").parse::<u32>().is_ok());
}

#[tokio::test]
async fn parts_of_others_are_not_there() {
    let world = World::new().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let (hers, his) = (Uploader::new(&world, &alice).await, Uploader::new(&world, &bob).await);
    let (her_part, his_part) = (hers.partial(5).await, his.partial(5).await);
    hers.appended(&her_part, 0, b"alice").await;
    his.appended(&his_part, 0, b"bobby").await;
    let stolen = his.creation().header("upload-concat", format!("final;{his_part} {her_part}"));
    expect_problem(stolen.send().await.unwrap(), 404, "not-found").await;
    let other = Uploader::new(&world, &alice).await;
    let other_part = other.partial(5).await;
    other.appended(&other_part, 0, b"alice").await;
    let mixed = hers.creation().header("upload-concat", format!("final;{her_part} {other_part}"));
    expect_problem(mixed.send().await.unwrap(), 400, "bad-request").await;
    // Without a video's name a part is nothing.
    let nameless = hers.request(Method::POST, "/stream/uploads").header("upload-concat", "partial");
    let problem = nameless.header("upload-length", 5).send().await.unwrap();
    let problem = expect_problem(problem, 400, "bad-request").await;
    assert!(problem["detail"].as_str().unwrap().contains("metadataForPartialUploads"), "{problem}");
    world.end().await;
}

#[tokio::test]
async fn an_upload_that_is_ended_is_gone() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice).await;
    let path = uploader.create(10).await;
    uploader.appended(&path, 0, b"hello").await;
    let response = uploader.request(Method::DELETE, &path).send().await.unwrap();
    assert_eq!((response.status().as_u16(), header(&response, "tus-resumable")), (204, "1.0.0"));
    for response in [uploader.head(&path).await, uploader.send(&path, 5, b"world").await] {
        assert_eq!((response.status().as_u16(), header(&response, "upload-offset")), (410, ""));
    }
    expect_problem(uploader.request(Method::DELETE, &path).send().await.unwrap(), 410, "upload-gone").await;
    // Under the hands of whoever writes to it.
    let path = uploader.create(10).await;
    let mut connection = uploader.hanging(&path, 0, 10, b"hello").await;
    assert_eq!(uploader.request(Method::DELETE, &path).send().await.unwrap().status(), 204);
    assert!(connection.head().await.starts_with("HTTP/1.1 423 "));
    // The video still waits for its file, in whatever way.
    let path = uploader.create(5).await;
    uploader.appended(&path, 0, b"hello").await;
    uploader.is_uploaded(b"hello").await;
    // What has become a video stays one.
    assert_eq!(uploader.request(Method::DELETE, &path).send().await.unwrap().status(), 204);
    assert_eq!(uploader.head(&path).await.status(), 410);
    uploader.is_uploaded(b"hello").await;
    world.end().await;
}

#[tokio::test]
async fn a_video_has_so_many_uploads_and_no_more() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice).await;
    let mut path = String::new();
    for _ in 0..sql::RESUMABLE_PER_VIDEO_MAX {
        path = uploader.create(5).await;
    }
    let refused = uploader.creation().header("upload-length", 5).send().await.unwrap();
    assert!(refused.headers().contains_key("retry-after"));
    expect_problem(refused, 429, "too-many-uploads").await;
    assert_eq!(uploader.request(Method::DELETE, &path).send().await.unwrap().status(), 204);
    let path = uploader.create(5).await;
    uploader.appended(&path, 0, b"hello").await;
    uploader.is_uploaded(b"hello").await;
    world.end().await;
}

#[tokio::test]
async fn other_methods_by_post() {
    let world = World::new().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let uploader = Uploader::new(&world, &alice).await;
    let path = uploader.create(10).await;
    let by_post = |token: &str, method: &'static str| {
        let request = world.http.post(world.url(&path)).bearer_auth(token).header("tus-resumable", "1.0.0");
        request.header("x-http-method-override", method)
    };
    let patch = by_post(&alice.token, "PATCH").header("upload-offset", 0);
    let patch = patch.header("content-type", "application/offset+octet-stream").body("hello");
    let response = patch.send().await.unwrap();
    assert_eq!((response.status().as_u16(), header(&response, "upload-offset")), (204, "5"));
    let response = by_post(&alice.token, "HEAD").send().await.unwrap();
    assert_eq!((response.status().as_u16(), header(&response, "upload-offset")), (200, "5"));
    // It is allowed what the method is allowed, and no more.
    expect_problem(by_post(&bob.token, "DELETE").send().await.unwrap(), 404, "not-found").await;
    for method in ["GET", "PUT", "patch", "", "NONSENSE METHOD"] {
        let response = by_post(&alice.token, method).send().await.unwrap();
        assert_eq!(header(&response, "allow"), "HEAD,PATCH,DELETE,OPTIONS");
        expect_problem(response, 405, "method-not-allowed").await;
    }
    let ignored = uploader.request(Method::GET, &path).header("x-http-method-override", "DELETE");
    expect_problem(ignored.send().await.unwrap(), 405, "method-not-allowed").await;
    let ignored = uploader.request(Method::HEAD, &path).header("x-http-method-override", "DELETE");
    assert_eq!(header(&ignored.send().await.unwrap(), "upload-offset"), "5");
    assert_eq!(by_post(&alice.token, "DELETE").send().await.unwrap().status(), 204);
    assert_eq!(uploader.head(&path).await.status(), 410);
    world.end().await;
}

/// `reliability` S4, U1.
#[tokio::test]
async fn uploads_of_others_are_not_there() {
    let world = World::new().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let admin = world.person("root", Role::Admin).await;
    let uploader = Uploader::new(&world, &alice).await;
    let path = uploader.create(10).await;
    uploader.appended(&path, 0, b"hello").await;
    let other = world.video(&alice, Visibility::Public).await;
    for token in [&bob.token, &admin.token, &world.upload_token(&alice, other)] {
        let stranger = Uploader { world: &world, token: token.clone(), video: uploader.video };
        assert_eq!(stranger.head(&path).await.status(), 404);
        expect_problem(stranger.send(&path, 5, b"world").await, 404, "not-found").await;
        expect_problem(stranger.request(Method::DELETE, &path).send().await.unwrap(), 404, "not-found").await;
        let creation = stranger.creation().header("upload-length", 5).send().await.unwrap();
        assert!([403, 404].contains(&creation.status().as_u16()));
    }
    for method in [Method::HEAD, Method::PATCH, Method::DELETE, Method::POST] {
        let request = world.http.request(method, world.url(&path)).header("tus-resumable", "1.0.0");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 401);
        assert!(response.headers().contains_key("www-authenticate"));
        assert_eq!(header(&response, "tus-resumable"), "1.0.0");
    }
    assert_eq!(uploader.offset(&path).await, 5);
    let unknown = format!("/stream/uploads/{}", world.id::<domain::UploadId>());
    assert_eq!(uploader.head(&unknown).await.status(), 404);
    expect_problem(uploader.send(&unknown, 0, b"x").await, 404, "not-found").await;
    for bad in ["nonsense", "..%2f..%2fetc", "%00"] {
        let response = uploader.send(&format!("/stream/uploads/{bad}"), 0, b"x").await;
        expect_problem(response, 400, "invalid-id").await;
    }
    world.end().await;
}

/// `reliability` U5, U7.
#[tokio::test]
async fn headers_that_say_nothing_are_refused() {
    let world = World::with_limits(|limits| limits.upload_bytes_max = 1_000_000).await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice).await;
    let too_large = i64::MAX.to_string();
    for (name, value, status) in [
        ("upload-length", "-1", 400),
        ("upload-length", "+5", 400),
        ("upload-length", "0x10", 400),
        ("upload-length", "1e3", 400),
        ("upload-length", "", 400),
        ("upload-length", "9223372036854775808", 400),
        ("upload-length", "18446744073709551616", 400),
        ("upload-length", &too_large, 413),
        ("upload-length", "1000001", 413),
        ("upload-length", "0", 400),
        ("upload-defer-length", "2", 400),
        ("x-nothing", "", 400),
    ] {
        let response = uploader.creation().header(name, value).send().await.unwrap();
        assert_eq!(response.status(), status, "{name}: {value}");
    }
    let twice = uploader.creation().header("upload-length", "5").header("upload-length", "5");
    expect_problem(twice.send().await.unwrap(), 400, "bad-request").await;
    let both = uploader.creation().header("upload-length", "5").header("upload-defer-length", "1");
    expect_problem(both.send().await.unwrap(), 400, "bad-request").await;
    let long = format!("k {}", "A".repeat(12_000));
    for metadata in ["video_id ???", "a YQ==,a YQ==", "video_id", "video_id YQ==", &long] {
        let request = uploader.request(Method::POST, "/stream/uploads").header("upload-length", 5);
        let response = request.header("upload-metadata", metadata).send().await.unwrap();
        assert_eq!(response.status(), 400, "{metadata}");
    }
    let mut folded = Connection::open(&world).await;
    let head = format!(
        "POST /stream/uploads HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nTus-Resumable: 1.0.0\r\n\
         Upload-Length: 5\r\nUpload-Metadata: a YQ==\r\n X-Injected: 1\r\n\r\n",
        alice.token
    );
    folded.send(head).await;
    assert!(folded.head().await.starts_with("HTTP/1.1 400 "));

    let path = uploader.create(10).await;
    for offset in ["-1", "+5", "0x10", "1e3", "9223372036854775808", "18446744073709551616", "", "nine"] {
        let request = uploader.request(Method::PATCH, &path).header("upload-offset", offset);
        let request = request.header("content-type", "application/offset+octet-stream").body("x");
        expect_problem(request.send().await.unwrap(), 400, "bad-request").await;
    }
    let twice = uploader.patch(&path, 0, "x").header("upload-offset", 0);
    expect_problem(twice.send().await.unwrap(), 400, "bad-request").await;
    let beyond = uploader.send(&path, i64::MAX as usize, b"x").await;
    expect_problem(beyond, 409, "upload-offset").await;
    assert_eq!(uploader.offset(&path).await, 0);
    assert_eq!(world.objects().await, [""; 0]);
    world.end().await;
}

/// `reliability` U3, U6.
#[tokio::test]
async fn requests_that_do_not_fit_change_nothing() {
    let world = World::with_limits(|limits| limits.upload_bytes_max = 1_000_000).await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice).await;
    let path = uploader.create(10).await;
    uploader.appended(&path, 0, b"hello").await;
    for offset in [0, 4, 6, 10] {
        let response = uploader.send(&path, offset, b"world").await;
        assert_eq!(header(&response, "upload-offset"), "5");
        expect_problem(response, 409, "upload-offset").await;
    }
    for content_type in ["application/octet-stream", "video/mp4", "application/partial-upload", ""] {
        let request = uploader.request(Method::PATCH, &path).header("upload-offset", 5);
        let response = request.header("content-type", content_type).body("world").send().await.unwrap();
        expect_problem(response, 415, "unsupported-media-type").await;
    }
    for version in [Some("0.2.2"), Some("1.0.1"), Some(""), None] {
        for (method, path) in [
            (Method::PATCH, path.as_str()),
            (Method::HEAD, &path),
            (Method::DELETE, &path),
            (Method::POST, "/stream/uploads"),
        ] {
            let request = world.http.request(method, world.url(path)).bearer_auth(&alice.token);
            let request = version.map_or_else(
                || request.try_clone().unwrap(),
                |version| request.try_clone().unwrap().header("tus-resumable", version),
            );
            let response = request.send().await.unwrap();
            assert_eq!((response.status().as_u16(), header(&response, "tus-version")), (412, "1.0.0"));
        }
    }
    expect_problem(uploader.send(&path, 5, b"worlds").await, 413, "upload-too-long").await;
    let chunks = |count: usize| {
        let chunks = (0..count).map(|_| Ok::<_, std::io::Error>(vec![7_u8; 3]));
        reqwest::Body::wrap_stream(futures::stream::iter(chunks))
    };
    let chunked = uploader.patch(&path, 5, chunks(2)).send().await.unwrap();
    expect_problem(chunked, 413, "upload-too-long").await;
    let request = uploader.creation().header("upload-defer-length", "1");
    let endless = location(&request.send().await.unwrap());
    let response = uploader.patch(&endless, 0, chunks(400_000)).send().await.unwrap();
    expect_problem(response, 413, "upload-too-large").await;
    assert_eq!((uploader.offset(&path).await, uploader.offset(&endless).await), (5, 0));
    uploader.appended(&path, 5, b"world").await;
    uploader.is_uploaded(b"helloworld").await;
    world.end().await;
}

#[tokio::test]
async fn two_at_once_and_one_goes_through() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice).await;
    let path = uploader.create(200_000).await;
    let (first, second) = (vec![1; 100_000], vec![2; 100_000]);
    let answers =
        futures::future::join(uploader.send(&path, 0, &first), uploader.send(&path, 0, &second)).await;
    let mut statuses = [answers.0.status().as_u16(), answers.1.status().as_u16()];
    statuses.sort_unstable();
    assert!(statuses[0] == 204 && [409, 423].contains(&statuses[1]), "{statuses:?}");
    assert_eq!(uploader.offset(&path).await, 100_000);
    world.end().await;
}

#[tokio::test]
async fn a_continue_is_said_only_when_the_bytes_are_wanted() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice).await;
    let path = uploader.create(5).await;
    for (offset, expected) in [(1, "HTTP/1.1 409 "), (0, "HTTP/1.1 100 ")] {
        let mut connection = Connection::open(&world).await;
        let more = "Content-Length: 5\r\nExpect: 100-continue";
        connection.send(uploader.head_of_patch(&path, offset, more)).await;
        assert!(connection.head().await.starts_with(expected));
        if offset == 0 {
            connection.send("hello").await;
            assert!(connection.head().await.starts_with("HTTP/1.1 204 "));
        }
    }
    uploader.is_uploaded(b"hello").await;
    world.end().await;
}

#[tokio::test]
async fn places_run_out_and_nobody_is_told_to_give_up() {
    let world = World::with_limits(|limits: &mut Limits| {
        limits.uploads_max = 1;
        (limits.requests_per_s_per_client, limits.requests_burst_per_client) = (1, 8);
    })
    .await;
    let alice = world.user("alice").await;
    let (busy, waiting) = (Uploader::new(&world, &alice).await, Uploader::new(&world, &alice).await);
    let (busy_path, waiting_path) = (busy.create(10).await, waiting.create(5).await);
    let mut connection = busy.hanging(&busy_path, 0, 10, b"hello").await;
    let refused = waiting.send(&waiting_path, 0, b"hello").await;
    assert!(refused.headers().contains_key("retry-after"));
    expect_problem(refused, 503, "overloaded").await;
    // However often.
    for _ in 0..20 {
        assert_eq!(waiting.offset(&waiting_path).await, 0);
        assert_eq!(waiting.send(&waiting_path, 0, b"hello").await.status(), 503);
    }
    connection.send("world").await;
    assert!(connection.head().await.starts_with("HTTP/1.1 204 "));
    waiting.appended(&waiting_path, 0, b"hello").await;
    world.end().await;
}

#[tokio::test]
async fn an_upload_that_is_left_alone_expires_and_one_that_goes_on_does_not() {
    let (world, clock) = World::with_manual_clock().await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice).await;
    let path = uploader.create(10).await;
    let left = uploader.create(10).await;
    for (from, to) in [(0, 3), (3, 5)] {
        clock.advance_ms(80_000_000);
        uploader.appended(&path, from, &b"helloworld"[from..to]).await;
    }
    expect_problem(uploader.send(&left, 0, b"hello").await, 410, "upload-gone").await;
    assert_eq!(uploader.head(&left).await.status(), 410);
    clock.advance_ms(80_000_000);
    assert_eq!(uploader.offset(&path).await, 5, "to ask is to go on");
    clock.advance_ms(80_000_000);
    uploader.appended(&path, 5, b"world").await;
    uploader.is_uploaded(b"helloworld").await;
    world.end().await;
}

#[tokio::test]
async fn a_video_deleted_while_it_is_uploaded() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice).await;
    let path = uploader.create(10).await;
    let mut connection = uploader.hanging(&path, 0, 10, b"hello").await;
    world.delete(uploader.video, 0).await;
    connection.send("world").await;
    let answer = connection.head().await;
    assert!(answer.starts_with("HTTP/1.1 410 "), "{answer}");
    assert_eq!(uploader.head(&path).await.status(), 404);
    world.end().await;
}

#[tokio::test]
async fn a_process_that_ends_keeps_what_came() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice).await;
    let path = uploader.create(10).await;
    let id = path.rsplit('/').next().unwrap().parse().unwrap();
    let mut connection = uploader.hanging(&path, 0, 10, b"hello").await;
    world.ask_to_end();
    let answer = connection.head().await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after"), "{answer}");
    let upload = world.catalog.resumable(id, world.clock.now()).await.unwrap().unwrap();
    assert_eq!((upload.offset_bytes, upload.held), (5, false));
    world.end().await;
}

#[tokio::test]
async fn a_disk_that_changed_a_piece_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Disk::open(&folder.path().join("store")).unwrap());
    let root = folder.path().join("store");
    let world = World::build(folder, store, |_| {}).await;
    let alice = world.user("alice").await;
    let uploader = Uploader::new(&world, &alice).await;
    let path = uploader.create(10).await;
    uploader.appended(&path, 0, b"hello").await;
    let object = root.join("objects").join(&world.objects().await[0]);
    std::fs::write(&object, b"jello").unwrap();
    expect_problem(uploader.send(&path, 5, b"world").await, 500, "internal").await;
    assert_eq!(world.state(uploader.video).await, VideoState::Uploading);
    world.end().await;
}

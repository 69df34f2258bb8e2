//! `http-api` §3, uploads that go on where they broke off (tus 1.0.0).

mod lives;
mod parts;
mod refusals;
mod takeover;

use base64::prelude::{BASE64_STANDARD, Engine};
use domain::{ObjectKey, VideoId, VideoState, Visibility};
use futures::TryStreamExt;
use reqwest::{Method, RequestBuilder, Response};
use ring::digest;

use crate::raw::Connection;
use crate::world::{Person, World};

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

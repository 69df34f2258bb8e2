//! What an upload may take: of its author's quota, of the store, and of the places for uploads.

use std::sync::Arc;

use chassis::Limits;
use domain::{VideoId, VideoState, Visibility};
use reqwest::{Method, RequestBuilder};
use store::{Faulty, Memory, Weather};

use crate::raw::Connection;
use crate::world::{Person, World, expect_problem};

fn quota(bytes: u64) -> impl FnOnce(&mut Limits) {
    move |limits| limits.user_bytes_max = bytes
}

impl World {
    fn whole(&self, video: VideoId, person: &Person, body: impl Into<reqwest::Body>) -> RequestBuilder {
        let request = self.http.post(self.url(&format!("/stream/videos/{video}")));
        request.bearer_auth(&person.token).header("content-type", "video/mp4").body(body)
    }

    fn tus(&self, method: Method, path: &str, video: VideoId, person: &Person) -> RequestBuilder {
        let request = self.http.request(method, self.url(path)).header("tus-resumable", "1.0.0");
        request.bearer_auth(self.upload_token(person, video))
    }

    fn creation(&self, video: VideoId, person: &Person, length: &str) -> RequestBuilder {
        let request = self.tus(Method::POST, "/stream/uploads", video, person);
        if length == "deferred" {
            request.header("upload-defer-length", 1)
        } else {
            request.header("upload-length", length)
        }
    }

    fn patch(&self, path: &str, video: VideoId, person: &Person, bytes: Vec<u8>) -> RequestBuilder {
        let request = self.tus(Method::PATCH, path, video, person).header("upload-offset", 0);
        request.header("content-type", "application/offset+octet-stream").body(bytes)
    }

    async fn offset(&self, path: &str, video: VideoId, person: &Person) -> String {
        let head = self.tus(Method::HEAD, path, video, person).send().await.unwrap();
        assert_eq!(head.status(), 200);
        head.headers()["upload-offset"].to_str().unwrap().to_owned()
    }

    async fn created(&self, video: VideoId, person: &Person, length: &str) -> String {
        let created = self.creation(video, person, length).send().await.unwrap();
        assert_eq!(created.status(), 201);
        created.headers()["location"].to_str().unwrap().to_owned()
    }
}

/// Without a length, in two frames.
fn chunked(bytes: usize) -> reqwest::Body {
    let halves = [vec![7; bytes / 2], vec![7; bytes - bytes / 2]].map(Ok::<_, std::io::Error>);
    reqwest::Body::wrap_stream(futures::stream::iter(halves))
}

#[tokio::test]
async fn what_a_user_may_not_have_is_refused_before_it_is_read() {
    let world = World::with_limits(quota(1000)).await;
    let alice = world.user("alice").await;
    let (first, second) =
        (world.video(&alice, Visibility::Public).await, world.video(&alice, Visibility::Public).await);
    assert_eq!(world.whole(first, &alice, vec![1; 600]).send().await.unwrap().status(), 201);

    // Whoever waits for a `100 Continue` keeps the body.
    let mut connection = Connection::open(&world).await;
    let head = format!(
        "POST /stream/videos/{second} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 401\r\n\
         Expect: 100-continue\r\n\r\n",
        alice.token
    );
    connection.send(&head).await;
    assert!(connection.head().await.starts_with("HTTP/1.1 403 "));
    let refused = world.whole(second, &alice, vec![1; 401]).send().await.unwrap();
    expect_problem(refused, 403, "quota-exceeded").await;
    let refused = world.creation(second, &alice, "401").send().await.unwrap();
    expect_problem(refused, 403, "quota-exceeded").await;
    assert_eq!(world.state(second).await, VideoState::AwaitingUpload);
    // What it was refused is not held against it.
    assert_eq!(world.whole(second, &alice, vec![1; 400]).send().await.unwrap().status(), 201);
    world.end().await;
}

#[tokio::test]
async fn a_length_that_nobody_said_is_bounded_as_it_comes() {
    let world = World::with_limits(quota(1000)).await;
    let alice = world.user("alice").await;
    let video = world.video(&alice, Visibility::Public).await;
    let refused = world.whole(video, &alice, chunked(1001)).send().await.unwrap();
    expect_problem(refused, 403, "quota-exceeded").await;
    assert_eq!(world.objects().await, [""; 0]);

    let path = world.created(video, &alice, "deferred").await;
    let refused = world.patch(&path, video, &alice, vec![1; 1001]).send().await.unwrap();
    expect_problem(refused, 403, "quota-exceeded").await;
    let said = world.patch(&path, video, &alice, vec![1; 10]).header("upload-length", 1001);
    expect_problem(said.send().await.unwrap(), 403, "quota-exceeded").await;
    assert_eq!(world.offset(&path, video, &alice).await, "0");
    let all = world.patch(&path, video, &alice, vec![1; 1000]).header("upload-length", 1000);
    assert_eq!(all.send().await.unwrap().status(), 204);
    assert_eq!(world.state(video).await, VideoState::Uploaded);
    world.end().await;
}

#[tokio::test]
async fn nothing_begins_that_the_disk_has_no_room_for() {
    let world = World::with_limits(|limits| limits.free_bytes_min = u64::MAX).await;
    let alice = world.user("alice").await;
    let video = world.video(&alice, Visibility::Public).await;
    let refusals = [
        world.whole(video, &alice, vec![1; 10]).send().await.unwrap(),
        world.whole(video, &alice, chunked(10)).send().await.unwrap(),
        world.creation(video, &alice, "10").send().await.unwrap(),
        world.creation(video, &alice, "deferred").send().await.unwrap(),
    ];
    for refused in refusals {
        assert!(refused.headers().contains_key("retry-after"));
        expect_problem(refused, 507, "out-of-space").await;
    }
    assert_eq!(world.objects().await, [""; 0]);
    world.end().await;
}

#[tokio::test]
async fn a_disk_that_fills_up_under_an_upload_leaves_its_offset() {
    let weather = Weather { out_of_space: 1.0, ..Weather::FINE };
    let store = Arc::new(Faulty::new(Memory::new(), 1, weather));
    let world = World::build(tempfile::tempdir().unwrap(), store, |_| {}).await;
    let alice = world.user("alice").await;
    let video = world.video(&alice, Visibility::Public).await;
    let refused = world.whole(video, &alice, vec![1; 10]).send().await.unwrap();
    expect_problem(refused, 507, "out-of-space").await;
    let path = world.created(video, &alice, "10").await;
    let refused = world.patch(&path, video, &alice, vec![1; 10]).send().await.unwrap();
    assert!(refused.headers().contains_key("retry-after"), "clients come back");
    expect_problem(refused, 507, "out-of-space").await;
    assert_eq!(world.offset(&path, video, &alice).await, "0");
    world.end().await;
}

#[tokio::test]
async fn one_user_does_not_take_the_places_of_others() {
    let world = World::with_limits(|limits| limits.uploads_max = 2).await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let (first, second) =
        (world.video(&alice, Visibility::Public).await, world.video(&alice, Visibility::Public).await);
    let other = world.video(&bob, Visibility::Public).await;
    let mut connection = Connection::open(&world).await;
    let head = format!(
        "POST /stream/videos/{first} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 10\r\n\r\n12345",
        alice.token
    );
    connection.send(&head).await;
    while world.store.list_unfinished(None, 1).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let refused = world.whole(second, &alice, "x").send().await.unwrap();
    assert!(refused.headers().contains_key("retry-after"));
    expect_problem(refused, 503, "overloaded").await;
    assert_eq!(world.whole(other, &bob, "x").send().await.unwrap().status(), 201);
    connection.send("67890").await;
    assert!(connection.head().await.starts_with("HTTP/1.1 201 "));
    world.end().await;
}

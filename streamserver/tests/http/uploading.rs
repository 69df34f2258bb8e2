//! `http-api` §3, whole uploads.

use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use domain::{AttemptId, ObjectFile, ObjectKey, Role, VideoId, VideoState, Visibility};
use futures::TryStreamExt;
use reqwest::Method;
use store::{Crc64Nvme, Faulty, Memory, Store, Weather};

use crate::raw::Connection;
use crate::world::{World, expect_problem};

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

fn path(video: VideoId) -> String {
    format!("/stream/videos/{video}")
}

impl World {
    fn upload(&self, video: VideoId, token: &str, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        self.http
            .post(self.url(&path(video)))
            .bearer_auth(token)
            .header("content-type", "video/mp4")
            .body(body)
    }

    /// What the store holds of the video, as its source.
    async fn source(&self, video: VideoId) -> Vec<u8> {
        let objects = self.objects().await;
        let key: ObjectKey =
            objects.iter().find(|path| path.contains(&video.to_string())).unwrap().parse().unwrap();
        assert_eq!(key.file, ObjectFile::Source);
        let bytes = self.store.head(&key).await.unwrap().unwrap().bytes;
        let blocks: Vec<_> = self.store.read(&key, 0..bytes).await.unwrap().try_collect().await.unwrap();
        blocks.concat()
    }

    /// A handler that was dropped cleans up in its own time.
    async fn nothing_is_kept(&self, video: VideoId) {
        let swept = async {
            while !self.store.list_unfinished(None, 1).await.unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), swept).await.expect("no unfinished file stays");
        assert_eq!(self.objects().await, [""; 0]);
        assert_eq!(self.state(video).await, VideoState::AwaitingUpload);
    }
}

#[tokio::test]
async fn a_whole_file_raw_by_post_and_put() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let bytes = content(3_000_000);
    for method in [Method::POST, Method::PUT] {
        let video = world.video(&alice, Visibility::Public).await;
        let request = world.http.request(method, world.url(&path(video))).bearer_auth(&alice.token);
        let response = request.header("content-type", "video/mp4").body(bytes.clone()).send().await.unwrap();
        assert_eq!(response.status(), 201);
        let answer: serde_json::Value = response.json().await.unwrap();
        let mut crc = Crc64Nvme::default();
        crc.update(&bytes);
        assert_eq!(
            answer,
            serde_json::json!({
                "id": video.to_string(),
                "state": "uploaded",
                "size_bytes": bytes.len(),
                "crc64nvme": BASE64_STANDARD.encode(crc.value().to_be_bytes()),
            })
        );
        assert!(world.source(video).await == bytes);
        assert_eq!(world.state(video).await, VideoState::Uploaded);
    }
    world.end().await;
}

#[tokio::test]
async fn a_form_with_one_file() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let video = world.video(&alice, Visibility::Public).await;
    let bytes = content(1_000_000);
    let file = reqwest::multipart::Part::bytes(bytes.clone())
        .file_name("../clip.mp4")
        .mime_str("video/mp4")
        .unwrap();
    let form = reqwest::multipart::Form::new().text("title", "ignored").part("file", file);
    let request = world.http.post(world.url(&path(video))).bearer_auth(world.upload_token(&alice, video));
    let response = request.multipart(form).send().await.unwrap();
    assert_eq!(response.status(), 201);
    assert!(world.source(video).await == bytes);
    let row = world.catalog.video(video, world.clock.now()).await.unwrap().unwrap();
    assert_eq!(row.source_filename.as_deref(), Some("clip.mp4"));
    world.end().await;
}

#[tokio::test]
async fn bad_forms_are_refused_and_leave_nothing() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let video = world.video(&alice, Visibility::Public).await;
    let file = "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x.mp4\"\r\n\r\nbytes";
    let text = "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\nContent-Type: text/plain\r\n\r\nx";
    for (name, boundary, body, status, kind) in [
        ("no closing boundary", "b", file.to_owned(), 400, "bad-request"),
        ("no file", "b", "--b--\r\n".to_owned(), 400, "bad-request"),
        ("two files", "b", format!("{file}\r\n{file}\r\n--b--\r\n"), 400, "bad-request"),
        ("an empty file", "b", file.replace("bytes", "") + "\r\n--b--\r\n", 400, "bad-request"),
        ("no boundary", "", format!("{file}\r\n--b--\r\n"), 400, "bad-request"),
        ("no video", "b", format!("{text}\r\n--b--\r\n"), 415, "unsupported-media-type"),
    ] {
        println!("{name}");
        let content_type = format!("multipart/form-data; boundary={boundary}");
        let request = world.http.post(world.url(&path(video))).bearer_auth(&alice.token);
        let response = request.header("content-type", content_type).body(body).send().await.unwrap();
        expect_problem(response, status, kind).await;
        world.nothing_is_kept(video).await;
    }
    world.end().await;
}

#[tokio::test]
async fn who_may_upload() {
    let world = World::new().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let admin = world.person("root", Role::Admin).await;
    let video = world.video(&alice, Visibility::Public).await;
    let other = world.video(&alice, Visibility::Public).await;

    let anonymous = world.http.post(world.url(&path(video))).body("x").send().await.unwrap();
    assert!(anonymous.headers().contains_key("www-authenticate"));
    expect_problem(anonymous, 401, "unauthorized").await;
    let forged = format!("{}x", alice.token);
    expect_problem(world.upload(video, &forged, "x").send().await.unwrap(), 401, "unauthorized").await;
    // Bob cannot see a video that waits for its upload; an admin can, and may not upload it.
    expect_problem(world.upload(video, &bob.token, "x").send().await.unwrap(), 404, "not-found").await;
    expect_problem(world.upload(video, &admin.token, "x").send().await.unwrap(), 403, "forbidden").await;
    let token_of_other = world.upload_token(&alice, other);
    expect_problem(world.upload(video, &token_of_other, "x").send().await.unwrap(), 403, "forbidden").await;
    let film = world.playable(&alice, Visibility::Public).await;
    expect_problem(world.upload(film.video, &bob.token, "x").send().await.unwrap(), 403, "forbidden").await;
    let hidden = world.playable(&alice, Visibility::Private).await;
    expect_problem(world.upload(hidden.video, &bob.token, "x").send().await.unwrap(), 404, "not-found").await;

    expect_problem(world.upload(world.id(), &alice.token, "x").send().await.unwrap(), 404, "not-found").await;
    let unknown: VideoId = world.id();
    let token = world.upload_token(&alice, unknown);
    expect_problem(world.upload(unknown, &token, "x").send().await.unwrap(), 404, "not-found").await;
    for bad in ["nonsense", "..%2f..%2fetc", "%00", "550e8400-e29b-41d4-a716-446655440000"] {
        let request = world.http.post(world.url(&format!("/stream/videos/{bad}"))).bearer_auth(&alice.token);
        expect_problem(request.body("x").send().await.unwrap(), 400, "invalid-id").await;
    }
    assert_eq!(
        world.upload(video, &world.upload_token(&alice, video), "x").send().await.unwrap().status(),
        201
    );
    world.end().await;
}

#[tokio::test]
async fn a_second_upload_is_a_conflict() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let video = world.video(&alice, Visibility::Public).await;
    assert_eq!(world.upload(video, &alice.token, "first").send().await.unwrap().status(), 201);
    let objects = world.objects().await;
    expect_problem(
        world.upload(video, &alice.token, "second").send().await.unwrap(),
        409,
        "already-uploaded",
    )
    .await;
    let token = world.upload_token(&alice, video);
    expect_problem(world.upload(video, &token, "third").send().await.unwrap(), 409, "already-uploaded").await;
    assert_eq!(world.objects().await, objects);
    assert_eq!(world.source(video).await, b"first");
    world.end().await;
}

#[tokio::test]
async fn of_many_at_once_one_wins_and_the_others_leave_nothing() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let video = world.video(&alice, Visibility::Public).await;
    let uploads = (0..10).map(|i| world.upload(video, &alice.token, vec![i; 100_000]).send());
    let responses = futures::future::try_join_all(uploads).await.unwrap();
    let mut statuses: Vec<u16> = responses.iter().map(|response| response.status().as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [&[201][..], &[409; 9]].concat());
    assert_eq!(world.objects().await.len(), 1);
    world.end().await;
}

#[tokio::test]
async fn sizes_are_bounded_before_and_while_reading() {
    let world = World::with_limits(|limits| limits.upload_bytes_max = 100_000).await;
    let alice = world.user("alice").await;
    let video = world.video(&alice, Visibility::Public).await;
    let target = path(video);

    // Declared too large: refused although not a byte of it was sent, and nothing invites the client to send it.
    let mut connection = Connection::open(&world).await;
    let token = &alice.token;
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: video/mp4\r\n\
         Content-Length: 100001\r\nExpect: 100-continue\r\n\r\n"
    );
    connection.send(&head).await;
    let answer = connection.head().await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");

    let chunks = || {
        let chunks = (0..11).map(|_| Ok::<_, std::io::Error>(vec![7_u8; 10_000]));
        reqwest::Body::wrap_stream(futures::stream::iter(chunks))
    };
    expect_problem(
        world.upload(video, &alice.token, chunks()).send().await.unwrap(),
        413,
        "upload-too-large",
    )
    .await;
    world.nothing_is_kept(video).await;

    let mut connection = Connection::open(&world).await;
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: video/mp4\r\n\r\n"
    );
    connection.send(&head).await;
    assert!(connection.head().await.starts_with("HTTP/1.1 411 "));
    let empty = world.upload(video, &alice.token, "").header("content-length", 0);
    expect_problem(empty.send().await.unwrap(), 400, "bad-request").await;
    world.nothing_is_kept(video).await;

    let response = world.upload(video, &alice.token, vec![7; 100_000]).send().await.unwrap();
    assert_eq!(response.status(), 201);
    world.end().await;
}

#[tokio::test]
async fn a_continue_is_said_only_after_the_checks() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let video = world.video(&alice, Visibility::Public).await;
    let head = |authorization: &str| {
        format!(
            "PUT {} HTTP/1.1\r\nHost: x\r\n{authorization}Content-Length: 5\r\nExpect: 100-continue\r\n\
             Connection: close\r\n\r\n",
            path(video)
        )
    };
    let mut refused = Connection::open(&world).await;
    refused.send(head("")).await;
    assert!(refused.head().await.starts_with("HTTP/1.1 401 "));
    let mut accepted = Connection::open(&world).await;
    accepted.send(head(&format!("Authorization: Bearer {}\r\n", alice.token))).await;
    assert_eq!(accepted.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    accepted.send("hello").await;
    assert!(accepted.head().await.starts_with("HTTP/1.1 201 "));
    assert_eq!(world.source(video).await, b"hello");
    world.end().await;
}

#[tokio::test]
async fn other_types_are_refused() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let video = world.video(&alice, Visibility::Public).await;
    for content_type in ["text/html", "application/x-www-form-urlencoded", "image/png"] {
        let request = world.http.post(world.url(&path(video))).bearer_auth(&alice.token);
        let response = request.header("content-type", content_type).body("x").send().await.unwrap();
        expect_problem(response, 415, "unsupported-media-type").await;
    }
    let coded =
        world.upload(video, &alice.token, "x").header("content-encoding", "gzip").send().await.unwrap();
    expect_problem(coded, 415, "unsupported-media-type").await;
    world.nothing_is_kept(video).await;
    world.end().await;
}

#[tokio::test]
async fn digests_are_checked_and_given() {
    const ABC: &str = "sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:";
    let world = World::new().await;
    let alice = world.user("alice").await;
    let video = world.video(&alice, Visibility::Public).await;
    for header in ["content-digest", "repr-digest"] {
        let wrong = world.upload(video, &alice.token, "abd").header(header, ABC).send().await.unwrap();
        expect_problem(wrong, 400, "digest-mismatch").await;
        world.nothing_is_kept(video).await;
        let unreadable =
            world.upload(video, &alice.token, "abc").header(header, "sha-256=abc").send().await.unwrap();
        expect_problem(unreadable, 400, "bad-request").await;
    }
    let right = world.upload(video, &alice.token, "abc").header("content-digest", ABC);
    let response = right.header("want-repr-digest", "sha-256=1").send().await.unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["repr-digest"], ABC);

    let video = world.video(&alice, Visibility::Public).await;
    let form = reqwest::multipart::Part::bytes(&b"abc"[..]).file_name("abc");
    let form = reqwest::multipart::Form::new().part("file", form);
    let request = world.http.post(world.url(&path(video))).bearer_auth(&alice.token).multipart(form);
    let response = request.header("want-repr-digest", "sha-256=1").send().await.unwrap();
    assert_eq!(response.headers()["repr-digest"], ABC, "of the file, not of the form");

    let video = world.video(&alice, Visibility::Public).await;
    let response = world.upload(video, &alice.token, "abc").send().await.unwrap();
    assert!(!response.headers().contains_key("repr-digest"));
    world.end().await;
}

#[tokio::test]
async fn a_client_that_vanishes_leaves_nothing() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let video = world.video(&alice, Visibility::Public).await;
    let mut connection = Connection::open(&world).await;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 1000000\r\n\r\n",
        path(video),
        alice.token
    );
    connection.send(&head).await;
    connection.send(content(300_000)).await;
    // Only once it is being written does vanishing prove anything.
    while world.store.list_unfinished(None, 1).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(connection);
    world.nothing_is_kept(video).await;
    // And the video can still be uploaded.
    assert_eq!(world.upload(video, &alice.token, "again").send().await.unwrap().status(), 201);
    world.end().await;
}

#[tokio::test]
async fn a_video_deleted_while_it_is_uploaded_keeps_nothing() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let video = world.video(&alice, Visibility::Public).await;
    let mut connection = Connection::open(&world).await;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 10\r\n\r\n",
        path(video),
        alice.token
    );
    connection.send(&head).await;
    connection.send("12345").await;
    while world.store.list_unfinished(None, 1).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    world.delete(video, 0).await;
    connection.send("67890").await;
    assert!(connection.head().await.starts_with("HTTP/1.1 404 "));
    assert_eq!(world.objects().await, [""; 0]);
    world.end().await;
}

#[tokio::test]
async fn places_run_out() {
    let world = World::with_limits(|limits| limits.uploads_max = 1).await;
    let alice = world.user("alice").await;
    let (first, second) =
        (world.video(&alice, Visibility::Public).await, world.video(&alice, Visibility::Public).await);
    let mut connection = Connection::open(&world).await;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 10\r\n\r\n12345",
        path(first),
        alice.token
    );
    connection.send(&head).await;
    while world.store.list_unfinished(None, 1).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let refused = world.upload(second, &alice.token, "x").send().await.unwrap();
    assert!(refused.headers().contains_key("retry-after"));
    expect_problem(refused, 503, "overloaded").await;
    connection.send("67890").await;
    assert!(connection.head().await.starts_with("HTTP/1.1 201 "));
    assert_eq!(world.upload(second, &alice.token, "x").send().await.unwrap().status(), 201);
    world.end().await;
}

#[tokio::test]
async fn clients_that_ask_too_often_are_told_when_to_come_back() {
    let world = World::with_limits(|limits| {
        (limits.requests_per_s_per_client, limits.requests_burst_per_client) = (1, 2);
    })
    .await;
    let alice = world.user("alice").await;
    let video = world.video(&alice, Visibility::Public).await;
    let refused = async || loop {
        let response = world.upload(video, "nonsense", "x").send().await.unwrap();
        if response.status() != 401 {
            return response;
        }
    };
    let response = refused().await;
    assert!(
        ["retry-after", "ratelimit", "ratelimit-policy"]
            .iter()
            .all(|name| response.headers().contains_key(*name))
    );
    expect_problem(response, 429, "rate-limited").await;
    world.end().await;
}

#[tokio::test]
async fn in_bad_weather_an_upload_succeeds_or_leaves_nothing() {
    for seed in 0..20 {
        let weather = Weather { fails_before: 0.2, out_of_space: 0.1, ..Weather::FINE };
        let store = Faulty::new(Memory::new(), seed, weather);
        let quiet = store.inner().clone();
        let world = World::build(tempfile::tempdir().unwrap(), Arc::new(store), |_| {}).await;
        let alice = world.user("alice").await;
        let video = world.video(&alice, Visibility::Public).await;
        let mut tries = 0;
        loop {
            tries += 1;
            assert!(tries < 200, "seed {seed}");
            let response = world.upload(video, &alice.token, content(100_000)).send().await.unwrap();
            if response.status() == 201 {
                break;
            }
            assert!(response.headers().contains_key("retry-after"));
            let (status, kind) =
                if response.status() == 507 { (507, "out-of-space") } else { (503, "unavailable") };
            expect_problem(response, status, kind).await;
            assert!(quiet.list("", None, 10).await.unwrap().objects.is_empty());
        }
        let objects = quiet.list("", None, 10).await.unwrap().objects;
        let key: ObjectKey = objects[0].0.parse().unwrap();
        assert_eq!((objects.len(), key.video), (1, video));
        let attempt: AttemptId = key.attempt;
        assert!(world.catalog.attempt(attempt).await.unwrap().is_some());
    }
}

//! What is not taken, and what is said of it.

use std::sync::Arc;

use chassis::Limits;
use domain::{Role, VideoState, Visibility};
use reqwest::Method;
use store::Disk;

use super::{Uploader, content, header, location};
use crate::raw::Connection;
use crate::world::{World, expect_problem};

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

//! Uploads from their first byte to their last, or to their end.

use domain::{VideoState, Visibility};
use reqwest::Method;

use super::{MIB, Uploader, content, header, location, metadata, sha1, sha256};
use crate::raw::Connection;
use crate::world::{World, expect_problem};

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

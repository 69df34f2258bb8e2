//! Whoever comes second, and what is left of who came first.

use std::time::{Duration, Instant};

use domain::VideoState;

use super::{MIB, Uploader, content, location, sha1};
use crate::raw::Connection;
use crate::world::{World, expect_problem};

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

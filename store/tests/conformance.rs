//! What every store does alike. A new kind of store joins by one line at the end.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod objects;
mod s3_server;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::{AttemptId, IdParts, ObjectFile, ObjectKey, RenditionName, Timestamp, TrackKind, VideoId};
use futures::TryStreamExt;
use objects::{crc, pattern};
use store::{Disk, Faulty, Memory, Moving, READ_BLOCK_BYTES_MAX, S3, S3Patience, Store, StoreError, Weather};

use s3_server::{PART_BYTES, RealServer, S3sServer};

/// What a store does that not every store can promise; what it cannot is left out aloud.
#[derive(Clone, Copy)]
struct Promises {
    /// Of two writers that finish one key at the same time exactly one succeeds.
    one_winner: bool,
    /// A writer that got this much shows up among the unfinished, and can be swept from there.
    unfinished_from_bytes: Option<usize>,
}

const ALL: Promises = Promises { one_winner: true, unfinished_from_bytes: Some(1) };

fn left_out(what: &str) {
    eprintln!("conformance: left out, because this store cannot promise it: {what}");
}

fn parts(number: u8) -> IdParts {
    IdParts { now: Timestamp::from_unix_ms(1_790_000_000_000 + i64::from(number)), random: [number; 10] }
}

fn key(video: u8, attempt: u8, file: ObjectFile) -> ObjectKey {
    ObjectKey { video: VideoId::from(parts(video)), attempt: AttemptId::from(parts(attempt)), file }
}

fn source(video: u8) -> ObjectKey {
    key(video, 1, ObjectFile::Source)
}

async fn put(store: &dyn Store, key: &ObjectKey, bytes: &Bytes) {
    let mut writer = store.create(key).await.unwrap();
    writer.write(bytes.clone()).await.unwrap();
    writer.finish().await.unwrap();
}

async fn get(store: &dyn Store, key: &ObjectKey, range: std::ops::Range<u64>) -> Vec<u8> {
    let blocks: Vec<Bytes> = store.read(key, range).await.unwrap().try_collect().await.unwrap();
    assert!(blocks.iter().all(|block| block.len() <= READ_BLOCK_BYTES_MAX));
    blocks.concat()
}

async fn listed(store: &dyn Store, prefix: &str) -> Vec<String> {
    let page = store.list(prefix, None, 1000).await.unwrap();
    page.objects.into_iter().map(|(path, _)| path).collect()
}

async fn what_is_written_is_read(store: &dyn Store) {
    let bytes = pattern(3 * READ_BLOCK_BYTES_MAX + 17);
    let mut writer = store.create(&source(1)).await.unwrap();
    // Frames of odd sizes, one larger than the whole queue is kept for the big-object test.
    let mut rest = bytes.clone();
    let mut frame = 1;
    while !rest.is_empty() {
        writer.write(rest.split_to(frame.min(rest.len()))).await.unwrap();
        frame = frame * 3 + 1;
    }
    writer.write(Bytes::new()).await.unwrap();
    let stored = writer.finish().await.unwrap();
    assert_eq!((stored.bytes, stored.crc64nvme), (bytes.len() as u64, crc(&bytes)));

    let all = bytes.len() as u64;
    for range in
        [0..all, 0..0, all..all, 0..1, all - 1..all, 5..5 + READ_BLOCK_BYTES_MAX as u64, 100..all - 100]
    {
        let expected = &bytes[range.start as usize..range.end as usize];
        assert!(get(store, &source(1), range.clone()).await == expected, "{range:?}");
    }
    assert_eq!(store.head(&source(1)).await.unwrap().unwrap().bytes, all);
}

async fn an_object_larger_than_the_queue_passes_through(store: &dyn Store) {
    let bytes = pattern(12 * 1024 * 1024 + 5);
    let mut writer = store.create(&source(2)).await.unwrap();
    writer.write(bytes.clone()).await.unwrap();
    assert_eq!(writer.finish().await.unwrap().crc64nvme, crc(&bytes));
    assert!(get(store, &source(2), 0..bytes.len() as u64).await == bytes);
}

async fn an_empty_object_is_an_object(store: &dyn Store) {
    let writer = store.create(&source(3)).await.unwrap();
    assert_eq!(writer.finish().await.unwrap().bytes, 0);
    assert_eq!(store.head(&source(3)).await.unwrap().unwrap().bytes, 0);
    assert!(get(store, &source(3), 0..0).await.is_empty());
}

async fn missing_objects_are_not_found(store: &dyn Store, scratch: &Path) {
    assert_eq!(store.head(&source(4)).await.unwrap(), None);
    assert!(matches!(store.read(&source(4), 0..1).await.err(), Some(StoreError::NotFound)));
    let fetched = store.fetch(&source(4), &scratch.join("missing")).await;
    assert!(matches!(fetched, Err(StoreError::NotFound)));
}

async fn ranges_beyond_the_object_are_refused(store: &dyn Store) {
    put(store, &source(5), &pattern(10)).await;
    #[expect(clippy::reversed_empty_ranges, reason = "a caller may compute one")]
    for range in [0..11, 10..11, 11..11, 5..4] {
        assert!(store.read(&source(5), range.clone()).await.is_err(), "{range:?}");
    }
}

async fn keys_are_write_once(store: &dyn Store, scratch: &Path) {
    let first = pattern(100);
    put(store, &source(6), &first).await;
    let mut second = store.create(&source(6)).await.unwrap();
    second.write(pattern(50)).await.unwrap();
    assert!(matches!(second.finish().await, Err(StoreError::Exists)));
    let file = scratch.join("second");
    std::fs::write(&file, b"other").unwrap();
    assert!(matches!(store.put_file(&source(6), &file).await, Err(StoreError::Exists)));
    assert_eq!(get(store, &source(6), 0..100).await, first);
}

async fn of_two_writers_one_wins(store: &dyn Store) {
    let mut a = store.create(&source(7)).await.unwrap();
    let mut b = store.create(&source(7)).await.unwrap();
    a.write(pattern(10)).await.unwrap();
    b.write(pattern(20)).await.unwrap();
    let (a, b) = tokio::join!(a.finish(), b.finish());
    let winner = match (a, b) {
        (Ok(stored), Err(StoreError::Exists)) | (Err(StoreError::Exists), Ok(stored)) => stored.bytes,
        other => panic!("{other:?}"),
    };
    assert_eq!(store.head(&source(7)).await.unwrap().unwrap().bytes, winner);
}

async fn nothing_shows_before_finish_and_nothing_stays_after_abort(store: &dyn Store, promises: Promises) {
    let key = source(8);
    let mut writer = store.create(&key).await.unwrap();
    writer.write(pattern(promises.unfinished_from_bytes.unwrap_or(1000))).await.unwrap();
    assert_eq!(store.head(&key).await.unwrap(), None);
    assert!(listed(store, &ObjectKey::video_prefix(key.video)).await.is_empty());
    if promises.unfinished_from_bytes.is_some() {
        let unfinished = store.list_unfinished(None, 10).await.unwrap();
        assert_eq!(unfinished.len(), 1);
        let words: Vec<&str> = unfinished[0].name.split(['~', '/']).collect();
        assert_eq!(words[1..3], [key.video.to_string(), key.attempt.to_string()], "{unfinished:?}");
        assert!(store.list_unfinished(Some(&unfinished[0].name), 10).await.unwrap().is_empty());
    } else {
        left_out("unfinished objects are listed");
    }
    writer.abort().await;
    assert_eq!(store.head(&key).await.unwrap(), None);
    assert!(store.list_unfinished(None, 10).await.unwrap().is_empty());
}

async fn dropping_is_aborting(store: &dyn Store) {
    let mut writer = store.create(&source(9)).await.unwrap();
    writer.write(pattern(1000)).await.unwrap();
    drop(writer);
    nothing_is_unfinished(store).await;
    assert_eq!(store.head(&source(9)).await.unwrap(), None);
}

async fn swept_writers_fail_and_show_nothing(store: &dyn Store, promises: Promises) {
    let Some(bytes) = promises.unfinished_from_bytes else {
        return left_out("a writer whose unfinished object was removed fails");
    };
    let mut writer = store.create(&source(10)).await.unwrap();
    writer.write(pattern(bytes)).await.unwrap();
    for unfinished in store.list_unfinished(None, 10).await.unwrap() {
        store.remove_unfinished(&unfinished.name).await.unwrap();
        store.remove_unfinished(&unfinished.name).await.unwrap();
    }
    assert!(writer.finish().await.unwrap_err().is_retryable());
    assert_eq!(store.head(&source(10)).await.unwrap(), None);
}

async fn listings_are_sorted_and_paged(store: &dyn Store) {
    let video = VideoId::from(parts(11));
    let mut expected = Vec::new();
    for attempt in 1..=3 {
        for &name in RenditionName::ALL {
            for file in [ObjectFile::Index(name), ObjectFile::Track(name, TrackKind::Video)] {
                let key = key(11, attempt, file);
                put(store, &key, &pattern(usize::from(attempt))).await;
                expected.push((key.path(), u64::from(attempt)));
            }
        }
    }
    put(store, &source(12), &pattern(1)).await;
    expected.sort();
    let prefix = ObjectKey::video_prefix(video);
    let all = expected.len();
    for limit in [1, 2, 5, all - 1, all, all + 1, 1000] {
        let (mut found, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = store.list(&prefix, after.as_deref(), limit).await.unwrap();
            assert!(page.objects.len() <= limit);
            assert_eq!(page.more, found.len() + page.objects.len() < expected.len(), "limit {limit}");
            after = page.objects.last().map(|(path, _)| path.clone());
            found.extend(page.objects);
            if !page.more {
                break;
            }
        }
        assert_eq!(found, expected, "limit {limit}");
    }
    // A prefix need not end at a folder.
    let half = &expected[0].0[..expected[0].0.len() - 3];
    assert_eq!(listed(store, half).await, [expected[0].0.clone()]);
    let attempt = ObjectKey::attempt_prefix(video, AttemptId::from(parts(2)));
    assert_eq!(listed(store, &attempt).await.len(), all / 3);
    assert!(listed(store, "videos/none/").await.is_empty());
    assert!(listed(store, "").await.len() > all);
}

async fn deleted_objects_are_gone_and_deleting_again_is_fine(store: &dyn Store) {
    let (one, other) = (source(13), key(13, 2, ObjectFile::SharedAudio));
    put(store, &one, &pattern(10)).await;
    put(store, &other, &pattern(10)).await;
    let paths = [one.path(), source(14).path()];
    for _ in 0..2 {
        let answers = store.delete(&paths).await;
        assert_eq!(answers.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>(), paths);
        assert!(answers.iter().all(|(_, result)| result.is_ok()), "{answers:?}");
    }
    assert_eq!(store.head(&one).await.unwrap(), None);
    assert_eq!(listed(store, &ObjectKey::video_prefix(one.video)).await, [other.path()]);
    // The key is free again for the store; that no id is used twice is the caller's promise.
    put(store, &one, &pattern(3)).await;
    assert_eq!(get(store, &one, 0..3).await, pattern(3));
}

async fn a_read_survives_the_deletion_of_its_object(store: &dyn Store) {
    let bytes = pattern(2 * READ_BLOCK_BYTES_MAX);
    put(store, &source(15), &bytes).await;
    let stream = store.read(&source(15), 0..bytes.len() as u64).await.unwrap();
    for (_, result) in store.delete(&[source(15).path()]).await {
        result.unwrap();
    }
    let blocks: Vec<Bytes> = stream.try_collect().await.unwrap();
    assert!(blocks.concat() == bytes);
}

async fn files_come_in_and_go_out(store: &dyn Store, scratch: &Path) {
    let bytes = pattern(READ_BLOCK_BYTES_MAX + 1);
    let (from, to) = (scratch.join("from"), scratch.join("to"));
    std::fs::write(&from, &bytes).unwrap();
    let stored = store.put_file(&source(16), &from).await.unwrap();
    assert_eq!((stored.bytes, stored.crc64nvme), (bytes.len() as u64, crc(&bytes)));
    std::fs::remove_file(&from).unwrap();
    assert_eq!(store.fetch(&source(16), &to).await.unwrap(), bytes.len() as u64);
    assert!(std::fs::read(&to).unwrap() == bytes);
    assert!(store.fetch(&source(16), &to).await.is_err(), "an existing file is not overwritten");
    // A fetched file outlives its object.
    store.delete(&[source(16).path()]).await;
    assert!(std::fs::read(&to).unwrap() == bytes);
    assert!(store.put_file(&source(17), &from).await.is_err());
    assert_eq!(store.head(&source(17)).await.unwrap(), None);
}

/// A dropped writer cleans up in its own time.
async fn nothing_is_unfinished(store: &dyn Store) {
    let swept = async {
        while !store.list_unfinished(None, 1).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), swept)
        .await
        .expect("a dropped writer leaves nothing behind");
}

async fn conforms(store: &dyn Store) {
    conforms_as_promised(store, ALL).await;
}

async fn conforms_as_promised(store: &dyn Store, promises: Promises) {
    let scratch = tempfile::tempdir().unwrap();
    what_is_written_is_read(store).await;
    an_object_larger_than_the_queue_passes_through(store).await;
    an_empty_object_is_an_object(store).await;
    missing_objects_are_not_found(store, scratch.path()).await;
    ranges_beyond_the_object_are_refused(store).await;
    keys_are_write_once(store, scratch.path()).await;
    if promises.one_winner {
        of_two_writers_one_wins(store).await;
    } else {
        left_out("of two writers that race for one key, one wins");
    }
    nothing_shows_before_finish_and_nothing_stays_after_abort(store, promises).await;
    dropping_is_aborting(store).await;
    swept_writers_fail_and_show_nothing(store, promises).await;
    listings_are_sorted_and_paged(store).await;
    deleted_objects_are_gone_and_deleting_again_is_fine(store).await;
    a_read_survives_the_deletion_of_its_object(store).await;
    files_come_in_and_go_out(store, scratch.path()).await;
    store.probe().await.unwrap();
    nothing_is_unfinished(store).await;
}

#[tokio::test]
async fn disk() {
    let folder = tempfile::tempdir().unwrap();
    conforms(&Disk::open(folder.path()).unwrap()).await;
}

#[tokio::test]
async fn memory() {
    conforms(&Memory::new()).await;
}

#[tokio::test]
async fn faulty_in_fine_weather() {
    conforms(&Faulty::new(Memory::new(), 1, Weather::default())).await;
}

/// More than a part, so that the writer has begun a multipart upload.
const BEGUN_BYTES: usize = 2 * PART_BYTES as usize;

#[tokio::test]
async fn s3_on_s3s_fs() {
    let server = S3sServer::start().await;
    let store =
        S3::open(&server.place("some/prefix"), &server.access(), S3Patience::default()).await.unwrap();
    conforms_as_promised(&store, Promises { one_winner: false, unfinished_from_bytes: None }).await;
}

#[tokio::test]
async fn s3_on_a_real_server() {
    let Some(server) = RealServer::from_environment() else { return };
    let store = S3::open(&server.place(), &server.access(), S3Patience::default()).await.unwrap();
    let promises = Promises { one_winner: false, unfinished_from_bytes: Some(BEGUN_BYTES) };
    conforms_as_promised(&store, promises).await;
}

#[tokio::test]
async fn moving() {
    let folder = tempfile::tempdir().unwrap();
    let (to, from) = (Arc::new(Memory::new()), Arc::new(Disk::open(folder.path()).unwrap()));
    conforms(&Moving::new(to, from)).await;
}

#[tokio::test]
async fn while_moving_an_object_is_wherever_it_is_and_gone_from_both() {
    let (to, from): (Arc<dyn Store>, Arc<dyn Store>) = (Arc::new(Memory::new()), Arc::new(Memory::new()));
    let store = Moving::new(to.clone(), from.clone());
    let (old, both) = (source(1), source(2));
    put(&*from, &old, &pattern(10)).await;
    put(&*from, &both, &pattern(20)).await;
    put(&*to, &both, &pattern(20)).await;
    put(&store, &source(3), &pattern(30)).await;
    assert_eq!(from.head(&source(3)).await.unwrap(), None);
    assert_eq!(get(&store, &old, 0..10).await, pattern(10));
    assert_eq!(get(&store, &both, 5..20).await, pattern(20)[5..]);
    assert_eq!(listed(&store, "").await, [old.path(), both.path(), source(3).path()]);
    let unfinished = from.create(&source(4)).await.unwrap();
    let named = store.list_unfinished(None, 10).await.unwrap();
    assert_eq!(named.len(), 1);
    assert!(store.list_unfinished(Some(&named[0].name), 10).await.unwrap().is_empty());
    store.remove_unfinished(&named[0].name).await.unwrap();
    assert!(unfinished.finish().await.is_err());
    for (_, result) in store.delete(&[old.path(), both.path(), source(3).path()]).await {
        result.unwrap();
    }
    assert!(listed(&*to, "").await.is_empty() && listed(&*from, "").await.is_empty());
}

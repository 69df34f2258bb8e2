//! Rows F13 to F18 of reliability.md: what a client of S3 does when S3, or what lies between, misbehaves.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod objects;
mod s3_server;

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::ObjectKey;
use futures::{StreamExt, TryStreamExt, stream};
use objects::{crc, key, pattern};
use s3_server::mischief::{Call, Deed};
use s3_server::{PART_BYTES, S3sServer, hasty};
use store::{S3, S3Patience, Store, StoreError, Stored};

async fn write(store: &dyn Store, key: &ObjectKey, bytes: &Bytes) -> Result<Stored, StoreError> {
    let mut writer = store.create(key).await?;
    writer.write(bytes.clone()).await?;
    writer.finish().await
}

async fn read(
    store: &dyn Store,
    key: &ObjectKey,
    range: std::ops::Range<u64>,
) -> Result<Vec<u8>, StoreError> {
    let blocks: Vec<Bytes> = store.read(key, range).await?.try_collect().await?;
    Ok(blocks.concat())
}

/// An error and its causes, as an operator reads them.
fn told(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn always(operation: &'static str, deed: Deed) -> impl Fn(&Call) -> Deed {
    move |call| if call.operation == operation { deed.clone() } else { Deed::Pass }
}

fn first(operation: &'static str, deed: Deed) -> impl Fn(&Call) -> Deed {
    move |call| if call.operation == operation && call.number == 0 { deed.clone() } else { Deed::Pass }
}

const SMALL: usize = 300_000;
const LARGE: usize = 2 * PART_BYTES as usize + 12_345;

// F13

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f13_a_storm_gets_at_most_a_tenth_more_requests() {
    const CALLS: usize = 2000;
    for percent in [10, 50, 100] {
        let server = S3sServer::start().await;
        let store = server.open().await;
        write(&store, &key(1), &pattern(1)).await.unwrap();
        server.mischief.set(move |call| match (call.number * 37) % 100 < percent {
            true => Deed::Refuse(503, "SlowDown"),
            false => Deed::Pass,
        });
        let failed = AtomicUsize::new(0);
        stream::iter(0..CALLS)
            .for_each_concurrent(64, async |_| match store.head(&key(1)).await {
                Ok(found) => assert!(found.is_some()),
                Err(error) => {
                    assert!(error.is_retryable(), "{}", told(&error));
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            })
            .await;
        let (requests, failed) = (server.mischief.all_calls().len(), failed.load(Ordering::Relaxed));
        println!("{percent} % SlowDown: {CALLS} calls, {requests} requests, {failed} failed");
        assert!(requests <= CALLS * 110 / 100, "{percent} %: {requests} requests");
        assert!(failed <= CALLS * percent / 100);

        // After it: no more than is asked for.
        server.mischief.set(|_| Deed::Pass);
        for _ in 0..100 {
            store.head(&key(1)).await.unwrap();
        }
        assert_eq!(server.mischief.all_calls().len(), 100);
    }
}

#[tokio::test]
async fn f13_a_disturbance_is_waited_out() {
    let server = S3sServer::start().await;
    for deed in
        [Deed::Refuse(503, "SlowDown"), Deed::Refuse(500, "InternalError"), Deed::Refuse(429, ""), Deed::Cut]
    {
        server.mischief.set(|_| Deed::Pass);
        // With its whole budget.
        let store = server.open().await;
        server.mischief.set({
            let deed = deed.clone();
            move |call| if call.number < 2 { deed.clone() } else { Deed::Pass }
        });
        let before = Instant::now();
        let bytes = pattern(SMALL);
        write(&store, &key(1), &bytes).await.unwrap();
        assert_eq!(read(&store, &key(1), 0..SMALL as u64).await.unwrap(), bytes);
        assert!(store.delete(&[key(1).path()]).await.pop().unwrap().1.is_ok());
        assert!(before.elapsed() < Duration::from_secs(10), "{deed:?}");
    }
}

// F14

#[tokio::test]
async fn f14_a_read_that_breaks_off_goes_on() {
    let server = S3sServer::start().await;
    let store = server.open().await;
    let bytes = pattern(SMALL);
    write(&store, &key(1), &bytes).await.unwrap();
    for at in [0, 1, 65_536, SMALL - 1] {
        server.mischief.set(first("GetObject", Deed::Truncate(at)));
        assert!(read(&store, &key(1), 0..SMALL as u64).await.unwrap() == bytes, "at {at}");
        assert_eq!(server.mischief.calls("GetObject"), 2);
        assert!(read(&store, &key(1), 7..SMALL as u64 - 9).await.unwrap() == bytes[7..SMALL - 9], "at {at}");
    }
    // Not for ever.
    server.mischief.set(always("GetObject", Deed::Truncate(0)));
    let error = read(&store, &key(1), 0..SMALL as u64).await.unwrap_err();
    assert!(error.is_retryable(), "{}", told(&error));
    assert_eq!(server.mischief.calls("GetObject"), 4);
}

#[tokio::test]
async fn f14_a_read_that_stalls_goes_on() {
    let server = S3sServer::start().await;
    let patience = S3Patience { stall: Duration::from_millis(500), ..hasty() };
    let store = S3::open(&server.place(""), &server.access(), patience).await.unwrap();
    let bytes = pattern(SMALL);
    write(&store, &key(1), &bytes).await.unwrap();
    server.mischief.set(first("GetObject", Deed::StallAfter(100_000)));
    assert!(read(&store, &key(1), 0..SMALL as u64).await.unwrap() == bytes);
    // A reader that takes its time is no stall.
    server.mischief.set(|_| Deed::Pass);
    let mut blocks = store.read(&key(1), 0..SMALL as u64).await.unwrap();
    let one = blocks.next().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let rest: Vec<Bytes> = blocks.try_collect().await.unwrap();
    assert_eq!(one.len() + rest.concat().len(), SMALL);
    assert_eq!(server.mischief.calls("GetObject"), 1);
}

#[tokio::test]
async fn f14_another_length_than_asked_for_is_an_error() {
    let server = S3sServer::start().await;
    let store = server.open().await;
    write(&store, &key(1), &pattern(SMALL)).await.unwrap();
    for deed in
        [Deed::Shorten(1), Deed::ContentRange("bytes 0-9/10"), Deed::ContentRange("bytes 1-300000/300001")]
    {
        server.mischief.set(always("GetObject", deed.clone()));
        let error = read(&store, &key(1), 0..SMALL as u64).await.unwrap_err();
        assert!(!matches!(error, StoreError::NotFound), "{deed:?}");
    }
}

#[tokio::test]
async fn f14_one_flipped_byte_on_the_way_out_is_seen() {
    let server = S3sServer::start().await;
    let store = server.open().await;
    let scratch = tempfile::tempdir().unwrap();
    for (number, length) in [(1, SMALL), (2, LARGE)] {
        let (key, bytes) = (key(number), pattern(length));
        write(&store, &key, &bytes).await.unwrap();
        for at in [0, length / 2, length - 1] {
            server.mischief.set(always("GetObject", Deed::FlipAnswer(at)));
            let error = read(&store, &key, 0..length as u64).await.unwrap_err();
            assert!(error.is_retryable() && told(&error).contains("checksum"), "{}", told(&error));
            // A file is fetched again, and is whole or is not there.
            let file = scratch.path().join("never");
            assert!(store.fetch(&key, &file).await.is_err());
            assert!(!file.exists());
            assert_eq!(server.mischief.calls("GetObject"), 4);
            server.mischief.set(first("GetObject", Deed::FlipAnswer(at)));
            let file = scratch.path().join(format!("{number}-{at}"));
            assert_eq!(store.fetch(&key, &file).await.unwrap(), length as u64);
            assert!(std::fs::read(&file).unwrap() == bytes);
        }
    }
}

#[tokio::test]
async fn f14_one_flipped_byte_on_the_way_in_is_seen_before_the_answer() {
    let server = S3sServer::start().await;
    let store = server.open().await;
    let scratch = tempfile::tempdir().unwrap();
    let cases = [(1, SMALL, "PutObject"), (2, LARGE, "UploadPart")];
    for (number, length, operation) in cases {
        let bytes = pattern(length);
        let file = scratch.path().join(operation);
        std::fs::write(&file, &bytes).unwrap();
        for by_file in [false, true] {
            let key = key(10 * number + u8::from(by_file));
            let write = async || match by_file {
                true => store.put_file(&key, &file).await,
                false => write(&store, &key, &bytes).await,
            };
            server.mischief.set(always(operation, Deed::FlipSent(1000)));
            let error = write().await.unwrap_err();
            assert!(error.is_retryable(), "{operation}: {}", told(&error));
            assert_eq!(store.head(&key).await.unwrap(), None, "nobody sees it");
            server.mischief.set(first(operation, Deed::FlipSent(1000)));
            assert_eq!(write().await.unwrap(), Stored { bytes: length as u64, crc64nvme: crc(&bytes) });
            assert!(read(&store, &key, 0..length as u64).await.unwrap() == bytes);
        }
    }
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_sent_is_refused() {
    let server = S3sServer::start().await;
    let store = server.open().await;
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    std::fs::write(&file, pattern(LARGE)).unwrap();
    let changed = file.clone();
    server.mischief.set(move |call| {
        if call.operation == "UploadPart" && call.number == 0 {
            let mut bytes = pattern(LARGE).to_vec();
            bytes.push(1);
            std::fs::write(&changed, bytes).unwrap();
        }
        Deed::Pass
    });
    assert!(store.put_file(&key(1), &file).await.is_err());
    assert_eq!(store.head(&key(1)).await.unwrap(), None);
}

// F15

#[tokio::test]
async fn f15_an_object_whose_answer_was_lost_is_recognised() {
    for (number, opaque) in [(1, false), (2, true)] {
        let server = S3sServer::start().await;
        if opaque {
            // Then its bytes are looked at.
            server.mischief.set(|_| Deed::OpaqueETag);
        }
        let patience = S3Patience { tries_max: 2, ..hasty() };
        let store = S3::open(&server.place(""), &server.access(), patience).await.unwrap();
        let other = move |call: &Call, operation, deed: Deed| match call.operation == operation {
            true => deed,
            false if opaque => Deed::OpaqueETag,
            false => Deed::Pass,
        };
        let cases = [
            (SMALL, "PutObject", Deed::CutAfter),
            (SMALL, "PutObject", Deed::RefuseAfter(500, "InternalError")),
            (LARGE, "CompleteMultipartUpload", Deed::CutAfter),
            (LARGE, "CompleteMultipartUpload", Deed::RefuseAfter(503, "SlowDown")),
            (LARGE, "CompleteMultipartUpload", Deed::BodyAfter(error_body("InternalError"))),
        ];
        for (case, (length, operation, deed)) in (0..).zip(cases) {
            let (key, bytes) = (key(10 * number + case), pattern(length));
            server.mischief.set({
                let deed = deed.clone();
                move |call| other(call, operation, deed.clone())
            });
            let stored = write(&store, &key, &bytes).await;
            let stored = stored.unwrap_or_else(|error| panic!("{operation} {deed:?}: {}", told(&error)));
            assert_eq!(stored, Stored { bytes: length as u64, crc64nvme: crc(&bytes) });
            server.mischief.set(|_| Deed::Pass);
            assert!(read(&store, &key, 0..length as u64).await.unwrap() == bytes);
        }
    }
}

fn error_body(code: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>We encountered an internal error.</Message></Error>"
    )
}

#[tokio::test]
async fn f15_an_object_that_is_not_there_or_is_another_is_not_recognised() {
    let server = S3sServer::start().await;
    let store = server.open().await;
    let cases = [
        (SMALL, "PutObject", Deed::Refuse(500, "InternalError")),
        (LARGE, "CompleteMultipartUpload", Deed::BodyInstead(error_body("InternalError"))),
        (LARGE, "CompleteMultipartUpload", Deed::Cut),
    ];
    for (number, (length, operation, deed)) in (1..).zip(cases) {
        let (key, bytes) = (key(number), pattern(length));
        server.mischief.set(always(operation, deed.clone()));
        let error = write(&store, &key, &bytes).await.unwrap_err();
        assert!(error.is_retryable(), "{operation} {deed:?}: {}", told(&error));
        assert_eq!(store.head(&key).await.unwrap(), None);
        // Somebody else's object of the same length.
        let (file, mut other) = (server.object_file(&key.path()), bytes.to_vec());
        other[length / 2] ^= 1;
        server.mischief.set(move |call| {
            if call.operation == operation {
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(&file, &other).unwrap();
            }
            if call.operation == operation { deed.clone() } else { Deed::Pass }
        });
        let error = write(&store, &key, &bytes).await.unwrap_err();
        assert!(error.is_retryable(), "{operation}: {}", told(&error));
    }
}

#[tokio::test]
async fn f15_a_length_that_is_not_what_was_sent_is_an_error() {
    let server = S3sServer::start().await;
    let store = server.open().await;
    let file = server.object_file(&key(1).path());
    server.mischief.set(move |call| {
        // Before the look that follows the PUT.
        if call.operation == "HeadObject" && call.number == 1 {
            std::fs::write(&file, "short").unwrap();
        }
        Deed::Pass
    });
    let error = write(&store, &key(1), &pattern(SMALL)).await.unwrap_err();
    assert!(error.is_retryable() && told(&error).contains("has 5 bytes"), "{}", told(&error));
}

// F16

#[tokio::test]
async fn f16_a_listing_is_whole_or_an_error() {
    let server = S3sServer::start().await;
    let store = server.open().await;
    for number in 1..=3 {
        write(&store, &key(number), &pattern(1)).await.unwrap();
    }
    let more = Deed::Replace("<IsTruncated>false", "<IsTruncated>true");
    let pages = |then: Deed| {
        let more = more.clone();
        move |call: &Call| match call.number {
            0 => more.clone(),
            _ => then.clone(),
        }
    };
    // The second page fails, for longer than it is tried.
    server.mischief.set(pages(Deed::Refuse(500, "InternalError")));
    assert!(store.list("videos/", None, 1000).await.unwrap_err().is_retryable());
    assert_eq!(server.mischief.calls("ListObjectsV2"), 1 + 4);
    server.mischief.set(pages(Deed::Truncate(50)));
    assert!(store.list("videos/", None, 1000).await.is_err());
    // "There is more" without anything more would go on for ever.
    server.mischief.set(pages(more.clone()));
    assert!(store.list("videos/", None, 1000).await.is_err());
    // A page that begins anew, out of order, or elsewhere.
    let last = format!("<Key>{}", key(3).path());
    let last: &'static str = Box::leak(last.into_boxed_str());
    for nonsense in ["<Key>videos/0", "<Key>elsewhere"] {
        server.mischief.set(always("ListObjectsV2", Deed::Replace(last, nonsense)));
        assert!(store.list("videos/", None, 1000).await.is_err(), "{nonsense}");
    }
    server.mischief.set(pages(Deed::Pass));
    assert_eq!(store.list("videos/", None, 1000).await.unwrap().objects.len(), 3);
}

// F17

#[tokio::test]
async fn f17_a_batch_that_partly_failed_is_finished_key_by_key() {
    let server = S3sServer::start().await;
    let store = server.open().await;
    let paths: Vec<String> = (1..=3).map(|number| key(number).path()).collect();
    let put = async || {
        for number in 1..=3 {
            let _ = write(&store, &key(number), &pattern(1)).await;
        }
    };
    put().await;
    let partly = format!(
        "<DeleteResult><Error><Key>{}</Key><Code>InternalError</Code><Message>later</Message></Error>\
         <Error><Key>{}</Key><Code>NoSuchKey</Code><Message>gone</Message></Error></DeleteResult>",
        paths[0], paths[1],
    );
    server.mischief.set({
        let failed = paths[0].clone();
        move |call| match call.operation {
            "DeleteObjects" => Deed::BodyInstead(partly.clone()),
            // 500, and then 404 because it was done all the same.
            "DeleteObject" if call.target.contains(&failed) => match call.number {
                0 | 1 => Deed::RefuseAfter(500, "InternalError"),
                _ => Deed::Refuse(404, "NoSuchKey"),
            },
            _ => Deed::Pass,
        }
    });
    let answers = store.delete(&paths).await;
    assert!(answers.iter().all(|(_, result)| result.is_ok()), "{answers:?}");
    assert_eq!(answers.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>(), paths);
    // The one that failed and the one that was not spoken of; the one that is gone is gone.
    assert_eq!(server.mischief.calls("DeleteObjects"), 1);
    assert!(!server.object_file(&paths[0]).exists() && !server.object_file(&paths[2]).exists());

    // One key stays whatever is done: it alone is an error.
    put().await;
    server.mischief.set({
        let stays = paths[1].clone();
        move |call| match call.operation {
            "DeleteObjects" => Deed::Refuse(501, "NotImplemented"),
            "DeleteObject" if call.target.contains(&stays) => Deed::Refuse(500, "InternalError"),
            _ => Deed::Pass,
        }
    });
    let answers = store.delete(&paths).await;
    let failed: Vec<&str> =
        answers.iter().filter(|(_, result)| result.is_err()).map(|(path, _)| &**path).collect();
    assert_eq!(failed, [&paths[1]]);
    assert!(answers[1].1.as_ref().unwrap_err().is_retryable());
    // A server without batches is not asked for them again.
    store.delete(&paths).await;
    assert_eq!(server.mischief.calls("DeleteObjects"), 1);
}

#[tokio::test]
async fn f17_a_batch_that_nobody_answers_is_not_made_a_thousand_calls() {
    let server = S3sServer::start().await;
    let store = server.open().await;
    let paths: Vec<String> = (0..1500).map(|number| format!("videos/{number}")).collect();
    server.mischief.set(|_| Deed::Refuse(503, "SlowDown"));
    let answers = store.delete(&paths).await;
    assert_eq!(answers.len(), 1500);
    assert!(answers.iter().all(|(_, result)| result.as_ref().is_err_and(StoreError::is_retryable)));
    assert_eq!(server.mischief.calls("DeleteObject"), 0);
    assert!(server.mischief.calls("DeleteObjects") <= 8, "two batches, four tries each");
    server.mischief.set(|_| Deed::Pass);
    assert!(store.delete(&paths).await.iter().all(|(_, result)| result.is_ok()));
    assert_eq!(server.mischief.all_calls().len(), 2);
}

// F18

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f18_a_part_that_stalls_times_out_and_holds_up_nobody_else() {
    let server = S3sServer::start().await;
    let patience = S3Patience {
        answer: Duration::from_secs(2),
        stall: Duration::from_secs(2),
        send_bytes_per_s_min: PART_BYTES,
        ..hasty()
    };
    let store = Arc::new(S3::open(&server.place(""), &server.access(), patience).await.unwrap());
    // One upload's first part is never read, once.
    server.mischief.set(first("UploadPart", Deed::Stall));
    let bytes = pattern(LARGE);
    let stalled = tokio::spawn({
        let (store, bytes) = (store.clone(), bytes.clone());
        async move { write(&*store, &key(1), &bytes).await }
    });
    while server.mischief.stalled.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let before = Instant::now();
    for number in 2..6 {
        write(&*store, &key(number), &bytes).await.unwrap();
    }
    println!("four uploads beside a stalled one: {:?}", before.elapsed());
    assert_eq!(stalled.await.unwrap().unwrap().crc64nvme, crc(&bytes));
    assert!(before.elapsed() < Duration::from_secs(20));

    // A part that stalls for ever fails its upload in bounded time, and leaves nothing to be seen.
    let patience = S3Patience { tries_max: 2, ..patience };
    let store = S3::open(&server.place(""), &server.access(), patience).await.unwrap();
    server.mischief.set(always("UploadPart", Deed::Stall));
    let before = Instant::now();
    let error = write(&store, &key(9), &bytes).await.unwrap_err();
    assert!(error.is_retryable(), "{}", told(&error));
    assert!(before.elapsed() < Duration::from_secs(15), "{:?}", before.elapsed());
    assert_eq!(store.head(&key(9)).await.unwrap(), None);
}

#[tokio::test]
async fn a_writer_that_lost_a_part_never_finishes() {
    let server = S3sServer::start().await;
    let store = server.open().await;
    server.mischief.set(first("UploadPart", Deed::Refuse(403, "AccessDenied")));
    let mut writer = store.create(&key(1)).await.unwrap();
    let bytes = pattern(LARGE);
    // The part is on its way when the first write returns.
    writer.write(bytes.clone()).await.unwrap();
    assert!(writer.write(bytes.clone()).await.is_err());
    assert!(writer.write(bytes).await.is_err());
    assert!(writer.finish().await.is_err());
    assert_eq!(store.head(&key(1)).await.unwrap(), None);
}

#[tokio::test]
async fn what_went_wrong_can_be_read() {
    let server = S3sServer::start().await;
    let store = server.open().await;
    server.mischief.set(|_| Deed::Refuse(403, "AccessDenied"));
    let error = store.read(&key(1), 0..1).await.err().unwrap();
    assert!(matches!(error, StoreError::Permanent(_)));
    assert_eq!(
        told(&error),
        format!("the store failed: GetObject {}: 403 AccessDenied: as the test wants", key(1).path())
    );
    server.mischief.set(|_| Deed::Refuse(507, "XMinioStorageFull"));
    assert!(matches!(store.probe().await, Err(StoreError::OutOfSpace)));
    server.mischief.set(|_| Deed::Cut);
    let error = store.head(&key(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Transient(_)));
    println!("{}", told(&error));
}

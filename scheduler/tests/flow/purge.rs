use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use domain::{ObjectFile, ObjectKey, VideoState};
use store::{Faulty, Memory, Weather};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use crate::world::World;

/// A purge waits for it, so that a test does too.
const UPLOAD_LEASE_S: i64 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_video_leaves_a_receipt_and_nothing_else() {
    let mut world = World::new().await;
    // Only the purge removes anything here.
    world.config.jobs.sweep_s = 3600;
    let at_work = world.start();
    let video = world.upload("chunks=2").await;
    world.until_drawn(video).await;
    let stored = world.objects_of(video).await;
    let deletion = world.delete(video).await;
    let done = world.until_purged(&deletion).await;
    let receipt = done.receipt.unwrap();
    assert_eq!(receipt.objects_deleted, stored.len() as u64);
    assert!(receipt.bytes_freed > 0 && receipt.swept_at >= deletion.due_at);
    assert!(world.objects_of(video).await.is_empty());
    assert!(world.catalog.jobs(None, None, None, 10).await.unwrap().is_empty());
    at_work.stop().await;
    world.check().await;
}

/// The writer does not know of the tombstone before its lease ends, and its last object arrives after the first sweep.
/// The second one takes it: nothing has to fail first and be tried again.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_upload_writes_after_the_tombstone_is_swept_too() {
    let mut world = World::new().await;
    let memory = Memory::new();
    world.store = Arc::new(memory.clone());
    let video = world.create().await;
    let held_until = world.clock.now().plus_s(UPLOAD_LEASE_S);
    let attempt = world.write_source(video, "words", UPLOAD_LEASE_S).await;
    let deletion = world.delete(video).await;
    let (writer, listings) = (world.clone(), AtomicUsize::new(0));
    world.store = Arc::new(Faulty::chosen(memory, move |call| {
        // The first sweep lists what is there, then that nothing is.
        if call == "list" && listings.fetch_add(1, Ordering::Relaxed) == 2 {
            let late = ObjectKey { video, attempt, file: ObjectFile::SharedAudio };
            block_in_place(|| Handle::current().block_on(writer.put(&late, "late")));
        }
        None
    }));
    let at_work = world.start();
    let done = world.until_purged(&deletion).await;
    let receipt = done.receipt.unwrap();
    assert_eq!((done.attempts, receipt.objects_deleted), (1, 2));
    assert!(receipt.swept_at >= held_until, "{receipt:?}: it could still write, until {held_until:?}");
    assert!(world.objects_of(video).await.is_empty());
    at_work.stop().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_goes_on_through_bad_weather_and_counts_once() {
    let mut world = World::new().await;
    let memory = Memory::new();
    world.store = Arc::new(memory.clone());
    let video = world.upload("").await;
    let at_work = world.start();
    world.until_drawn(video).await;
    at_work.stop().await;
    let stored = world.objects_of(video).await;
    let weather = Weather { fails_before: 0.3, ..Weather::default() };
    world.store = Arc::new(Faulty::new(memory, 11, weather));
    let deletion = world.delete(video).await;
    let at_work = world.start();
    let done = world.until_purged(&deletion).await;
    // Also what was removed in a batch that failed half-way.
    assert_eq!(done.receipt.unwrap().objects_deleted, stored.len() as u64);
    at_work.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_writer_left_unfinished_goes_with_the_video() {
    let mut world = World::new().await;
    // Only the purge removes anything here.
    world.config.jobs.sweep_s = 3600;
    let at_work = world.start();
    let (video, other) = (world.upload("").await, world.upload("").await);
    world.until(video, VideoState::Ready).await;
    world.until(other, VideoState::Ready).await;
    let mut writers = Vec::new();
    for video in [video, other] {
        let key = ObjectKey { video, attempt: world.ids.next(world.clock.now()), file: ObjectFile::Source };
        let mut writer = world.store.create(&key).await.unwrap();
        writer.write(bytes::Bytes::from_static(b"half")).await.unwrap();
        writers.push(writer);
    }
    let deletion = world.delete(video).await;
    world.until_purged(&deletion).await;
    let left = world.store.list_unfinished(None, 10).await.unwrap();
    assert!(left.len() == 1 && left[0].name.contains(&other.to_string()), "{left:?}");
    at_work.stop().await;
    drop(writers);
}

/// Nobody waits for a heartbeat to find it out.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_works_on_a_video_that_is_deleted_here_stops_at_once() {
    let mut world = World::new().await;
    (world.config.jobs.heartbeat_s, world.config.jobs.lease_s) = (600, 1800);
    let at_work = world.start();
    let video = world.upload("hang").await;
    // It was shown, and nothing new is to be told.
    let shown = |jobs: &[sql::JobRow]| jobs.iter().any(|job| job.progress > 0.0);
    world.until_jobs("the ingest tells how far it is", shown).await;
    let deletion = world.delete(video).await;
    world.until_purged(&deletion).await;
    at_work.stop().await;
    world.check().await;
}

use std::sync::Arc;

use domain::{JobKind, ObjectKey, VideoState};
use sql::Claim;
use store::Memory;

use crate::stubborn::{Door, Stubborn};
use crate::world::{World, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_nobody_finishes_goes_and_its_video_can_still_be_uploaded() {
    let mut world = World::new().await;
    world.config.jobs.sweep_s = 1;
    world.config.jobs.lease_s = 2;
    let video = world.create().await;
    let attempt = world.write_source(video, "half", 1).await;
    let at_work = world.start();
    let forgotten = async || world.catalog.attempt(attempt).await.unwrap().is_none().then_some(());
    eventually(forgotten, || "the attempt is forgotten".to_owned()).await;
    assert!(world.objects_of(video).await.is_empty());
    assert_eq!(world.seen(video).await.state, VideoState::AwaitingUpload);
    at_work.stop().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumable_upload_nobody_goes_on_with_goes_piece_by_piece() {
    let mut world = World::new().await;
    world.config.jobs.sweep_s = 1;
    world.config.jobs.lease_s = 2;
    let (video, other) = (world.create().await, world.create().await);
    let soon = world.clock.now().plus_s(1);
    let (late, kept) =
        (world.write_pieces(video, soon).await, world.write_pieces(other, soon.plus_s(3600)).await);
    world.check().await;
    let at_work = world.start();
    for piece in late {
        let forgotten = async || world.catalog.attempt(piece).await.unwrap().is_none().then_some(());
        eventually(forgotten, || "the piece is forgotten".to_owned()).await;
    }
    assert!(world.objects_of(video).await.is_empty());
    assert_eq!(world.objects_of(other).await.len(), kept.len());
    at_work.stop().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_go_once_they_are_joined_and_the_wait_for_an_upload_ends() {
    let mut world = World::new().await;
    world.config.jobs.sweep_s = 1;
    let idle = world.create_at(world.clock.now().plus_s(-2 * 86_400)).await;
    let at_work = world.start();
    let video = world.upload("chunks=2 audio").await;
    world.until(video, VideoState::Ready).await;
    let swept = async || {
        let stored = world.objects_of(video).await;
        (!stored.iter().any(|path| path.contains("chunk"))).then_some(())
    };
    eventually(swept, || "the chunks are gone".to_owned()).await;
    world.until(idle, VideoState::Expired).await;
    at_work.stop().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_removed_holds_up_nothing_else() {
    let mut world = World::new().await;
    world.config.jobs.sweep_s = 1;
    world.config.jobs.lease_s = 2;
    let memory = Memory::new();
    world.store = Arc::new(memory.clone());
    let (stuck, other) = (world.create().await, world.create().await);
    let kept = world.write_source(stuck, "half", 1).await;
    let swept = world.write_source(other, "half", 1).await;
    let keeps = Some(ObjectKey::attempt_prefix(stuck, kept));
    world.store = Arc::new(Stubborn { inner: memory, keeps, door: Door::open() });
    let at_work = world.start();
    let forgotten = async || world.catalog.attempt(swept).await.unwrap().is_none().then_some(());
    eventually(forgotten, || "the other attempt is forgotten".to_owned()).await;
    assert!(world.objects_of(other).await.is_empty());
    assert_eq!(world.objects_of(stuck).await.len(), 1);
    assert!(world.catalog.attempt(kept).await.unwrap().is_some(), "its object is still explained");
    at_work.stop().await;
    world.check().await;
}

/// The process stood still for so long that others took the job and swept what it had begun, and its last write
/// arrives after all that. Nobody would look for it: there is no row of it any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_after_the_sweep_is_cleared_away() {
    let mut world = World::new().await;
    let memory = Memory::new();
    world.store = Arc::new(memory.clone());
    let video = world.upload("").await;
    let store = Arc::new(Stubborn { inner: memory, keeps: None, door: Door::closed() });
    world.store = store.clone();
    let at_work = world.start();
    store.door.waiting.acquire().await.unwrap().forget();

    let later = world.clock.now().plus_s(3600);
    let claim = Claim {
        kinds: &[JobKind::Ingest],
        worker: "other",
        lease_ms: 1000,
        attempts_max: 9,
        left_to_others_ms: 0,
        limit: 1,
    };
    let taken = world.catalog.claim_jobs(&claim, later).await.unwrap();
    assert_eq!(taken.len(), 1);
    let stale = world.catalog.stale_attempts(later, -1, 10).await.unwrap();
    assert_eq!(stale.len(), 1, "nothing was stored under it yet: {stale:?}");
    world.catalog.forget_attempt(stale[0].1).await.unwrap();
    let dropped = async || world.scratch_files().is_empty().then_some(());
    eventually(dropped, || "the run is dropped".to_owned()).await;

    store.door.open.add_permits(100);
    at_work.stop().await;
    assert_eq!(world.objects_of(video).await.len(), 1, "the source alone");
    world.check().await;
}

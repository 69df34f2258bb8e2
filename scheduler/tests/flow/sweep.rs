use std::sync::Arc;

use domain::{ObjectKey, VideoState};
use store::Memory;

use crate::stubborn::Stubborn;
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
    world.store = Arc::new(Stubborn { inner: memory, keeps: ObjectKey::attempt_prefix(stuck, kept) });
    let at_work = world.start();
    let forgotten = async || world.catalog.attempt(swept).await.unwrap().is_none().then_some(());
    eventually(forgotten, || "the other attempt is forgotten".to_owned()).await;
    assert!(world.objects_of(other).await.is_empty());
    assert_eq!(world.objects_of(stuck).await.len(), 1);
    assert!(world.catalog.attempt(kept).await.unwrap().is_some(), "its object is still explained");
    at_work.stop().await;
    world.check().await;
}

use domain::{JobKind, VideoState};
use sql::{BeginUpload, CompleteUpload, NewUpload};

use crate::both;
use crate::world::{LEASE_MS, World};

both!(of_two_uploads_one_wins_and_the_answer_can_be_asked_for_again);
async fn of_two_uploads_one_wins_and_the_answer_can_be_asked_for_again(mut world: World) {
    let video = world.video().await;
    let (first, second) = (world.begin_upload(video).await, world.begin_upload(video).await);
    let (first, second) = (world.upload(video, first), world.upload(video, second));
    let complete = |upload| {
        let (catalog, now) = (world.catalog.clone(), world.now);
        async move { catalog.complete_upload(upload, now).await.unwrap() }
    };
    assert_eq!(complete(&first).await, CompleteUpload::Completed);
    assert_eq!(complete(&first).await, CompleteUpload::Completed);
    assert_eq!(complete(&second).await, CompleteUpload::AlreadyUploaded);
    let seen = world.seen(video).await;
    assert_eq!((seen.state, seen.source_bytes), (VideoState::Uploaded, Some(1000)));
    let source = world.catalog.source(video).await.unwrap().unwrap();
    assert_eq!(source.attempt, first.attempt);
    let objects = world.catalog.objects_after(None, 10).await.unwrap();
    assert_eq!(objects.len(), 1);
    assert_eq!(objects[0].crc64nvme, Some(u64::MAX - 1), "all 64 bits survive");
    assert_eq!(world.claim_all(&[JobKind::Ingest]).await.len(), 1, "one ingest job");
    let attempt = world.id();
    let begun = world
        .catalog
        .begin_upload(&NewUpload::unbounded(attempt, video, world.now), world.now)
        .await
        .unwrap();
    assert_eq!(begun, BeginUpload::AlreadyUploaded);
    world.check().await;
}

both!(an_upload_that_stopped_answering_is_swept_and_cannot_commit);
async fn an_upload_that_stopped_answering_is_swept_and_cannot_commit(mut world: World) {
    let video = world.video().await;
    let attempt = world.begin_upload(video).await;
    assert!(world.catalog.extend_upload(attempt, 0, world.now.plus_ms(2 * LEASE_MS)).await.unwrap());
    world.advance_ms(LEASE_MS + 1);
    assert!(world.catalog.stale_attempts(world.now, 0, 10).await.unwrap().is_empty(), "its lease runs on");
    world.advance_ms(LEASE_MS);
    assert!(world.catalog.stale_attempts(world.now, LEASE_MS, 10).await.unwrap().is_empty(), "the grace");
    let upload = world.upload(video, attempt);
    let late = world.catalog.complete_upload(&upload, world.now).await.unwrap();
    assert_eq!(late, CompleteUpload::Gone);
    assert!(!world.catalog.extend_upload(attempt, 0, world.now.plus_ms(LEASE_MS)).await.unwrap());
    world.advance_ms(LEASE_MS + 1);
    let stale = world.catalog.stale_attempts(world.now, LEASE_MS, 10).await.unwrap();
    assert_eq!(stale, [(video, attempt)]);
    world.catalog.forget_attempt(attempt).await.unwrap();
    assert!(world.catalog.attempt(attempt).await.unwrap().is_none());
    assert_eq!(world.seen(video).await.state, VideoState::AwaitingUpload);
    world.check().await;
}

both!(an_abandoned_upload_is_swept);
async fn an_abandoned_upload_is_swept(mut world: World) {
    let video = world.video().await;
    let attempt = world.begin_upload(video).await;
    world.catalog.abandon_upload(attempt, world.now).await.unwrap();
    let stale = world.catalog.stale_attempts(world.now.plus_ms(1), 0, 10).await.unwrap();
    assert_eq!(stale, [(video, attempt)]);
}

both!(a_wait_for_an_upload_ends_unless_one_is_being_written);
async fn a_wait_for_an_upload_ends_unless_one_is_being_written(mut world: World) {
    let (idle, busy) = (world.video().await, world.video().await);
    world.advance_ms(86_400_000);
    let attempt = world.begin_upload(busy).await;
    assert_eq!(world.catalog.expire_videos(world.now, world.now).await.unwrap(), 1);
    assert_eq!(world.seen(idle).await.state, VideoState::Expired);
    assert_eq!(world.seen(busy).await.state, VideoState::AwaitingUpload);
    let attempt_late = world.id();
    let begun = world
        .catalog
        .begin_upload(&NewUpload::unbounded(attempt_late, idle, world.now), world.now)
        .await
        .unwrap();
    assert_eq!(begun, BeginUpload::NotFound);
    let upload = world.upload(busy, attempt);
    assert_eq!(world.catalog.complete_upload(&upload, world.now).await.unwrap(), CompleteUpload::Completed);
    world.check().await;
}

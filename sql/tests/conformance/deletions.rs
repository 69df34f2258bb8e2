use domain::{DeletionState, JobKind, JobState, Receipt, Timestamp, VideoId};
use sql::{
    BeginUpload, CancelDeletion, CompleteUpload, DeleteVideo, Deletion, FencedError, NewDeletion, NewUpload,
    RetryJob,
};

use crate::both;
use crate::world::{LEASE_MS, World};

async fn delete_at(world: &mut World, video: VideoId, due_at: Timestamp) -> Deletion {
    let new =
        NewDeletion { video, requested_by: "admin".to_owned(), due_at, id: world.id(), job: world.id() };
    match world.catalog.delete_video(&new, world.now).await.unwrap() {
        DeleteVideo::Accepted(deletion) => deletion,
        DeleteVideo::NotFound => panic!("the video was there"),
    }
}

async fn delete(world: &mut World, video: VideoId) -> Deletion {
    let now = world.now;
    delete_at(world, video, now).await
}

async fn purge(world: &mut World) {
    let lease = world.claim(JobKind::Purge).await;
    let mut purge = world.catalog.start_purge(&lease, world.now).await.unwrap();
    for _ in 0..3 {
        (purge.objects_deleted, purge.bytes_freed) = (purge.objects_deleted + 1, purge.bytes_freed + 10);
        // Twice, as when an answer is lost.
        world.catalog.note_purged(&lease, &purge).await.unwrap();
        world.catalog.note_purged(&lease, &purge).await.unwrap();
    }
    world.catalog.finish_purge(&lease, world.now, world.now).await.unwrap();
}

both!(in_every_state_a_deleted_video_is_gone_at_once_and_then_for_good);
async fn in_every_state_a_deleted_video_is_gone_at_once_and_then_for_good(mut world: World) {
    let awaiting = world.video().await;
    let ready = world.ready().await;
    let playable = world.playable(2).await;
    let uploaded = world.uploaded().await;
    for video in [awaiting, uploaded, playable, ready] {
        let deletion = delete(&mut world, video).await;
        assert!(world.catalog.video(video, world.now).await.unwrap().is_none());
        assert!(world.catalog.watchable(video, world.now).await.unwrap().is_none());
        let again = NewDeletion {
            video,
            requested_by: String::new(),
            due_at: world.now,
            id: world.id(),
            job: world.id(),
        };
        let again = world.catalog.delete_video(&again, world.now).await.unwrap();
        assert!(matches!(again, DeleteVideo::NotFound));
        world.check().await;
        purge(&mut world).await;
        let done = world.catalog.deletion(deletion.id).await.unwrap().unwrap();
        assert_eq!((done.state, done.attempts), (DeletionState::Done, 1));
        assert_eq!(
            done.receipt.unwrap(),
            Receipt { objects_deleted: 3, bytes_freed: 30, swept_at: world.now }
        );
    }
    assert!(world.catalog.objects_after(None, 10).await.unwrap().is_empty());
    assert!(world.catalog.jobs(None, None, None, 10).await.unwrap().is_empty());
    world.check().await;
}

both!(a_running_transcode_cannot_commit_after_the_tombstone);
async fn a_running_transcode_cannot_commit_after_the_tombstone(mut world: World) {
    let video = world.playable(2).await;
    let leases = world.claim_all(&[JobKind::Encode]).await;
    delete(&mut world, video).await;
    assert!(matches!(world.encode(&leases[0], 0).await, Err(FencedError::LeaseLost)));
    let until = world.now.plus_ms(LEASE_MS);
    let beat = world.catalog.heartbeat(&leases[1], None, until, world.now).await;
    assert!(matches!(beat, Err(FencedError::LeaseLost)));
    let lease = world.claim(JobKind::Purge).await;
    world.catalog.start_purge(&lease, world.now).await.unwrap();
    for writer in &leases {
        let until = world.catalog.writers_until(video, world.now).await.unwrap();
        assert_eq!(until, Some(writer.lease_until), "it may still be writing");
        world.catalog.stop_writing(writer).await.unwrap();
    }
    assert_eq!(world.catalog.writers_until(video, world.now).await.unwrap(), None);
}

both!(the_tombstone_ends_every_attempt);
/// A purge that is cut short leaves rows of objects that are gone; a check must be able to tell.
async fn the_tombstone_ends_every_attempt(mut world: World) {
    let video = world.ready().await;
    delete(&mut world, video).await;
    for object in world.catalog.objects_after(None, 100).await.unwrap() {
        let attempt = world.catalog.attempt(object.key.attempt).await.unwrap().unwrap();
        assert_eq!(attempt.state, sql::AttemptState::Retired, "{:?}", object.key);
    }
    world.check().await;
}

both!(an_upload_under_way_ends_with_its_video);
async fn an_upload_under_way_ends_with_its_video(mut world: World) {
    let video = world.video().await;
    let attempt = world.begin_upload(video).await;
    delete(&mut world, video).await;
    assert!(!world.catalog.extend_upload(attempt, 0, world.now.plus_s(99)).await.unwrap());
    let upload = world.upload(video, attempt);
    assert_eq!(world.catalog.complete_upload(&upload, world.now).await.unwrap(), CompleteUpload::Gone);
    let late = world.id();
    let begun =
        world.catalog.begin_upload(&NewUpload::unbounded(late, video, world.now), world.now).await.unwrap();
    assert_eq!(begun, BeginUpload::NotFound);
    let lease = world.claim(JobKind::Purge).await;
    world.catalog.start_purge(&lease, world.now).await.unwrap();
    let until = world.catalog.writers_until(video, world.now).await.unwrap();
    assert_eq!(until, Some(world.now.plus_ms(LEASE_MS)));
    world.catalog.abandon_upload(attempt, world.now).await.unwrap();
    assert_eq!(world.catalog.writers_until(video, world.now).await.unwrap(), None);
    assert!(
        world.catalog.stale_attempts(world.now.plus_s(99), 0, 10).await.unwrap().is_empty(),
        "the purge counts what the sweeper would take"
    );
}

both!(until_it_is_due_the_video_stays_and_the_deletion_can_be_cancelled);
async fn until_it_is_due_the_video_stays_and_the_deletion_can_be_cancelled(mut world: World) {
    let video = world.ready().await;
    let due_at = world.now.plus_s(60);
    let deletion = delete_at(&mut world, video, due_at).await;
    assert_eq!(deletion.state, DeletionState::Scheduled);
    assert_eq!(world.seen(video).await.gone_at, Some(due_at));
    assert!(world.claim_all(&[JobKind::Purge]).await.is_empty());
    let cancelled = world.catalog.cancel_deletion(deletion.id, world.now).await.unwrap();
    assert_eq!(cancelled, CancelDeletion::Cancelled);
    assert_eq!(world.seen(video).await.gone_at, None);
    let twice = world.catalog.cancel_deletion(deletion.id, world.now).await.unwrap();
    assert_eq!(twice, CancelDeletion::TooLate);
    let nothing = world.id();
    let unknown = world.catalog.cancel_deletion(nothing, world.now).await.unwrap();
    assert_eq!(unknown, CancelDeletion::NotFound);
    world.advance_ms(60_000);
    assert!(world.claim_all(&[JobKind::Purge]).await.is_empty());
    world.check().await;

    let due_at = world.now.plus_s(60);
    let deletion = delete_at(&mut world, video, due_at).await;
    world.advance_ms(60_000);
    assert!(world.catalog.video(video, world.now).await.unwrap().is_none(), "before any job ran");
    let late = world.catalog.cancel_deletion(deletion.id, world.now).await.unwrap();
    assert_eq!(late, CancelDeletion::TooLate);
    purge(&mut world).await;
    world.check().await;
}

both!(the_last_accepted_time_wins);
async fn the_last_accepted_time_wins(mut world: World) {
    let video = world.ready().await;
    let (hour, minute) = (world.now.plus_s(3600), world.now.plus_s(60));
    let first = delete_at(&mut world, video, hour).await;
    let second = delete_at(&mut world, video, minute).await;
    assert_eq!((second.id, second.due_at), (first.id, minute));
    let third = delete(&mut world, video).await;
    assert_eq!(third.id, first.id);
    assert!(world.catalog.video(video, world.now).await.unwrap().is_none());
    purge(&mut world).await;
    let all = world.catalog.deletions(Some(DeletionState::Done), None, 10).await.unwrap();
    assert_eq!(all.len(), 1);
    world.check().await;
}

both!(a_dead_job_of_a_deleted_video_stays_dead);
async fn a_dead_job_of_a_deleted_video_stays_dead(mut world: World) {
    let video = world.uploaded().await;
    let lease = world.claim(JobKind::Ingest).await;
    world.catalog.fail_job(&lease, "poison", None, world.now).await.unwrap();
    delete(&mut world, video).await;
    let retried = world.catalog.retry_job(lease.job.id, world.now).await.unwrap();
    assert_eq!(retried, RetryJob::NotFound);
    assert!(world.claim_all(&[JobKind::Ingest]).await.is_empty());
    world.check().await;
}

both!(a_purge_that_gave_up_can_be_called_back);
async fn a_purge_that_gave_up_can_be_called_back(mut world: World) {
    let video = world.ready().await;
    let deletion = delete(&mut world, video).await;
    let lease = world.claim(JobKind::Purge).await;
    let mut purged = world.catalog.start_purge(&lease, world.now).await.unwrap();
    purged.objects_deleted = 1;
    world.catalog.note_purged(&lease, &purged).await.unwrap();
    world.catalog.fail_job(&lease, "the store is gone", None, world.now).await.unwrap();
    let failed = world.catalog.deletion(deletion.id).await.unwrap().unwrap();
    assert_eq!(failed.state, DeletionState::Failed);
    assert!(world.catalog.video(video, world.now).await.unwrap().is_none());
    let dead = world.catalog.jobs(Some(JobKind::Purge), Some(JobState::Dead), None, 10).await.unwrap();
    assert_eq!(world.catalog.retry_job(dead[0].id, world.now).await.unwrap(), RetryJob::Retried);
    purge(&mut world).await;
    let done = world.catalog.deletion(deletion.id).await.unwrap().unwrap();
    assert_eq!((done.state, done.attempts), (DeletionState::Done, 2));
    assert_eq!(done.receipt.unwrap().objects_deleted, 1 + 3, "it goes on counting");
    world.check().await;
}

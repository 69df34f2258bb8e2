//! Until when an upload lives, and what is left of it.

use domain::{JobKind, UploadKind, UploadState, VideoState};
use sql::{
    Acquire, AttemptState, CommitPieces, CompleteResumable, CompleteUpload, CompletedUpload, CreateFinal,
    CreateResumable,
};

use super::{
    EXPIRES_MS, acquire, ask, attempts, begin, begin_as, commit, complete, create, create_final, delete,
    done, find, hear, new, put, put_partial, release, stale, state_of,
};
use crate::both;
use crate::world::{LEASE_MS, World};

both!(an_upload_lives_as_long_as_somebody_goes_on_with_it);
async fn an_upload_lives_as_long_as_somebody_goes_on_with_it(mut world: World) {
    let video = world.video().await;
    let id = create(&mut world, video, UploadKind::Whole, Some(100)).await;
    let piece = put(&mut world, id, 10).await;
    let sweep = async |world: &World| {
        let kept_ms = 7 * EXPIRES_MS;
        world.catalog.sweep_resumables(world.now.plus_ms(-kept_ms), world.now).await.unwrap()
    };
    // Each of a question, a taking hold and a commit moves its end.
    for round in 0..3 {
        world.advance_ms(EXPIRES_MS - 1);
        assert_eq!(sweep(&world).await, 0, "round {round}");
        match round {
            0 => world.catalog.touch_resumable(id, world.now.plus_ms(EXPIRES_MS), world.now).await.unwrap(),
            1 => release(&world, id, acquire(&world, id).await.0).await,
            _ => {
                let (token, _) = acquire(&world, id).await;
                world.advance_ms(5);
                commit(&world, id, token, &[]).await;
                release(&world, id, token).await;
            }
        }
        assert_eq!(find(&world, id).await.expires_at, world.now.plus_ms(EXPIRES_MS), "round {round}");
    }
    assert_eq!(world.catalog.expire_videos(world.now, world.now).await.unwrap(), 0, "it is being uploaded");
    // A shorter time than was promised before takes nothing away.
    world.catalog.touch_resumable(id, world.now.plus_ms(1), world.now).await.unwrap();
    assert_eq!(find(&world, id).await.expires_at, world.now.plus_ms(EXPIRES_MS));

    let (token, pieces) = acquire(&world, id).await;
    assert_eq!(pieces[0], piece);
    world.advance_ms(EXPIRES_MS);
    assert_eq!(find(&world, id).await.state, UploadState::Expired, "with or without a sweeper");
    assert_eq!(ask(&world, id, true).await, Acquire::Ended(UploadState::Expired));
    let later = world.now.plus_ms(EXPIRES_MS);
    world.catalog.touch_resumable(id, later, world.now).await.unwrap();
    assert_eq!(find(&world, id).await.state, UploadState::Expired, "what ended stays so");
    assert_eq!(world.catalog.expire_videos(world.now, world.now).await.unwrap(), 0);
    assert_eq!(sweep(&world).await, 1);
    assert_eq!(sweep(&world).await, 0);
    assert_eq!(stale(&world).await, attempts(&pieces));
    assert_eq!(commit(&world, id, token, &[]).await, CommitPieces::Gone);
    world.check().await;
    assert_eq!(world.catalog.expire_videos(world.now, world.now).await.unwrap(), 1);
    assert_eq!(world.seen(video).await.state, VideoState::Expired);
    assert_eq!(find(&world, id).await.state, UploadState::Expired);

    world.advance_ms(7 * EXPIRES_MS);
    sweep(&world).await;
    assert_eq!(find(&world, id).await.state, UploadState::Expired, "remembered for seven days");
    world.advance_ms(1);
    sweep(&world).await;
    assert!(world.catalog.resumable(id, world.now).await.unwrap().is_none());
    world.check().await;
}

both!(what_has_all_its_bytes_and_was_left_open_is_found);
async fn what_has_all_its_bytes_and_was_left_open_is_found(mut world: World) {
    let video = world.video().await;
    let whole = create(&mut world, video, UploadKind::Whole, Some(10)).await;
    let part = create(&mut world, video, UploadKind::Partial, Some(10)).await;
    let growing = create(&mut world, video, UploadKind::Whole, Some(11)).await;
    for id in [whole, part, growing] {
        put(&mut world, id, 10).await;
    }
    let complete_part = put_partial(&mut world, video, 10).await;
    let (id, created) = create_final(&mut world, video, &[complete_part]).await;
    assert!(matches!(created, CreateFinal::Created(_)), "{id} is put together");
    let find_full = async |world: &World, silent_ms: i64| {
        let expires_before = world.now.plus_ms(EXPIRES_MS - silent_ms);
        let mut full = world.catalog.full_resumables(expires_before, world.now, 10).await.unwrap();
        full.sort();
        full
    };
    assert_eq!(find_full(&world, 0).await, [], "just now");
    world.advance_ms(60_000);
    assert_eq!(find_full(&world, 60_000).await, [], "a minute, not more");
    assert_eq!(find_full(&world, 59_999).await, [whole, part]);
    let (token, pieces) = acquire(&world, whole).await;
    assert_eq!(find_full(&world, 59_999).await, [part], "somebody is at it");
    let done = done(&mut world, video, pieces[0].attempt, 10);
    let done = CompletedUpload { crc64nvme: pieces[0].crc64nvme, ..done };
    assert_eq!(complete(&world, whole, token, &done).await, CompleteResumable::Completed);
    world.advance_ms(60_000);
    assert_eq!(find_full(&world, 0).await, []);
    world.check().await;
}

both!(an_upload_ends_with_its_video);
async fn an_upload_ends_with_its_video(mut world: World) {
    let video = world.video().await;
    let id = create(&mut world, video, UploadKind::Whole, Some(20)).await;
    let kept = put(&mut world, id, 10).await;
    let (token, _) = acquire(&world, id).await;
    let begun = begin(&mut world, id, token, 10).await;
    delete(&mut world, video).await;
    assert_eq!(hear(&world, &[(id, token)]).await, [id]);
    assert_eq!(commit(&world, id, token, &[begun]).await, CommitPieces::Gone);
    let attempt = world.id();
    assert!(!begin_as(&world, id, token, attempt).await);
    let until = world.now.plus_ms(LEASE_MS);
    assert!(!world.catalog.extend_pieces(id, token, until, until).await.unwrap());
    let done = done(&mut world, video, kept.attempt, 20);
    assert_eq!(complete(&world, id, token, &done).await, CompleteResumable::Gone);
    assert!(world.catalog.resumable(id, world.now).await.unwrap().is_none());
    assert_eq!(ask(&world, id, true).await, Acquire::NotFound);
    let new = new(&mut world, video, UploadKind::Whole, None);
    let refused = world.catalog.create_resumable(&new, world.now).await.unwrap();
    assert_eq!(refused, CreateResumable::NotFound);
    assert_eq!(state_of(&world, kept.attempt).await, AttemptState::Retired);
    world.check().await;

    // The purge waits for who may still be writing, and for nobody else.
    let lease = world.claim(JobKind::Purge).await;
    world.catalog.start_purge(&lease, world.now).await.unwrap();
    assert_eq!(world.catalog.writers_until(video, world.now).await.unwrap(), Some(until));
    release(&world, id, token).await;
    assert_eq!(world.catalog.writers_until(video, world.now).await.unwrap(), None);
    world.catalog.finish_purge(&lease, world.now, world.now).await.unwrap();
    assert_eq!(hear(&world, &[(id, token)]).await, [id]);
    assert_eq!(commit(&world, id, token, &[begun]).await, CommitPieces::Gone);
    release(&world, id, token).await;
    assert!(world.catalog.objects_after(None, 10).await.unwrap().is_empty());
    world.check().await;
}

both!(a_video_that_was_uploaded_in_another_way_ends_its_resumable_uploads);
async fn a_video_that_was_uploaded_in_another_way_ends_its_resumable_uploads(mut world: World) {
    let video = world.video().await;
    let id = create(&mut world, video, UploadKind::Whole, Some(10)).await;
    let piece = put(&mut world, id, 10).await;
    let (token, _) = acquire(&world, id).await;
    let whole = world.begin_upload(video).await;
    let upload = world.upload(video, whole);
    let done_whole = world.catalog.complete_upload(&upload, world.now).await.unwrap();
    assert_eq!(done_whole, CompleteUpload::Completed);
    assert_eq!(find(&world, id).await.state, UploadState::Terminated);
    let done = done(&mut world, video, piece.attempt, 10);
    assert_eq!(complete(&world, id, token, &done).await, CompleteResumable::AlreadyUploaded);
    assert_eq!(commit(&world, id, token, &[]).await, CommitPieces::Gone);
    assert_eq!(stale(&world).await, [piece.attempt]);
    let new = new(&mut world, video, UploadKind::Whole, None);
    let refused = world.catalog.create_resumable(&new, world.now).await.unwrap();
    assert_eq!(refused, CreateResumable::AlreadyUploaded);
    world.check().await;
}

both!(a_part_that_expired_stays_so_when_its_video_comes_in_another_way);
async fn a_part_that_expired_stays_so_when_its_video_comes_in_another_way(mut world: World) {
    let video = world.video().await;
    let (late, early) = (put_partial(&mut world, video, 10).await, {
        world.advance_ms(EXPIRES_MS);
        put_partial(&mut world, video, 10).await
    });
    assert_eq!(find(&world, late).await.state, UploadState::Expired);
    let whole = world.begin_upload(video).await;
    let upload = world.upload(video, whole);
    let done = world.catalog.complete_upload(&upload, world.now).await.unwrap();
    assert_eq!(done, CompleteUpload::Completed);
    assert_eq!(find(&world, late).await.state, UploadState::Expired);
    assert_eq!(find(&world, early).await.state, UploadState::Complete);
    world.check().await;
}

both!(what_is_given_up_is_swept_and_what_is_complete_stays_the_videos);
async fn what_is_given_up_is_swept_and_what_is_complete_stays_the_videos(mut world: World) {
    let video = world.video().await;
    let id = create(&mut world, video, UploadKind::Whole, Some(20)).await;
    let kept = put(&mut world, id, 10).await;
    let (token, _) = acquire(&world, id).await;
    let begun = begin(&mut world, id, token, 10).await;
    assert!(world.catalog.terminate_resumable(id, world.now).await.unwrap(), "also under its holder's hands");
    assert!(!world.catalog.terminate_resumable(id, world.now).await.unwrap());
    assert_eq!(commit(&world, id, token, &[begun]).await, CommitPieces::Gone);
    assert_eq!(find(&world, id).await.state, UploadState::Terminated);
    assert_eq!(stale(&world).await, attempts(&[kept, begun]));
    assert_eq!(ask(&world, id, false).await, Acquire::Ended(UploadState::Terminated));
    world.check().await;

    let id = create(&mut world, video, UploadKind::Whole, Some(10)).await;
    let piece = put(&mut world, id, 10).await;
    let (token, _) = acquire(&world, id).await;
    let done = done(&mut world, video, piece.attempt, 10);
    let done = CompletedUpload { crc64nvme: piece.crc64nvme, ..done };
    assert_eq!(complete(&world, id, token, &done).await, CompleteResumable::Completed);
    assert!(world.catalog.terminate_resumable(id, world.now).await.unwrap());
    assert_eq!(state_of(&world, piece.attempt).await, AttemptState::Committed);
    world.check().await;
}

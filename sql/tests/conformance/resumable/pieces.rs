//! What requests bring, every byte once.

use domain::{JobKind, UploadKind, UploadState, VideoState};
use sql::{
    AttemptState, CommitPieces, CompleteResumable, CompletedUpload, CreateResumable, RESUMABLE_PER_VIDEO_MAX,
};

use super::{
    Said, acquire, attempts, begin, begin_as, commit, commit_saying, complete, create, done, find, new, put,
    release, stale, state_of,
};
use crate::both;
use crate::world::World;

both!(pieces_of_several_requests_become_one_video);
async fn pieces_of_several_requests_become_one_video(mut world: World) {
    let video = world.video().await;
    let id = create(&mut world, video, UploadKind::Whole, Some(30)).await;
    assert_eq!(world.seen(video).await.state, VideoState::AwaitingUpload);
    let (first, second) = (put(&mut world, id, 9).await, put(&mut world, id, 11).await);
    assert_eq!(world.seen(video).await.state, VideoState::Uploading);
    let (token, pieces) = acquire(&world, id).await;
    assert_eq!(pieces, [first, second], "in their order, with all 64 bits");
    let third = begin(&mut world, id, token, 10).await;
    assert_eq!(commit(&world, id, token, &[third]).await, CommitPieces::Committed { offset_bytes: 30 });
    assert_eq!(
        world.catalog.objects_after(None, 10).await.unwrap().len(),
        3,
        "every piece is shown by a row"
    );
    world.check().await;

    let whole = begin(&mut world, id, token, 30).await;
    let short = done(&mut world, video, whole.attempt, 29);
    assert_eq!(complete(&world, id, token, &short).await, CompleteResumable::Unfinished);
    let done = done(&mut world, video, whole.attempt, 30);
    assert_eq!(complete(&world, id, token, &done).await, CompleteResumable::Completed);
    let seen = world.seen(video).await;
    assert_eq!((seen.state, seen.source_bytes), (VideoState::Uploaded, Some(30)));
    let upload = find(&world, id).await;
    assert_eq!((upload.state, upload.offset_bytes, upload.held), (UploadState::Complete, 30, false));
    assert_eq!(state_of(&world, whole.attempt).await, AttemptState::Committed);
    assert_eq!(stale(&world).await, attempts(&[first, second, third]));
    world.check().await;
    // The answer was lost.
    assert_eq!(complete(&world, id, token, &done).await, CompleteResumable::Completed);
    assert_eq!(world.claim_all(&[JobKind::Ingest]).await.len(), 1, "one ingest job");
    for piece in [first, second, third] {
        world.catalog.forget_attempt(piece.attempt).await.unwrap();
    }
    assert_eq!(world.catalog.objects_after(None, 10).await.unwrap().len(), 1);
    world.check().await;
}

both!(one_piece_is_the_video_without_a_copy);
async fn one_piece_is_the_video_without_a_copy(mut world: World) {
    let video = world.video().await;
    let id = create(&mut world, video, UploadKind::Whole, Some(10)).await;
    let piece = put(&mut world, id, 10).await;
    let (token, _) = acquire(&world, id).await;
    let other = begin(&mut world, id, token, 10).await;
    let done = done(&mut world, video, piece.attempt, 10);
    let done = CompletedUpload { crc64nvme: piece.crc64nvme, ..done };
    let wrong = CompletedUpload { crc64nvme: 1, ..done.clone() };
    assert_eq!(complete(&world, id, token, &wrong).await, CompleteResumable::Unfinished);
    for _ in 0..2 {
        assert_eq!(complete(&world, id, token, &done).await, CompleteResumable::Completed);
    }
    let source = world.catalog.source(video).await.unwrap().unwrap();
    assert_eq!((source.attempt, source.bytes), (piece.attempt, 10));
    assert_eq!(stale(&world).await, [other.attempt]);
    assert_eq!(world.catalog.objects_after(None, 10).await.unwrap().len(), 1);
    world.check().await;
}

both!(small_pieces_grow_into_one);
async fn small_pieces_grow_into_one(mut world: World) {
    let video = world.video().await;
    let id = create(&mut world, video, UploadKind::Whole, Some(100)).await;
    let (first, small) = (put(&mut world, id, 50).await, put(&mut world, id, 5).await);
    let (token, _) = acquire(&world, id).await;
    let grown = begin(&mut world, id, token, 8).await;
    let replaces = || Said { replaces_last: true, ..Said::default() };
    for _ in 0..2 {
        // The second time as when the answer was lost.
        let committed = commit_saying(&world, id, token, replaces(), &[grown]).await;
        assert_eq!(committed, CommitPieces::Committed { offset_bytes: 58 });
    }
    assert_eq!(stale(&world).await, [small.attempt]);
    let (more, last) = (begin(&mut world, id, token, 10).await, begin(&mut world, id, token, 1).await);
    let committed = commit_saying(&world, id, token, replaces(), &[more, last]).await;
    assert_eq!(committed, CommitPieces::Committed { offset_bytes: 61 });
    let shorter = begin(&mut world, id, token, 0).await;
    let refused = commit_saying(&world, id, token, replaces(), &[shorter]).await;
    assert_eq!(refused, CommitPieces::BeyondLength, "an offset never falls");
    release(&world, id, token).await;
    let (_, pieces) = acquire(&world, id).await;
    assert_eq!(pieces, [first, more, last]);
    assert_eq!(stale(&world).await, attempts(&[small, grown, shorter]));
    assert_eq!(find(&world, id).await.offset_bytes, 61);
    world.check().await;
}

both!(the_first_piece_replaces_nothing);
async fn the_first_piece_replaces_nothing(mut world: World) {
    let video = world.video().await;
    let id = create(&mut world, video, UploadKind::Whole, Some(100)).await;
    let (token, _) = acquire(&world, id).await;
    let piece = begin(&mut world, id, token, 8).await;
    let said = Said { replaces_last: true, ..Said::default() };
    let committed = commit_saying(&world, id, token, said, &[piece]).await;
    assert_eq!(committed, CommitPieces::Committed { offset_bytes: 8 });
    let said = Said { replaces_last: true, ..Said::default() };
    let nothing = commit_saying(&world, id, token, said, &[]).await;
    assert_eq!(nothing, CommitPieces::Committed { offset_bytes: 8 }, "nothing takes its place");
    release(&world, id, token).await;
    assert_eq!(acquire(&world, id).await.1, [piece]);
    world.check().await;
}

both!(pieces_that_wait_for_a_checksum_count_together_or_not_at_all);
async fn pieces_that_wait_for_a_checksum_count_together_or_not_at_all(mut world: World) {
    let video = world.video().await;
    let id = create(&mut world, video, UploadKind::Whole, Some(100)).await;
    let (token, _) = acquire(&world, id).await;
    let mut pieces = Vec::new();
    for bytes in [30, 20, 10] {
        pieces.push(begin(&mut world, id, token, bytes).await);
    }
    assert_eq!(find(&world, id).await.offset_bytes, 0);
    // The answer was lost.
    assert!(begin_as(&world, id, token, pieces[0].attempt).await);
    let committed = commit(&world, id, token, &pieces).await;
    assert_eq!(committed, CommitPieces::Committed { offset_bytes: 60 });
    let wrong = begin(&mut world, id, token, 10).await;
    release(&world, id, token).await;
    assert_eq!(acquire(&world, id).await.1, pieces);
    assert_eq!(stale(&world).await, [wrong.attempt]);
    assert_eq!(find(&world, id).await.offset_bytes, 60);
    world.check().await;
}

both!(a_length_is_said_once_and_holds);
async fn a_length_is_said_once_and_holds(mut world: World) {
    let video = world.video().await;
    let id = create(&mut world, video, UploadKind::Whole, None).await;
    put(&mut world, id, 10).await;
    assert_eq!(find(&world, id).await.length_bytes, None);
    let (token, _) = acquire(&world, id).await;
    let piece = begin(&mut world, id, token, 10).await;
    let length = |bytes| Said { length_bytes: Some(bytes), ..Said::default() };
    let too_short = commit_saying(&world, id, token, length(19), &[piece]).await;
    assert_eq!(too_short, CommitPieces::BeyondLength);
    assert_eq!(find(&world, id).await.length_bytes, None, "nothing was changed");
    let early = done(&mut world, video, piece.attempt, 10);
    assert_eq!(complete(&world, id, token, &early).await, CompleteResumable::Unfinished);
    let said = commit_saying(&world, id, token, length(25), &[]).await;
    assert_eq!(said, CommitPieces::Committed { offset_bytes: 10 });
    assert_eq!(find(&world, id).await.length_bytes, Some(25));
    for other in [24, 26] {
        let refused = commit_saying(&world, id, token, length(other), &[piece]).await;
        assert_eq!(refused, CommitPieces::LengthDiffers);
    }
    let committed = commit_saying(&world, id, token, length(25), &[piece]).await;
    assert_eq!(committed, CommitPieces::Committed { offset_bytes: 20 });
    let beyond = begin(&mut world, id, token, 6).await;
    assert_eq!(commit(&world, id, token, &[beyond]).await, CommitPieces::BeyondLength);
    assert_eq!(state_of(&world, beyond.attempt).await, AttemptState::Open);
    let upload = find(&world, id).await;
    assert_eq!((upload.offset_bytes, upload.length_bytes), (20, Some(25)));
    world.check().await;
}

both!(a_video_has_room_for_so_many_uploads);
async fn a_video_has_room_for_so_many_uploads(mut world: World) {
    let video = world.video().await;
    let mut first = None;
    for n in 0..RESUMABLE_PER_VIDEO_MAX {
        let kind = if n % 2 == 0 { UploadKind::Whole } else { UploadKind::Partial };
        let new = new(&mut world, video, kind, Some(0));
        for _ in 0..2 {
            // The second time as when the answer was lost.
            let created = world.catalog.create_resumable(&new, world.now).await.unwrap();
            assert_eq!(created, CreateResumable::Created);
        }
        first.get_or_insert(new.id);
    }
    let one_more = new(&mut world, video, UploadKind::Whole, None);
    let refused = world.catalog.create_resumable(&one_more, world.now).await.unwrap();
    assert_eq!(refused, CreateResumable::TooMany);
    assert!(world.catalog.terminate_resumable(first.unwrap(), world.now).await.unwrap());
    let created = world.catalog.create_resumable(&one_more, world.now).await.unwrap();
    assert_eq!(created, CreateResumable::Created);
}

both!(a_check_finds_what_does_not_add_up);
async fn a_check_finds_what_does_not_add_up(mut world: World) {
    let video = world.video().await;
    let id = create(&mut world, video, UploadKind::Whole, Some(20)).await;
    let piece = put(&mut world, id, 10).await;
    let mut connection = world.database.connect().await;
    for (statement, undo, row) in [
        ("UPDATE uploads SET offset_bytes = 11", "UPDATE uploads SET offset_bytes = 10", id.to_string()),
        (
            "UPDATE uploads SET state = 'terminated', ended_at = 1",
            "UPDATE uploads SET state = 'open', ended_at = NULL",
            piece.attempt.to_string(),
        ),
        ("UPDATE videos SET state = 'expired'", "UPDATE videos SET state = 'uploading'", id.to_string()),
    ] {
        sqlx::query(statement).execute(&mut connection).await.unwrap();
        let violations = world.catalog.violations().await.unwrap();
        assert_eq!(
            violations.iter().map(|violation| &violation.row).collect::<Vec<_>>(),
            [&row],
            "{statement}"
        );
        sqlx::query(undo).execute(&mut connection).await.unwrap();
        world.check().await;
    }
}

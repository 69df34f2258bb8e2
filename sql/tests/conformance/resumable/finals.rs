//! Parts that are put together.

use domain::{JobKind, UploadKind, UploadState, VideoState};
use sql::{Acquire, CompleteResumable, CompletedUpload, CreateFinal};

use super::{
    EXPIRES_MS, acquire, ask, attempts, begin, complete, create, create_final, done, find, new, put,
    put_partial, stale,
};
use crate::both;
use crate::world::World;

both!(partial_uploads_are_put_together_in_the_order_asked_for);
async fn partial_uploads_are_put_together_in_the_order_asked_for(mut world: World) {
    let (video, other_video) = (world.video().await, world.video().await);
    let (a, b) = (put_partial(&mut world, video, 10).await, put_partial(&mut world, video, 20).await);
    let elsewhere = put_partial(&mut world, other_video, 10).await;
    let open = create(&mut world, video, UploadKind::Partial, Some(10)).await;
    let whole = create(&mut world, video, UploadKind::Whole, Some(10)).await;
    let empty = create(&mut world, video, UploadKind::Partial, Some(0)).await;
    assert_eq!(find(&world, empty).await.state, UploadState::Complete);
    let nothing = world.id();
    for (partials, refused) in [
        (vec![a, open], CreateFinal::Unfinished),
        (vec![a, elsewhere], CreateFinal::NotFound),
        (vec![a, whole], CreateFinal::NotFound),
        (vec![a, nothing], CreateFinal::NotFound),
        (vec![empty], CreateFinal::Empty),
        (vec![], CreateFinal::Empty),
    ] {
        let (id, outcome) = create_final(&mut world, video, &partials).await;
        assert_eq!(outcome, refused);
        assert!(world.catalog.resumable(id, world.now).await.unwrap().is_none());
    }

    let (dead, created) = create_final(&mut world, video, &[b, empty, a]).await;
    let CreateFinal::Created(pieces) = created else { panic!("{created:?}") };
    assert_eq!(pieces.iter().map(|piece| piece.bytes).collect::<Vec<_>>(), [20, 10]);
    let begun = begin(&mut world, dead, 1, 30).await;
    assert_eq!(ask(&world, dead, true).await, Acquire::Busy { signs: 0 }, "it takes no bytes");
    // Whoever made it died: it is asked for again.
    let (id, created) = create_final(&mut world, video, &[b, empty, a]).await;
    assert_eq!(created, CreateFinal::Created(pieces.clone()));
    assert_eq!(find(&world, dead).await.state, UploadState::Terminated);
    let late = done(&mut world, video, begun.attempt, 30);
    assert_eq!(complete(&world, dead, 1, &late).await, CompleteResumable::Gone);
    let upload = find(&world, id).await;
    assert_eq!((upload.length_bytes, upload.offset_bytes, upload.token), (Some(30), 30, 1));
    assert_eq!(upload.concat.as_deref(), Some("final;a b"));
    world.check().await;

    let together = begin(&mut world, id, 1, 30).await;
    let done = done(&mut world, video, together.attempt, 30);
    assert_eq!(complete(&world, id, 1, &done).await, CompleteResumable::Completed);
    assert_eq!(stale(&world).await, {
        let mut all = attempts(&pieces);
        all.push(begun.attempt);
        all.sort();
        all
    });
    assert_eq!(find(&world, a).await.state, UploadState::Complete);
    assert_eq!(find(&world, whole).await.state, UploadState::Terminated);
    assert_eq!(find(&world, elsewhere).await.state, UploadState::Complete);
    assert_eq!(world.claim_all(&[JobKind::Ingest]).await.len(), 1);
    // The answer was lost.
    let (_, again) = create_final(&mut world, video, &[b, empty, a]).await;
    assert_eq!(again, CreateFinal::Completed(id));
    let mut another = new(&mut world, video, UploadKind::Final, None);
    another.concat = Some("final;b a".to_owned());
    let refused = world.catalog.create_final(&another, &[a, b], world.now).await.unwrap();
    assert_eq!(refused, CreateFinal::AlreadyUploaded);
    world.check().await;
}

both!(a_part_of_a_video_is_not_the_video);
async fn a_part_of_a_video_is_not_the_video(mut world: World) {
    let video = world.video().await;
    let id = create(&mut world, video, UploadKind::Partial, Some(10)).await;
    let piece = put(&mut world, id, 10).await;
    let (token, _) = acquire(&world, id).await;
    let done = done(&mut world, video, piece.attempt, 10);
    let done = CompletedUpload { crc64nvme: piece.crc64nvme, ..done };
    assert_eq!(complete(&world, id, token, &done).await, CompleteResumable::Unfinished);
    assert_eq!(world.seen(video).await.state, VideoState::Uploading);
    world.check().await;
}

both!(complete_parts_wait_as_long_as_another_part_grows);
async fn complete_parts_wait_as_long_as_another_part_grows(mut world: World) {
    let (video, other_video) = (world.video().await, world.video().await);
    let waiting = put_partial(&mut world, video, 10).await;
    let elsewhere = put_partial(&mut world, other_video, 10).await;
    let growing = create(&mut world, video, UploadKind::Partial, Some(100)).await;
    world.advance_ms(EXPIRES_MS / 2);
    put(&mut world, growing, 10).await;
    world.advance_ms(EXPIRES_MS / 2);
    assert_eq!(find(&world, waiting).await.state, UploadState::Complete);
    assert_eq!(find(&world, elsewhere).await.state, UploadState::Expired);
    // A part that nobody puts together goes in time too.
    world.advance_ms(EXPIRES_MS);
    assert_eq!(world.catalog.sweep_resumables(world.now, world.now).await.unwrap(), 3);
    assert_eq!(stale(&world).await.len(), 3);
    let (_, refused) = create_final(&mut world, video, &[waiting]).await;
    assert_eq!(refused, CreateFinal::NotFound);
    world.check().await;
}

//! Resumable uploads: one holder at a time, every byte once, and nothing left over.

use domain::{AttemptId, JobKind, Timestamp, UploadId, UploadKind, UploadState, VideoId, VideoState};
use futures::future::join_all;
use sql::{
    Acquire, AttemptState, CommitPieces, CompleteResumable, CompleteUpload, CompletedUpload, CreateFinal,
    CreateResumable, NewDeletion, NewResumable, RESUMABLE_PER_VIDEO_MAX, Resumable, UploadPiece,
};

use crate::both;
use crate::world::{LEASE_MS, World};

const EXPIRES_MS: i64 = 86_400_000;

pub fn new(world: &mut World, video: VideoId, kind: UploadKind, length_bytes: Option<u64>) -> NewResumable {
    NewResumable {
        id: world.id(),
        video,
        kind,
        length_bytes,
        metadata: "filename c2VhLm1wNA==".to_owned(),
        concat: (kind == UploadKind::Final).then(|| "final;a b".to_owned()),
        filename: Some("sea.mp4".to_owned()),
        expires_at: world.now.plus_ms(EXPIRES_MS),
    }
}

pub async fn create(world: &mut World, video: VideoId, kind: UploadKind, length: Option<u64>) -> UploadId {
    let new = new(world, video, kind, length);
    let created = world.catalog.create_resumable(&new, world.now).await.unwrap();
    assert_eq!(created, CreateResumable::Created);
    new.id
}

async fn ask(world: &World, id: UploadId, force: bool) -> Acquire {
    let expires_at = world.now.plus_ms(EXPIRES_MS);
    world.catalog.acquire_resumable(id, force, expires_at, world.now).await.unwrap()
}

pub async fn acquire(world: &World, id: UploadId) -> (i64, Vec<UploadPiece>) {
    match ask(world, id, false).await {
        Acquire::Held(upload, pieces) => (upload.token, pieces),
        other => panic!("{other:?}"),
    }
}

async fn begin_as(world: &World, id: UploadId, token: i64, attempt: AttemptId) -> bool {
    let until = world.now.plus_ms(LEASE_MS);
    world.catalog.begin_piece(id, token, attempt, until, world.now).await.unwrap()
}

/// Ends with a sum that uses all 64 bits.
pub async fn begin(world: &mut World, id: UploadId, token: i64, bytes: u64) -> UploadPiece {
    let attempt = world.id();
    assert!(begin_as(world, id, token, attempt).await);
    UploadPiece { attempt, bytes, crc64nvme: u64::MAX - bytes }
}

#[derive(Default)]
struct Said {
    replaces_last: bool,
    length_bytes: Option<u64>,
}

async fn commit_saying(
    world: &World,
    id: UploadId,
    token: i64,
    said: Said,
    pieces: &[UploadPiece],
) -> CommitPieces {
    let expires_at = world.now.plus_ms(EXPIRES_MS);
    let Said { replaces_last, length_bytes } = said;
    let committed = world
        .catalog
        .commit_pieces(id, token, replaces_last, pieces, length_bytes, expires_at, world.now)
        .await;
    committed.unwrap()
}

async fn commit(world: &World, id: UploadId, token: i64, pieces: &[UploadPiece]) -> CommitPieces {
    commit_saying(world, id, token, Said::default(), pieces).await
}

async fn release(world: &World, id: UploadId, token: i64) {
    world.catalog.release_resumable(id, token, world.now).await.unwrap();
}

/// One request that brings so many bytes.
pub async fn put(world: &mut World, id: UploadId, bytes: u64) -> UploadPiece {
    let (token, _) = acquire(world, id).await;
    let piece = begin(world, id, token, bytes).await;
    assert!(matches!(commit(world, id, token, &[piece]).await, CommitPieces::Committed { .. }));
    release(world, id, token).await;
    piece
}

pub async fn put_partial(world: &mut World, video: VideoId, bytes: u64) -> UploadId {
    let id = create(world, video, UploadKind::Partial, Some(bytes)).await;
    put(world, id, bytes).await;
    let (token, _) = acquire(world, id).await;
    assert!(world.catalog.finish_partial(id, token).await.unwrap());
    id
}

async fn find(world: &World, id: UploadId) -> Resumable {
    world.catalog.resumable(id, world.now).await.unwrap().expect("it is there")
}

async fn state_of(world: &World, attempt: AttemptId) -> AttemptState {
    world.catalog.attempt(attempt).await.unwrap().expect("the attempt is there").state
}

pub fn done(world: &mut World, video: VideoId, attempt: AttemptId, bytes: u64) -> CompletedUpload {
    CompletedUpload { bytes, ..world.upload(video, attempt) }
}

async fn complete(world: &World, id: UploadId, token: i64, done: &CompletedUpload) -> CompleteResumable {
    world.catalog.complete_resumable(id, token, done, world.now).await.unwrap()
}

async fn delete(world: &mut World, video: VideoId) {
    let (id, job) = (world.id(), world.id());
    let new = NewDeletion { video, requested_by: "admin".to_owned(), due_at: world.now, id, job };
    world.catalog.delete_video(&new, world.now).await.unwrap();
}

/// Attempts whose objects are to be removed, also those that ended just now.
async fn stale(world: &World) -> Vec<AttemptId> {
    let stale = world.catalog.stale_attempts(world.now, -1, 1000).await.unwrap();
    let mut stale: Vec<_> = stale.into_iter().map(|(_, id)| id).collect();
    stale.sort();
    stale
}

fn attempts(pieces: &[UploadPiece]) -> Vec<AttemptId> {
    let mut attempts: Vec<_> = pieces.iter().map(|piece| piece.attempt).collect();
    attempts.sort();
    attempts
}

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

both!(a_stale_token_changes_nothing);
async fn a_stale_token_changes_nothing(mut world: World) {
    let video = world.video().await;
    let id = create(&mut world, video, UploadKind::Whole, Some(20)).await;
    let kept = put(&mut world, id, 10).await;
    let (stale_token, _) = acquire(&world, id).await;
    let lost = begin(&mut world, id, stale_token, 10).await;
    let Acquire::Held(taken, pieces) = ask(&world, id, true).await else { panic!("taken by force") };
    assert_eq!((taken.token, pieces), (stale_token + 1, vec![kept]));
    assert_eq!(state_of(&world, lost.attempt).await, AttemptState::Lost);

    let attempt = world.id();
    assert!(!begin_as(&world, id, stale_token, attempt).await);
    assert!(world.catalog.attempt(attempt).await.unwrap().is_none());
    assert_eq!(commit(&world, id, stale_token, &[lost]).await, CommitPieces::Lost);
    let until = world.now.plus_ms(LEASE_MS);
    assert!(!world.catalog.extend_pieces(id, stale_token, until, taken.expires_at).await.unwrap());
    let done = done(&mut world, video, kept.attempt, 10);
    assert_eq!(complete(&world, id, stale_token, &done).await, CompleteResumable::Lost);
    release(&world, id, stale_token).await;
    assert!(find(&world, id).await.held, "by somebody else");
    assert_eq!(find(&world, id).await, Resumable { held: true, ..taken.clone() });

    let piece = begin(&mut world, id, taken.token, 10).await;
    let committed = commit(&world, id, taken.token, &[piece]).await;
    assert_eq!(committed, CommitPieces::Committed { offset_bytes: 20 });
    release(&world, id, taken.token).await;
    // Nobody holds it: neither does the last one who did.
    assert_eq!(commit(&world, id, taken.token, &[]).await, CommitPieces::Lost);
    world.check().await;
}

both!(a_stale_partial_is_not_finished);
async fn a_stale_partial_is_not_finished(mut world: World) {
    let video = world.video().await;
    let id = create(&mut world, video, UploadKind::Partial, Some(10)).await;
    let (early, _) = acquire(&world, id).await;
    assert!(!world.catalog.finish_partial(id, early).await.unwrap(), "its bytes are not there");
    release(&world, id, early).await;
    put(&mut world, id, 10).await;
    let (stale_token, _) = acquire(&world, id).await;
    let Acquire::Held(taken, _) = ask(&world, id, true).await else { panic!("taken by force") };
    assert!(!world.catalog.finish_partial(id, stale_token).await.unwrap());
    assert!(world.catalog.finish_partial(id, taken.token).await.unwrap());
    assert!(world.catalog.finish_partial(id, taken.token).await.unwrap(), "the answer was lost");
    assert_eq!(ask(&world, id, true).await, Acquire::Ended(UploadState::Complete));
    // A whole one is none.
    let whole = create(&mut world, video, UploadKind::Whole, Some(10)).await;
    put(&mut world, whole, 10).await;
    let (token, _) = acquire(&world, whole).await;
    assert!(!world.catalog.finish_partial(whole, token).await.unwrap());
    world.check().await;
}

both!(who_asks_is_heard_and_let_in);
async fn who_asks_is_heard_and_let_in(mut world: World) {
    let video = world.video().await;
    let id = create(&mut world, video, UploadKind::Whole, None).await;
    let (token, _) = acquire(&world, id).await;
    let held = [(id, token)];
    let piece = begin(&mut world, id, token, 10).await;
    assert_eq!(world.catalog.hear_releases(&held).await.unwrap(), []);
    assert_eq!(ask(&world, id, false).await, Acquire::Busy { signs: 0 });
    assert_eq!(ask(&world, id, false).await, Acquire::Busy { signs: 0 }, "nobody heard");
    assert_eq!(world.catalog.hear_releases(&held).await.unwrap(), [id]);
    assert_eq!(ask(&world, id, false).await, Acquire::Busy { signs: 1 });
    // Until it has let go it may keep what it has.
    assert_eq!(commit(&world, id, token, &[piece]).await, CommitPieces::Committed { offset_bytes: 10 });
    assert_eq!(world.catalog.hear_releases(&held).await.unwrap(), [id], "still");
    assert_eq!(ask(&world, id, false).await, Acquire::Busy { signs: 2 }, "it lives");
    release(&world, id, token).await;
    let (next, pieces) = acquire(&world, id).await;
    assert_eq!((next, pieces), (token + 1, vec![piece]));
    assert_eq!(world.catalog.hear_releases(&[(id, next)]).await.unwrap(), [], "nobody asks the new one");

    // Taken, ended or unknown, it is not to be held on to.
    assert_eq!(world.catalog.hear_releases(&held).await.unwrap(), [id]);
    assert!(matches!(ask(&world, id, true).await, Acquire::Held(..)));
    assert_eq!(world.catalog.hear_releases(&[(id, next)]).await.unwrap(), [id]);
    assert!(world.catalog.terminate_resumable(id, world.now).await.unwrap());
    assert_eq!(world.catalog.hear_releases(&[(id, next + 1)]).await.unwrap(), [id]);
    let nothing = world.id();
    assert_eq!(world.catalog.hear_releases(&[(nothing, 1)]).await.unwrap(), [nothing]);
    assert_eq!(ask(&world, nothing, true).await, Acquire::NotFound);
    world.check().await;
}

both!(the_poller_hears_of_more_uploads_than_one_statement_takes);
async fn the_poller_hears_of_more_uploads_than_one_statement_takes(mut world: World) {
    let video = world.video().await;
    let id = create(&mut world, video, UploadKind::Whole, None).await;
    let (token, _) = acquire(&world, id).await;
    ask(&world, id, false).await;
    let mut held: Vec<(UploadId, i64)> = (0..1200).map(|_| (world.id(), 1)).collect();
    held.push((id, token));
    let wanted = world.catalog.hear_releases(&held).await.unwrap();
    assert_eq!(wanted.len(), held.len());
    assert_eq!(ask(&world, id, false).await, Acquire::Busy { signs: 1 });
}

both!(what_a_dead_holder_began_is_swept);
async fn what_a_dead_holder_began_is_swept(mut world: World) {
    let video = world.video().await;
    let id = create(&mut world, video, UploadKind::Whole, Some(20)).await;
    let kept = put(&mut world, id, 10).await;
    let (token, _) = acquire(&world, id).await;
    let begun = begin(&mut world, id, token, 10).await;
    world.advance_ms(LEASE_MS - 1);
    assert!(stale(&world).await.is_empty(), "its lease runs on");
    let (until, expires_at) = (world.now.plus_ms(LEASE_MS), world.now.plus_ms(EXPIRES_MS));
    assert!(world.catalog.extend_pieces(id, token, until, expires_at).await.unwrap());
    assert_eq!(find(&world, id).await.expires_at, expires_at);
    world.advance_ms(LEASE_MS - 1);
    assert!(stale(&world).await.is_empty(), "it was extended");
    world.advance_ms(LEASE_MS);
    assert_eq!(stale(&world).await, [begun.attempt], "what is committed needs no lease");
    assert_eq!(commit(&world, id, token, &[begun]).await, CommitPieces::Lost);
    let next = begin(&mut world, id, token, 10).await;
    assert_eq!(commit(&world, id, token, &[begun, next]).await, CommitPieces::Lost, "one of them is swept");
    assert_eq!(find(&world, id).await.offset_bytes, 10);
    assert_eq!(state_of(&world, next.attempt).await, AttemptState::Open, "all or nothing");
    release(&world, id, token).await;
    assert_eq!(state_of(&world, next.attempt).await, AttemptState::Lost, "given up at the release");
    let (_, pieces) = acquire(&world, id).await;
    assert_eq!(pieces, [kept]);
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

async fn create_final(world: &mut World, video: VideoId, partials: &[UploadId]) -> (UploadId, CreateFinal) {
    let new = new(world, video, UploadKind::Final, None);
    (new.id, world.catalog.create_final(&new, partials, world.now).await.unwrap())
}

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

both!(an_upload_ends_with_its_video);
async fn an_upload_ends_with_its_video(mut world: World) {
    let video = world.video().await;
    let id = create(&mut world, video, UploadKind::Whole, Some(20)).await;
    let kept = put(&mut world, id, 10).await;
    let (token, _) = acquire(&world, id).await;
    let begun = begin(&mut world, id, token, 10).await;
    delete(&mut world, video).await;
    assert_eq!(world.catalog.hear_releases(&[(id, token)]).await.unwrap(), [id]);
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
    assert_eq!(world.catalog.hear_releases(&[(id, token)]).await.unwrap(), [id]);
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

both!(of_many_who_want_it_one_holds_it_and_every_byte_counts_once);
/// Requests from everywhere, some of which take the upload by force, some of which die over it.
async fn of_many_who_want_it_one_holds_it_and_every_byte_counts_once(mut world: World) {
    let video = world.video().await;
    let id = create(&mut world, video, UploadKind::Whole, None).await;
    let now = world.now;
    let mut tasks = Vec::new();
    for task in 0..12_u64 {
        let catalog = world.catalog.clone();
        let attempts: Vec<AttemptId> = (0..12).map(|_| world.id()).collect();
        tasks.push(tokio::spawn(async move {
            let (mut tokens, mut bytes) = (Vec::new(), 0);
            for (round, attempt) in attempts.into_iter().enumerate() {
                let force = (task + round as u64).is_multiple_of(5);
                let acquired = catalog.acquire_resumable(id, force, now, now).await.unwrap();
                let Acquire::Held(upload, pieces) = acquired else { continue };
                let offset: u64 = pieces.iter().map(|piece| piece.bytes).sum();
                assert_eq!(offset, upload.offset_bytes);
                tokens.push(upload.token);
                let until = now.plus_ms(LEASE_MS);
                if !catalog.begin_piece(id, upload.token, attempt, until, now).await.unwrap() {
                    continue;
                }
                // Beyond the last byte of the piece before it, which it takes the place of.
                let small = pieces.last().filter(|last| last.bytes < 5);
                let own = 1 + task % 3;
                let piece =
                    UploadPiece { attempt, bytes: own + small.map_or(0, |small| small.bytes), crc64nvme: 1 };
                let committed = catalog
                    .commit_pieces(id, upload.token, small.is_some(), &[piece], None, now, now)
                    .await
                    .unwrap();
                match committed {
                    CommitPieces::Committed { offset_bytes } => {
                        assert_eq!(offset_bytes, offset + own);
                        bytes += own;
                    }
                    CommitPieces::Lost => continue,
                    other => panic!("{other:?}"),
                }
                if !(task + round as u64).is_multiple_of(7) {
                    catalog.release_resumable(id, upload.token, now).await.unwrap();
                }
            }
            (tokens, bytes)
        }));
    }
    let outcomes: Vec<_> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    let mut tokens: Vec<i64> = outcomes.iter().flat_map(|(tokens, _)| tokens.clone()).collect();
    tokens.sort_unstable();
    let all = tokens.len();
    tokens.dedup();
    assert_eq!(tokens.len(), all, "each token was given out once");
    assert!(all > 12, "{all} times held");
    let upload = world.catalog.resumable(id, Timestamp::from_unix_ms(0)).await.unwrap().unwrap();
    assert_eq!(upload.offset_bytes, outcomes.iter().map(|(_, bytes)| bytes).sum::<u64>());
    assert_eq!(upload.token, *tokens.last().unwrap());
    world.check().await;
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

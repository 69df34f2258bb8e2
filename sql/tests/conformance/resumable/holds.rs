//! One holder at a time, and who asks is let in.

use domain::{AttemptId, Timestamp, UploadId, UploadKind, UploadState};
use futures::future::join_all;
use sql::{Acquire, AttemptState, CommitPieces, CompleteResumable, Resumable, UploadPiece};

use super::{
    EXPIRES_MS, acquire, ask, begin, begin_as, commit, complete, create, done, find, hear, put, release,
    stale, state_of,
};
use crate::both;
use crate::world::{LEASE_MS, World};

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
    assert_eq!(hear(&world, &held).await, []);
    assert_eq!(ask(&world, id, false).await, Acquire::Busy { signs: 0 });
    assert_eq!(ask(&world, id, false).await, Acquire::Busy { signs: 0 }, "nobody heard");
    assert_eq!(hear(&world, &held).await, [id]);
    assert_eq!(ask(&world, id, false).await, Acquire::Busy { signs: 1 });
    // Until it has let go it may keep what it has.
    assert_eq!(commit(&world, id, token, &[piece]).await, CommitPieces::Committed { offset_bytes: 10 });
    assert_eq!(hear(&world, &held).await, [id], "still");
    assert_eq!(ask(&world, id, false).await, Acquire::Busy { signs: 2 }, "it lives");
    release(&world, id, token).await;
    let (next, pieces) = acquire(&world, id).await;
    assert_eq!((next, pieces), (token + 1, vec![piece]));
    assert_eq!(hear(&world, &[(id, next)]).await, [], "nobody asks the new one");

    // Taken, ended or unknown, it is not to be held on to.
    assert_eq!(hear(&world, &held).await, [id]);
    assert!(matches!(ask(&world, id, true).await, Acquire::Held(..)));
    assert_eq!(hear(&world, &[(id, next)]).await, [id]);
    assert!(world.catalog.terminate_resumable(id, world.now).await.unwrap());
    assert_eq!(hear(&world, &[(id, next + 1)]).await, [id]);
    let nothing = world.id();
    assert_eq!(hear(&world, &[(nothing, 1)]).await, [nothing]);
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
    let wanted = hear(&world, &held).await;
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

use domain::{JobKind, JobState, Phase, RenditionName, Stage, VideoState};
use sql::{Claim, EncodeAnew, Lease, RetryJob};

use crate::both;
use crate::world::{ATTEMPTS_MAX, LEASE_MS, World, claim_of};

const CHUNK_0: &str = r#"{"chunk":0}"#;

async fn encode_all(world: &mut World) {
    for lease in world.claim_all(&[JobKind::Encode]).await {
        let number = lease.job.payload.trim_start_matches(r#"{"chunk":"#).trim_end_matches('}').parse();
        world.encode(&lease, number.unwrap()).await.unwrap();
    }
}

async fn refuse_chunk_0(world: &World, lease: &Lease) -> EncodeAnew {
    let (payloads, now) = ([CHUNK_0.to_owned(), r#"{"chunk":99}"#.to_owned()], world.now);
    let refused = world.catalog.encode_anew(lease, &payloads, "chunk 0 is short", ATTEMPTS_MAX, now, now);
    refused.await.unwrap()
}

both!(unsound_chunks_are_encoded_anew_and_joined_again);
async fn unsound_chunks_are_encoded_anew_and_joined_again(mut world: World) {
    let video = world.playable(2).await;
    encode_all(&mut world).await;
    let before = world.seen(video).await.progress;
    let first = world.claim(JobKind::Assemble).await;
    let attempt = world.begin(&first).await;
    assert_eq!(refuse_chunk_0(&world, &first).await, EncodeAnew::Queued);

    // That assembly has come to its end, with its reason; what it wrote is swept, and so is the chunk.
    let row = world.catalog.job(first.job.id).await.unwrap().unwrap();
    assert_eq!((row.state, row.error.as_deref()), (JobState::Done, Some("chunk 0 is short")));
    assert_eq!(world.catalog.attempt(attempt).await.unwrap().unwrap().state, sql::AttemptState::Lost);
    assert_eq!(world.catalog.objects_of(video, "chunk").await.unwrap().len(), 1, "only chunk 1 counts");
    let seen = world.seen(video).await;
    assert_eq!((seen.state, seen.stage), (VideoState::Playable, Some(Stage::Waiting)));
    assert!(seen.progress >= before);
    world.check().await;

    let encodes = world.claim_all(&[JobKind::Encode]).await;
    assert_eq!(encodes.len(), 1, "the other chunk is sound: {encodes:?}");
    assert_eq!((&*encodes[0].job.payload, encodes[0].job.attempt), (CHUNK_0, 2));
    assert!(world.claim_all(&[JobKind::Assemble]).await.is_empty());
    world.encode(&encodes[0], 0).await.unwrap();
    assert_eq!(world.catalog.objects_of(video, "chunk").await.unwrap().len(), 2);
    let second = world.claim(JobKind::Assemble).await;
    assert_ne!(second.job.id, first.job.id);
    world.assemble(&second).await.unwrap();
    assert_eq!(world.seen(video).await.state, VideoState::Ready);
    world.check().await;
}

both!(a_chunk_that_stays_unsound_is_given_up_and_can_be_called_back);
async fn a_chunk_that_stays_unsound_is_given_up_and_can_be_called_back(mut world: World) {
    let video = world.playable(2).await;
    for round in 1..=ATTEMPTS_MAX {
        encode_all(&mut world).await;
        let lease = world.claim(JobKind::Assemble).await;
        let expected = if round < ATTEMPTS_MAX { EncodeAnew::Queued } else { EncodeAnew::GivenUp };
        assert_eq!(refuse_chunk_0(&world, &lease).await, expected, "round {round}");
    }
    let dead = world.catalog.jobs(None, Some(JobState::Dead), None, 10).await.unwrap();
    assert_eq!((dead.len(), dead[0].kind, dead[0].attempts), (1, JobKind::Encode, ATTEMPTS_MAX));
    assert_eq!(dead[0].error.as_deref(), Some("chunk 0 is short"));
    let seen = world.seen(video).await;
    assert_eq!((seen.state, seen.stage), (VideoState::Playable, None));
    assert!(world.claim_all(&[JobKind::Encode, JobKind::Assemble]).await.is_empty());
    world.check().await;

    assert_eq!(world.catalog.retry_job(dead[0].id, world.now).await.unwrap(), RetryJob::Retried);
    encode_all(&mut world).await;
    let lease = world.claim(JobKind::Assemble).await;
    world.assemble(&lease).await.unwrap();
    assert_eq!(world.seen(video).await.state, VideoState::Ready);
    world.check().await;
}

both!(each_phase_has_its_own_chunks_encoded_anew);
async fn each_phase_has_its_own_chunks_encoded_anew(mut world: World) {
    let video = world.video().await;
    world.unplayable_as(video, 2).await;
    encode_all(&mut world).await;
    for (phase, rendition) in [(Phase::First, RenditionName::Lowest), (Phase::Last, RenditionName::Original)]
    {
        let lease = world.claim(JobKind::Assemble).await;
        assert_eq!(lease.job.phase, phase);
        assert_eq!(refuse_chunk_0(&world, &lease).await, EncodeAnew::Queued);
        let anew = world.claim(JobKind::Encode).await;
        assert_eq!((anew.job.phase, &*anew.job.payload), (phase, CHUNK_0));
        world.encode(&anew, 0).await.unwrap();
        let lease = world.claim(JobKind::Assemble).await;
        assert_eq!(lease.job.phase, phase);
        if phase == Phase::First {
            world.assemble_phase(&lease, &[rendition]).await.unwrap();
        }
        world.check().await;
    }
}

both!(what_both_phases_share_is_encoded_anew_for_the_last_one);
async fn what_both_phases_share_is_encoded_anew_for_the_last_one(mut world: World) {
    let video = world.video().await;
    world.unplayable_as(video, 1).await;
    encode_all(&mut world).await;
    let lease = world.claim(JobKind::Assemble).await;
    world.assemble_phase(&lease, &[RenditionName::Lowest]).await.unwrap();
    // As if the only job of the first phase had made the sound.
    let mut connection = world.database.connect().await;
    sqlx::query("UPDATE jobs SET payload = '\"audio\"' WHERE phase = 'first' AND kind = 'encode'")
        .execute(&mut connection)
        .await
        .unwrap();
    let lease = world.claim(JobKind::Assemble).await;
    let (payloads, now) = ([r#""audio""#.to_owned()], world.now);
    let refused = world.catalog.encode_anew(&lease, &payloads, "silence", ATTEMPTS_MAX, now, now).await;
    assert_eq!(refused.unwrap(), EncodeAnew::Queued);
    let anew = world.claim(JobKind::Encode).await;
    assert_eq!((anew.job.phase, &*anew.job.payload), (Phase::First, r#""audio""#));
    world.encode(&anew, 0).await.unwrap();
    assert_eq!(world.claim(JobKind::Assemble).await.job.phase, Phase::Last);
}

both!(parts_that_nobody_encoded_change_nothing);
async fn parts_that_nobody_encoded_change_nothing(mut world: World) {
    world.playable(1).await;
    encode_all(&mut world).await;
    let lease = world.claim(JobKind::Assemble).await;
    let (unknown, now) = ([r#""audio""#.to_owned()], world.now);
    let refused = world.catalog.encode_anew(&lease, &unknown, "no sound", ATTEMPTS_MAX, now, now).await;
    assert_eq!(refused.unwrap(), EncodeAnew::NoSuchPart);
    world.assemble(&lease).await.unwrap();
    world.check().await;
}

both!(what_failed_on_one_worker_is_left_to_others_for_a_while);
async fn what_failed_on_one_worker_is_left_to_others_for_a_while(mut world: World) {
    const IDLE_MS: i64 = 400;
    async fn claim(world: &World, worker: &str) -> Option<Lease> {
        let claim = Claim { left_to_others_ms: IDLE_MS, limit: 1, ..claim_of(worker, &[JobKind::Encode]) };
        world.catalog.claim_jobs(&claim, world.now).await.unwrap().pop()
    }
    world.playable(2).await;
    let failed = claim(&world, "a").await.unwrap();
    let busy = claim(&world, "b").await.unwrap();
    world.catalog.fail_job(&failed, "bad luck", Some(world.now), world.now).await.unwrap();
    // Another is at work on such jobs, and takes this one when it is free.
    world.advance_ms(LEASE_MS - 1);
    assert_eq!(claim(&world, "a").await, None);
    world.encode(&busy, 1).await.unwrap();
    let taken = claim(&world, "b").await.unwrap();
    assert_eq!(taken.job.id, failed.job.id);

    // Alone, one waits a moment for somebody who has nothing to do, then tries again.
    world.catalog.fail_job(&taken, "bad luck", Some(world.now), world.now).await.unwrap();
    assert_eq!(claim(&world, "b").await, None);
    world.advance_ms(IDLE_MS);
    let again = claim(&world, "b").await.unwrap();
    // Whoever is not heard of again is no reason to wait longer than a lease.
    world.catalog.fail_job(&again, "bad luck", Some(world.now), world.now).await.unwrap();
    assert!(claim(&world, "a").await.is_some(), "another takes it at once");
}

both!(a_chunk_is_encoded_anew_by_another_worker);
async fn a_chunk_is_encoded_anew_by_another_worker(mut world: World) {
    world.playable(1).await;
    let lease = world.claim_one("a", JobKind::Encode).await;
    world.encode(&lease, 0).await.unwrap();
    let lease = world.claim(JobKind::Assemble).await;
    assert_eq!(refuse_chunk_0(&world, &lease).await, EncodeAnew::Queued);
    let of = |worker| Claim { left_to_others_ms: 400, ..claim_of(worker, &[JobKind::Encode]) };
    assert_eq!(world.catalog.claim_jobs(&of("a"), world.now).await.unwrap(), []);
    assert_eq!(world.catalog.claim_jobs(&of("b"), world.now).await.unwrap().len(), 1);
}

use std::collections::HashSet;

use domain::{JobKind, JobState, MediaProblem, RenditionState, VideoState};
use sql::{Claim, FencedError, Lease, RetryJob};

use crate::both;
use crate::world::{ALL, ATTEMPTS_MAX, IngestParts, LEASE_MS, World};

both!(eight_claimers_take_each_job_once);
async fn eight_claimers_take_each_job_once(mut world: World) {
    for _ in 0..100 {
        world.uploaded().await;
    }
    let mut claimers = tokio::task::JoinSet::new();
    for worker in 0..8 {
        let (catalog, now) = (world.catalog.clone(), world.now);
        claimers.spawn(async move {
            let worker = worker.to_string();
            let claim = Claim {
                kinds: ALL,
                worker: &worker,
                lease_ms: LEASE_MS,
                attempts_max: 3,
                left_to_others_ms: 0,
                limit: 3,
            };
            let mut mine = Vec::new();
            loop {
                let leases = catalog.claim_jobs(&claim, now).await.unwrap();
                if leases.is_empty() {
                    return mine;
                }
                mine.extend(leases);
            }
        });
    }
    let leases: Vec<Lease> = claimers.join_all().await.into_iter().flatten().collect();
    let jobs: HashSet<_> = leases.iter().map(|lease| lease.job.id).collect();
    assert_eq!((leases.len(), jobs.len()), (100, 100));
}

both!(what_makes_playable_goes_before_encodes_and_old_before_new);
async fn what_makes_playable_goes_before_encodes_and_old_before_new(mut world: World) {
    let first = world.playable(2).await;
    world.advance_ms(1000);
    let second = world.uploaded().await;
    let claim = Claim {
        kinds: ALL,
        worker: "w",
        lease_ms: LEASE_MS,
        attempts_max: 3,
        left_to_others_ms: 0,
        limit: 2,
    };
    let leases = world.catalog.claim_jobs(&claim, world.now).await.unwrap();
    let order: Vec<_> = leases.iter().map(|lease| (lease.job.kind, lease.job.video)).collect();
    assert_eq!(order, [(JobKind::Ingest, second), (JobKind::Encode, first)]);
    assert_eq!(leases[1].job.payload, r#"{"chunk":0}"#);
}

both!(neither_a_long_film_nor_many_of_one_user_stand_before_others_short_ones);
async fn neither_a_long_film_nor_many_of_one_user_stand_before_others_short_ones(mut world: World) {
    let long = world.playable(100).await;
    let author = world.user("zoe").await;
    let first = world.video_of(author).await;
    world.playable_as(first, 2).await;
    let second = world.video_of(author).await;
    world.playable_as(second, 2).await;
    world.advance_ms(1000);
    let short = world.playable(2).await;

    let claim = Claim {
        kinds: ALL,
        worker: "w",
        lease_ms: LEASE_MS,
        attempts_max: 3,
        left_to_others_ms: 0,
        limit: 1,
    };
    let mut order = Vec::new();
    for _ in 0..106 {
        let leases = world.catalog.claim_jobs(&claim, world.now).await.unwrap();
        order.push(leases[0].job.video);
    }
    let ends_at = |video| order.iter().rposition(|&of| of == video).unwrap();
    assert_eq!(order[..6], [long, first, short, long, first, short], "one after the other");
    assert!(
        ends_at(second) < 12,
        "behind its author's other film, and before most of the long one: {order:?}"
    );
}

both!(a_lost_worker_costs_an_attempt_and_the_last_one_fails_the_video);
async fn a_lost_worker_costs_an_attempt_and_the_last_one_fails_the_video(mut world: World) {
    let video = world.uploaded().await;
    for attempt in 1..=ATTEMPTS_MAX {
        let lease = world.claim(JobKind::Ingest).await;
        assert_eq!(lease.job.attempt, attempt);
        world.advance_ms(LEASE_MS);
        assert!(world.claim_all(ALL).await.is_empty(), "the lease holds to its last instant");
        world.advance_ms(1);
    }
    assert!(world.claim_all(ALL).await.is_empty());
    let seen = world.seen(video).await;
    assert_eq!(seen.state, VideoState::Failed);
    assert_eq!(seen.failure.unwrap().problem, None);
    let dead = world.catalog.jobs(None, Some(JobState::Dead), None, 10).await.unwrap();
    assert!(dead[0].error.as_deref().unwrap().contains("worker was lost"), "{dead:?}");
    world.check().await;

    assert_eq!(world.catalog.retry_job(dead[0].id, world.now).await.unwrap(), RetryJob::Retried);
    assert_eq!(world.catalog.retry_job(dead[0].id, world.now).await.unwrap(), RetryJob::NotDead);
    let nothing = world.id();
    assert_eq!(world.catalog.retry_job(nothing, world.now).await.unwrap(), RetryJob::NotFound);
    assert_eq!(world.seen(video).await.state, VideoState::Processing);
    let lease = world.claim(JobKind::Ingest).await;
    world.ingest(&lease, 0).await.unwrap();
    let seen = world.seen(video).await;
    assert_eq!((seen.state, seen.failure), (VideoState::Ready, None));
    world.check().await;
}

both!(heartbeats_keep_a_lease_and_show_progress);
async fn heartbeats_keep_a_lease_and_show_progress(mut world: World) {
    let video = world.playable(1).await;
    let lease = world.claim(JobKind::Encode).await;
    let before = world.seen(video).await.progress;
    for beat in 1..=4 {
        world.advance_ms(LEASE_MS / 2);
        let until = world.now.plus_ms(LEASE_MS);
        world.catalog.heartbeat(&lease, Some(f64::from(beat) / 4.0), until, world.now).await.unwrap();
        assert!(world.claim_all(ALL).await.is_empty());
    }
    let seen = world.seen(video).await.progress;
    assert!(before < seen && seen <= 1.0, "{before} {seen}");
    world.advance_ms(LEASE_MS + 1);
    let until = world.now.plus_ms(LEASE_MS);
    let late = world.catalog.heartbeat(&lease, None, until, world.now).await;
    assert!(matches!(late, Err(FencedError::LeaseLost)));
}

both!(a_released_job_loses_no_attempt_and_a_failed_one_waits);
async fn a_released_job_loses_no_attempt_and_a_failed_one_waits(mut world: World) {
    world.uploaded().await;
    let lease = world.claim(JobKind::Ingest).await;
    let attempt = world.begin(&lease).await;
    world.catalog.release_job(&lease, world.now).await.unwrap();
    let stale = world.catalog.stale_attempts(world.now.plus_ms(1), 0, 10).await.unwrap();
    assert_eq!(stale, [(lease.job.video, attempt)]);
    let lease = world.claim(JobKind::Ingest).await;
    assert_eq!(lease.job.attempt, 1);
    world.catalog.fail_job(&lease, "full disk", Some(world.now.plus_s(5)), world.now).await.unwrap();
    assert!(world.claim_all(ALL).await.is_empty());
    world.advance_ms(5000);
    let lease = world.claim(JobKind::Ingest).await;
    assert_eq!((lease.job.attempt, lease.token), (2, 5));
    world.catalog.postpone_job(&lease, "full disk", world.now, world.now).await.unwrap();
    assert_eq!(world.claim(JobKind::Ingest).await.job.attempt, 2, "a disturbance is not the job's fault");
    world.check().await;
}

both!(a_postponed_job_tells_since_when_until_it_fails_otherwise);
async fn a_postponed_job_tells_since_when_until_it_fails_otherwise(mut world: World) {
    world.uploaded().await;
    let first = world.now;
    for _ in 0..3 {
        let lease = world.claim(JobKind::Ingest).await;
        world.catalog.postpone_job(&lease, "full disk", world.now, world.now).await.unwrap();
        world.advance_ms(1000);
    }
    let lease = world.claim(JobKind::Ingest).await;
    assert_eq!(lease.job.postponed_since, Some(first));
    world.catalog.release_job(&lease, world.now).await.unwrap();
    let lease = world.claim(JobKind::Ingest).await;
    assert_eq!(lease.job.postponed_since, Some(first), "a shutdown tells nothing about the disturbance");
    world.catalog.fail_job(&lease, "bad luck", Some(world.now), world.now).await.unwrap();
    assert_eq!(world.claim(JobKind::Ingest).await.job.postponed_since, None);
}

both!(a_refused_file_is_not_tried_again);
async fn a_refused_file_is_not_tried_again(mut world: World) {
    let video = world.uploaded().await;
    let lease = world.claim(JobKind::Ingest).await;
    world.catalog.start_processing(&lease, world.now).await.unwrap();
    let detail = "It is a text file.";
    world.catalog.reject_video(&lease, MediaProblem::NotMedia, detail, world.now).await.unwrap();
    let seen = world.seen(video).await;
    let failure = seen.failure.unwrap();
    assert_eq!((seen.state, failure.problem), (VideoState::Rejected, Some(MediaProblem::NotMedia)));
    assert_eq!(failure.detail, detail);
    world.advance_ms(10 * LEASE_MS);
    assert!(world.claim_all(ALL).await.is_empty());
    world.check().await;
}

both!(one_dead_encode_stops_its_siblings_and_a_retry_calls_all_back);
async fn one_dead_encode_stops_its_siblings_and_a_retry_calls_all_back(mut world: World) {
    let video = world.playable(3).await;
    let leases = world.claim_all(&[JobKind::Encode]).await;
    world.encode(&leases[0], 0).await.unwrap();
    world.catalog.fail_job(&leases[1], "poison", None, world.now).await.unwrap();
    still_playable(&world, video).await;
    assert!(matches!(world.encode(&leases[2], 2).await, Err(FencedError::LeaseLost)));
    assert_eq!(world.catalog.retry_job(leases[1].job.id, world.now).await.unwrap(), RetryJob::Retried);
    let leases = world.claim_all(&[JobKind::Encode]).await;
    assert_eq!(leases.len(), 2);
    world.encode(&leases[0], 1).await.unwrap();
    assert!(world.claim_all(&[JobKind::Assemble]).await.is_empty());
    world.encode(&leases[1], 2).await.unwrap();
    let lease = world.claim(JobKind::Assemble).await;
    world.assemble(&lease).await.unwrap();
    assert_eq!(world.seen(video).await.state, VideoState::Ready);
    world.check().await;
}

both!(a_dead_assembly_unpublishes_nothing_and_can_be_called_back);
async fn a_dead_assembly_unpublishes_nothing_and_can_be_called_back(mut world: World) {
    let video = world.playable(1).await;
    let lease = world.claim(JobKind::Encode).await;
    world.encode(&lease, 0).await.unwrap();
    let lease = world.claim(JobKind::Assemble).await;
    world.catalog.fail_job(&lease, "poison", None, world.now).await.unwrap();
    still_playable(&world, video).await;
    assert_eq!(world.catalog.retry_job(lease.job.id, world.now).await.unwrap(), RetryJob::Retried);
    let lease = world.claim(JobKind::Assemble).await;
    world.assemble(&lease).await.unwrap();
    assert_eq!(world.seen(video).await.state, VideoState::Ready);
    world.check().await;
}

both!(an_encode_whose_worker_is_lost_for_good_unpublishes_nothing);
async fn an_encode_whose_worker_is_lost_for_good_unpublishes_nothing(mut world: World) {
    let video = world.playable(1).await;
    for _ in 0..ATTEMPTS_MAX {
        world.claim(JobKind::Encode).await;
        world.advance_ms(LEASE_MS + 1);
    }
    assert!(world.claim_all(ALL).await.is_empty());
    still_playable(&world, video).await;
}

both!(a_file_that_plays_is_not_refused_any_more_and_its_encode_can_be_called_back);
async fn a_file_that_plays_is_not_refused_any_more_and_its_encode_can_be_called_back(mut world: World) {
    let video = world.playable(2).await;
    let leases = world.claim_all(&[JobKind::Encode]).await;
    let detail = "It ends early.";
    world.catalog.reject_video(&leases[0], MediaProblem::Truncated, detail, world.now).await.unwrap();
    still_playable(&world, video).await;
    let job = world.catalog.job(leases[0].job.id).await.unwrap().unwrap();
    assert_eq!(job.state, JobState::Dead);
    assert!(job.error.unwrap().contains(detail));
    assert_eq!(world.catalog.retry_job(job.id, world.now).await.unwrap(), RetryJob::Retried);
    let leases = world.claim_all(&[JobKind::Encode]).await;
    for (number, lease) in (0..).zip(&leases) {
        world.encode(lease, number).await.unwrap();
    }
    let lease = world.claim(JobKind::Assemble).await;
    world.assemble(&lease).await.unwrap();
    assert_eq!(world.seen(video).await.state, VideoState::Ready);
    world.check().await;
}

/// It can be watched, says nothing of a failure, and its rungs are pending.
async fn still_playable(world: &World, video: domain::VideoId) {
    let seen = world.seen(video).await;
    assert_eq!((seen.state, seen.failure), (VideoState::Playable, None));
    let pending = seen.renditions.iter().filter(|r| r.state == RenditionState::Pending).count();
    assert_eq!(pending, seen.renditions.len() - 1);
    assert!(world.catalog.watchable(video, world.now).await.unwrap().is_some());
    world.check().await;
}

both!(a_lost_lease_writes_nothing);
/// Every function that takes a lease, after the lease was lost.
async fn a_lost_lease_writes_nothing(mut world: World) {
    let video = world.uploaded().await;
    let lost = world.claim(JobKind::Ingest).await;
    let attempt = world.begin(&lost).await;
    world.advance_ms(LEASE_MS + 1);
    let held = world.claim(JobKind::Ingest).await;
    assert!(held.token > lost.token);

    let parts = IngestParts::new(&mut world, video, attempt, 1);
    let original = sql::OriginalPublished {
        publication: world.id(),
        rendition: &parts.original,
        storyboard_job: world.id(),
    };
    let renditions = sql::RenditionsPublished {
        attempt,
        publication: world.id(),
        renditions: std::slice::from_ref(&parts.original),
        objects: &parts.objects,
        next_job: world.id(),
    };
    let (now, until, unused) = (world.now, world.now.plus_s(60), world.id());
    let (assemble, catalog) = (world.id(), world.catalog.clone());
    let purge = sql::Purge { deletion: world.id(), objects_deleted: 1, bytes_freed: 1 };
    let before = world.seen(video).await;
    let refused = [
        ("heartbeat", catalog.heartbeat(&lost, Some(1.0), until, now).await),
        ("begin_attempt", catalog.begin_attempt(&lost, unused, now).await),
        ("release_job", catalog.release_job(&lost, now).await),
        ("postpone_job", catalog.postpone_job(&lost, "full", until, now).await),
        ("start_processing", catalog.start_processing(&lost, now).await),
        ("publish_original", catalog.publish_original(&lost, &parts.commit(), &original, now).await),
        ("plan_encode", catalog.plan_encode(&lost, &parts.commit(), now).await),
        ("choose_rates", catalog.choose_rates(&lost, attempt, &parts.plan, &parts.encode_jobs, now).await),
        ("finish_encode", catalog.finish_encode(&lost, attempt, &parts.objects, assemble, now).await),
        ("encode_anew", catalog.encode_anew(&lost, &[], "no", 3, now, now).await.map(|_| ())),
        ("publish_renditions", catalog.publish_renditions(&lost, &renditions, now).await),
        ("replace_cover", catalog.replace_cover(&lost, attempt, &parts.covers, &parts.objects, now).await),
        ("publish_storyboard", catalog.publish_storyboard(&lost, attempt, &parts.objects, now).await),
        ("reject_video", catalog.reject_video(&lost, MediaProblem::NotMedia, "no", now).await),
        ("fail_job", catalog.fail_job(&lost, "no", None, now).await),
        ("start_purge", catalog.start_purge(&lost, now).await.map(|_| ())),
        ("note_purged", catalog.note_purged(&lost, &purge).await),
        ("finish_purge", catalog.finish_purge(&lost, now, now).await),
    ];
    for (function, result) in refused {
        assert!(matches!(result, Err(FencedError::LeaseLost)), "{function}: {result:?}");
    }
    assert_eq!(world.seen(video).await, before);
    assert_eq!(catalog.objects_after(None, 10).await.unwrap().len(), 1, "the source alone");
    let rows = catalog.jobs(None, None, None, 10).await.unwrap();
    assert_eq!(rows.iter().map(|job| job.state).collect::<Vec<_>>(), [JobState::Running]);
    // Whoever holds the lease is not disturbed.
    world.ingest(&held, 1).await.unwrap();
    world.check().await;
}

both!(depths_tell_what_waits_and_since_when);
async fn depths_tell_what_waits_and_since_when(mut world: World) {
    let since = world.now;
    world.uploaded().await;
    world.advance_ms(5000);
    world.uploaded().await;
    let depths = world.catalog.queue_depths(world.now).await.unwrap();
    assert_eq!(depths.len(), 1);
    assert_eq!((depths[0].kind, depths[0].state, depths[0].jobs), (JobKind::Ingest, JobState::Queued, 2));
    assert_eq!(depths[0].oldest_ready_since, Some(since));
}

both!(what_is_said_of_a_strange_file_can_hold_anything);
async fn what_is_said_of_a_strange_file_can_hold_anything(mut world: World) {
    let strange = "moov\0\u{1}\u{feff}\u{10ffff}'\";--";
    let video = world.uploaded().await;
    let lease = world.claim(JobKind::Ingest).await;
    world.catalog.fail_job(&lease, strange, Some(world.now), world.now).await.unwrap();
    let lease = world.claim(JobKind::Ingest).await;
    world.catalog.postpone_job(&lease, strange, world.now, world.now).await.unwrap();
    let error = world.catalog.job(lease.job.id).await.unwrap().unwrap().error.unwrap();
    assert_eq!(error, strange.replace('\0', "\u{fffd}"));
    let lease = world.claim(JobKind::Ingest).await;
    world.catalog.start_processing(&lease, world.now).await.unwrap();
    world.catalog.reject_video(&lease, MediaProblem::NotMedia, strange, world.now).await.unwrap();
    assert_eq!(world.seen(video).await.failure.unwrap().detail, error);
    assert!(world.catalog.credentials(strange).await.unwrap().is_none());

    let video = world.uploaded().await;
    let lease = world.claim(JobKind::Ingest).await;
    world.catalog.start_processing(&lease, world.now).await.unwrap();
    let attempt = world.begin(&lease).await;
    let mut parts = IngestParts::new(&mut world, video, attempt, 1);
    parts.source.container = strange.to_owned();
    parts.source.video_codec = strange.to_owned();
    parts.source.audio_codec = Some(strange.to_owned());
    parts.source.warnings = vec![strange.to_owned()];
    parts.original.codecs = strange.to_owned();
    let original = sql::OriginalPublished {
        publication: world.id(),
        rendition: &parts.original,
        storyboard_job: world.id(),
    };
    world.catalog.publish_original(&lease, &parts.commit(), &original, world.now).await.unwrap();
    assert_eq!(world.seen(video).await.warnings, [strange]);
}

use domain::{JobKind, ObjectFile, Phase, RenditionName, RenditionState, VideoState};
use sql::FencedError;

use crate::both;
use crate::world::{IngestParts, LEASE_MS, World};

both!(an_upload_becomes_playable_then_ready);
async fn an_upload_becomes_playable_then_ready(mut world: World) {
    let video = world.playable(2).await;
    let seen = world.seen(video).await;
    assert_eq!((seen.state, seen.duration_s), (VideoState::Playable, Some(10.0)));
    assert_eq!(seen.warnings, ["The file was cut off."]);
    let states: Vec<_> = seen.renditions.iter().map(|r| (r.name, r.state)).collect();
    use RenditionName::{Low, Medium, Original};
    use RenditionState::{Pending, Ready};
    assert_eq!(states, [(Original, Ready), (Medium, Pending), (Low, Pending)]);
    let first = world.catalog.watchable(video, world.now).await.unwrap().unwrap();

    let leases = world.claim_all(&[JobKind::Encode]).await;
    world.encode(&leases[0], 0).await.unwrap();
    assert!(world.claim_all(&[JobKind::Assemble]).await.is_empty());
    world.encode(&leases[1], 1).await.unwrap();
    assert_eq!(world.catalog.objects_of(video, "chunk").await.unwrap().len(), 2);
    assert_eq!(world.catalog.plan(video).await.unwrap().unwrap().chunks.len(), 2);
    let lease = world.claim(JobKind::Assemble).await;
    world.assemble(&lease).await.unwrap();

    let seen = world.seen(video).await;
    assert_eq!((seen.state, seen.progress), (VideoState::Ready, 1.0));
    assert!(seen.renditions.iter().all(|r| r.state == Ready && r.size_bytes.is_some()));
    let second = world.catalog.watchable(video, world.now).await.unwrap().unwrap();
    assert_ne!(first.publication, second.publication);
    assert_eq!(first.published_at, second.published_at);
    let live = world.catalog.publication(second.publication).await.unwrap().unwrap();
    assert_eq!(live.renditions.iter().map(|r| r.name).collect::<Vec<_>>(), [Original, Medium, Low]);
    let before = world.catalog.publication(first.publication).await.unwrap().unwrap();
    assert_eq!(before.renditions[0], live.renditions[0], "what was out stays as it was");

    // The chunks did their part.
    let stale = world.catalog.stale_attempts(world.now.plus_ms(1), 0, 10).await.unwrap();
    assert_eq!(stale.len(), 2);
    for (_, attempt) in stale {
        world.catalog.forget_attempt(attempt).await.unwrap();
    }
    assert!(world.catalog.objects_of(video, "chunk").await.unwrap().is_empty());
    world.check().await;
}

both!(a_source_that_browsers_cannot_play_is_watched_after_its_first_phase);
async fn a_source_that_browsers_cannot_play_is_watched_after_its_first_phase(mut world: World) {
    let video = world.video().await;
    world.unplayable_as(video, 2).await;
    let seen = world.seen(video).await;
    assert_eq!(seen.state, VideoState::Processing);
    let planned: Vec<_> = seen.renditions.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(planned, ["original", "high", "lowest", "high-av1", "lowest-av1"]);
    assert!(world.catalog.watchable(video, world.now).await.unwrap().is_none());

    // A chunk of the last phase is done before the first phase is.
    let leases = world.claim_all(&[JobKind::Encode]).await;
    let phases: Vec<_> = leases.iter().map(|lease| lease.job.phase).collect();
    use Phase::{First, Last};
    assert_eq!(phases, [First, First, Last, Last]);
    world.advance_ms(10_000);
    for done in [0, 2] {
        world.encode(&leases[done], 0).await.unwrap();
        assert!(world.claim_all(&[JobKind::Assemble]).await.is_empty());
    }
    world.encode(&leases[1], 1).await.unwrap();
    let pending = |seen: &sql::Video, name: RenditionName| {
        seen.renditions.iter().find(|r| r.name == name).map(|r| r.progress).unwrap()
    };
    let seen = world.seen(video).await;
    assert!(pending(&seen, RenditionName::Lowest) > 0.9, "{seen:?}");
    assert!((0.4..0.6).contains(&pending(&seen, RenditionName::Original)), "{seen:?}");
    assert!((0.6..0.8).contains(&seen.progress), "three of four equal chunks: {}", seen.progress);
    let lease = world.claim(JobKind::Assemble).await;
    assert_eq!(lease.job.phase, First);
    world.assemble_phase(&lease, &[RenditionName::Lowest]).await.unwrap();

    let seen = world.seen(video).await;
    assert_eq!(seen.state, VideoState::Playable);
    let ready: Vec<_> = seen.renditions.iter().filter(|r| r.state == RenditionState::Ready).collect();
    assert_eq!((ready.len(), ready[0].name), (1, RenditionName::Lowest));
    let first = world.catalog.watchable(video, world.now).await.unwrap().unwrap();
    assert!(world.claim_all(&[JobKind::Assemble, JobKind::Cover]).await.is_empty());
    assert_eq!(world.catalog.stale_attempts(world.now.plus_ms(1), 0, 10).await.unwrap(), []);
    world.check().await;

    world.advance_ms(1000);
    world.encode(&leases[3], 1).await.unwrap();
    let lease = world.claim(JobKind::Assemble).await;
    assert_eq!(lease.job.phase, Last);
    use RenditionName::{High, HighAv1, Lowest, LowestAv1, Original};
    world.assemble_phase(&lease, &[Original, High, HighAv1, LowestAv1]).await.unwrap();
    let seen = world.seen(video).await;
    assert_eq!((seen.state, seen.renditions.len(), seen.progress), (VideoState::Ready, 5, 1.0));
    let second = world.catalog.watchable(video, world.now).await.unwrap().unwrap();
    assert_eq!(first.published_at, second.published_at);
    let live = world.catalog.publication(second.publication).await.unwrap().unwrap();
    for rendition in &live.renditions {
        let at = if rendition.name == Lowest { first.published_at } else { world.now };
        assert_eq!(rendition.published_at, at, "{}", rendition.name);
    }
    let stale = world.catalog.stale_attempts(world.now.plus_ms(1), 0, 10).await.unwrap();
    assert_eq!(stale.len(), 4, "the chunks of both phases did their part");
    world.check().await;
}

both!(the_last_phase_may_be_encoded_before_the_first_is_published);
async fn the_last_phase_may_be_encoded_before_the_first_is_published(mut world: World) {
    let video = world.video().await;
    world.unplayable_as(video, 1).await;
    let leases = world.claim_all(&[JobKind::Encode]).await;
    world.encode(&leases[0], 0).await.unwrap();
    let first = world.claim(JobKind::Assemble).await;
    world.encode(&leases[1], 0).await.unwrap();
    assert!(world.claim_all(&[JobKind::Assemble]).await.is_empty(), "one at a time");
    world.assemble_phase(&first, &[RenditionName::Lowest]).await.unwrap();
    assert_eq!(world.claim(JobKind::Assemble).await.job.phase, Phase::Last);
    world.check().await;
}

both!(an_original_that_cannot_be_encoded_takes_nothing_away_and_can_be_called_back);
async fn an_original_that_cannot_be_encoded_takes_nothing_away_and_can_be_called_back(mut world: World) {
    let video = world.video().await;
    world.unplayable_as(video, 1).await;
    let leases = world.claim_all(&[JobKind::Encode]).await;
    world.encode(&leases[0], 0).await.unwrap();
    let lease = world.claim(JobKind::Assemble).await;
    world.assemble_phase(&lease, &[RenditionName::Lowest]).await.unwrap();
    world.catalog.fail_job(&leases[1], "poison", None, world.now).await.unwrap();
    let seen = world.seen(video).await;
    assert_eq!((seen.state, seen.failure, seen.stage), (VideoState::Playable, None, None));
    world.check().await;
    world.catalog.retry_job(leases[1].job.id, world.now).await.unwrap();
    let lease = world.claim(JobKind::Encode).await;
    world.encode(&lease, 0).await.unwrap();
    assert_eq!(world.claim(JobKind::Assemble).await.job.phase, Phase::Last);
    world.check().await;
}

both!(who_waits_to_be_watched_goes_before_its_authors_last_phases);
async fn who_waits_to_be_watched_goes_before_its_authors_last_phases(mut world: World) {
    let author = world.user("zoe").await;
    let (long, short) = (world.video_of(author).await, world.video_of(author).await);
    world.unplayable_as(long, 10).await;
    for _ in 0..10 {
        assert_eq!(world.claim_one("w", JobKind::Encode).await.job.phase, Phase::First);
    }
    world.unplayable_as(short, 2).await;
    let mut order = Vec::new();
    for _ in 0..5 {
        let lease = world.claim_one("w", JobKind::Encode).await;
        order.push((lease.job.video, lease.job.phase));
    }
    let of_short = order.iter().filter(|of| **of == (short, Phase::First)).count();
    assert_eq!(of_short, 2, "not behind the ten others of the long one: {order:?}");
    assert!(order.contains(&(long, Phase::Last)), "which go on: {order:?}");
}

both!(a_source_without_rungs_is_ready_at_once);
async fn a_source_without_rungs_is_ready_at_once(mut world: World) {
    let video = world.playable(0).await;
    assert_eq!(world.seen(video).await.state, VideoState::Ready);
    world.check().await;
}

both!(a_film_that_is_ready_gets_a_storyboard);
async fn a_film_that_is_ready_gets_a_storyboard(mut world: World) {
    let video = world.playable(1).await;
    assert!(world.claim_all(&[JobKind::Cover]).await.is_empty(), "what makes it ready goes first");
    let encode = world.claim(JobKind::Encode).await;
    world.encode(&encode, 0).await.unwrap();
    let assemble = world.claim(JobKind::Assemble).await;
    world.assemble(&assemble).await.unwrap();
    let lease = world.claim(JobKind::Cover).await;
    assert_eq!(lease.job.payload, sql::STORYBOARD);
    let attempt = world.begin(&lease).await;
    assert_eq!(world.seen(video).await.storyboard_attempt, None);

    // A new cover neither stops it nor takes it away.
    let patch = sql::VideoPatch { cover_at_s: Some(1.0), ..sql::VideoPatch::default() };
    let job = world.id();
    world.catalog.update_video(video, &patch, job, world.now).await.unwrap();
    let files = [ObjectFile::StoryboardCues, ObjectFile::StoryboardSprite];
    let objects = crate::world::objects(video, attempt, &files);
    world.catalog.publish_storyboard(&lease, attempt, &objects, world.now).await.unwrap();
    let cover = world.claim(JobKind::Cover).await;
    let covers = domain::task::Covers { files: Vec::new(), width_max: 480, thumbhash: "eA==".to_owned() };
    let taken = world.begin(&cover).await;
    world.catalog.replace_cover(&cover, taken, &covers, &[], world.now).await.unwrap();

    let watchable = world.catalog.watchable(video, world.now).await.unwrap().unwrap();
    assert_eq!(watchable.storyboard_attempt, Some(attempt));
    assert_eq!(world.seen(video).await.storyboard_attempt, Some(attempt));
    assert_eq!(world.catalog.attempt(attempt).await.unwrap().unwrap().state, sql::AttemptState::Committed);
    world.check().await;
}

both!(what_the_sweeper_declared_lost_cannot_be_committed);
async fn what_the_sweeper_declared_lost_cannot_be_committed(mut world: World) {
    let video = world.uploaded().await;
    let lease = world.claim(JobKind::Ingest).await;
    world.catalog.start_processing(&lease, world.now).await.unwrap();
    let attempt = world.begin(&lease).await;
    world.advance_ms(LEASE_MS + 1);
    world.catalog.stale_attempts(world.now, LEASE_MS, 10).await.unwrap();
    let parts = IngestParts::new(&mut world, video, attempt, 1);
    let original = sql::OriginalPublished {
        publication: world.id(),
        rendition: &parts.original,
        storyboard_job: world.id(),
    };
    let late = world.catalog.publish_original(&lease, &parts.commit(), &original, world.now).await;
    assert!(matches!(late, Err(FencedError::LeaseLost)));
    assert_eq!(world.seen(video).await.state, VideoState::Processing);
    assert!(world.catalog.objects_of(video, "original").await.unwrap().is_empty());
}

both!(the_choice_of_rates_comes_before_the_chunks_and_counts_for_nothing);
async fn the_choice_of_rates_comes_before_the_chunks_and_counts_for_nothing(mut world: World) {
    let video = world.uploaded().await;
    let lease = world.claim(JobKind::Ingest).await;
    world.catalog.start_processing(&lease, world.now).await.unwrap();
    let attempt = world.begin(&lease).await;
    let mut parts = IngestParts::new(&mut world, video, attempt, 2);
    let chunks = std::mem::take(&mut parts.encode_jobs);
    let rates = sql::NewEncode {
        id: world.id(),
        phase: domain::Phase::Last,
        payload: sql::RATES.to_owned(),
        estimate_s: 20.0,
    };
    parts.encode_jobs = vec![rates];
    let original = sql::OriginalPublished {
        publication: world.id(),
        rendition: &parts.original,
        storyboard_job: world.id(),
    };
    world.catalog.publish_original(&lease, &parts.commit(), &original, world.now).await.unwrap();
    let begun = world.seen(video).await;
    assert_eq!(begun.state, VideoState::Playable, "there is something to encode");

    let lease = world.claim(JobKind::Encode).await;
    assert_eq!(lease.job.payload, sql::RATES);
    world.advance_ms(20_000);
    let until = world.now.plus_ms(crate::world::LEASE_MS);
    world.catalog.heartbeat(&lease, Some(0.9), until, world.now).await.unwrap();
    let seen = world.seen(video).await;
    assert_eq!(
        (seen.progress, seen.eta_s, seen.stage),
        (begun.progress, None, Some(domain::Stage::Encoding))
    );
    let attempt = world.begin(&lease).await;
    parts.plan.rungs = parts.plan.rungs.iter().map(|rung| rung.at_chosen(27.5)).collect();
    // The answer to the first call was lost.
    for _ in 0..2 {
        world.catalog.choose_rates(&lease, attempt, &parts.plan, &chunks, world.now).await.unwrap();
    }
    let planned = world.catalog.plan(video).await.unwrap().unwrap();
    assert_eq!(planned.rungs.iter().map(|rung| rung.crf).collect::<Vec<_>>(), [27.5, 27.5]);
    let seen = world.seen(video).await;
    assert_eq!((seen.progress, seen.stage), (begun.progress, Some(domain::Stage::Waiting)));

    // Each takes as long as was guessed, whatever the choice took.
    let lease = world.claim_one("w", JobKind::Encode).await;
    world.advance_ms(10_000);
    world.encode(&lease, 0).await.unwrap();
    let half = world.seen(video).await.progress;
    assert!((half - 0.49).abs() < 0.02, "{half}");
    let lease = world.claim(JobKind::Encode).await;
    world.encode(&lease, 1).await.unwrap();
    let lease = world.claim(JobKind::Assemble).await;
    world.assemble(&lease).await.unwrap();
    assert_eq!(world.seen(video).await.state, VideoState::Ready);
    world.check().await;
}

use domain::{JobKind, ObjectFile, RenditionName, RenditionState, VideoState};
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

both!(a_source_that_browsers_cannot_play_waits_for_its_rungs);
async fn a_source_that_browsers_cannot_play_waits_for_its_rungs(mut world: World) {
    let video = world.uploaded().await;
    let lease = world.claim(JobKind::Ingest).await;
    world.catalog.start_processing(&lease, world.now).await.unwrap();
    let attempt = world.begin(&lease).await;
    let mut parts = IngestParts::new(&mut world, video, attempt, 1);
    let ladder = domain::LadderSettings {
        crf: 23.0,
        rungs: "high:720,lowest:144".parse().unwrap(),
        codecs: vec![domain::VideoCodec::Av1],
    };
    parts.plan.rungs = vec![domain::Rung::original(parts.source.size)];
    parts.plan.rungs.extend(ladder.rungs(parts.source.size));
    world.catalog.plan_encode(&lease, &parts.commit(), world.now).await.unwrap();
    let seen = world.seen(video).await;
    assert_eq!(seen.state, VideoState::Processing);
    let planned: Vec<_> = seen.renditions.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(planned, ["original", "high", "lowest", "high-av1", "lowest-av1"]);
    assert!(world.catalog.watchable(video, world.now).await.unwrap().is_none());

    let lease = world.claim(JobKind::Encode).await;
    world.encode(&lease, 0).await.unwrap();
    let lease = world.claim(JobKind::Assemble).await;
    let attempt = world.begin(&lease).await;
    let made: Vec<_> = seen
        .renditions
        .iter()
        .map(|r| crate::world::rendition(r.name, r.size.width, r.size.height))
        .collect();
    let objects = crate::world::objects(video, attempt, &[]);
    let (publication, storyboard_job) = (world.id(), world.id());
    let published = sql::RenditionsPublished {
        attempt,
        publication,
        renditions: &made,
        objects: &objects,
        storyboard_job,
    };
    world.catalog.publish_renditions(&lease, &published, world.now).await.unwrap();
    assert_eq!(world.seen(video).await.state, VideoState::Ready);
    world.check().await;
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

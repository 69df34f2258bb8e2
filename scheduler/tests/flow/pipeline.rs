use std::time::Duration;

use domain::{JobKind, JobState, RenditionName, RenditionState, VideoState};
use sql::VideoPatch;

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_becomes_ready() {
    let world = World::new().await;
    let at_work = world.start();
    let video = world.upload("chunks=2 audio").await;
    let seen = world.until_drawn(video).await;
    assert_eq!(seen.renditions.len(), 3);
    assert!(seen.renditions.iter().all(|r| r.state == RenditionState::Ready), "{:?}", seen.renditions);
    assert_eq!(seen.progress, 1.0);
    let jobs = world.catalog.jobs(None, None, None, 100).await.unwrap();
    assert!(jobs.iter().all(|job| job.state == JobState::Done && job.attempts == 1), "{jobs:?}");
    assert_eq!(jobs.iter().filter(|job| job.kind == JobKind::Encode).count(), 3, "two chunks and the audio");
    let stored = world.objects_of(video).await;
    for file in ["medium.index.json", "storyboard.vtt", "storyboard.jpg"] {
        assert!(stored.iter().any(|path| path.ends_with(file)), "{stored:?}");
    }
    at_work.stop().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_of_this_process_waits_for_no_poll() {
    let mut world = World::new().await;
    world.config.jobs.poll_ms = 3_600_000;
    let at_work = world.start();
    // Whoever looks for the first time finds what is there; the second has to be told of.
    for _ in 0..2 {
        let video = world.upload("").await;
        world.until(video, VideoState::Ready).await;
    }
    at_work.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_browsers_cannot_play_is_watched_before_its_original_is_encoded() {
    let world = World::new().await;
    let at_work = world.start();
    let video = world.upload("chunks=3 audio no-original hang-original").await;
    let seen = world.until(video, VideoState::Playable).await;
    let states: Vec<_> = seen.renditions.iter().map(|r| (r.name, r.state)).collect();
    use RenditionName::{Low, Medium, Original};
    use RenditionState::{Pending, Ready};
    assert_eq!(states, [(Original, Pending), (Medium, Pending), (Low, Ready)]);
    let running = |jobs: &[sql::JobRow]| {
        jobs.iter().any(|job| job.kind == JobKind::Encode && job.state == JobState::Running)
    };
    let jobs = world.until_jobs("the others are being encoded", running).await;
    let encodes: Vec<_> = jobs.iter().filter(|job| job.kind == JobKind::Encode).collect();
    let done = encodes.iter().filter(|job| job.state == JobState::Done).count();
    assert_eq!((encodes.len(), done), (7, 4), "the audio, and each chunk once more than it is done");
    world.check_library().await;
    at_work.stop().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_encoded_in_two_phases_becomes_ready() {
    let world = World::new().await;
    let at_work = world.start();
    let video = world.upload("chunks=2 audio no-original").await;
    let seen = world.until_drawn(video).await;
    assert_eq!(seen.renditions.len(), 3);
    assert!(seen.renditions.iter().all(|r| r.state == RenditionState::Ready), "{:?}", seen.renditions);
    at_work.stop().await;
    let jobs = world.catalog.jobs(None, None, None, 100).await.unwrap();
    assert!(jobs.iter().all(|job| job.state == JobState::Done && job.attempts == 1), "{jobs:?}");
    let of = |kind| jobs.iter().filter(|job| job.kind == kind).count();
    assert_eq!((of(JobKind::Encode), of(JobKind::Assemble)), (5, 2));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_a_smaller_rung_is_watched_once_encoded() {
    let world = World::new().await;
    let at_work = world.start();
    let video = world.upload("chunks=1 one-rung no-original").await;
    let seen = world.until(video, VideoState::Ready).await;
    assert_eq!(seen.renditions[0].name, RenditionName::Original);
    at_work.stop().await;
    let assembled = world.catalog.jobs(Some(JobKind::Assemble), None, None, 10).await.unwrap();
    assert_eq!(assembled.len(), 1);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_playable_waits_behind_an_encode() {
    let world = World::new().await;
    let at_work = world.start();
    // These hold every place for encodes.
    for _ in 0..8 {
        let video = world.upload("chunks=1 hang-encode").await;
        world.until(video, VideoState::Playable).await;
    }
    let video = world.upload("").await;
    world.until(video, VideoState::Ready).await;
    at_work.stop().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_runs_only_the_kinds_it_is_told() {
    let mut world = World::new().await;
    world.config.kinds = vec![JobKind::Ingest];
    let at_work = world.start();
    let video = world.upload("chunks=1").await;
    world.until(video, VideoState::Playable).await;
    at_work.stop().await;
    world.config.kinds = vec![JobKind::Encode, JobKind::Assemble];
    let at_work = world.start();
    world.until(video, VideoState::Ready).await;
    at_work.stop().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cover_takes_the_place_of_the_old_one() {
    let world = World::new().await;
    let at_work = world.start();
    let video = world.upload("").await;
    let before = world.until(video, VideoState::Ready).await.cover_attempt;
    let patch = VideoPatch { cover_at_s: Some(3.0), ..VideoPatch::default() };
    let (now, job) = (world.clock.now(), world.ids.next(world.clock.now()));
    world.catalog.update_video(video, &patch, job, now).await.unwrap().unwrap();
    let changed = async || world.seen(video).await.cover_attempt.filter(|&after| Some(after) != before);
    crate::world::eventually(changed, || "the cover changes".to_owned()).await;
    at_work.stop().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_gives_jobs_back_unharmed() {
    let mut world = World::new().await;
    world.config.jobs.encode_slots = Some(1);
    let at_work = world.start();
    let video = world.upload("chunks=1 hang-encode").await;
    let running = |jobs: &[sql::JobRow]| {
        jobs.iter().any(|job| job.kind == JobKind::Encode && job.state == JobState::Running)
    };
    world.until_jobs("the encode runs", running).await;
    let stopped = tokio::time::timeout(Duration::from_secs(10), at_work.stop()).await;
    stopped.expect("the child does not hold it up");
    let jobs = world.catalog.jobs(Some(JobKind::Encode), None, None, 10).await.unwrap();
    assert_eq!((jobs[0].state, jobs[0].attempts), (JobState::Queued, 0));
    assert_eq!(world.seen(video).await.state, VideoState::Playable);
    world.check().await;
}

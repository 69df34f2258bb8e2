use domain::{JobKind, JobState, MediaProblem, VideoState};
use store::{Faulty, Memory, Weather};

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_file_is_rejected_at_once() {
    let world = World::new().await;
    let at_work = world.start();
    let video = world.upload("reject").await;
    let seen = world.until(video, VideoState::Rejected).await;
    let failure = seen.failure.unwrap();
    assert_eq!((failure.problem, &*failure.detail), (Some(MediaProblem::NotMedia), "It is words."));
    let jobs = world.catalog.jobs(None, None, None, 10).await.unwrap();
    assert_eq!((jobs.len(), jobs[0].attempts), (1, 1));
    at_work.stop().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_costs_its_attempts_and_nobody_elses_video() {
    let world = World::new().await;
    let at_work = world.start();
    for (words, said) in [("crash", "about to crash"), ("fail", "bad luck"), ("lie", "announced")] {
        let poison = world.upload(words).await;
        let good = world.upload("chunks=1").await;
        let seen = world.until(poison, VideoState::Failed).await;
        assert_eq!(seen.failure.unwrap().problem, None);
        world.until(good, VideoState::Ready).await;
        let dead = world.catalog.jobs(None, Some(JobState::Dead), None, 10).await.unwrap();
        assert_eq!((dead[0].video, dead[0].attempts), (poison, 3));
        let error = dead[0].error.as_deref().unwrap();
        assert!(error.contains(said), "{words}: {error}");
    }
    at_work.stop().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_place_of_a_file_is_not_followed() {
    let world = World::new().await;
    let at_work = world.start();
    let video = world.upload("link").await;
    world.until(video, VideoState::Failed).await;
    let stored = world.objects_of(video).await;
    assert!(stored.iter().all(|path| !path.ends_with("original.index.json")), "{stored:?}");
    at_work.stop().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encode_that_always_crashes_ends_and_can_be_called_back() {
    let world = World::new().await;
    let at_work = world.start();
    let video = world.upload("chunks=2 crash-encode").await;
    let died = |jobs: &[sql::JobRow]| jobs.iter().any(|job| job.state == JobState::Dead);
    world.until_jobs("an encode is dead", died).await;
    at_work.stop().await;
    world.check().await;
    let dead = world.catalog.jobs(Some(JobKind::Encode), Some(JobState::Dead), None, 10).await.unwrap();
    assert_eq!(dead.len(), 1, "its sibling was cancelled with it: {dead:?}");
    assert_eq!(world.seen(video).await.state, VideoState::Playable, "its original can be watched as before");
    world.catalog.retry_job(dead[0].id, world.clock.now()).await.unwrap();
    let queued = world.catalog.jobs(Some(JobKind::Encode), Some(JobState::Queued), None, 10).await.unwrap();
    assert_eq!(queued.len(), 2, "{queued:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_fails_the_check_is_encoded_anew() {
    let mut world = World::new().await;
    world.config.jobs.encode_slots = Some(1);
    let folder = tempfile::tempdir().unwrap();
    let at_work = world.start();
    let marker = folder.path().join("was-bad");
    let video = world.upload(&format!("chunks=2 audio no-original bad-once={}", marker.display())).await;
    let seen = world.until(video, VideoState::Ready).await;
    assert!(seen.renditions.iter().all(|rendition| rendition.engine.as_deref() == Some("words")));
    at_work.stop().await;
    let jobs = world.catalog.jobs(None, None, None, 100).await.unwrap();
    let attempts =
        |kind| jobs.iter().filter(|job| job.kind == kind).map(|job| job.attempts).collect::<Vec<_>>();
    let mut encodes = attempts(JobKind::Encode);
    encodes.sort_unstable();
    assert_eq!(encodes, [1, 1, 1, 1, 2], "only the bad chunk");
    assert_eq!(attempts(JobKind::Assemble), [1, 1, 1]);
    let refused = jobs.iter().find(|job| job.error.is_some()).unwrap();
    assert_eq!((refused.kind, refused.error.as_deref()), (JobKind::Assemble, Some("a chunk is bad")));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_of_the_last_phase_is_encoded_anew_while_the_first_is_watched() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let marker = folder.path().join("was-bad");
    let at_work = world.start();
    let words = format!("chunks=2 audio no-original bad-original-once={}", marker.display());
    let video = world.upload(&words).await;
    world.until(video, VideoState::Ready).await;
    at_work.stop().await;
    let jobs = world.catalog.jobs(None, None, None, 100).await.unwrap();
    let again: Vec<_> = jobs.iter().filter(|job| job.attempts > 1).map(|job| job.kind).collect();
    assert_eq!(again, [JobKind::Encode], "of the first phase none, of the last the bad one");
    assert_eq!(jobs.iter().filter(|job| job.kind == JobKind::Assemble).count(), 3);
    let stored = world.objects_of(video).await;
    assert_eq!(stored.iter().filter(|path| path.ends_with("low.video.mp4")).count(), 1, "{stored:?}");
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_never_passes_the_check_fails_the_video_with_the_reason() {
    let world = World::new().await;
    let at_work = world.start();
    let video = world.upload("chunks=2 no-original bad").await;
    world.until(video, VideoState::Failed).await;
    let dead = world.catalog.jobs(None, Some(JobState::Dead), None, 10).await.unwrap();
    assert!(dead.iter().all(|job| job.kind == JobKind::Encode && job.attempts == 3), "{dead:?}");
    assert_eq!(dead[0].error.as_deref(), Some("a chunk is bad"));
    let assembled = world.catalog.jobs(Some(JobKind::Assemble), None, None, 10).await.unwrap();
    assert_eq!(assembled.len(), 3, "each round is one assembly: {assembled:?}");
    at_work.stop().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_never_ends_is_stopped() {
    let mut world = World::new().await;
    world.config.jobs.task_s_max = 1;
    world.config.jobs.attempts_max = 1;
    let at_work = world.start();
    let video = world.upload("hang").await;
    world.until(video, VideoState::Failed).await;
    let dead = world.catalog.jobs(None, Some(JobState::Dead), None, 10).await.unwrap();
    assert!(dead[0].error.as_deref().unwrap().contains("after 1 s"), "{dead:?}");
    at_work.stop().await;
    world.check().await;
}

/// The row changes hands under the worker's feet, as when its clock stood still for longer than a lease.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lease_stops_the_run_and_what_it_wrote_is_swept() {
    let world = World::new().await;
    let at_work = world.start();
    let video = world.upload("hang").await;
    let running = |jobs: &[sql::JobRow]| jobs.iter().any(|job| job.state == JobState::Running);
    world.until_jobs("the ingest runs", running).await;
    // Deleting raises the fence; the purge waits for the writer and finds nothing left. Here nobody is told of it.
    let elsewhere = world.clone().connected_anew().await;
    let deletion = elsewhere.delete(video).await;
    let done = world.until_purged(&deletion).await;
    assert_eq!(done.receipt.unwrap().objects_deleted, 1, "the source");
    at_work.stop().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_weather_in_the_store_costs_no_attempt() {
    let mut world = World::new().await;
    let memory = Memory::new();
    world.store = std::sync::Arc::new(memory.clone());
    let video = world.upload("chunks=1").await;
    let weather = Weather { fails_before: 0.2, ..Weather::default() };
    world.store = std::sync::Arc::new(Faulty::new(memory, 7, weather));
    let at_work = world.start();
    world.until_drawn(video).await;
    at_work.stop().await;
    let jobs = world.catalog.jobs(None, None, None, 10).await.unwrap();
    assert!(jobs.iter().all(|job| job.attempts == 1), "{jobs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disturbance_that_stays_ends_the_job_which_can_be_called_back() {
    let mut world = World::new().await;
    let memory = Memory::new();
    world.store = std::sync::Arc::new(memory.clone());
    let video = world.upload("").await;
    let weather = Weather { fails_before: 1.0, ..Weather::default() };
    world.store = std::sync::Arc::new(Faulty::new(memory.clone(), 7, weather));
    world.config.postponed_ms_max = 200;
    let at_work = world.start();
    world.until(video, VideoState::Failed).await;
    at_work.stop().await;
    let dead = world.catalog.jobs(None, Some(JobState::Dead), None, 10).await.unwrap();
    assert_eq!(dead[0].attempts, 1, "what came before did not count: {dead:?}");
    world.catalog.retry_job(dead[0].id, world.clock.now()).await.unwrap();
    world.store = std::sync::Arc::new(memory);
    let at_work = world.start();
    world.until(video, VideoState::Ready).await;
    at_work.stop().await;
    world.check().await;
}

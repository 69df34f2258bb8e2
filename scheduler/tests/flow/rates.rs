//! The choice of rates: a job of its own before the chunks, which a film can do without.

use domain::{JobKind, JobState, VideoId, VideoState};
use sql::JobRow;

use crate::world::World;

async fn crfs(world: &World, video: VideoId) -> Vec<f64> {
    let plan = world.catalog.plan(video).await.unwrap().unwrap();
    plan.rungs.iter().map(|rung| rung.crf).collect()
}

async fn encodes(world: &World) -> Vec<JobRow> {
    let mut jobs = world.catalog.jobs(Some(JobKind::Encode), None, None, 100).await.unwrap();
    jobs.reverse();
    jobs
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chunks_of_a_long_film_are_encoded_at_the_rates_chosen() {
    let world = World::new().await;
    let at_work = world.start();
    let short = world.upload("chunks=1").await;
    world.until_drawn(short).await;
    assert_eq!((encodes(&world).await.len(), crfs(&world, short).await), (1, vec![23.0, 23.0]));
    let long = world.upload("long chunks=2 audio").await;
    let seen = world.until_drawn(long).await;
    assert_eq!((seen.progress, seen.renditions.len()), (1.0, 3));
    assert_eq!(crfs(&world, long).await, [27.5, 27.5]);
    let jobs: Vec<_> = encodes(&world).await.into_iter().filter(|job| job.video == long).collect();
    assert_eq!(jobs.len(), 4, "the choice, two chunks and the audio");
    assert!(jobs.iter().all(|job| job.created_at >= jobs[0].finished_at.unwrap() || job.id == jobs[0].id));
    at_work.stop().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rung_with_a_rate_of_its_own_keeps_it() {
    let mut world = World::new().await;
    world.config.encode.rungs = "medium:480,low:360:30".parse().unwrap();
    let at_work = world.start();
    let video = world.upload("long chunks=1").await;
    world.until(video, VideoState::Ready).await;
    // The fake's plan knows nothing of settings.
    assert_eq!(crfs(&world, video).await, [27.5, 23.0]);
    at_work.stop().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_choice_that_was_killed_is_made_again() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let at_work = world.start();
    let marker = folder.path().join("was-there");
    let video = world.upload(&format!("long chunks=1 crash-rates-once={}", marker.display())).await;
    world.until(video, VideoState::Ready).await;
    assert_eq!(crfs(&world, video).await, [27.5, 27.5]);
    assert_eq!(encodes(&world).await.iter().map(|job| job.attempts).collect::<Vec<_>>(), [2, 1]);
    at_work.stop().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_whose_rates_cannot_be_chosen_is_encoded_as_planned() {
    let world = World::new().await;
    let at_work = world.start();
    let video = world.upload("long chunks=1 fail-rates").await;
    world.until(video, VideoState::Ready).await;
    assert_eq!(crfs(&world, video).await, [23.0, 23.0]);
    assert_eq!(encodes(&world).await[0].attempts, world.config.jobs.attempts_max);
    at_work.stop().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_whose_choice_is_refused_is_not_refused() {
    let world = World::new().await;
    let at_work = world.start();
    let video = world.upload("long chunks=1 reject-rates").await;
    world.until(video, VideoState::Ready).await;
    assert_eq!(crfs(&world, video).await, [23.0, 23.0]);
    assert_eq!(encodes(&world).await[0].attempts, 1, "trying again would change nothing");
    at_work.stop().await;
    world.check().await;
}

/// What is watched first has the factor of the plan, and `original` its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_phase_does_not_wait_for_the_choice() {
    let world = World::new().await;
    let at_work = world.start();
    let video = world.upload("long chunks=2 audio no-original hang-rates").await;
    world.until(video, VideoState::Playable).await;
    let seen = world.seen(video).await;
    assert!(seen.progress < 0.9, "most is still to come: {}", seen.progress);
    assert_eq!(encodes(&world).await.len(), 4, "the choice, and two chunks and the audio of the first phase");
    let deletion = world.delete(video).await;
    world.until_purged(&deletion).await;
    let video = world.upload("long chunks=2 audio no-original").await;
    world.until_drawn(video).await;
    assert_eq!(crfs(&world, video).await, [20.0, 27.5, 23.0]);
    assert_eq!(encodes(&world).await.len(), 6, "and two chunks of the last");
    at_work.stop().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_deleted_while_its_rates_are_chosen_leaves_nothing() {
    let world = World::new().await;
    let at_work = world.start();
    let video = world.upload("long chunks=1 hang-rates").await;
    let running = |jobs: &[JobRow]| {
        jobs.iter().any(|job| job.kind == JobKind::Encode && job.state == JobState::Running)
    };
    world.until_jobs("the choice runs", running).await;
    let deletion = world.delete(video).await;
    world.until_purged(&deletion).await;
    assert!(world.objects_of(video).await.is_empty());
    assert_eq!(world.catalog.jobs(None, None, None, 10).await.unwrap(), []);
    at_work.stop().await;
    world.check().await;
}

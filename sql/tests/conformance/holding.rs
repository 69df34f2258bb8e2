//! Rows and leases that somebody holds: who waits, who does not, and until when.

use domain::JobKind;
use sql::{Catalog, Claim, NewUpload, SqlError};

use crate::both;
use crate::crowd::many_uploaded;
use crate::world::{ALL, ATTEMPTS_MAX, LEASE_MS, World};

both!(nobody_waits_for_a_job_that_somebody_else_holds);
async fn nobody_waits_for_a_job_that_somebody_else_holds(mut world: World) {
    if !world.database.is_postgres() {
        return; // There is one writer at a time.
    }
    for _ in 0..3 {
        world.uploaded().await;
    }
    let mut holder = world.database.connect().await;
    sqlx::raw_sql("BEGIN; SELECT id FROM jobs ORDER BY id LIMIT 1 FOR UPDATE")
        .execute(&mut holder)
        .await
        .unwrap();
    let waiting = tokio::time::timeout(std::time::Duration::from_secs(2), world.claim_all(ALL));
    assert_eq!(waiting.await.expect("a claim waits for nobody").len(), 2);
    sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
    assert_eq!(world.claim_all(ALL).await.len(), 1);
}

both!(what_cannot_be_taken_back_hides_nothing);
/// Jobs whose workers were lost for good, but whose videos cannot be touched now, stand before one that only
/// has to be queued again.
async fn what_cannot_be_taken_back_hides_nothing(mut world: World) {
    const STUCK: usize = 20_000;
    many_uploaded(&mut world, STUCK + 1).await;
    let mut holder = world.database.connect().await;
    let now = world.now.unix_ms();
    let lose = format!(
        "UPDATE jobs SET state = 'running', worker = 'w', token = 1, lease_until = {now} - 1000,
           attempts = {ATTEMPTS_MAX};
         UPDATE jobs SET attempts = 1, lease_until = {now} - 1 WHERE id = (SELECT max(id) FROM jobs)"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(lose)).execute(&mut holder).await.unwrap();
    if world.database.is_postgres() {
        let hold = "BEGIN; SELECT id FROM videos WHERE id <> (SELECT max(id) FROM videos) FOR UPDATE";
        sqlx::raw_sql(hold).execute(&mut holder).await.unwrap();
    }
    let leases = world.claim_all(ALL).await;
    assert_eq!(leases.len(), 1);
    assert_eq!(leases[0].job.attempt, 2);
    if world.database.is_postgres() {
        sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
    }
    // Now they are given up, some with every claim.
    let running = async || {
        let depths = world.catalog.queue_depths(world.now).await.unwrap();
        depths.iter().find(|depth| depth.state == domain::JobState::Running).map_or(0, |depth| depth.jobs)
    };
    for _ in 0..3 {
        let before = running().await;
        assert!(world.claim_all(ALL).await.is_empty());
        assert!(running().await <= before - 200);
    }
}

both!(keeping_and_taking_back_agree_on_when_a_lease_ends);
/// One row, two functions: to its last instant a lease can be kept and nobody can take the job; after it, nobody
/// can keep it, and somebody can take the job, whoever the worker was.
async fn keeping_and_taking_back_agree_on_when_a_lease_ends(mut world: World) {
    for ms in [-1000, -2, -1, 0, 1, 2, 1000] {
        let video = world.uploaded().await;
        let lease = world.claim(JobKind::Ingest).await;
        assert_eq!(lease.job.video, video);
        let attempt = world.begin(&lease).await;
        let at = lease.lease_until.plus_ms(ms);
        world.catalog.stale_attempts(at, 0, 1).await.unwrap();
        let swept = world.catalog.attempt(attempt).await.unwrap().unwrap().state == sql::AttemptState::Lost;
        assert_eq!(swept, ms > 0, "{ms}");
        let kept = world.catalog.heartbeat(&lease, None, at.plus_s(60), at).await;
        let claim = Claim {
            kinds: ALL,
            worker: "w",
            lease_ms: LEASE_MS,
            attempts_max: 3,
            left_to_others_ms: 0,
            limit: 1,
        };
        let taken = world.catalog.claim_jobs(&claim, at).await.unwrap();
        assert_eq!(kept.is_ok(), ms <= 0, "{ms}");
        assert_eq!(taken.len(), usize::from(ms > 0), "{ms}");
        let held = taken.first().unwrap_or(&lease);
        world.catalog.reject_video(held, domain::MediaProblem::NotMedia, "no", at).await.unwrap();
    }
}

both!(a_job_ten_leases_long_runs_once_and_is_taken_back_within_one);
async fn a_job_ten_leases_long_runs_once_and_is_taken_back_within_one(mut world: World) {
    world.uploaded().await;
    let lease = world.claim(JobKind::Ingest).await;
    for _ in 0..30 {
        world.advance_ms(LEASE_MS / 3);
        let until = world.now.plus_ms(LEASE_MS);
        world.catalog.heartbeat(&lease, Some(0.1), until, world.now).await.unwrap();
        assert!(world.claim_all(ALL).await.is_empty());
    }
    // Its process is gone; another one starts, under the same name.
    world.catalog.close().await;
    world.catalog = Catalog::open(&world.database.place).await.unwrap();
    world.advance_ms(LEASE_MS);
    assert!(world.claim_all(ALL).await.is_empty());
    world.advance_ms(1);
    let again = world.claim(JobKind::Ingest).await;
    assert_eq!((again.job.id, again.job.attempt), (lease.job.id, 2));
}

both!(a_conflict_that_does_not_end_is_unavailable);
async fn a_conflict_that_does_not_end_is_unavailable(mut world: World) {
    if !world.database.is_postgres() {
        return;
    }
    let video = world.video().await;
    let mut holder = world.database.connect().await;
    let hold = "BEGIN; SELECT id FROM videos FOR UPDATE";
    sqlx::raw_sql(hold).execute(&mut holder).await.unwrap();
    let attempt = world.id();
    let refused =
        world.catalog.begin_upload(&NewUpload::unbounded(attempt, video, world.now), world.now).await;
    assert!(matches!(refused, Err(SqlError::Unavailable(_))), "{refused:?}");
    // Whoever reads is not held up.
    world.seen(video).await;
}

//! The queue when it is long. `SLUICE_TEST_QUEUE_ROWS=1000000` makes it a campaign, whose figures are printed.

use std::time::{Duration, Instant};

use domain::JobKind;
use sql::{Catalog, Claim};
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};

use crate::cluster::Cluster;
use crate::database::Database;
use crate::world::{ALL, ATTEMPTS_MAX, LEASE_MS, World};

struct Size {
    rows: usize,
    claims: usize,
}

fn size() -> Size {
    #[expect(
        clippy::disallowed_methods,
        reason = "only chassis reads the environment of a program; this is a test's"
    )]
    match std::env::var("SLUICE_TEST_QUEUE_ROWS").ok() {
        Some(rows) => Size { rows: rows.parse().unwrap(), claims: 2_000 },
        None => Size { rows: 5_000, claims: 200 },
    }
}

/// A SQLite file is one machine's, whose one dispatcher claims.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_claim_from_a_long_queue_on_sqlite() {
    let world = World::on(Database::sqlite()).await;
    long_queue(world, "SQLite", 1).await;
}

/// On a server of its own, which keeps what it commits: those for tests may be told not to.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_claim_from_a_long_queue_on_postgres() {
    let Some(cluster) = Cluster::start() else { return };
    let world = World::on(Database::somewhere(cluster.place())).await;
    long_queue(world, "PostgreSQL", 4).await;
}

async fn long_queue(mut world: World, name: &str, claimers: usize) {
    let Size { rows, claims } = size();
    let mut connection = world.database.connect().await;
    fill(&mut world, &mut connection, rows).await;
    let scans_before = scans(&world, &mut connection).await;
    let mut claiming = Vec::new();
    for n in 0..claimers {
        let catalog = match world.database.is_postgres() {
            true => Catalog::open(&world.database.place).await.unwrap(),
            false => world.catalog.clone(),
        };
        let now = world.now;
        claiming.push(tokio::spawn(async move {
            let (worker, mut took) = (n.to_string(), Vec::new());
            // As the dispatcher asks: for all that it runs, as much as it has room for.
            let claim = Claim {
                kinds: ALL,
                worker: &worker,
                lease_ms: LEASE_MS,
                attempts_max: ATTEMPTS_MAX,
                left_to_others_ms: 0,
                limit: 1,
            };
            // Connections are made and statements prepared before anything is measured.
            for measured in (0..claims / claimers + 20).map(|n| n >= 20) {
                let began = Instant::now();
                let leases = catalog.claim_jobs(&claim, now).await.unwrap();
                assert_eq!((leases.len(), leases[0].job.kind), (1, JobKind::Encode));
                if measured {
                    took.push(began.elapsed());
                }
            }
            took
        }));
    }
    let began = Instant::now();
    let mut took: Vec<Duration> = Vec::new();
    for claimer in claiming {
        took.extend(claimer.await.unwrap());
    }
    let per_s = took.len() as f64 / began.elapsed().as_secs_f64();
    took.sort();
    let [p50, p99] = [50, 99].map(|percent| took[took.len() * percent / 100]);
    let max = took.last().unwrap();
    eprintln!(
        "{name}: {rows} rows, {} claims by {claimers}, {per_s:.0}/s: p50 {p50:.1?}, p99 {p99:.1?}, max {max:.1?}",
        took.len()
    );
    let claims = "SELECT id FROM jobs WHERE kind = 'encode' AND state = 'queued' AND +run_at <= 1800000000000
                  ORDER BY turn_at, id LIMIT 5";
    let plan = crate::plans::plan(&world, &mut connection, claims).await;
    assert!(
        plan.contains("jobs_in_turn") && !plan.contains("Sort") && !plan.contains("TEMP B-TREE"),
        "{plan}"
    );
    if let (Some(before), Some(after)) = (scans_before, scans(&world, &mut connection).await) {
        assert_eq!(before, after, "a claim scanned the jobs");
    }
}

/// A hundred jobs a video. Most wait to be claimed; of the others some are done, some wait for their time.
async fn fill(world: &mut World, connection: &mut AnyConnection, rows: usize) {
    let sample = world.video().await.to_string();
    let postgres = world.database.is_postgres();
    let hex = |n: &str| {
        if postgres { format!("lpad(to_hex({n}), 12, '0')") } else { format!("printf('%012x', {n})") }
    };
    let numbers = |last: usize| match postgres {
        true => format!("(SELECT generate_series(1, {last}) AS n) numbers"),
        false => format!(
            "(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {last}) SELECT n FROM c)"
        ),
    };
    let videos = rows.div_ceil(100);
    let now = world.now.unix_ms();
    for statement in [
        format!(
            "INSERT INTO videos (id, author_id, title, description, tags, visibility, state, progress, warnings,
                                 comments_count, created_at, updated_at)
             SELECT '01900000-0000-7000-9000-' || {}, author_id, title, description, tags, visibility, state, progress, warnings,
                    0, created_at, updated_at FROM videos, {} WHERE id = '{sample}'",
            hex("n"),
            numbers(videos)
        ),
        format!(
            "INSERT INTO jobs (id, kind, state, video_id, payload, run_at, turn_at, attempts, token, progress, created_at)
             SELECT '01900000-0000-7000-8000-' || {}, 'encode', CASE WHEN n % 10 = 0 THEN 'done' ELSE 'queued' END,
                    '01900000-0000-7000-9000-' || {}, '{{}}', {now} - {rows} + n + CASE WHEN n % 10 = 1 THEN 3600000 ELSE 0 END,
                    {now} - {rows} + n, 0, 0, 0.0, {now} FROM {}",
            hex("n"),
            hex(&format!("(n % {videos} + 1)")),
            numbers(rows)
        ),
    ] {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut *connection).await.unwrap();
    }
    if world.database.is_postgres() {
        sqlx::raw_sql("VACUUM ANALYZE").execute(&mut *connection).await.unwrap();
    }
}

/// How often PostgreSQL read the whole table.
async fn scans(world: &World, connection: &mut AnyConnection) -> Option<i64> {
    if !world.database.is_postgres() {
        return None;
    }
    let row =
        sqlx::query("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'jobs'").fetch_one(connection);
    Some(row.await.unwrap().get("seq_scan"))
}

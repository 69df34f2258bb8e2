//! The hot statements go by an index. SQLite tells how it would run one.

use sqlx::Row as _;

use crate::world::World;

async fn plan(pool: &sqlx::AnyPool, statement: &'static str) -> String {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")))
        .fetch_all(pool)
        .await
        .unwrap();
    rows.iter().map(|row| row.get::<String, _>("detail")).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn the_queue_is_never_scanned() {
    let world = World::new().await;
    let pool = sqlx::AnyPool::connect(&world.database.place().url).await.unwrap();
    // The conditions of jobs.claim, jobs.requeue_lost and jobs.anything_to_claim.
    for statement in [
        "SELECT id FROM jobs WHERE kind = 'encode' AND state = 'queued' AND run_at <= 1 ORDER BY run_at, id LIMIT 5",
        "UPDATE jobs SET token = token + 1 WHERE kind = 'encode' AND state = 'running' AND lease_until < 1",
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM jobs WHERE kind = 'purge' AND state = 'queued' AND run_at <= 1)",
        "SELECT id FROM jobs WHERE video_id = 'x' AND kind = 'encode' AND state <> 'done'",
    ] {
        let plan = plan(&pool, statement).await;
        assert!(plan.contains("SEARCH jobs") && !plan.contains("SCAN jobs"), "{statement}\n{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{statement}\n{plan}");
    }
}

//! The hot statements go by an index. Each database tells how it would run one.

use sqlx::{AnyConnection, AssertSqlSafe, Executor as _, Row as _};

use crate::both;
use crate::world::World;

pub async fn plan(world: &World, connection: &mut AnyConnection, statement: &str) -> String {
    let (explain, column) = if world.database.is_postgres() {
        ("EXPLAIN", "QUERY PLAN")
    } else {
        ("EXPLAIN QUERY PLAN", "detail")
    };
    let rows =
        sqlx::query(AssertSqlSafe(format!("{explain} {statement}"))).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(column)).collect::<Vec<_>>().join("\n")
}

/// Of a handful of rows a scan is the best plan; whether there is another is what is asked.
async fn connect(world: &World) -> AnyConnection {
    let mut connection = world.database.connect().await;
    if world.database.is_postgres() {
        connection.execute("SET enable_seqscan = off").await.unwrap();
    }
    connection
}

both!(resumable_uploads_are_never_scanned);
async fn resumable_uploads_are_never_scanned(world: World) {
    let mut connection = connect(&world).await;
    // The conditions of uploads.holds, uploads.late, uploads.forget, uploads.full, uploads.end_all, pieces.all, pieces.extend,
    // attempts.end_pieces and videos.late.
    for statement in [
        "SELECT id, token, hold FROM uploads WHERE id IN ('a', 'b', 'c')",
        "SELECT id FROM uploads WHERE ended_at IS NULL AND expires_at <= 1 ORDER BY expires_at LIMIT 5",
        "SELECT id FROM uploads WHERE ended_at IS NOT NULL AND ended_at < 1 ORDER BY ended_at LIMIT 5",
        "SELECT id FROM uploads WHERE state = 'open' AND offset_bytes = length_bytes AND kind <> 'final'
           AND expires_at < 2 AND expires_at > 1 ORDER BY expires_at LIMIT 5",
        "UPDATE uploads SET hold = 'free' WHERE video_id = 'x' AND ended_at IS NULL",
        "SELECT a.id, o.bytes FROM attempts a JOIN objects o ON o.attempt_id = a.id
           WHERE a.upload_id = 'x' AND a.state = 'committed' ORDER BY a.piece_number",
        "UPDATE attempts SET lease_until = 2 WHERE upload_id = 'x' AND token = 1 AND state = 'open'",
        "UPDATE attempts SET ended_at = 2 WHERE upload_id IN ('x', 'y') AND state IN ('open', 'committed')",
        "SELECT id FROM videos WHERE state IN ('awaiting_upload', 'uploading') AND created_at < 1
           AND NOT EXISTS (SELECT 1 FROM uploads u WHERE u.video_id = videos.id AND u.ended_at IS NULL)
           ORDER BY created_at LIMIT 5",
    ] {
        let plan = plan(&world, &mut connection, statement).await;
        let by_index = plan.contains("SEARCH") || plan.contains("Index");
        let scans =
            ["SCAN uploads", "SCAN attempts", "SCAN a", "SCAN o", "SCAN u", "Seq Scan", "TEMP B-TREE"];
        let whole = scans.iter().find(|scan| plan.contains(**scan));
        assert!(by_index && whole.is_none(), "{statement}\n{plan}");
    }
}

both!(the_queue_is_never_scanned);
async fn the_queue_is_never_scanned(world: World) {
    let mut connection = connect(&world).await;
    // The conditions of jobs.claim, jobs.requeue_lost, jobs.waiting and jobs.unfinished_encodes.
    for statement in [
        "SELECT id FROM jobs WHERE kind = 'encode' AND state = 'queued' AND +run_at <= 1 ORDER BY turn_at, id LIMIT 5",
        "SELECT id FROM jobs WHERE kind = 'ingest' AND state = 'queued' AND run_at <= 1 ORDER BY run_at, id LIMIT 5",
        "SELECT id FROM jobs WHERE kind = 'encode' AND state = 'queued' AND +run_at <= 1
           AND (last_worker IS NULL OR last_worker <> 'w' OR run_at <= 1 OR (run_at <= 1 AND NOT EXISTS (
             SELECT 1 FROM jobs o WHERE o.kind = 'encode' AND o.state = 'running' AND o.lease_until >= 1 AND o.worker <> 'w')))
           ORDER BY turn_at, id LIMIT 5",
        "UPDATE jobs SET token = token + 1 WHERE kind = 'encode' AND state = 'running' AND lease_until < 1",
        "SELECT run_at FROM jobs WHERE kind = 'purge' AND state = 'queued' ORDER BY run_at LIMIT 1",
        "SELECT lease_until FROM jobs WHERE kind = 'purge' AND state = 'running' ORDER BY lease_until LIMIT 1",
        "SELECT id FROM jobs WHERE video_id = 'x' AND kind = 'encode' AND state <> 'done'",
    ] {
        let plan = plan(&world, &mut connection, statement).await;
        let by_index = plan.contains("SEARCH jobs") || plan.contains("Index");
        assert!(by_index && !plan.contains("SCAN jobs") && !plan.contains("Seq Scan"), "{statement}\n{plan}");
        assert!(!plan.contains("TEMP B-TREE") && !plan.contains("Sort"), "{statement}\n{plan}");
    }
}

//! The queue as an operator sees it.

use domain::{JobId, JobKind, JobState, Timestamp, VideoId};
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use crate::row::{float, instant, instant_opt, int, natural, parsed, text_opt};
use crate::{Catalog, SqlError};

#[derive(Debug, Clone, PartialEq)]
pub struct JobRow {
    pub id: JobId,
    pub kind: JobKind,
    pub state: JobState,
    pub video: VideoId,
    pub attempts: u32,
    /// 0 to 1.
    pub progress: f64,
    pub error: Option<String>,
    pub worker: Option<String>,
    pub run_at: Timestamp,
    pub lease_until: Option<Timestamp>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

/// How many jobs there are of a kind in a state that someone should look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueDepth {
    pub kind: JobKind,
    pub state: JobState,
    pub jobs: u64,
    /// Of queued jobs that are due: since when the oldest has been waiting.
    pub oldest_ready_since: Option<Timestamp>,
}

const COLUMNS: &str = "id, kind, state, video_id, attempts, progress, error, worker, run_at, lease_until,
    created_at, started_at, finished_at";

impl Catalog {
    /// Newest first, from before `after` on.
    pub async fn jobs(
        &self,
        kind: Option<JobKind>,
        state: Option<JobState>,
        after: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<JobRow>, SqlError> {
        let kind_is = if kind.is_some() { "kind = $3" } else { "$3 = ''" };
        let state_is = if state.is_some() { "state = $4" } else { "$4 = ''" };
        let rows = sqlx::query(AssertSqlSafe(format!(
            "-- jobs.list
             SELECT {COLUMNS} FROM jobs WHERE id < $1 AND {kind_is} AND {state_is} ORDER BY id DESC LIMIT $2"
        )))
        // No id reaches `g`.
        .bind(after.map_or_else(|| "g".to_owned(), |id| id.to_string()))
        .bind(limit as i64)
        .bind(kind.map(JobKind::as_str).unwrap_or_default())
        .bind(state.map(JobState::as_str).unwrap_or_default())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(job).collect()
    }

    pub async fn job(&self, id: JobId) -> Result<Option<JobRow>, SqlError> {
        let row =
            sqlx::query(AssertSqlSafe(format!("-- jobs.one\nSELECT {COLUMNS} FROM jobs WHERE id = $1")))
                .bind(id.to_string())
                .fetch_optional(&self.readers)
                .await?;
        row.as_ref().map(job).transpose()
    }

    /// Queued, running and dead jobs by kind.
    pub async fn queue_depths(&self, now: Timestamp) -> Result<Vec<QueueDepth>, SqlError> {
        let rows = sqlx::query(
            "-- jobs.depths
             SELECT kind, state, count(*) AS jobs,
                    coalesce(min(CASE WHEN state = 'queued' AND run_at <= $1 THEN run_at END), -1) AS oldest
             FROM jobs WHERE state IN ('queued', 'running', 'dead') GROUP BY kind, state",
        )
        .bind(now.unix_ms())
        .fetch_all(&self.lagging_readers)
        .await?;
        rows.iter().map(depth).collect()
    }
}

fn depth(row: &AnyRow) -> Result<QueueDepth, SqlError> {
    let oldest_unix_ms = int(row, "oldest")?;
    Ok(QueueDepth {
        kind: parsed(row, "kind")?,
        state: parsed(row, "state")?,
        jobs: natural(row, "jobs")?,
        oldest_ready_since: (oldest_unix_ms >= 0).then(|| Timestamp::from_unix_ms(oldest_unix_ms)),
    })
}

fn job(row: &AnyRow) -> Result<JobRow, SqlError> {
    Ok(JobRow {
        id: parsed(row, "id")?,
        kind: parsed(row, "kind")?,
        state: parsed(row, "state")?,
        video: parsed(row, "video_id")?,
        attempts: natural(row, "attempts")?,
        progress: float(row, "progress")?,
        error: text_opt(row, "error")?,
        worker: text_opt(row, "worker")?,
        run_at: instant(row, "run_at")?,
        lease_until: instant_opt(row, "lease_until")?,
        created_at: instant(row, "created_at")?,
        started_at: instant_opt(row, "started_at")?,
        finished_at: instant_opt(row, "finished_at")?,
    })
}

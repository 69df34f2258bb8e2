//! Attempts at writing objects: what explains an object before it is committed, and what is swept.

use domain::{AttemptId, Timestamp, VideoId};
use sqlx::AssertSqlSafe;

use crate::dialect::Lock;
use crate::row::parsed;
use crate::tx::{Tx, commit};
use crate::video_moves::hold;
use crate::{Catalog, FencedError, Lease, SqlError};

/// The stored words of `attempts.state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptState {
    /// May write.
    Open,
    /// Its objects count.
    Committed,
    /// Must not write any more; its objects are to be removed.
    Lost,
    /// Did its part; its objects are to be removed.
    Retired,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    pub id: AttemptId,
    pub video: VideoId,
    pub state: AttemptState,
}

impl std::str::FromStr for AttemptState {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        match word {
            "open" => Ok(AttemptState::Open),
            "committed" => Ok(AttemptState::Committed),
            "lost" => Ok(AttemptState::Lost),
            "retired" => Ok(AttemptState::Retired),
            _ => Err(()),
        }
    }
}

impl Catalog {
    /// Attempts whose objects are to be removed: the lost ones, `grace_ms` after they ended, and the retired
    /// ones. Those that merely stopped answering are declared lost first, so that what they commit later is
    /// refused before the first of their objects goes.
    pub async fn stale_attempts(
        &self,
        now: Timestamp,
        grace_ms: i64,
        limit: usize,
    ) -> Result<Vec<(VideoId, AttemptId)>, SqlError> {
        self.declare_lost(now).await?;
        // A purge removes the objects of its video itself, and counts them for its receipt.
        let rows = sqlx::query(
            "-- attempts.stale
             SELECT a.id, a.video_id FROM attempts a JOIN videos v ON v.id = a.video_id
             WHERE a.state IN ('lost', 'retired') AND a.ended_at < $1 AND v.state <> 'deleted'
             ORDER BY a.ended_at LIMIT $2",
        )
        .bind(now.plus_ms(-grace_ms).unix_ms())
        .bind(limit as i64)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| Ok((parsed(row, "video_id")?, parsed(row, "id")?))).collect()
    }

    async fn declare_lost(&self, now: Timestamp) -> Result<(), SqlError> {
        commit!(self, async |tx| {
            // What somebody is about to commit, or to end, is left to them.
            let free = tx.lock(Lock::WriteFree);
            sqlx::query(AssertSqlSafe(format!(
                "-- attempts.declare_lost
                 WITH silent AS MATERIALIZED (
                   SELECT id FROM attempts WHERE state = 'open' AND (
                     (kind = 'upload' AND lease_until < $1)
                     OR (kind = 'job' AND NOT EXISTS (
                       SELECT 1 FROM jobs j WHERE j.id = attempts.job_id AND j.token = attempts.token
                         AND j.state = 'running' AND j.lease_until >= $1))) {free})
                 UPDATE attempts SET state = 'lost', ended_at = $1 WHERE id IN (SELECT id FROM silent)"
            )))
            .bind(now.unix_ms())
            .execute(&mut **tx)
            .await?;
            Ok(())
        })
    }

    /// Once its prefix was listed and found empty.
    pub async fn forget_attempt(&self, attempt: AttemptId) -> Result<(), SqlError> {
        let Some(Attempt { video, .. }) = self.attempt(attempt).await? else { return Ok(()) };
        commit!(self, async |tx| {
            hold(tx, video).await?;
            sqlx::query(
                "-- attempts.forget_objects
                 DELETE FROM objects WHERE attempt_id = $1
                   AND EXISTS (SELECT 1 FROM attempts WHERE id = $1 AND state IN ('lost', 'retired'))",
            )
            .bind(attempt.to_string())
            .execute(&mut **tx)
            .await?;
            sqlx::query(
                "-- attempts.forget\nDELETE FROM attempts WHERE id = $1 AND state IN ('lost', 'retired')",
            )
            .bind(attempt.to_string())
            .execute(&mut **tx)
            .await?;
            Ok(())
        })
    }

    /// Whether an object under this attempt is explained.
    pub async fn attempt(&self, id: AttemptId) -> Result<Option<Attempt>, SqlError> {
        let row = sqlx::query("-- attempts.one\nSELECT id, video_id, state FROM attempts WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| {
            Ok(Attempt {
                id: parsed(&row, "id")?,
                video: parsed(&row, "video_id")?,
                state: parsed(&row, "state")?,
            })
        })
        .transpose()
    }
}

/// What a run wrote counts from here on. Refused when the sweeper was faster.
pub(crate) async fn commit(
    tx: &mut Tx,
    lease: &Lease,
    attempt: AttemptId,
    now: Timestamp,
) -> Result<(), FencedError> {
    let committed = sqlx::query(
        "-- attempts.commit
         UPDATE attempts SET state = 'committed', ended_at = $4
         WHERE id = $1 AND job_id = $2 AND token = $3 AND state = 'open'",
    )
    .bind(attempt.to_string())
    .bind(lease.job.id.to_string())
    .bind(lease.token)
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    crate::jobs::held(committed.rows_affected())
}

/// Whether this run ended with this attempt, and what it wrote counts, or did its part since.
pub(crate) async fn was_committed(tx: &mut Tx, lease: &Lease, attempt: AttemptId) -> Result<bool, SqlError> {
    let row = sqlx::query(
        "-- attempts.was_committed
         SELECT 1 AS found FROM attempts a JOIN jobs j ON j.id = a.job_id AND j.token = a.token
         WHERE a.id = $1 AND j.id = $2 AND j.token = $3 AND j.state = 'done'
           AND a.state IN ('committed', 'retired')",
    )
    .bind(attempt.to_string())
    .bind(lease.job.id.to_string())
    .bind(lease.token)
    .fetch_optional(&mut **tx)
    .await?;
    Ok(row.is_some())
}

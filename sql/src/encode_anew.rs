//! An assembly that found parts of the encode unsound. To join them again would fail again, so they are encoded anew,
//! and another assembly follows the last of them.

use domain::{JobId, JobKind, Phase, Timestamp, VideoId};

use crate::job_endings::{after_death, lose_attempts};
use crate::jobs::finish;
use crate::row::{natural, parsed, storable, text};
use crate::tx::{Tx, commit};
use crate::{Catalog, FencedError, Lease, SqlError};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodeAnew {
    Queued,
    /// One of them had its last attempt: it is dead, and what depended on it has failed.
    GivenUp,
    /// No such part was encoded; the job is as it was.
    NoSuchPart,
}

struct Encode {
    id: JobId,
    attempts: u32,
}

impl Catalog {
    /// Ends an `assemble` run whose input was at fault. `payloads`: of the `encode` jobs of its phase that made it, or of
    /// the first one where that made it for both. Each runs again from `retry_at` on, unless it was run `attempts_max`
    /// times.
    pub async fn encode_anew(
        &self,
        lease: &Lease,
        payloads: &[String],
        error: &str,
        attempts_max: u32,
        retry_at: Timestamp,
        now: Timestamp,
    ) -> Result<EncodeAnew, FencedError> {
        commit!(self, async |tx| {
            crate::jobs::fence(tx, lease).await?;
            let video = lease.job.video;
            let encodes = encodes(tx, video, lease.job.phase, payloads).await?;
            if encodes.is_empty() {
                return Ok(EncodeAnew::NoSuchPart);
            }
            finish(tx, lease, now).await?;
            note_error(tx, lease.job.id, error).await?;
            lose_attempts(tx, lease.job.id, now).await?;
            let worn_out = encodes.iter().any(|encode| encode.attempts >= attempts_max);
            for encode in encodes {
                take_back(tx, encode, error, attempts_max, retry_at, now).await?;
            }
            if worn_out {
                after_death(tx, JobKind::Encode, video, now).await?;
                return Ok(EncodeAnew::GivenUp);
            }
            Ok(EncodeAnew::Queued)
        })
    }
}

/// Those that are done.
async fn encodes(
    tx: &mut Tx,
    video: VideoId,
    phase: Phase,
    payloads: &[String],
) -> Result<Vec<Encode>, SqlError> {
    let rows = sqlx::query(
        "-- jobs.done_encodes
         SELECT id, payload, attempts FROM jobs WHERE video_id = $1 AND kind = 'encode' AND state = 'done'
           AND (phase = $2 OR payload NOT IN (
             SELECT payload FROM jobs WHERE video_id = $1 AND kind = 'encode' AND phase = $2))",
    )
    .bind(video.to_string())
    .bind(phase.as_str())
    .fetch_all(&mut **tx)
    .await?;
    let mut found = Vec::new();
    for row in rows {
        if payloads.contains(&text(&row, "payload")?) {
            found.push(Encode { id: parsed(&row, "id")?, attempts: natural(&row, "attempts")? });
        }
    }
    Ok(found)
}

/// The reason stays with the run that found it.
async fn note_error(tx: &mut Tx, job: JobId, error: &str) -> Result<(), SqlError> {
    sqlx::query("-- jobs.note_error\nUPDATE jobs SET error = $2 WHERE id = $1")
        .bind(job.to_string())
        .bind(storable(error))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// What it made counts no longer.
async fn take_back(
    tx: &mut Tx,
    encode: Encode,
    error: &str,
    attempts_max: u32,
    retry_at: Timestamp,
    now: Timestamp,
) -> Result<(), SqlError> {
    sqlx::query(
        "-- jobs.encode_anew
         UPDATE jobs SET state = CASE WHEN attempts < $5 THEN 'queued' ELSE 'dead' END, token = token + 1,
           run_at = $2, error = $3, progress = 0.0, finished_at = CASE WHEN attempts < $5 THEN NULL ELSE $4 END
         WHERE id = $1 AND state = 'done'",
    )
    .bind(encode.id.to_string())
    .bind(retry_at.unix_ms())
    .bind(storable(error))
    .bind(now.unix_ms())
    .bind(i64::from(attempts_max))
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "-- attempts.take_back
         UPDATE attempts SET state = 'retired', ended_at = $2 WHERE job_id = $1 AND state = 'committed'",
    )
    .bind(encode.id.to_string())
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

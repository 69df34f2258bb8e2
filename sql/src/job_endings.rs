//! How a run ends when it does not succeed, and how a dead job is called back.

use domain::{JobId, JobKind, MediaProblem, Timestamp, VideoId, VideoState};

use crate::jobs::{cancel, finish, held};
use crate::row::storable;
use crate::tx::{Tx, commit};
use crate::video_moves::{advance, hold, note_failure, state};
use crate::{Catalog, FencedError, Lease, SqlError};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryJob {
    Retried,
    NotDead,
    NotFound,
}

/// The jobs that take a video to `ready`: when one is dead, the others have nothing to work for.
const PIPELINE: [JobKind; 3] = [JobKind::Ingest, JobKind::Encode, JobKind::Assemble];

impl Catalog {
    /// Gives a job back unharmed, as when a scheduler shuts down: the attempt does not count.
    pub async fn release_job(&self, lease: &Lease, now: Timestamp) -> Result<(), FencedError> {
        self.give_back(lease, None, now, None, now).await
    }

    /// What the job needs is disturbed or full. That says nothing about the job, so the attempt does not count;
    /// [`crate::Job::postponed_since`] tells how long that goes on.
    pub async fn postpone_job(
        &self,
        lease: &Lease,
        error: &str,
        retry_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), FencedError> {
        self.give_back(lease, Some(error), retry_at, Some(now), now).await
    }

    async fn give_back(
        &self,
        lease: &Lease,
        error: Option<&str>,
        run_at: Timestamp,
        postponed_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), FencedError> {
        commit!(self, async |tx| {
            hold(tx, lease.job.video).await?;
            let given_back = sqlx::query(
                "-- jobs.give_back
                 UPDATE jobs SET state = 'queued', token = token + 1, attempts = attempts - 1, worker = NULL,
                   lease_until = NULL, run_at = $3, error = $4, postponed_since = coalesce(postponed_since, $5)
                 WHERE id = $1 AND state = 'running' AND token = $2",
            )
            .bind(lease.job.id.to_string())
            .bind(lease.token)
            .bind(run_at.unix_ms())
            .bind(error.map(storable))
            .bind(postponed_at.map(Timestamp::unix_ms))
            .execute(&mut **tx)
            .await?;
            held(given_back.rows_affected())?;
            lose_attempts(tx, lease.job.id, now).await?;
            Ok(())
        })
    }

    /// The fault was ours. `retry_at` is when to try again; `None` gives up: the job is dead, and what
    /// depended on it has failed. A video that can be watched already stays so.
    pub async fn fail_job(
        &self,
        lease: &Lease,
        error: &str,
        retry_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), FencedError> {
        commit!(self, async |tx| { fail(tx, lease, error, retry_at, now).await })
    }

    /// The fault is in the file: no retry. `detail` is one sentence for the uploader. A file that plays already
    /// was accepted before: then it is the job that is dead, and the video stays as it is.
    pub async fn reject_video(
        &self,
        lease: &Lease,
        problem: MediaProblem,
        detail: &str,
        now: Timestamp,
    ) -> Result<(), FencedError> {
        commit!(self, async |tx| {
            let video = lease.job.video;
            let from = hold(tx, video).await?;
            // A cover that cannot be taken changes nothing about the video: the one before it stays.
            if !PIPELINE.contains(&lease.job.kind) {
                end_refused(tx, lease, now).await
            } else if from == Some(VideoState::Playable) {
                let error = format!("what plays already was refused as {problem}: {detail}");
                fail(tx, lease, &error, None, now).await
            } else {
                end_refused(tx, lease, now).await?;
                Ok(refuse_video(tx, video, problem, detail, now).await?)
            }
        })
    }

    /// Calls a dead job back, and with it the jobs that were cancelled because it died.
    pub async fn retry_job(&self, id: JobId, now: Timestamp) -> Result<RetryJob, SqlError> {
        let Some(job) = self.job(id).await? else { return Ok(RetryJob::NotFound) };
        commit!(self, async |tx| {
            let found = hold(tx, job.video).await?;
            // Of a deleted video nothing but its purge runs again.
            if found.is_none() || (job.kind != JobKind::Purge && found == Some(VideoState::Deleted)) {
                return Ok(RetryJob::NotFound);
            }
            if !requeue(tx, id, now).await? {
                return Ok(RetryJob::NotDead);
            }
            match job.kind {
                JobKind::Ingest | JobKind::Encode | JobKind::Assemble => {
                    revive_pipeline(tx, job.video, now).await?;
                }
                JobKind::Purge => revive_deletion(tx, job.video).await?,
                JobKind::Cover => {}
            }
            Ok(RetryJob::Retried)
        })
    }
}

/// Ends a run that is not taken up again, or tries again at `retry_at`.
async fn fail(
    tx: &mut Tx,
    lease: &Lease,
    error: &str,
    retry_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), FencedError> {
    hold(tx, lease.job.video).await?;
    let failed = sqlx::query(
        "-- jobs.fail
         UPDATE jobs SET state = CASE WHEN $3 = 1 THEN 'queued' ELSE 'dead' END, run_at = $4, error = $5,
           token = token + 1, last_worker = worker, worker = NULL, lease_until = NULL, postponed_since = NULL,
           finished_at = CASE WHEN $3 = 1 THEN NULL ELSE $6 END
         WHERE id = $1 AND state = 'running' AND token = $2",
    )
    .bind(lease.job.id.to_string())
    .bind(lease.token)
    .bind(i64::from(retry_at.is_some()))
    .bind(retry_at.unwrap_or(now).unix_ms())
    .bind(storable(error))
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    held(failed.rows_affected())?;
    lose_attempts(tx, lease.job.id, now).await?;
    if retry_at.is_none() {
        after_death(tx, lease.job.kind, lease.job.video, now).await?;
    }
    Ok(())
}

/// The run came to its end; what it wrote counts for nothing.
async fn end_refused(tx: &mut Tx, lease: &Lease, now: Timestamp) -> Result<(), FencedError> {
    finish(tx, lease, now).await?;
    lose_attempts(tx, lease.job.id, now).await?;
    Ok(())
}

async fn refuse_video(
    tx: &mut Tx,
    video: VideoId,
    problem: MediaProblem,
    detail: &str,
    now: Timestamp,
) -> Result<(), SqlError> {
    match state(tx, video).await? {
        Some(from) if from.may_become(VideoState::Rejected) => {
            note_failure(tx, video, Some(problem), Some(detail)).await?;
            advance(tx, video, from, VideoState::Rejected, now).await?;
            cancel(tx, video, &PIPELINE, now).await
        }
        _ => Ok(()),
    }
}

/// What a dead job takes with it.
pub(crate) async fn after_death(
    tx: &mut Tx,
    kind: JobKind,
    video: VideoId,
    now: Timestamp,
) -> Result<(), SqlError> {
    match kind {
        JobKind::Ingest | JobKind::Encode | JobKind::Assemble => fail_video(tx, video, now).await,
        JobKind::Purge => {
            sqlx::query(
                "-- deletions.fail
                 UPDATE deletions SET state = 'failed', finished_at = $2
                 WHERE video_id = $1 AND state IN ('scheduled', 'running')",
            )
            .bind(video.to_string())
            .bind(now.unix_ms())
            .execute(&mut **tx)
            .await?;
            Ok(())
        }
        // The cover before it stays.
        JobKind::Cover => Ok(()),
    }
}

async fn fail_video(tx: &mut Tx, video: VideoId, now: Timestamp) -> Result<(), SqlError> {
    cancel(tx, video, &PIPELINE, now).await?;
    match state(tx, video).await? {
        Some(from) if from.may_become(VideoState::Failed) => {
            let detail = "Processing failed on our side. An administrator can start it again.";
            note_failure(tx, video, None, Some(detail)).await?;
            advance(tx, video, from, VideoState::Failed, now).await
        }
        // `playable` stays: the rungs that are missing are pending until an administrator calls the job back.
        _ => Ok(()),
    }
}

/// A run that ended leaves nothing that may still be written; the sweeper removes what it wrote.
pub(crate) async fn lose_attempts(tx: &mut Tx, job: JobId, now: Timestamp) -> Result<(), SqlError> {
    sqlx::query(
        "-- attempts.lose\nUPDATE attempts SET state = 'lost', ended_at = $2 WHERE job_id = $1 AND state = 'open'",
    )
    .bind(job.to_string())
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// `false`: it is not dead.
async fn requeue(tx: &mut Tx, job: JobId, now: Timestamp) -> Result<bool, SqlError> {
    let requeued = sqlx::query(
        "-- jobs.requeue
         UPDATE jobs SET state = 'queued', token = token + 1, attempts = 0, run_at = $2, error = NULL,
           lease_until = NULL, finished_at = NULL, progress = 0.0, postponed_since = NULL
         WHERE id = $1 AND state = 'dead'",
    )
    .bind(job.to_string())
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    Ok(requeued.rows_affected() > 0)
}

async fn revive_pipeline(tx: &mut Tx, video: VideoId, now: Timestamp) -> Result<(), SqlError> {
    sqlx::query(
        "-- jobs.revive_pipeline
         UPDATE jobs SET state = 'queued', token = token + 1, attempts = 0, run_at = $2, lease_until = NULL,
           finished_at = NULL, progress = 0.0, postponed_since = NULL
         WHERE video_id = $1 AND kind IN ('ingest', 'encode', 'assemble') AND state IN ('cancelled', 'dead')",
    )
    .bind(video.to_string())
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    if state(tx, video).await? == Some(VideoState::Failed) {
        note_failure(tx, video, None, None).await?;
        advance(tx, video, VideoState::Failed, VideoState::Processing, now).await?;
    }
    Ok(())
}

async fn revive_deletion(tx: &mut Tx, video: VideoId) -> Result<(), SqlError> {
    sqlx::query(
        "-- deletions.revive
         UPDATE deletions SET state = 'running', finished_at = NULL WHERE video_id = $1 AND state = 'failed'",
    )
    .bind(video.to_string())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

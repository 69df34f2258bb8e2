//! Jobs: leased rows with a fence. A claim raises the token, and every later write carries it.

use domain::{AttemptId, JobId, JobKind, Phase, Timestamp, VideoId};
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use crate::dialect::Lock;
use crate::progress::refresh_progress;
use crate::publishing::NewEncode;
use crate::row::{instant, instant_opt, int, natural, parsed, text};
use crate::tx::{Tx, commit};
use crate::video_moves::hold;
use crate::{Catalog, FencedError, SqlError};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub id: JobId,
    pub kind: JobKind,
    pub video: VideoId,
    /// Of an `encode` or `assemble`.
    pub phase: Phase,
    /// JSON; what it means is between those who queue and those who run.
    pub payload: String,
    /// This run is the `attempt`-th, from 1.
    pub attempt: u32,
    pub created_at: Timestamp,
    /// Since then every run found what it needs disturbed.
    pub postponed_since: Option<Timestamp>,
}

/// The right to run a job until `lease_until`, under `token`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub job: Job,
    pub token: i64,
    pub lease_until: Timestamp,
}

/// Who claims what, and how.
#[derive(Debug, Clone)]
pub struct Claim<'a> {
    pub kinds: &'a [JobKind],
    pub worker: &'a str,
    pub lease_ms: i64,
    /// A job whose worker was lost this often is dead.
    pub attempts_max: u32,
    /// What failed on this worker is left to others for so long after it is due, and where others are at work on jobs
    /// of its kind for the length of a lease.
    pub left_to_others_ms: i64,
    pub limit: usize,
}

pub(crate) struct NewJob {
    pub id: JobId,
    pub kind: JobKind,
    pub video: VideoId,
    pub phase: Phase,
    pub payload: String,
    pub run_at: Timestamp,
}

impl NewJob {
    /// Of a kind that has no phases.
    pub fn new(id: JobId, kind: JobKind, video: VideoId, payload: String, run_at: Timestamp) -> NewJob {
        NewJob { id, kind, video, phase: Phase::Last, payload, run_at }
    }
}

/// What a claim may find, of one kind.
struct Waiting {
    kind: JobKind,
    queued: bool,
    /// Running, though its lease is over.
    lost: bool,
}

/// The time by which an encode stands behind the one before it of the same user: about what one takes.
const TURN_MS: i64 = 4_000;

/// Jobs of lost workers that one transaction takes back.
const TAKEN_BACK_AT_ONCE: i64 = 200;

/// Nothing playable waits behind an encode, and what must vanish goes before what may wait.
const BY_PRIORITY: [JobKind; 5] =
    [JobKind::Ingest, JobKind::Purge, JobKind::Cover, JobKind::Assemble, JobKind::Encode];

impl Catalog {
    /// Takes due jobs, oldest first within a kind, encodes by turns of the users, and those whose worker was lost. Any number of callers take
    /// different jobs at the same time, and none waits for another.
    pub async fn claim_jobs(&self, claim: &Claim<'_>, now: Timestamp) -> Result<Vec<Lease>, SqlError> {
        let mut due = Vec::new();
        // An idle poll must not queue for the writer.
        for waiting in self.waiting(claim.kinds, now).await? {
            if waiting.lost {
                self.take_back(waiting.kind, claim.attempts_max, now).await?;
            }
            if waiting.queued || waiting.lost {
                due.push(waiting.kind);
            }
        }
        due.sort_by_key(|kind| BY_PRIORITY.iter().position(|first| first == kind));
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let due = &due;
        commit!(self, async |tx| {
            let mut leases = Vec::new();
            for &kind in due {
                let free = claim.limit.saturating_sub(leases.len());
                if free > 0 {
                    leases.extend(claim_kind(tx, kind, claim, free, now).await?);
                }
            }
            Ok(leases)
        })
    }

    async fn waiting(&self, kinds: &[JobKind], now: Timestamp) -> Result<Vec<Waiting>, SqlError> {
        if kinds.is_empty() {
            return Ok(Vec::new());
        }
        // The first by the order of an index. Asked whether there is any, PostgreSQL would begin to read the table,
        // hoping that one comes soon, and read past all those that are done.
        let asked: Vec<_> = (1..=kinds.len()).map(|n| format!("(${n})")).collect();
        let mut query = sqlx::query(AssertSqlSafe(format!(
            "-- jobs.waiting
             WITH asked (kind) AS (VALUES {})
             SELECT kind,
               (SELECT run_at FROM jobs WHERE kind = asked.kind AND state = 'queued'
                ORDER BY run_at LIMIT 1) AS queued_at,
               (SELECT lease_until FROM jobs WHERE kind = asked.kind AND state = 'running'
                ORDER BY lease_until LIMIT 1) AS leased_until
             FROM asked",
            asked.join(", ")
        )));
        for kind in kinds {
            query = query.bind(kind.as_str());
        }
        let rows = query.fetch_all(&self.readers).await?;
        rows.iter()
            .map(|row| {
                Ok(Waiting {
                    kind: parsed(row, "kind")?,
                    queued: instant_opt(row, "queued_at")?.is_some_and(|at| at <= now),
                    lost: instant_opt(row, "leased_until")?.is_some_and(|until| until < now),
                })
            })
            .collect()
    }

    /// What lost workers held becomes claimable again, or dead when it was the last attempt: the file may be
    /// what kills workers.
    async fn take_back(&self, kind: JobKind, attempts_max: u32, now: Timestamp) -> Result<(), SqlError> {
        // Whatever may be wrong with a video whose job is to be buried, the others' jobs go on.
        match commit!(self, async |tx| { bury_some(tx, kind, attempts_max, now).await }) {
            Err(error) if !error.is_unavailable() => {
                tracing::error!(job.kind = %kind, %error, "jobs whose workers were lost cannot be given up");
            }
            buried => buried?,
        }
        while commit!(self, async |tx| { requeue_some(tx, kind, attempts_max, now).await })? {}
        Ok(())
    }

    /// Keeps the lease, and shows how far the job is: 0 to 1.
    pub async fn heartbeat(
        &self,
        lease: &Lease,
        progress: Option<f64>,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<(), FencedError> {
        commit!(self, async |tx| {
            if progress.is_some() {
                hold(tx, lease.job.video).await?;
            }
            let kept = sqlx::query(
                "-- jobs.heartbeat
                 UPDATE jobs SET lease_until = $3, progress = CASE WHEN $4 < 0.0 THEN progress ELSE $4 END
                 WHERE id = $1 AND state = 'running' AND token = $2 AND lease_until >= $5",
            )
            .bind(lease.job.id.to_string())
            .bind(lease.token)
            .bind(lease_until.unix_ms())
            // Never NULL, whose type the Any driver gets wrong for floating-point numbers: PostgreSQL would
            // keep it with the prepared statement, and refuse the first number that follows.
            .bind(progress.map_or(-1.0, |progress| progress.clamp(0.0, 1.0)))
            .bind(now.unix_ms())
            .execute(&mut **tx)
            .await?;
            held(kept.rows_affected())?;
            if progress.is_some() {
                refresh_progress(tx, lease.job.video, now).await?;
            }
            Ok(())
        })
    }

    /// Whoever lost a lease says that it has stopped: a purge need not wait for the end of it.
    pub async fn stop_writing(&self, lease: &Lease) -> Result<(), SqlError> {
        sqlx::query(
            "-- jobs.stop_writing
             UPDATE jobs SET lease_until = NULL WHERE id = $1 AND state = 'cancelled' AND token = $2",
        )
        .bind(lease.job.id.to_string())
        // Cancelling raised it by one; had someone else claimed the job in between, it would be higher.
        .bind(lease.token + 1)
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// The row that explains what this run is about to write.
    pub async fn begin_attempt(
        &self,
        lease: &Lease,
        attempt: AttemptId,
        now: Timestamp,
    ) -> Result<(), FencedError> {
        commit!(self, async |tx| {
            fence(tx, lease).await?;
            sqlx::query(
                "-- jobs.begin_attempt
                 INSERT INTO attempts (id, video_id, kind, state, job_id, token, created_at)
                 VALUES ($1, $2, 'job', 'open', $3, $4, $5) ON CONFLICT (id) DO NOTHING",
            )
            .bind(attempt.to_string())
            .bind(lease.job.video.to_string())
            .bind(lease.job.id.to_string())
            .bind(lease.token)
            .bind(now.unix_ms())
            .execute(&mut **tx)
            .await?;
            Ok(())
        })
    }
}

/// Zero rows: the fence is up.
pub(crate) fn held(rows: u64) -> Result<(), FencedError> {
    if rows == 0 { Err(FencedError::LeaseLost) } else { Ok(()) }
}

/// The beginning of every commit of a job: it ends the run, or finds that there is none to end.
pub(crate) async fn finish(tx: &mut Tx, lease: &Lease, now: Timestamp) -> Result<(), FencedError> {
    hold(tx, lease.job.video).await?;
    let finished = sqlx::query(
        "-- jobs.finish
         UPDATE jobs SET state = 'done', progress = 1.0, last_worker = worker, worker = NULL, lease_until = NULL,
           error = NULL, finished_at = $3
         WHERE id = $1 AND state = 'running' AND token = $2",
    )
    .bind(lease.job.id.to_string())
    .bind(lease.token)
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    held(finished.rows_affected())
}

/// The beginning of a write in the middle of a run. Until our end nobody takes the job from us.
pub(crate) async fn fence(tx: &mut Tx, lease: &Lease) -> Result<(), FencedError> {
    hold(tx, lease.job.video).await?;
    let held_rows = sqlx::query(
        "-- jobs.fence\nUPDATE jobs SET token = token WHERE id = $1 AND state = 'running' AND token = $2",
    )
    .bind(lease.job.id.to_string())
    .bind(lease.token)
    .execute(&mut **tx)
    .await?;
    held(held_rows.rows_affected())
}

pub(crate) async fn insert(tx: &mut Tx, new: &NewJob, now: Timestamp) -> Result<(), SqlError> {
    insert_in_turn(tx, new, new.run_at, 1.0, now).await
}

/// Encodes are claimed in the order of `turn_at`, others in that of `run_at`.
async fn insert_in_turn(
    tx: &mut Tx,
    new: &NewJob,
    turn_at: Timestamp,
    estimate_s: f64,
    now: Timestamp,
) -> Result<(), SqlError> {
    sqlx::query(
        "-- jobs.insert
         INSERT INTO jobs (id, kind, state, video_id, payload, run_at, turn_at, attempts, token, progress, created_at,
                           estimate_s, phase)
         VALUES ($1, $2, 'queued', $3, $4, $5, $6, 0, 0, 0.0, $7, $8, $9)",
    )
    .bind(new.id.to_string())
    .bind(new.kind.as_str())
    .bind(new.video.to_string())
    .bind(&*new.payload)
    .bind(new.run_at.unix_ms())
    .bind(turn_at.unix_ms())
    .bind(now.unix_ms())
    .bind(estimate_s)
    .bind(new.phase.as_str())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The encodes of one film, behind those that its author has in the queue; the first phase only behind first phases, so
/// that nothing waits to be watched until what can be watched is ready.
pub(crate) async fn insert_encodes(
    tx: &mut Tx,
    video: VideoId,
    encodes: &[NewEncode],
    now: Timestamp,
) -> Result<(), SqlError> {
    for &phase in Phase::ALL {
        let mut turn_at = next_turn(tx, video, phase, now).await?;
        for NewEncode { id, payload, estimate_s, .. } in encodes.iter().filter(|new| new.phase == phase) {
            let (kind, payload) = (JobKind::Encode, payload.clone());
            let job = NewJob { id: *id, kind, video, phase, payload, run_at: now };
            insert_in_turn(tx, &job, turn_at, *estimate_s, now).await?;
            turn_at = turn_at.plus_ms(TURN_MS);
        }
    }
    Ok(())
}

async fn next_turn(tx: &mut Tx, video: VideoId, phase: Phase, now: Timestamp) -> Result<Timestamp, SqlError> {
    let row = sqlx::query(
        "-- jobs.last_turn
         SELECT MAX(j.turn_at) AS last FROM jobs j JOIN videos v ON v.id = j.video_id
         WHERE v.author_id = (SELECT author_id FROM videos WHERE id = $1) AND j.kind = 'encode' AND j.state = 'queued'
           AND ($2 = 'last' OR j.phase = 'first')",
    )
    .bind(video.to_string())
    .bind(phase.as_str())
    .fetch_one(&mut **tx)
    .await?;
    Ok(instant_opt(&row, "last")?.map_or(now, |last| last.plus_ms(TURN_MS).max(now)))
}

pub(crate) async fn exists(tx: &mut Tx, id: JobId) -> Result<bool, SqlError> {
    let row = sqlx::query("-- jobs.exists\nSELECT 1 AS found FROM jobs WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(&mut **tx)
        .await?;
    Ok(row.is_some())
}

/// Stops what waits or runs: the raised token refuses what a worker still has in hand. `lease_until` stays,
/// because until then it may be writing.
pub(crate) async fn cancel(
    tx: &mut Tx,
    video: VideoId,
    kinds: &[JobKind],
    now: Timestamp,
) -> Result<(), SqlError> {
    for kind in kinds {
        sqlx::query(
            "-- jobs.cancel
             UPDATE jobs SET state = 'cancelled', token = token + 1, worker = NULL, finished_at = $3
             WHERE video_id = $1 AND kind = $2 AND state IN ('queued', 'running')",
        )
        .bind(video.to_string())
        .bind(kind.as_str())
        .bind(now.unix_ms())
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

/// [`cancel`], of covers to be taken anew: the storyboard goes on.
pub(crate) async fn cancel_covers(tx: &mut Tx, video: VideoId, now: Timestamp) -> Result<(), SqlError> {
    sqlx::query(
        "-- jobs.cancel_covers
         UPDATE jobs SET state = 'cancelled', token = token + 1, worker = NULL, finished_at = $3
         WHERE video_id = $1 AND kind = 'cover' AND payload <> $2 AND state IN ('queued', 'running')",
    )
    .bind(video.to_string())
    .bind(crate::STORYBOARD)
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Gives up jobs whose last attempt lost its worker. The rest of very many waits for the next call.
async fn bury_some(tx: &mut Tx, kind: JobKind, attempts_max: u32, now: Timestamp) -> Result<(), SqlError> {
    // Videos first, as everywhere; those that somebody holds wait for the next call.
    let select = tx.locking(
        "-- jobs.lost_for_good
         SELECT id FROM videos WHERE id IN (
           SELECT video_id FROM jobs
           WHERE kind = $1 AND state = 'running' AND lease_until < $2 AND attempts >= $3) LIMIT $4",
        Lock::WriteFree,
    );
    let videos = sqlx::query(select)
        .bind(kind.as_str())
        .bind(now.unix_ms())
        .bind(i64::from(attempts_max))
        .bind(TAKEN_BACK_AT_ONCE)
        .fetch_all(&mut **tx)
        .await?;
    for row in videos {
        let video: VideoId = parsed(&row, "id")?;
        let buried = sqlx::query(
            "-- jobs.bury_lost
             UPDATE jobs SET state = 'dead', token = token + 1, worker = NULL, finished_at = $3,
               error = 'its worker was lost in the last attempt, by a crash or by running out of memory'
             WHERE video_id = $1 AND kind = $2 AND state = 'running' AND lease_until < $3 AND attempts >= $4",
        )
        .bind(video.to_string())
        .bind(kind.as_str())
        .bind(now.unix_ms())
        .bind(i64::from(attempts_max))
        .execute(&mut **tx)
        .await?;
        if buried.rows_affected() > 0 {
            crate::job_endings::after_death(tx, kind, video, now).await?;
        }
    }
    Ok(())
}

/// Makes jobs of lost workers claimable again. `false`: there were few enough, and no more.
async fn requeue_some(
    tx: &mut Tx,
    kind: JobKind,
    attempts_max: u32,
    now: Timestamp,
) -> Result<bool, SqlError> {
    let free = tx.lock(Lock::WriteFree);
    let requeued = sqlx::query(AssertSqlSafe(format!(
        "-- jobs.requeue_lost
         WITH lost AS MATERIALIZED (
           SELECT id FROM jobs WHERE kind = $1 AND state = 'running' AND lease_until < $2 AND attempts < $3
           ORDER BY lease_until LIMIT $4 {free})
         UPDATE jobs SET state = 'queued', token = token + 1, last_worker = worker, worker = NULL, run_at = $2,
           error = 'its worker was lost'
         WHERE id IN (SELECT id FROM lost)"
    )))
    .bind(kind.as_str())
    .bind(now.unix_ms())
    .bind(i64::from(attempts_max))
    .bind(TAKEN_BACK_AT_ONCE)
    .execute(&mut **tx)
    .await?;
    Ok(requeued.rows_affected() >= TAKEN_BACK_AT_ONCE.unsigned_abs())
}

async fn claim_kind(
    tx: &mut Tx,
    kind: JobKind,
    claim: &Claim<'_>,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<Lease>, SqlError> {
    let lease_until = now.plus_ms(claim.lease_ms);
    // Whoever else claims at this instant takes others: nobody waits. Chosen apart from the update, because a
    // planner may run what stands in a condition more than once, and would then take more than the limit.
    let free = tx.lock(Lock::WriteFree);
    // The kind in the text lets a planner see that the index of turns is the one; the sign, that no other is.
    let (due, order) = match kind {
        JobKind::Encode => ("kind = 'encode' AND +run_at <= $2", "turn_at"),
        _ => ("run_at <= $2", "run_at"),
    };
    let rows = sqlx::query(AssertSqlSafe(format!(
        "-- jobs.claim
         WITH due AS MATERIALIZED (
           SELECT id FROM jobs WHERE kind = $1 AND state = 'queued' AND {due}
             AND (last_worker IS NULL OR last_worker <> $3 OR run_at <= $7 OR (run_at <= $6 AND NOT EXISTS (
               SELECT 1 FROM jobs o WHERE o.kind = $1 AND o.state = 'running' AND o.lease_until >= $2
                 AND o.worker <> $3)))
           ORDER BY {order}, id LIMIT $5 {free})
         UPDATE jobs SET state = 'running', token = token + 1, attempts = attempts + 1, worker = $3,
           lease_until = $4, started_at = $2, progress = 0.0
         WHERE id IN (SELECT id FROM due)
         RETURNING id, kind, video_id, phase, payload, attempts, token, created_at, postponed_since"
    )))
    .bind(kind.as_str())
    .bind(now.unix_ms())
    .bind(claim.worker)
    .bind(lease_until.unix_ms())
    .bind(limit as i64)
    .bind(now.plus_ms(-claim.left_to_others_ms).unix_ms())
    .bind(now.plus_ms(-claim.left_to_others_ms.max(claim.lease_ms)).unix_ms())
    .fetch_all(&mut **tx)
    .await?;
    let mut leases = rows.iter().map(|row| lease(row, lease_until)).collect::<Result<Vec<_>, _>>()?;
    // RETURNING has no order of its own; ids sort by the time the jobs were made.
    leases.sort_by_key(|lease| lease.job.id);
    Ok(leases)
}

fn lease(row: &AnyRow, lease_until: Timestamp) -> Result<Lease, SqlError> {
    let job = Job {
        id: parsed(row, "id")?,
        kind: parsed(row, "kind")?,
        video: parsed(row, "video_id")?,
        phase: parsed(row, "phase")?,
        payload: text(row, "payload")?,
        attempt: natural(row, "attempts")?,
        created_at: instant(row, "created_at")?,
        postponed_since: instant_opt(row, "postponed_since")?,
    };
    Ok(Lease { job, token: int(row, "token")?, lease_until })
}

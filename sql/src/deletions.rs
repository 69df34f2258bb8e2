//! Deletion: the tombstone first, then the bytes, then the rows; the receipt is what stays.

use domain::{DeletionId, DeletionState, JobId, JobKind, Receipt, Timestamp, VideoId, VideoState};
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use crate::jobs::{NewJob, cancel, fence, finish, insert};
use crate::row::{bigint, instant, instant_opt, natural, parsed, text};
use crate::tx::{Tx, commit};
use crate::video_moves::{advance, hold, hold_shown, state};
use crate::{Catalog, FencedError, Lease, SqlError};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    pub id: DeletionId,
    pub video: VideoId,
    pub state: DeletionState,
    /// A user's id, or the name of a service.
    pub requested_by: String,
    pub due_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub attempts: u32,
    pub receipt: Option<Receipt>,
}

#[derive(Debug, Clone)]
pub struct NewDeletion {
    pub video: VideoId,
    pub requested_by: String,
    /// Not after now: at once.
    pub due_at: Timestamp,
    /// Used unless a deletion is scheduled already, which then gets the new time.
    pub id: DeletionId,
    /// Of the `purge` job.
    pub job: JobId,
}

/// What was removed so far, by this run and those before it. Totals, so that noting them twice counts them once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purge {
    pub deletion: DeletionId,
    pub objects_deleted: u64,
    pub bytes_freed: u64,
}

#[derive(Debug)]
pub enum DeleteVideo {
    Accepted(Deletion),
    /// There is no such video, or it is gone already.
    NotFound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelDeletion {
    Cancelled,
    /// It is due, done or was cancelled before.
    TooLate,
    NotFound,
}

const COLUMNS: &str = "id, video_id, state, requested_by, due_at, started_at, finished_at, attempts,
    objects_deleted, bytes_freed, swept_at";

/// All that works towards a video, as opposed to removing it.
const WORK: [JobKind; 4] = [JobKind::Ingest, JobKind::Encode, JobKind::Assemble, JobKind::Cover];

impl Catalog {
    /// Tombstone, raised fences, `purge` job and deletion in one transaction.
    pub async fn delete_video(&self, new: &NewDeletion, now: Timestamp) -> Result<DeleteVideo, SqlError> {
        let accepted = commit!(self, async |tx| { accept(tx, new, now).await })?;
        self.deletions_bell().notify_waiters();
        Ok(accepted.map_or(DeleteVideo::NotFound, DeleteVideo::Accepted))
    }

    pub async fn deletion(&self, id: DeletionId) -> Result<Option<Deletion>, SqlError> {
        let row = sqlx::query(AssertSqlSafe(format!(
            "-- deletions.one\nSELECT {COLUMNS} FROM deletions WHERE id = $1"
        )))
        .bind(id.to_string())
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(deletion).transpose()
    }

    /// Newest first, from before `after` on.
    pub async fn deletions(
        &self,
        state: Option<DeletionState>,
        after: Option<DeletionId>,
        limit: usize,
    ) -> Result<Vec<Deletion>, SqlError> {
        let state_is = if state.is_some() { "state = $3" } else { "$3 = ''" };
        let rows = sqlx::query(AssertSqlSafe(format!(
            "-- deletions.list
             SELECT {COLUMNS} FROM deletions WHERE id < $1 AND {state_is} ORDER BY id DESC LIMIT $2"
        )))
        // No id reaches `g`.
        .bind(after.map_or_else(|| "g".to_owned(), |id| id.to_string()))
        .bind(limit as i64)
        .bind(state.map(DeletionState::as_str).unwrap_or_default())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(deletion).collect()
    }

    /// Only before it is due: from then on the video is gone for everyone, and nothing brings it back.
    pub async fn cancel_deletion(&self, id: DeletionId, now: Timestamp) -> Result<CancelDeletion, SqlError> {
        let Some(Deletion { video, .. }) = self.deletion(id).await? else {
            return Ok(CancelDeletion::NotFound);
        };
        commit!(self, async |tx| {
            hold(tx, video).await?;
            let cancelled = sqlx::query(
                "-- deletions.cancel
                 UPDATE deletions SET state = 'cancelled', finished_at = $2
                 WHERE id = $1 AND state = 'scheduled' AND due_at > $2",
            )
            .bind(id.to_string())
            .bind(now.unix_ms())
            .execute(&mut **tx)
            .await?;
            if cancelled.rows_affected() == 0 {
                return Ok(CancelDeletion::TooLate);
            }
            cancel(tx, video, &[JobKind::Purge], now).await?;
            set_gone_at(tx, video, None).await?;
            Ok(CancelDeletion::Cancelled)
        })
    }

    /// The time has come. Nothing that works towards the video may commit from here on.
    pub async fn start_purge(&self, lease: &Lease, now: Timestamp) -> Result<Purge, FencedError> {
        commit!(self, async |tx| {
            fence(tx, lease).await?;
            let video = lease.job.video;
            bury(tx, video, now).await?;
            let row = sqlx::query(
                "-- deletions.start
                 UPDATE deletions SET state = 'running', attempts = attempts + 1,
                   started_at = coalesce(started_at, $2)
                 WHERE video_id = $1 AND state IN ('scheduled', 'running')
                 RETURNING id, coalesce(objects_deleted, 0) AS objects_deleted,
                   coalesce(bytes_freed, 0) AS bytes_freed",
            )
            .bind(video.to_string())
            .bind(now.unix_ms())
            .fetch_optional(&mut **tx)
            .await?;
            let Some(row) = row else { return Err(FencedError::LeaseLost) };
            Ok(Purge {
                deletion: parsed(&row, "id")?,
                objects_deleted: natural(&row, "objects_deleted")?,
                bytes_freed: natural(&row, "bytes_freed")?,
            })
        })
    }

    /// Until then someone who lost the right to write may still be writing; `None`: all have said that they
    /// stopped, or their leases are over.
    pub async fn writers_until(&self, video: VideoId, now: Timestamp) -> Result<Option<Timestamp>, SqlError> {
        let row = sqlx::query(
            "-- deletions.writers_until
             SELECT coalesce(max(lease_until), 0) AS lease_until FROM (
               SELECT lease_until FROM jobs WHERE video_id = $1 AND kind <> 'purge' AND lease_until > $2
               UNION ALL
               SELECT lease_until FROM attempts
               WHERE video_id = $1 AND kind = 'upload' AND state = 'lost' AND lease_until > $2) writers",
        )
        .bind(video.to_string())
        .bind(now.unix_ms())
        .fetch_one(&self.readers)
        .await?;
        let until = instant(&row, "lease_until")?;
        Ok((until > now).then_some(until))
    }

    /// Writes the count down for the receipt; a later attempt goes on from it.
    pub async fn note_purged(&self, lease: &Lease, purge: &Purge) -> Result<(), FencedError> {
        commit!(self, async |tx| {
            fence(tx, lease).await?;
            sqlx::query(
                "-- deletions.note_purged
                 UPDATE deletions SET objects_deleted = $2, bytes_freed = $3
                 WHERE id = $1 AND state = 'running'",
            )
            .bind(purge.deletion.to_string())
            .bind(bigint(purge.objects_deleted))
            .bind(bigint(purge.bytes_freed))
            .execute(&mut **tx)
            .await?;
            Ok(())
        })
    }

    /// The store was found empty: every row of the video goes, but the deletion with its receipt.
    pub async fn finish_purge(
        &self,
        lease: &Lease,
        swept_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), FencedError> {
        commit!(self, async |tx| {
            let video = lease.job.video;
            if hold(tx, video).await?.is_none() {
                // Either this was done before, or the lease was lost and somebody else has done it.
                return if is_purged(tx, video).await? { Ok(()) } else { Err(FencedError::LeaseLost) };
            }
            finish(tx, lease, now).await?;
            sqlx::query(
                "-- deletions.finish
                 UPDATE deletions SET state = 'done', finished_at = $2, swept_at = $3,
                   objects_deleted = coalesce(objects_deleted, 0), bytes_freed = coalesce(bytes_freed, 0)
                 WHERE video_id = $1 AND state = 'running'",
            )
            .bind(video.to_string())
            .bind(now.unix_ms())
            .bind(swept_at.unix_ms())
            .execute(&mut **tx)
            .await?;
            forget_video(tx, video).await?;
            Ok(())
        })
    }
}

/// `None`: there is no such video for anyone.
async fn accept(tx: &mut Tx, new: &NewDeletion, now: Timestamp) -> Result<Option<Deletion>, SqlError> {
    let found = delete_video(tx, new, now).await?;
    // Where the video is gone this may have been asked for before: then there is a deletion under our id. One
    // that was scheduled already has an id of its own.
    let row = sqlx::query(AssertSqlSafe(format!(
        "-- deletions.accepted
         SELECT {COLUMNS} FROM deletions WHERE video_id = $1 AND (id = $2 OR ($3 = 1 AND state = 'scheduled'))
         ORDER BY state DESC LIMIT 1"
    )))
    .bind(new.video.to_string())
    .bind(new.id.to_string())
    .bind(i64::from(found))
    .fetch_optional(&mut **tx)
    .await?;
    row.as_ref().map(deletion).transpose()
}

async fn is_purged(tx: &mut Tx, video: VideoId) -> Result<bool, SqlError> {
    let row = sqlx::query(
        "-- deletions.is_purged\nSELECT 1 AS found FROM deletions WHERE video_id = $1 AND state = 'done'",
    )
    .bind(video.to_string())
    .fetch_optional(&mut **tx)
    .await?;
    Ok(row.is_some())
}

/// `false`: there is no such video for anyone.
pub(crate) async fn delete_video(tx: &mut Tx, new: &NewDeletion, now: Timestamp) -> Result<bool, SqlError> {
    if hold_shown(tx, new.video, now).await?.is_none() {
        return Ok(false);
    }
    set_gone_at(tx, new.video, Some(new.due_at)).await?;
    if !reschedule(tx, new).await? {
        insert_deletion(tx, new, now).await?;
        let purge = NewJob::new(new.job, JobKind::Purge, new.video, "{}".to_owned(), new.due_at);
        insert(tx, &purge, now).await?;
    }
    if new.due_at <= now {
        bury(tx, new.video, now).await?;
    }
    Ok(true)
}

/// The last accepted time wins.
async fn reschedule(tx: &mut Tx, new: &NewDeletion) -> Result<bool, SqlError> {
    let rescheduled = sqlx::query(
        "-- deletions.reschedule
         UPDATE deletions SET due_at = $2, requested_by = $3 WHERE video_id = $1 AND state = 'scheduled'",
    )
    .bind(new.video.to_string())
    .bind(new.due_at.unix_ms())
    .bind(&*new.requested_by)
    .execute(&mut **tx)
    .await?;
    if rescheduled.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query(
        "-- jobs.reschedule_purge
         UPDATE jobs SET run_at = $2 WHERE video_id = $1 AND kind = 'purge' AND state = 'queued'",
    )
    .bind(new.video.to_string())
    .bind(new.due_at.unix_ms())
    .execute(&mut **tx)
    .await?;
    Ok(true)
}

async fn insert_deletion(tx: &mut Tx, new: &NewDeletion, now: Timestamp) -> Result<(), SqlError> {
    sqlx::query(
        "-- deletions.insert
         INSERT INTO deletions (id, video_id, state, requested_by, due_at, attempts, created_at)
         VALUES ($1, $2, 'scheduled', $3, $4, 0, $5)",
    )
    .bind(new.id.to_string())
    .bind(new.video.to_string())
    .bind(&*new.requested_by)
    .bind(new.due_at.unix_ms())
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn set_gone_at(tx: &mut Tx, video: VideoId, gone_at: Option<Timestamp>) -> Result<(), SqlError> {
    sqlx::query("-- videos.set_gone_at\nUPDATE videos SET gone_at = $2 WHERE id = $1")
        .bind(video.to_string())
        .bind(gone_at.map(Timestamp::unix_ms))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// `deleted`, every fence raised, every attempt ended: its objects are on their way out. Again: nothing.
async fn bury(tx: &mut Tx, video: VideoId, now: Timestamp) -> Result<(), SqlError> {
    match state(tx, video).await? {
        None | Some(VideoState::Deleted) => return Ok(()),
        Some(from) => advance(tx, video, from, VideoState::Deleted, now).await?,
    }
    cancel(tx, video, &WORK, now).await?;
    crate::resumable::end_uploads(tx, video, now).await?;
    sqlx::query(
        "-- attempts.end_all
         UPDATE attempts SET state = CASE WHEN state = 'open' THEN 'lost' ELSE 'retired' END, ended_at = $2
         WHERE video_id = $1 AND state IN ('open', 'committed')",
    )
    .bind(video.to_string())
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn forget_video(tx: &mut Tx, video: VideoId) -> Result<(), SqlError> {
    // In the order of their references.
    const STATEMENTS: [&str; 12] = [
        "-- purge.views\nDELETE FROM views WHERE video_id = $1",
        "-- purge.watching\nDELETE FROM watching WHERE video_id = $1",
        "-- purge.comments\nDELETE FROM comments WHERE video_id = $1",
        "-- purge.renditions\nDELETE FROM renditions WHERE publication_id IN
           (SELECT id FROM publications WHERE video_id = $1)",
        "-- purge.publications\nDELETE FROM publications WHERE video_id = $1",
        "-- purge.objects\nDELETE FROM objects WHERE video_id = $1",
        "-- purge.uploads\nDELETE FROM uploads WHERE video_id = $1",
        "-- purge.attempts\nDELETE FROM attempts WHERE video_id = $1",
        "-- purge.rungs\nDELETE FROM rungs WHERE video_id = $1",
        "-- purge.tags\nDELETE FROM video_tags WHERE video_id = $1",
        "-- purge.jobs\nDELETE FROM jobs WHERE video_id = $1",
        "-- purge.video\nDELETE FROM videos WHERE id = $1",
    ];
    for statement in STATEMENTS {
        sqlx::query(statement).bind(video.to_string()).execute(&mut **tx).await?;
    }
    Ok(())
}

fn deletion(row: &AnyRow) -> Result<Deletion, SqlError> {
    Ok(Deletion {
        id: parsed(row, "id")?,
        video: parsed(row, "video_id")?,
        state: parsed(row, "state")?,
        requested_by: text(row, "requested_by")?,
        due_at: instant(row, "due_at")?,
        started_at: instant_opt(row, "started_at")?,
        finished_at: instant_opt(row, "finished_at")?,
        attempts: natural(row, "attempts")?,
        receipt: receipt(row)?,
    })
}

fn receipt(row: &AnyRow) -> Result<Option<Receipt>, SqlError> {
    // Before, what is counted is no receipt yet.
    let Some(swept_at) = instant_opt(row, "swept_at")? else { return Ok(None) };
    Ok(Some(Receipt {
        objects_deleted: natural(row, "objects_deleted")?,
        bytes_freed: natural(row, "bytes_freed")?,
        swept_at,
    }))
}

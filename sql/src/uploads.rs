//! Uploads: a row before the bytes, and one commit after them.

use domain::{AttemptId, JobId, JobKind, ObjectFile, ObjectKey, Timestamp, VideoId, VideoState};
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use crate::dialect::Lock;
use crate::jobs::NewJob;
use crate::objects::NewObject;
use crate::quotas::{Bounds, Needs, Room};
use crate::row::{bigint, float_opt, natural, natural_opt, parsed, parsed_opt, placeholders, storable, text};
use crate::tx::{Tx, commit};
use crate::video_moves::hold_shown;
use crate::{Catalog, SqlError};

/// An upload in one request.
#[derive(Debug, Clone)]
pub struct NewUpload {
    pub attempt: AttemptId,
    pub video: VideoId,
    pub lease_until: Timestamp,
    /// As far as it is known from the request's head.
    pub length_bytes: Option<u64>,
    pub room: Room,
}

impl NewUpload {
    /// Of any length, admitted whatever there is.
    pub fn unbounded(attempt: AttemptId, video: VideoId, lease_until: Timestamp) -> NewUpload {
        NewUpload { attempt, video, lease_until, length_bytes: None, room: Room::default() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeginUpload {
    Begun,
    /// No such video, or its time to upload is over.
    NotFound,
    AlreadyUploaded,
}

/// What is durable in the store, under the attempt's [`ObjectFile::Source`].
#[derive(Debug, Clone)]
pub struct CompletedUpload {
    pub video: VideoId,
    pub attempt: AttemptId,
    pub bytes: u64,
    pub crc64nvme: u64,
    /// Only where the client asked for it; lower-case hexadecimal.
    pub sha256_hex: Option<String>,
    pub filename: Option<String>,
    /// Of the `ingest` job that goes with it.
    pub ingest_job: JobId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompleteUpload {
    /// Also when this very attempt had been completed before: the answer may have been lost.
    Completed,
    AlreadyUploaded,
    /// The video was deleted or expired, or the attempt took too long and was swept.
    Gone,
}

/// The bytes as they came, and what the author asked of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Source {
    pub attempt: AttemptId,
    pub bytes: u64,
    pub cover_at_s: Option<f64>,
    /// `None` before ingest.
    pub film: Option<Film>,
}

/// What ingest found, as far as it says how much work the film is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Film {
    /// Of one picture as shown.
    pub pixels: u64,
    pub frame_rate: f64,
    pub duration_s: f64,
}

impl Catalog {
    /// [`SqlError::NoRoom`] where the author or the store has none for it.
    pub async fn begin_upload(&self, new: &NewUpload, now: Timestamp) -> Result<BeginUpload, SqlError> {
        commit!(self, async |tx| {
            let Some(bounds) = Bounds::hold(tx, new.video, &new.room).await? else {
                return Ok(BeginUpload::NotFound);
            };
            match hold_shown(tx, new.video, now).await? {
                Some(VideoState::AwaitingUpload | VideoState::Uploading) => {}
                None | Some(VideoState::Expired | VideoState::Deleted) => return Ok(BeginUpload::NotFound),
                Some(_) => return Ok(BeginUpload::AlreadyUploaded),
            }
            bounds.admit(tx, new.video, new.length_bytes.map(Needs::whole), now).await?;
            sqlx::query(
                "-- uploads.begin
                 INSERT INTO attempts (id, video_id, kind, state, lease_until, created_at, length_bytes)
                 VALUES ($1, $2, 'upload', 'open', $3, $4, $5) ON CONFLICT (id) DO NOTHING",
            )
            .bind(new.attempt.to_string())
            .bind(new.video.to_string())
            .bind(new.lease_until.unix_ms())
            .bind(now.unix_ms())
            .bind(new.length_bytes.map(bigint))
            .execute(&mut **tx)
            .await?;
            Ok(BeginUpload::Begun)
        })
    }

    /// `false`: stop writing; the video is gone or the attempt was given up.
    pub async fn extend_upload(
        &self,
        attempt: AttemptId,
        received_bytes: u64,
        lease_until: Timestamp,
    ) -> Result<bool, SqlError> {
        let extended = sqlx::query(
            "-- uploads.extend
             UPDATE attempts SET lease_until = $2, received_bytes = $3
             WHERE id = $1 AND kind = 'upload' AND state = 'open'",
        )
        .bind(attempt.to_string())
        .bind(lease_until.unix_ms())
        .bind(bigint(received_bytes))
        .execute(&self.writer)
        .await?;
        Ok(extended.rows_affected() > 0)
    }

    /// Nothing more will be written: the sweeper removes what is left, and a purge need not wait any longer.
    pub async fn abandon_upload(&self, attempt: AttemptId, now: Timestamp) -> Result<(), SqlError> {
        sqlx::query(
            "-- uploads.abandon
             UPDATE attempts SET state = 'lost', ended_at = coalesce(ended_at, $2), lease_until = $2
             WHERE id = $1 AND kind = 'upload' AND state IN ('open', 'lost')",
        )
        .bind(attempt.to_string())
        .bind(now.unix_ms())
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// The bytes are the video's from here on, and `ingest` is queued. Exactly one attempt gets here.
    pub async fn complete_upload(
        &self,
        done: &CompletedUpload,
        now: Timestamp,
    ) -> Result<CompleteUpload, SqlError> {
        let completed: Result<CompleteUpload, SqlError> = commit!(self, async |tx| {
            let from = match hold_shown(tx, done.video, now).await? {
                Some(from @ (VideoState::AwaitingUpload | VideoState::Uploading)) => from,
                None | Some(VideoState::Expired | VideoState::Deleted) => return Ok(CompleteUpload::Gone),
                Some(_) if is_source(tx, done).await? => return Ok(CompleteUpload::Completed),
                Some(_) => return Ok(CompleteUpload::AlreadyUploaded),
            };
            if !commit_attempt(tx, done.attempt, done.video, now).await? {
                return Ok(CompleteUpload::Gone);
            }
            let key = ObjectKey { video: done.video, attempt: done.attempt, file: ObjectFile::Source };
            let source = NewObject { key, bytes: done.bytes, crc64nvme: Some(done.crc64nvme) };
            crate::objects::insert(tx, &[source], now).await?;
            become_source(tx, done, from, now).await?;
            Ok(CompleteUpload::Completed)
        });
        if matches!(completed, Ok(CompleteUpload::Completed)) {
            self.bell().notify_one();
        }
        completed
    }

    /// `None` before the upload, and after the purge.
    pub async fn source(&self, video: VideoId) -> Result<Option<Source>, SqlError> {
        let row = sqlx::query(
            "-- uploads.source
             SELECT source_attempt, source_bytes, cover_at_s, width, height, frame_rate, duration_s FROM videos
             WHERE id = $1 AND source_attempt IS NOT NULL",
        )
        .bind(video.to_string())
        .fetch_optional(&self.readers)
        .await?;
        row.map(|row| {
            Ok(Source {
                attempt: parsed(&row, "source_attempt")?,
                bytes: natural(&row, "source_bytes")?,
                cover_at_s: float_opt(&row, "cover_at_s")?,
                film: film(&row)?,
            })
        })
        .transpose()
    }

    /// Ends the wait for uploads that never came: videos made before `created_before` that no upload is
    /// being written for, and none waits to be gone on with. Returns how many.
    pub async fn expire_videos(&self, created_before: Timestamp, now: Timestamp) -> Result<u64, SqlError> {
        let mut expired = 0;
        loop {
            let some = commit!(self, async |tx| { expire_some(tx, created_before, now).await })?;
            expired += some;
            if some < EXPIRED_AT_ONCE {
                return Ok(expired);
            }
        }
    }
}

fn film(row: &AnyRow) -> Result<Option<Film>, SqlError> {
    let (width, height) = (natural_opt::<u32>(row, "width")?, natural_opt::<u32>(row, "height")?);
    let (frame_rate, duration_s) = (float_opt(row, "frame_rate")?, float_opt(row, "duration_s")?);
    let (Some(width), Some(height), Some(frame_rate), Some(duration_s)) =
        (width, height, frame_rate, duration_s)
    else {
        return Ok(None);
    };
    Ok(Some(Film { pixels: u64::from(width) * u64::from(height), frame_rate, duration_s }))
}

/// Few enough for one statement.
const EXPIRED_AT_ONCE: u64 = 500;

async fn expire_some(tx: &mut Tx, created_before: Timestamp, now: Timestamp) -> Result<u64, SqlError> {
    // What somebody holds at this instant is looked at the next time.
    let select = tx.locking(
        "-- videos.late
         SELECT id FROM videos WHERE state IN ('awaiting_upload', 'uploading') AND created_at < $1
           AND NOT EXISTS (SELECT 1 FROM attempts a
             WHERE a.video_id = videos.id AND a.state = 'open' AND a.lease_until >= $2)
           AND NOT EXISTS (SELECT 1 FROM uploads u WHERE u.video_id = videos.id AND u.ended_at IS NULL)
         ORDER BY created_at LIMIT $3",
        Lock::WriteFree,
    );
    let late = sqlx::query(select)
        .bind(created_before.unix_ms())
        .bind(now.unix_ms())
        .bind(bigint(EXPIRED_AT_ONCE))
        .fetch_all(&mut **tx)
        .await?;
    if late.is_empty() {
        return Ok(0);
    }
    // Asked again now that they are held: an upload may have begun since.
    let ids = placeholders(2, late.len());
    let statement = AssertSqlSafe(format!(
        "-- videos.expire
         UPDATE videos SET state = 'expired', updated_at = $1
         WHERE id IN ({ids}) AND state IN ('awaiting_upload', 'uploading')
           AND NOT EXISTS (SELECT 1 FROM attempts a
             WHERE a.video_id = videos.id AND a.state = 'open' AND a.lease_until >= $1)
           AND NOT EXISTS (SELECT 1 FROM uploads u WHERE u.video_id = videos.id AND u.ended_at IS NULL)"
    ));
    let mut query = sqlx::query(statement).bind(now.unix_ms());
    for row in &late {
        query = query.bind(text(row, "id")?);
    }
    Ok(query.execute(&mut **tx).await?.rows_affected())
}

/// What is committed under `done.attempt` is the video from here on; whatever else was being uploaded for it has ended.
pub(crate) async fn become_source(
    tx: &mut Tx,
    done: &CompletedUpload,
    from: VideoState,
    now: Timestamp,
) -> Result<(), SqlError> {
    note_source(tx, done, now).await?;
    crate::video_moves::advance(tx, done.video, from, VideoState::Uploaded, now).await?;
    crate::resumable::end_uploads(tx, done.video, now).await?;
    crate::resumable::end_pieces(tx, done.video, done.attempt, now).await?;
    let ingest = NewJob::new(done.ingest_job, JobKind::Ingest, done.video, "{}".to_owned(), now);
    crate::jobs::insert(tx, &ingest, now).await
}

pub(crate) async fn is_source(tx: &mut Tx, done: &CompletedUpload) -> Result<bool, SqlError> {
    let row = sqlx::query("-- uploads.is_source\nSELECT source_attempt FROM videos WHERE id = $1")
        .bind(done.video.to_string())
        .fetch_one(&mut **tx)
        .await?;
    Ok(parsed_opt(&row, "source_attempt")? == Some(done.attempt))
}

async fn commit_attempt(
    tx: &mut Tx,
    attempt: AttemptId,
    video: VideoId,
    now: Timestamp,
) -> Result<bool, SqlError> {
    let committed = sqlx::query(
        "-- uploads.commit_attempt
         UPDATE attempts SET state = 'committed', ended_at = $3
         WHERE id = $1 AND video_id = $2 AND kind = 'upload' AND state = 'open'",
    )
    .bind(attempt.to_string())
    .bind(video.to_string())
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    Ok(committed.rows_affected() > 0)
}

async fn note_source(tx: &mut Tx, done: &CompletedUpload, now: Timestamp) -> Result<(), SqlError> {
    sqlx::query(
        "-- uploads.note_source
         UPDATE videos SET source_attempt = $2, source_bytes = $3, source_crc64nvme = $4, source_sha256 = $5,
           source_filename = $6, uploaded_at = $7
         WHERE id = $1",
    )
    .bind(done.video.to_string())
    .bind(done.attempt.to_string())
    .bind(bigint(done.bytes))
    .bind(done.crc64nvme.cast_signed())
    .bind(done.sha256_hex.clone())
    .bind(done.filename.as_deref().map(storable))
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

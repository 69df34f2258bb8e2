//! The pieces of a resumable upload: a row before the bytes of each, one commit after them, and one when all are there.

use domain::{AttemptId, ObjectFile, ObjectKey, Timestamp, UploadId, UploadKind, VideoId, VideoState};
use sqlx::any::AnyRow;

use crate::dialect::Lock;
use crate::objects::NewObject;
use crate::row::{bigint, int, natural, natural_opt, parsed, placeholders};
use crate::tx::{Tx, commit};
use crate::uploads::CompletedUpload;
use crate::video_moves::{advance, hold_shown};
use crate::{Catalog, SqlError};

/// What is durable in the store, under the attempt's [`ObjectFile::Source`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadPiece {
    pub attempt: AttemptId,
    pub bytes: u64,
    pub crc64nvme: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitPieces {
    /// Also when these very pieces had been committed before: the answer may have been lost.
    Committed { offset_bytes: u64 },
    /// Somebody else holds the upload, or the lease of a piece ended and it was swept.
    Lost,
    /// The upload has ended, or its video is gone.
    Gone,
    /// Another length was said before.
    LengthDiffers,
    /// There would be more than the upload is long; or a piece is shorter than the one it is to replace.
    BeyondLength,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompleteResumable {
    /// Also when it had been completed with this very attempt before: the answer may have been lost.
    Completed,
    /// In another way, which has ended this one.
    AlreadyUploaded,
    /// Somebody else holds the upload, or the attempt's lease ended and it was swept.
    Lost,
    /// The upload has ended, or its video is gone.
    Gone,
    /// What came, what was announced and what is handed in are not equally long; or it is a part of a video only.
    Unfinished,
}

impl Catalog {
    /// A row before the first byte: of a piece, or of the object that pieces are put together in. `false`: the upload is
    /// not held under this token any more, or its video is gone.
    pub async fn begin_piece(
        &self,
        id: UploadId,
        token: i64,
        attempt: AttemptId,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<bool, SqlError> {
        let Some(video) = self.video_of_upload(id).await? else { return Ok(false) };
        commit!(self, async |tx| {
            if awaits_bytes(tx, video, now).await?.is_none() {
                return Ok(false);
            }
            let Fence::Held(_) = fence(tx, id, token).await? else { return Ok(false) };
            sqlx::query(
                "-- pieces.begin
                 INSERT INTO attempts (id, video_id, kind, state, token, lease_until, created_at, upload_id)
                 VALUES ($1, $2, 'upload', 'open', $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING",
            )
            .bind(attempt.to_string())
            .bind(video.to_string())
            .bind(token)
            .bind(lease_until.unix_ms())
            .bind(now.unix_ms())
            .bind(id.to_string())
            .execute(&mut **tx)
            .await?;
            Ok(true)
        })
    }

    /// The holder lives: every piece that it has begun may grow on, and the upload's own end moves too. `false`: stop
    /// writing; the hold is lost, or the upload has ended.
    pub async fn extend_pieces(
        &self,
        id: UploadId,
        token: i64,
        lease_until: Timestamp,
        expires_at: Timestamp,
    ) -> Result<bool, SqlError> {
        commit!(self, async |tx| {
            let Fence::Held(_) = fence(tx, id, token).await? else { return Ok(false) };
            slide(tx, id, expires_at).await?;
            sqlx::query(
                "-- pieces.extend
                 UPDATE attempts SET lease_until = $3 WHERE upload_id = $1 AND token = $2 AND state = 'open'",
            )
            .bind(id.to_string())
            .bind(token)
            .bind(lease_until.unix_ms())
            .execute(&mut **tx)
            .await?;
            Ok(true)
        })
    }

    /// `pieces` follow those before; the first takes the place of the last one if `replaces_last`, whose bytes it begins
    /// with. `length_bytes` where the client says it now.
    #[expect(
        clippy::too_many_arguments,
        reason = "one commit, each part of which has its own type and meaning"
    )]
    pub async fn commit_pieces(
        &self,
        id: UploadId,
        token: i64,
        replaces_last: bool,
        pieces: &[UploadPiece],
        length_bytes: Option<u64>,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<CommitPieces, SqlError> {
        let Some(video) = self.video_of_upload(id).await? else { return Ok(CommitPieces::Gone) };
        commit!(self, async |tx| {
            let Some(from) = awaits_bytes(tx, video, now).await? else { return Ok(CommitPieces::Gone) };
            let upload = match fence(tx, id, token).await? {
                Fence::Held(upload) => upload,
                Fence::Lost => return Ok(CommitPieces::Lost),
                Fence::Ended => return Ok(CommitPieces::Gone),
            };
            match written(tx, id, token, pieces).await? {
                Written::Open => {}
                Written::Committed => {
                    return Ok(CommitPieces::Committed { offset_bytes: upload.offset_bytes });
                }
                Written::Lost => return Ok(CommitPieces::Lost),
            }
            let length_bytes = match (upload.length_bytes, length_bytes) {
                (Some(before), Some(said)) if before != said => return Ok(CommitPieces::LengthDiffers),
                (before, said) => before.or(said),
            };
            let last = last_piece(tx, id).await?;
            let replaced = if replaces_last && !pieces.is_empty() { last } else { None };
            let Some(offset_bytes) = fit(upload.offset_bytes, replaced, pieces, length_bytes) else {
                return Ok(CommitPieces::BeyondLength);
            };
            if let Some(replaced) = replaced {
                retire(tx, replaced.attempt, now).await?;
            }
            let first_number = match (last, replaced) {
                (Some(last), None) => last.number + 1,
                (Some(last), Some(_)) => last.number,
                (None, _) => 0,
            };
            for (piece, number) in pieces.iter().zip(first_number..) {
                commit_piece(tx, piece, video, Some(number), now).await?;
            }
            note_progress(tx, id, offset_bytes, length_bytes).await?;
            slide(tx, id, expires_at).await?;
            if upload.kind == UploadKind::Partial {
                slide_partials(tx, video, expires_at, now).await?;
            }
            if offset_bytes > 0 && from == VideoState::AwaitingUpload {
                advance(tx, video, from, VideoState::Uploading, now).await?;
            }
            Ok(CommitPieces::Committed { offset_bytes })
        })
    }

    /// The object of `done.attempt`, which is the only piece or what the pieces were put together in, is the video's from
    /// here on, and `ingest` is queued. Everything else that was uploaded for this video is swept.
    pub async fn complete_resumable(
        &self,
        id: UploadId,
        token: i64,
        done: &CompletedUpload,
        now: Timestamp,
    ) -> Result<CompleteResumable, SqlError> {
        let completed: Result<CompleteResumable, SqlError> = commit!(self, async |tx| {
            let from = match hold_shown(tx, done.video, now).await? {
                Some(from @ (VideoState::AwaitingUpload | VideoState::Uploading)) => from,
                None | Some(VideoState::Expired | VideoState::Deleted) => return Ok(CompleteResumable::Gone),
                Some(_) if crate::uploads::is_source(tx, done).await? => {
                    return Ok(CompleteResumable::Completed);
                }
                Some(_) => return Ok(CompleteResumable::AlreadyUploaded),
            };
            let upload = match fence(tx, id, token).await? {
                Fence::Held(upload) if upload.video == done.video => upload,
                Fence::Lost => return Ok(CompleteResumable::Lost),
                Fence::Held(_) | Fence::Ended => return Ok(CompleteResumable::Gone),
            };
            let whole = upload.offset_bytes == done.bytes && upload.length_bytes == Some(done.bytes);
            if !whole || upload.kind == UploadKind::Partial {
                return Ok(CompleteResumable::Unfinished);
            }
            let piece = UploadPiece { attempt: done.attempt, bytes: done.bytes, crc64nvme: done.crc64nvme };
            match written(tx, id, token, &[piece]).await? {
                Written::Open => commit_piece(tx, &piece, done.video, None, now).await?,
                Written::Committed if pieces(tx, id).await? == [piece] => {}
                Written::Committed => return Ok(CompleteResumable::Unfinished),
                Written::Lost => return Ok(CompleteResumable::Lost),
            }
            set_complete(tx, id).await?;
            crate::uploads::become_source(tx, done, from, now).await?;
            Ok(CompleteResumable::Completed)
        });
        if matches!(completed, Ok(CompleteResumable::Completed)) {
            self.bell().notify_one();
        }
        completed
    }

    /// A partial upload has all its bytes, and waits for the others. `false`: it has not, or is not held under this token
    /// any more.
    pub async fn finish_partial(&self, id: UploadId, token: i64) -> Result<bool, SqlError> {
        let finished = sqlx::query(
            "-- uploads.finish_partial
             UPDATE uploads SET state = 'complete', hold = 'free'
             WHERE id = $1 AND token = $2 AND kind = 'partial' AND offset_bytes = length_bytes AND ended_at IS NULL
               AND (state = 'complete' OR hold <> 'free')",
        )
        .bind(id.to_string())
        .bind(token)
        .execute(&self.writer)
        .await?;
        Ok(finished.rows_affected() > 0)
    }

    /// Which never changes.
    async fn video_of_upload(&self, id: UploadId) -> Result<Option<VideoId>, SqlError> {
        let row = sqlx::query("-- uploads.video\nSELECT video_id FROM uploads WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| parsed(&row, "video_id")).transpose()
    }
}

/// What a holder finds.
enum Fence {
    Held(Upload),
    /// Somebody else holds it, or nobody.
    Lost,
    Ended,
}

struct Upload {
    video: VideoId,
    kind: UploadKind,
    offset_bytes: u64,
    length_bytes: Option<u64>,
}

/// Locks the upload.
async fn fence(tx: &mut Tx, id: UploadId, token: i64) -> Result<Fence, SqlError> {
    let select = tx.locking(
        "-- uploads.fence
         SELECT video_id, kind, offset_bytes, length_bytes,
           CASE WHEN state <> 'open' THEN 'ended' WHEN token = $2 AND hold <> 'free' THEN 'held' ELSE 'lost' END AS fence
         FROM uploads WHERE id = $1",
        Lock::Write,
    );
    let row = sqlx::query(select).bind(id.to_string()).bind(token).fetch_optional(&mut **tx).await?;
    let Some(row) = row else { return Ok(Fence::Ended) };
    match &*crate::row::text(&row, "fence")? {
        "held" => Ok(Fence::Held(Upload {
            video: parsed(&row, "video_id")?,
            kind: parsed(&row, "kind")?,
            offset_bytes: natural(&row, "offset_bytes")?,
            length_bytes: natural_opt(&row, "length_bytes")?,
        })),
        "lost" => Ok(Fence::Lost),
        _ => Ok(Fence::Ended),
    }
}

/// Holds the video. `None`: it is gone, or has its bytes.
async fn awaits_bytes(tx: &mut Tx, video: VideoId, now: Timestamp) -> Result<Option<VideoState>, SqlError> {
    let state = hold_shown(tx, video, now).await?;
    Ok(state.filter(|state| matches!(state, VideoState::AwaitingUpload | VideoState::Uploading)))
}

/// What a holder has begun, as a whole.
enum Written {
    Open,
    Committed,
    Lost,
}

/// Locks the attempts: an end of their leases waits for ours.
async fn written(tx: &mut Tx, id: UploadId, token: i64, pieces: &[UploadPiece]) -> Result<Written, SqlError> {
    if pieces.is_empty() {
        return Ok(Written::Open);
    }
    let select = format!(
        "-- pieces.written
         SELECT state FROM attempts WHERE upload_id = $1 AND id IN ({}) AND (state = 'committed' OR token = $2)",
        placeholders(3, pieces.len())
    );
    let query = sqlx::query(tx.locking(&select, Lock::Write)).bind(id.to_string()).bind(token);
    let query = pieces.iter().fold(query, |query, piece| query.bind(piece.attempt.to_string()));
    let rows = query.fetch_all(&mut **tx).await?;
    let states = rows.iter().map(|row| crate::row::text(row, "state")).collect::<Result<Vec<_>, _>>()?;
    let all = |state| states.len() == pieces.len() && states.iter().all(|of| of == state);
    Ok(if all("open") {
        Written::Open
    } else if all("committed") {
        Written::Committed
    } else {
        Written::Lost
    })
}

/// The place of a committed piece among the others.
#[derive(Clone, Copy)]
struct Placed {
    attempt: AttemptId,
    number: i64,
    bytes: u64,
}

async fn last_piece(tx: &mut Tx, id: UploadId) -> Result<Option<Placed>, SqlError> {
    let row = sqlx::query(
        "-- pieces.last
         SELECT a.id, a.piece_number, o.bytes FROM attempts a JOIN objects o ON o.attempt_id = a.id
         WHERE a.upload_id = $1 AND a.state = 'committed' ORDER BY a.piece_number DESC LIMIT 1",
    )
    .bind(id.to_string())
    .fetch_optional(&mut **tx)
    .await?;
    row.map(|row| {
        Ok(Placed {
            attempt: parsed(&row, "id")?,
            number: int(&row, "piece_number")?,
            bytes: natural(&row, "bytes")?,
        })
    })
    .transpose()
}

/// The offset after `pieces`, if they fit. It only rises.
fn fit(
    offset_bytes: u64,
    replaced: Option<Placed>,
    pieces: &[UploadPiece],
    length_bytes: Option<u64>,
) -> Option<u64> {
    let kept = offset_bytes.checked_sub(replaced.map_or(0, |replaced| replaced.bytes))?;
    let end = pieces.iter().try_fold(kept, |end, piece| end.checked_add(piece.bytes))?;
    let first_bytes = pieces.first().map_or(0, |piece| piece.bytes);
    let covers = replaced.is_none_or(|replaced| first_bytes >= replaced.bytes);
    (covers && length_bytes.is_none_or(|length| end <= length)).then_some(end)
}

/// All pieces that count, in their order.
pub(crate) async fn pieces(tx: &mut Tx, id: UploadId) -> Result<Vec<UploadPiece>, SqlError> {
    let rows = sqlx::query(
        "-- pieces.all
         SELECT a.id, o.bytes, o.crc64nvme FROM attempts a JOIN objects o ON o.attempt_id = a.id
         WHERE a.upload_id = $1 AND a.state = 'committed' ORDER BY a.piece_number",
    )
    .bind(id.to_string())
    .fetch_all(&mut **tx)
    .await?;
    rows.iter().map(piece).collect()
}

fn piece(row: &AnyRow) -> Result<UploadPiece, SqlError> {
    Ok(UploadPiece {
        attempt: parsed(row, "id")?,
        bytes: natural(row, "bytes")?,
        crc64nvme: int(row, "crc64nvme")?.cast_unsigned(),
    })
}

/// Of an attempt that is locked and open. What pieces were put together in has no number.
async fn commit_piece(
    tx: &mut Tx,
    piece: &UploadPiece,
    video: VideoId,
    number: Option<i64>,
    now: Timestamp,
) -> Result<(), SqlError> {
    sqlx::query(
        "-- pieces.commit
         UPDATE attempts SET state = 'committed', ended_at = $2, piece_number = $3 WHERE id = $1 AND state = 'open'",
    )
    .bind(piece.attempt.to_string())
    .bind(now.unix_ms())
    .bind(number)
    .execute(&mut **tx)
    .await?;
    let key = ObjectKey { video, attempt: piece.attempt, file: ObjectFile::Source };
    let object = NewObject { key, bytes: piece.bytes, crc64nvme: Some(piece.crc64nvme) };
    crate::objects::insert(tx, &[object], now).await
}

async fn retire(tx: &mut Tx, attempt: AttemptId, now: Timestamp) -> Result<(), SqlError> {
    sqlx::query(
        "-- pieces.retire
         UPDATE attempts SET state = 'retired', ended_at = $2 WHERE id = $1 AND state = 'committed'",
    )
    .bind(attempt.to_string())
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn note_progress(
    tx: &mut Tx,
    id: UploadId,
    offset_bytes: u64,
    length_bytes: Option<u64>,
) -> Result<(), SqlError> {
    sqlx::query("-- uploads.progress\nUPDATE uploads SET offset_bytes = $2, length_bytes = $3 WHERE id = $1")
        .bind(id.to_string())
        .bind(bigint(offset_bytes))
        .bind(length_bytes.map(bigint))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn slide(tx: &mut Tx, id: UploadId, expires_at: Timestamp) -> Result<(), SqlError> {
    sqlx::query("-- uploads.slide\nUPDATE uploads SET expires_at = $2 WHERE id = $1 AND expires_at < $2")
        .bind(id.to_string())
        .bind(expires_at.unix_ms())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The complete parts of a video wait as long as its other parts grow.
async fn slide_partials(
    tx: &mut Tx,
    video: VideoId,
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<(), SqlError> {
    sqlx::query(
        "-- uploads.slide_partials
         UPDATE uploads SET expires_at = $2
         WHERE video_id = $1 AND kind = 'partial' AND state = 'complete' AND ended_at IS NULL
           AND expires_at > $3 AND expires_at < $2",
    )
    .bind(video.to_string())
    .bind(expires_at.unix_ms())
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn set_complete(tx: &mut Tx, id: UploadId) -> Result<(), SqlError> {
    sqlx::query("-- uploads.complete\nUPDATE uploads SET state = 'complete', hold = 'free' WHERE id = $1")
        .bind(id.to_string())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

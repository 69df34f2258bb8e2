//! Uploads that put partial ones together.

use domain::{Timestamp, UploadId, UploadKind, UploadState, VideoId, VideoState};
use sqlx::AssertSqlSafe;

use crate::resumable::{NewResumable, find, insert};
use crate::resumable_hold::lock;
use crate::resumable_pieces::pieces;
use crate::row::{parsed, placeholders};
use crate::tx::{Tx, commit};
use crate::video_moves::hold_shown;
use crate::{Catalog, SqlError, UploadPiece};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateFinal {
    /// Held under token 1, to be put together of these and completed.
    Created(Vec<UploadPiece>),
    /// The same partial uploads were put together before, by this one: the answer may have been lost.
    Completed(UploadId),
    /// A partial upload has not all its bytes.
    Unfinished,
    /// None of them has any.
    Empty,
    /// No such video, or its time to upload is over; or one of `partials` is no partial upload of it.
    NotFound,
    AlreadyUploaded,
}

impl Catalog {
    /// The partial uploads stay as they are until the final one is complete, so whoever loses the answer may ask again;
    /// the newest final one counts.
    pub async fn create_final(
        &self,
        new: &NewResumable,
        partials: &[UploadId],
        now: Timestamp,
    ) -> Result<CreateFinal, SqlError> {
        commit!(self, async |tx| {
            match hold_shown(tx, new.video, now).await? {
                Some(VideoState::AwaitingUpload | VideoState::Uploading) => {}
                None | Some(VideoState::Expired | VideoState::Deleted) => return Ok(CreateFinal::NotFound),
                Some(_) => {
                    let before = completed(tx, new).await?;
                    return Ok(before.map_or(CreateFinal::AlreadyUploaded, CreateFinal::Completed));
                }
            }
            let mut parts = Vec::new();
            for &partial in partials {
                match lock_partial(tx, partial, new.video, now).await? {
                    Some(UploadState::Complete) => {}
                    Some(_) => return Ok(CreateFinal::Unfinished),
                    None => return Ok(CreateFinal::NotFound),
                }
                parts.extend(pieces(tx, partial).await?);
            }
            let length_bytes: u64 = parts.iter().map(|piece| piece.bytes).sum();
            if length_bytes == 0 {
                return Ok(CreateFinal::Empty);
            }
            supersede(tx, new, now).await?;
            keep(tx, partials, new.expires_at).await?;
            let new =
                NewResumable { kind: UploadKind::Final, length_bytes: Some(length_bytes), ..new.clone() };
            insert(tx, &new, UploadState::Open, length_bytes, now).await?;
            Ok(CreateFinal::Created(parts))
        })
    }
}

/// `None`: it is none, or has ended.
async fn lock_partial(
    tx: &mut Tx,
    id: UploadId,
    video: VideoId,
    now: Timestamp,
) -> Result<Option<UploadState>, SqlError> {
    lock(tx, id).await?;
    let found = find(&mut **tx, id, now).await?;
    let partial = found.filter(|found| found.kind == UploadKind::Partial && found.video == video);
    let state = partial.map(|partial| partial.state);
    Ok(state.filter(|state| matches!(state, UploadState::Open | UploadState::Complete)))
}

async fn completed(tx: &mut Tx, new: &NewResumable) -> Result<Option<UploadId>, SqlError> {
    let row = sqlx::query(
        "-- uploads.completed_final
         SELECT id FROM uploads WHERE video_id = $1 AND kind = 'final' AND state = 'complete' AND concat = $2",
    )
    .bind(new.video.to_string())
    .bind(new.concat.as_deref().unwrap_or_default())
    .fetch_optional(&mut **tx)
    .await?;
    row.map(|row| parsed(&row, "id")).transpose()
}

/// Of several final ones the older have lost.
async fn supersede(tx: &mut Tx, new: &NewResumable, now: Timestamp) -> Result<(), SqlError> {
    sqlx::query(
        "-- uploads.supersede
         UPDATE uploads SET state = 'terminated', hold = 'free', ended_at = $3
         WHERE video_id = $1 AND kind = 'final' AND ended_at IS NULL AND id <> $2",
    )
    .bind(new.video.to_string())
    .bind(new.id.to_string())
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "-- attempts.supersede
         UPDATE attempts SET state = 'lost', ended_at = $3
         WHERE state = 'open' AND upload_id IN (
           SELECT id FROM uploads WHERE video_id = $1 AND kind = 'final' AND id <> $2)",
    )
    .bind(new.video.to_string())
    .bind(new.id.to_string())
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// As long as they are put together.
async fn keep(tx: &mut Tx, partials: &[UploadId], expires_at: Timestamp) -> Result<(), SqlError> {
    let statement = AssertSqlSafe(format!(
        "-- uploads.keep\nUPDATE uploads SET expires_at = $1 WHERE expires_at < $1 AND id IN ({})",
        placeholders(2, partials.len())
    ));
    let query = sqlx::query(statement).bind(expires_at.unix_ms());
    partials.iter().fold(query, |query, id| query.bind(id.to_string())).execute(&mut **tx).await?;
    Ok(())
}

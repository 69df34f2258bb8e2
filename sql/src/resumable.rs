//! Resumable uploads: rows that outlive the requests which bring their bytes. Who may write is in `resumable_hold.rs`,
//! what was written in `resumable_pieces.rs`.
//!
//! All lock in this order: the video, its uploads, the pieces of those. Whoever takes several uploads at once holds their
//! video, or leaves out those that others hold.

use domain::{AttemptId, Timestamp, UploadId, UploadKind, UploadState, UserId, VideoId, VideoState};
use sqlx::any::AnyRow;
use sqlx::{Any, AssertSqlSafe, Executor};

use crate::dialect::Lock;
use crate::quotas::{Bounds, Needs, Room};
use crate::resumable_hold::{Hold, lock};
use crate::row::{
    bigint, instant, int, natural, natural_opt, parsed, placeholders, storable, text, text_opt,
};
use crate::tx::{Tx, commit};
use crate::video_moves::hold_shown;
use crate::{Catalog, SqlError};

/// Open uploads of one video, and complete partial ones that wait for the others.
pub const RESUMABLE_PER_VIDEO_MAX: usize = 64;

#[derive(Debug, Clone)]
pub struct NewResumable {
    pub id: UploadId,
    pub video: VideoId,
    pub kind: UploadKind,
    /// `None`: said later. A final one's is the sum of its partials, whatever stands here.
    pub length_bytes: Option<u64>,
    /// The header, checked; told to whoever asks.
    pub metadata: String,
    /// As `metadata`, of a final one.
    pub concat: Option<String>,
    pub filename: Option<String>,
    pub expires_at: Timestamp,
    pub room: Room,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateResumable {
    Created,
    /// No such video, or its time to upload is over.
    NotFound,
    AlreadyUploaded,
    /// More than [`RESUMABLE_PER_VIDEO_MAX`].
    TooMany,
}

/// As it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumable {
    pub id: UploadId,
    pub video: VideoId,
    /// Of the video.
    pub author: UserId,
    pub kind: UploadKind,
    /// [`UploadState::Expired`] from `expires_at` on, whether or not a sweeper came by.
    pub state: UploadState,
    pub length_bytes: Option<u64>,
    /// All before it is durable.
    pub offset_bytes: u64,
    pub metadata: String,
    pub concat: Option<String>,
    pub filename: Option<String>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// The fence: raised by whoever takes hold of it.
    pub token: i64,
    /// Somebody writes, or died over it.
    pub held: bool,
}

impl Catalog {
    /// An empty partial one is complete at once. [`SqlError::NoRoom`] where the author or the store has none for it.
    pub async fn create_resumable(
        &self,
        new: &NewResumable,
        now: Timestamp,
    ) -> Result<CreateResumable, SqlError> {
        commit!(self, async |tx| {
            let Some(bounds) = Bounds::hold(tx, new.video, &new.room).await? else {
                return Ok(CreateResumable::NotFound);
            };
            match hold_shown(tx, new.video, now).await? {
                Some(VideoState::AwaitingUpload | VideoState::Uploading) => {}
                None | Some(VideoState::Expired | VideoState::Deleted) => {
                    return Ok(CreateResumable::NotFound);
                }
                Some(_) => return Ok(CreateResumable::AlreadyUploaded),
            }
            if others(tx, new).await? >= RESUMABLE_PER_VIDEO_MAX {
                return Ok(CreateResumable::TooMany);
            }
            let needs = if new.kind == UploadKind::Partial { Needs::part } else { Needs::whole };
            bounds.admit(tx, new.video, new.length_bytes.map(needs), now).await?;
            let complete = new.kind == UploadKind::Partial && new.length_bytes == Some(0);
            let state = if complete { UploadState::Complete } else { UploadState::Open };
            insert(tx, new, state, 0, now).await?;
            Ok(CreateResumable::Created)
        })
    }

    /// `None`: no such upload, or its video is gone.
    pub async fn resumable(&self, id: UploadId, now: Timestamp) -> Result<Option<Resumable>, SqlError> {
        find(&self.readers, id, now).await
    }

    /// Somebody still wants it. What ended stays so.
    pub async fn touch_resumable(
        &self,
        id: UploadId,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), SqlError> {
        sqlx::query(
            "-- uploads.touch
             UPDATE uploads SET expires_at = $2
             WHERE id = $1 AND ended_at IS NULL AND expires_at > $3 AND expires_at < $2",
        )
        .bind(id.to_string())
        .bind(expires_at.unix_ms())
        .bind(now.unix_ms())
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// Uploads that have all their bytes and were left open, because whoever was about to complete them died: nobody has
    /// touched them since they were to expire before `expires_before`. A client takes them for complete.
    pub async fn full_resumables(
        &self,
        expires_before: Timestamp,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<UploadId>, SqlError> {
        let rows = sqlx::query(
            "-- uploads.full
             SELECT id FROM uploads
             WHERE state = 'open' AND offset_bytes = length_bytes AND kind <> 'final'
               AND expires_at < $1 AND expires_at > $2
             ORDER BY expires_at LIMIT $3",
        )
        .bind(expires_before.unix_ms())
        .bind(now.unix_ms())
        .bind(limit as i64)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| parsed(row, "id")).collect()
    }

    /// Its holder, if there is one, can commit nothing more, and its pieces are swept. Of one that is complete only the
    /// row ends: the bytes are the video's. `false`: there was nothing to end.
    pub async fn terminate_resumable(&self, id: UploadId, now: Timestamp) -> Result<bool, SqlError> {
        commit!(self, async |tx| {
            if lock(tx, id).await?.is_none() {
                return Ok(false);
            }
            let live = sqlx::query(
                "-- uploads.terminate
                 UPDATE uploads SET state = 'terminated', hold = 'free', ended_at = $2
                 WHERE id = $1 AND ended_at IS NULL",
            )
            .bind(id.to_string())
            .bind(now.unix_ms())
            .execute(&mut **tx)
            .await?;
            if live.rows_affected() > 0 {
                end_pieces_of(tx, &[id.to_string()], now).await?;
                return Ok(true);
            }
            let complete = sqlx::query(
                "-- uploads.terminate_complete
                 UPDATE uploads SET state = 'terminated' WHERE id = $1 AND state = 'complete'",
            )
            .bind(id.to_string())
            .execute(&mut **tx)
            .await?;
            Ok(complete.rows_affected() > 0)
        })
    }

    /// Ends uploads that nobody went on with in time, and forgets those that ended before `ended_before`. Returns how
    /// many expired.
    pub async fn sweep_resumables(&self, ended_before: Timestamp, now: Timestamp) -> Result<u64, SqlError> {
        let mut expired = 0;
        loop {
            let some = commit!(self, async |tx| { expire_some(tx, now).await })?;
            expired += some;
            if some < SWEPT_AT_ONCE {
                break;
            }
        }
        while self.forget_some(ended_before).await? == SWEPT_AT_ONCE {}
        Ok(expired)
    }

    async fn forget_some(&self, ended_before: Timestamp) -> Result<u64, SqlError> {
        commit!(self, async |tx| {
            let free = tx.lock(Lock::WriteFree);
            let forgotten = sqlx::query(AssertSqlSafe(format!(
                "-- uploads.forget
                 WITH old AS MATERIALIZED (
                   SELECT id FROM uploads WHERE ended_at IS NOT NULL AND ended_at < $1
                   ORDER BY ended_at LIMIT $2 {free})
                 DELETE FROM uploads WHERE id IN (SELECT id FROM old)"
            )))
            .bind(ended_before.unix_ms())
            .bind(bigint(SWEPT_AT_ONCE))
            .execute(&mut **tx)
            .await?;
            Ok(forgotten.rows_affected())
        })
    }
}

/// Few enough for one statement.
const SWEPT_AT_ONCE: u64 = 500;

async fn expire_some(tx: &mut Tx, now: Timestamp) -> Result<u64, SqlError> {
    // What somebody holds at this instant is looked at the next time.
    let select = tx.locking(
        "-- uploads.late
         SELECT id FROM uploads WHERE ended_at IS NULL AND expires_at <= $1 ORDER BY expires_at LIMIT $2",
        Lock::WriteFree,
    );
    let late =
        sqlx::query(select).bind(now.unix_ms()).bind(bigint(SWEPT_AT_ONCE)).fetch_all(&mut **tx).await?;
    let late = late.iter().map(|row| text(row, "id")).collect::<Result<Vec<_>, _>>()?;
    if late.is_empty() {
        return Ok(0);
    }
    let statement = AssertSqlSafe(format!(
        "-- uploads.expire
         UPDATE uploads SET state = 'expired', hold = 'free', ended_at = $1 WHERE id IN ({})",
        placeholders(2, late.len())
    ));
    let expire = late.iter().fold(sqlx::query(statement).bind(now.unix_ms()), |query, id| query.bind(&**id));
    let expired = expire.execute(&mut **tx).await?.rows_affected();
    end_pieces_of(tx, &late, now).await?;
    Ok(expired)
}

/// Of uploads that are locked.
async fn end_pieces_of(tx: &mut Tx, uploads: &[String], now: Timestamp) -> Result<(), SqlError> {
    let statement = AssertSqlSafe(format!(
        "-- attempts.end_pieces
         UPDATE attempts SET state = CASE WHEN state = 'open' THEN 'lost' ELSE 'retired' END, ended_at = $1
         WHERE upload_id IN ({}) AND state IN ('open', 'committed')",
        placeholders(2, uploads.len())
    ));
    let query = sqlx::query(statement).bind(now.unix_ms());
    uploads.iter().fold(query, |query, id| query.bind(&**id)).execute(&mut **tx).await?;
    Ok(())
}

/// Of a video that is held, and that has its bytes now, or is going: nothing more is to come. The pieces still count;
/// what had expired before anybody swept it stays so.
pub(crate) async fn end_uploads(tx: &mut Tx, video: VideoId, now: Timestamp) -> Result<(), SqlError> {
    sqlx::query(
        "-- uploads.end_all
         UPDATE uploads SET hold = 'free', ended_at = $2,
           state = CASE WHEN state = 'complete' AND kind <> 'partial' THEN 'complete'
             WHEN expires_at <= $2 THEN 'expired' WHEN state = 'complete' THEN 'complete' ELSE 'terminated' END
         WHERE video_id = $1 AND ended_at IS NULL",
    )
    .bind(video.to_string())
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// After [`end_uploads`]: all pieces but the one that the video is made of.
pub(crate) async fn end_pieces(
    tx: &mut Tx,
    video: VideoId,
    source: AttemptId,
    now: Timestamp,
) -> Result<(), SqlError> {
    sqlx::query(
        "-- attempts.end_pieces_of_video
         UPDATE attempts SET state = CASE WHEN state = 'open' THEN 'lost' ELSE 'retired' END, ended_at = $3
         WHERE video_id = $1 AND upload_id IS NOT NULL AND id <> $2 AND state IN ('open', 'committed')",
    )
    .bind(video.to_string())
    .bind(source.to_string())
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn others(tx: &mut Tx, new: &NewResumable) -> Result<usize, SqlError> {
    let row = sqlx::query(
        "-- uploads.others
         SELECT count(*) AS others FROM uploads WHERE video_id = $1 AND ended_at IS NULL AND id <> $2",
    )
    .bind(new.video.to_string())
    .bind(new.id.to_string())
    .fetch_one(&mut **tx)
    .await?;
    Ok(usize::try_from(int(&row, "others")?).unwrap_or(usize::MAX))
}

/// A final one comes with all its bytes and in the hands of whoever made it.
pub(crate) async fn insert(
    tx: &mut Tx,
    new: &NewResumable,
    state: UploadState,
    offset_bytes: u64,
    now: Timestamp,
) -> Result<(), SqlError> {
    let (hold, token) = if new.kind == UploadKind::Final { (Hold::Held, 1_i64) } else { (Hold::Free, 0) };
    sqlx::query(
        "-- uploads.insert
         INSERT INTO uploads (id, video_id, kind, state, length_bytes, offset_bytes, metadata, concat, filename, token,
           hold, signs, expires_at, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 0, $12, $13) ON CONFLICT (id) DO NOTHING",
    )
    .bind(new.id.to_string())
    .bind(new.video.to_string())
    .bind(new.kind.as_str())
    .bind(state.as_str())
    .bind(new.length_bytes.map(bigint))
    .bind(bigint(offset_bytes))
    .bind(storable(&new.metadata))
    .bind(new.concat.as_deref().map(storable))
    .bind(new.filename.as_deref().map(storable))
    .bind(token)
    .bind(hold.as_str())
    .bind(new.expires_at.unix_ms())
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(crate) async fn find<'e>(
    database: impl Executor<'e, Database = Any>,
    id: UploadId,
    now: Timestamp,
) -> Result<Option<Resumable>, SqlError> {
    let row = sqlx::query(
        "-- uploads.one
         SELECT u.id, u.video_id, v.author_id, u.kind, u.length_bytes, u.offset_bytes, u.metadata, u.concat, u.filename,
           u.created_at, u.expires_at, u.token, u.hold,
           CASE WHEN u.ended_at IS NULL AND u.expires_at <= $2 THEN 'expired' ELSE u.state END AS state
         FROM uploads u JOIN videos v ON v.id = u.video_id
         WHERE u.id = $1 AND v.state <> 'deleted' AND (v.gone_at IS NULL OR v.gone_at > $2)",
    )
    .bind(id.to_string())
    .bind(now.unix_ms())
    .fetch_optional(database)
    .await?;
    row.as_ref().map(resumable).transpose()
}

fn resumable(row: &AnyRow) -> Result<Resumable, SqlError> {
    Ok(Resumable {
        id: parsed(row, "id")?,
        video: parsed(row, "video_id")?,
        author: parsed(row, "author_id")?,
        kind: parsed(row, "kind")?,
        state: parsed(row, "state")?,
        length_bytes: natural_opt(row, "length_bytes")?,
        offset_bytes: natural(row, "offset_bytes")?,
        metadata: text(row, "metadata")?,
        concat: text_opt(row, "concat")?,
        filename: text_opt(row, "filename")?,
        created_at: instant(row, "created_at")?,
        expires_at: instant(row, "expires_at")?,
        token: int(row, "token")?,
        held: parsed::<Hold>(row, "hold")? != Hold::Free,
    })
}

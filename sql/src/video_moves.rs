//! The one place where a video changes state.

use domain::{MediaProblem, Timestamp, VideoId, VideoState};

use crate::SqlError;
use crate::dialect::Lock;
use crate::row::{parsed, storable};
use crate::tx::Tx;

/// Takes hold of the video: the first statement of every commit that changes it or what hangs on it. Whoever
/// else wants to waits for our end, and then sees what we did. `None`: there is no such video.
pub(crate) async fn hold(tx: &mut Tx, video: VideoId) -> Result<Option<VideoState>, SqlError> {
    let select = tx.locking("-- videos.hold\nSELECT state FROM videos WHERE id = $1", Lock::Write);
    let row = sqlx::query(select).bind(video.to_string()).fetch_optional(&mut **tx).await?;
    row.map(|row| parsed(&row, "state")).transpose()
}

/// [`hold`], of a video that is there for its users: its tombstone does not count yet.
pub(crate) async fn hold_shown(
    tx: &mut Tx,
    video: VideoId,
    now: Timestamp,
) -> Result<Option<VideoState>, SqlError> {
    let select = tx.locking(
        "-- videos.hold_shown
         SELECT state FROM videos WHERE id = $1 AND state <> 'deleted' AND (gone_at IS NULL OR gone_at > $2)",
        Lock::Write,
    );
    let row =
        sqlx::query(select).bind(video.to_string()).bind(now.unix_ms()).fetch_optional(&mut **tx).await?;
    row.map(|row| parsed(&row, "state")).transpose()
}

/// Of a video that is held. `None`: there is no such video.
pub(crate) async fn state(tx: &mut Tx, video: VideoId) -> Result<Option<VideoState>, SqlError> {
    let row = sqlx::query("-- videos.state\nSELECT state FROM videos WHERE id = $1")
        .bind(video.to_string())
        .fetch_optional(&mut **tx)
        .await?;
    row.map(|row| parsed(&row, "state")).transpose()
}

/// Moves a video on. A move that the state machine does not have is refused, and so is one from a state that
/// is no longer the video's.
pub(crate) async fn advance(
    tx: &mut Tx,
    video: VideoId,
    from: VideoState,
    to: VideoState,
    now: Timestamp,
) -> Result<(), SqlError> {
    if !from.may_become(to) {
        return Err(SqlError::IllegalMove { video, from, to });
    }
    let moved = sqlx::query(
        "-- videos.advance
         UPDATE videos SET state = $3, updated_at = $4,
           progress = CASE WHEN $3 = 'ready' THEN 1.0 ELSE progress END
         WHERE id = $1 AND state = $2",
    )
    .bind(video.to_string())
    .bind(from.as_str())
    .bind(to.as_str())
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    if moved.rows_affected() == 0 {
        return Err(SqlError::IllegalMove { video, from, to });
    }
    Ok(())
}

/// Why it ended, for its author. Written before the move: a `rejected` row must say why.
pub(crate) async fn note_failure(
    tx: &mut Tx,
    video: VideoId,
    problem: Option<MediaProblem>,
    detail: Option<&str>,
) -> Result<(), SqlError> {
    sqlx::query("-- videos.note_failure\nUPDATE videos SET problem = $2, problem_detail = $3 WHERE id = $1")
        .bind(video.to_string())
        .bind(problem.map(MediaProblem::as_str))
        .bind(detail.map(storable))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

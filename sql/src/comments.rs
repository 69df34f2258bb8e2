//! Comments. The video's count moves in the same transaction.

use domain::{CommentId, Timestamp, UserId, VideoId};
use sqlx::any::AnyRow;

use crate::dialect::Lock;
use crate::idempotency::{CreateOnce, Once, claim};
use crate::row::{instant, parsed, text};
use crate::tx::{Tx, commit};
use crate::users::hold_user;
use crate::video_moves::{hold, hold_shown};
use crate::videos::{Author, author};
use crate::{Catalog, SqlError};

#[derive(Debug, Clone)]
pub struct NewComment {
    pub id: CommentId,
    pub video: VideoId,
    pub author: UserId,
    pub content: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    pub id: CommentId,
    pub video: VideoId,
    pub author: Author,
    pub content: String,
    pub created_at: Timestamp,
}

impl Catalog {
    /// `None`: the video or the author is gone.
    pub async fn create_comment(
        &self,
        new: &NewComment,
        now: Timestamp,
    ) -> Result<Option<Comment>, SqlError> {
        commit!(self, async |tx| {
            let both_there = hold_user(tx, new.author, Lock::Keep).await?
                && hold_shown(tx, new.video, now).await?.is_some();
            if both_there { insert(tx, new, now).await } else { Ok(()) }
        })?;
        self.comment(new.id).await
    }

    /// [`Catalog::create_comment`], once under a key.
    pub async fn create_comment_once(
        &self,
        new: &NewComment,
        once: &Once,
        now: Timestamp,
    ) -> Result<CreateOnce<Comment>, SqlError> {
        let made = commit!(self, async |tx| {
            let both_there = hold_user(tx, new.author, Lock::Keep).await?
                && hold_shown(tx, new.video, now).await?.is_some();
            if !both_there {
                return Ok(CreateOnce::Gone);
            }
            let claimed = claim(tx, new.author, once, new.id, now).await?;
            if claimed == CreateOnce::Created(new.id) {
                insert(tx, new, now).await?;
            }
            Ok::<_, SqlError>(claimed)
        })?;
        made.find(async |made| self.comment(made).await).await
    }

    /// Newest first, from before `after` on.
    pub async fn comments(
        &self,
        video: VideoId,
        after: Option<CommentId>,
        limit: usize,
    ) -> Result<Vec<Comment>, SqlError> {
        let rows = sqlx::query(
            "-- comments.list
             SELECT c.id, c.video_id, c.author_id, u.username, u.display_name, c.content, c.created_at
             FROM comments c JOIN users u ON u.id = c.author_id
             WHERE c.video_id = $1 AND c.id < $2 ORDER BY c.id DESC LIMIT $3",
        )
        .bind(video.to_string())
        // No id reaches `g`.
        .bind(after.map_or_else(|| "g".to_owned(), |id| id.to_string()))
        .bind(limit as i64)
        .fetch_all(&self.lagging_readers)
        .await?;
        rows.iter().map(comment).collect()
    }

    pub async fn comment(&self, id: CommentId) -> Result<Option<Comment>, SqlError> {
        let row = sqlx::query(
            "-- comments.one
             SELECT c.id, c.video_id, c.author_id, u.username, u.display_name, c.content, c.created_at
             FROM comments c JOIN users u ON u.id = c.author_id WHERE c.id = $1",
        )
        .bind(id.to_string())
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(comment).transpose()
    }

    /// `false`: there was none.
    pub async fn delete_comment(&self, id: CommentId) -> Result<bool, SqlError> {
        let Some(comment) = self.comment(id).await? else { return Ok(false) };
        commit!(self, async |tx| {
            hold(tx, comment.video).await?;
            let deleted = sqlx::query("-- comments.delete\nDELETE FROM comments WHERE id = $1")
                .bind(id.to_string())
                .execute(&mut **tx)
                .await?;
            count(tx, comment.video).await?;
            Ok(deleted.rows_affected() > 0)
        })
    }
}

/// Does nothing when there is such a comment: this was asked for before.
async fn insert(tx: &mut Tx, new: &NewComment, now: Timestamp) -> Result<(), SqlError> {
    sqlx::query(
        "-- comments.create
         INSERT INTO comments (id, video_id, author_id, content, created_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(new.id.to_string())
    .bind(new.video.to_string())
    .bind(new.author.to_string())
    .bind(&*new.content)
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    count(tx, new.video).await
}

/// Of a user who is held, and so are the videos.
pub(crate) async fn delete_all_of(tx: &mut Tx, author: UserId) -> Result<(), SqlError> {
    let rows =
        sqlx::query("-- comments.delete_all\nDELETE FROM comments WHERE author_id = $1 RETURNING video_id")
            .bind(author.to_string())
            .fetch_all(&mut **tx)
            .await?;
    let mut videos =
        rows.iter().map(|row| parsed::<VideoId>(row, "video_id")).collect::<Result<Vec<_>, _>>()?;
    videos.sort_unstable();
    videos.dedup();
    for video in videos {
        count(tx, video).await?;
    }
    Ok(())
}

/// Counted, not added to: it cannot drift. The video is held.
async fn count(tx: &mut Tx, video: VideoId) -> Result<(), SqlError> {
    sqlx::query(
        "-- comments.count
         UPDATE videos SET comments_count = (SELECT count(*) FROM comments WHERE video_id = $1) WHERE id = $1",
    )
    .bind(video.to_string())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

fn comment(row: &AnyRow) -> Result<Comment, SqlError> {
    Ok(Comment {
        id: parsed(row, "id")?,
        video: parsed(row, "video_id")?,
        author: author(row)?,
        content: text(row, "content")?,
        created_at: instant(row, "created_at")?,
    })
}

//! What an author writes about a video.

use domain::{JobId, JobKind, Quota, Timestamp, UserId, VideoId, VideoState, Visibility};

use crate::idempotency::{CreateOnce, Once, claim};
use crate::jobs::NewJob;
use crate::quotas::hold_for_video;
use crate::row::{float_opt, parsed};
use crate::tx::{Tx, commit};
use crate::videos::Video;
use crate::{Catalog, SqlError};

#[derive(Debug, Clone)]
pub struct NewVideo {
    pub id: VideoId,
    pub author: UserId,
    pub title: String,
    pub description: String,
    pub tags: Vec<String>,
    pub visibility: Visibility,
    /// Of users that have no bounds of their own.
    pub quota: Quota,
}

/// `None` leaves a field.
#[derive(Debug, Clone, Default)]
pub struct VideoPatch {
    pub title: Option<String>,
    pub description: Option<String>,
    pub tags: Option<Vec<String>>,
    pub visibility: Option<Visibility>,
    pub cover_at_s: Option<f64>,
}

impl Catalog {
    /// `None`: the author is gone.
    pub async fn create_video(&self, new: &NewVideo, now: Timestamp) -> Result<Option<Video>, SqlError> {
        commit!(self, async |tx| {
            let Some(max) = hold_for_video(tx, new.author, &new.quota).await? else { return Ok(()) };
            max.admit(tx, new.author, new.id, now).await?;
            insert(tx, new, now).await
        })?;
        self.video(new.id, now).await
    }

    /// [`Catalog::create_video`], once under a key.
    pub async fn create_video_once(
        &self,
        new: &NewVideo,
        once: &Once,
        now: Timestamp,
    ) -> Result<CreateOnce<Video>, SqlError> {
        let made = commit!(self, async |tx| {
            let Some(max) = hold_for_video(tx, new.author, &new.quota).await? else {
                return Ok(CreateOnce::Gone);
            };
            let claimed = claim(tx, new.author, once, new.id, now).await?;
            if claimed == CreateOnce::Created(new.id) {
                max.admit(tx, new.author, new.id, now).await?;
                insert(tx, new, now).await?;
            }
            Ok::<_, SqlError>(claimed)
        })?;
        made.find(async |made| self.video(made, now).await).await
    }

    /// A new `cover_at_s` takes a new cover, by a job of this id. `None`: there is no such video.
    pub async fn update_video(
        &self,
        id: VideoId,
        patch: &VideoPatch,
        cover_job: JobId,
        now: Timestamp,
    ) -> Result<Option<Video>, SqlError> {
        let found = commit!(self, async |tx| {
            let Some((state, cover_at_s)) = update(tx, id, patch, now).await? else { return Ok(false) };
            if let Some(tags) = &patch.tags {
                sqlx::query("-- videos.forget_tags\nDELETE FROM video_tags WHERE video_id = $1")
                    .bind(id.to_string())
                    .execute(&mut **tx)
                    .await?;
                index_tags(tx, id, tags).await?;
            }
            if patch.cover_at_s.is_some() && takes_covers(state) {
                replace_cover_job(tx, id, cover_job, cover_at_s, now).await?;
            }
            Ok::<_, SqlError>(true)
        })?;
        if found { self.video(id, now).await } else { Ok(None) }
    }
}

/// Does nothing when there is such a video: this was asked for before.
async fn insert(tx: &mut Tx, new: &NewVideo, now: Timestamp) -> Result<(), SqlError> {
    let created = sqlx::query(
        "-- videos.create
         INSERT INTO videos (id, author_id, title, description, tags, visibility, state, progress, warnings,
                             comments_count, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, 'awaiting_upload', 0.0, '[]', 0, $7, $7)
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(new.id.to_string())
    .bind(new.author.to_string())
    .bind(&*new.title)
    .bind(&*new.description)
    .bind(tags_json(&new.tags))
    .bind(new.visibility.as_str())
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    if created.rows_affected() > 0 { index_tags(tx, new.id, &new.tags).await } else { Ok(()) }
}

/// Where the cover is to be taken from then on; `None`: there is no such video.
async fn update(
    tx: &mut Tx,
    id: VideoId,
    patch: &VideoPatch,
    now: Timestamp,
) -> Result<Option<(VideoState, Option<f64>)>, SqlError> {
    let row = sqlx::query(
        "-- videos.update
         UPDATE videos SET title = coalesce($2, title), description = coalesce($3, description),
           tags = coalesce($4, tags), visibility = coalesce($5, visibility),
           cover_at_s = CASE WHEN $6 < 0.0 THEN cover_at_s ELSE $6 END, updated_at = $7
         WHERE id = $1 AND (gone_at IS NULL OR gone_at > $7)
         RETURNING state, cover_at_s",
    )
    .bind(id.to_string())
    .bind(patch.title.clone())
    .bind(patch.description.clone())
    .bind(patch.tags.as_deref().map(tags_json))
    .bind(patch.visibility.map(Visibility::as_str))
    // Never NULL: see jobs.heartbeat.
    .bind(patch.cover_at_s.unwrap_or(-1.0))
    .bind(now.unix_ms())
    .fetch_optional(&mut **tx)
    .await?;
    row.map(|row| Ok((parsed(&row, "state")?, float_opt(&row, "cover_at_s")?))).transpose()
}

/// Before, `ingest` takes the cover where it is asked for; while it runs it may have read the old place.
fn takes_covers(state: VideoState) -> bool {
    state == VideoState::Processing || state.is_watchable()
}

/// Only the last place asked for counts.
async fn replace_cover_job(
    tx: &mut Tx,
    video: VideoId,
    job: JobId,
    at_s: Option<f64>,
    now: Timestamp,
) -> Result<(), SqlError> {
    if crate::jobs::exists(tx, job).await? {
        // This was asked for before.
        return Ok(());
    }
    crate::jobs::cancel_covers(tx, video, now).await?;
    let payload = serde_json::json!({ "at_s": at_s }).to_string();
    crate::jobs::insert(tx, &NewJob::new(job, JobKind::Cover, video, payload, now), now).await
}

async fn index_tags(tx: &mut Tx, video: VideoId, tags: &[String]) -> Result<(), SqlError> {
    for tag in tags {
        sqlx::query(
            "-- videos.index_tag
             INSERT INTO video_tags (tag, video_id) VALUES ($1, $2) ON CONFLICT (tag, video_id) DO NOTHING",
        )
        .bind(&**tag)
        .bind(video.to_string())
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

fn tags_json(tags: &[String]) -> String {
    serde_json::Value::from(tags.to_vec()).to_string()
}

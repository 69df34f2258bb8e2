//! Publications: what is watched. The streamserver asks once, and everything under the answer is immutable.

use domain::{
    AttemptId, PublicationId, RenditionName, Size, Timestamp, UserId, VideoId, VideoState, Visibility,
};
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use crate::objects::STORYBOARD_ATTEMPT;
use crate::row::{float, instant, instant_opt, natural, natural_opt, parsed, parsed_opt, text};
use crate::{Catalog, SqlError};

/// A video that can be watched now, by whom `visibility` allows.
#[derive(Debug, Clone, PartialEq)]
pub struct Watchable {
    pub video: VideoId,
    pub owner: UserId,
    pub title: String,
    pub visibility: Visibility,
    pub state: VideoState,
    pub publication: PublicationId,
    pub published_at: Timestamp,
    pub duration_s: f64,
    pub cover_attempt: Option<AttemptId>,
    /// In pixels.
    pub cover_width_max: Option<u32>,
    pub storyboard_attempt: Option<AttemptId>,
    /// A scheduled deletion: from then on it is gone, whatever a cache says.
    pub gone_at: Option<Timestamp>,
}

/// From when to when a video was on its way to whoever watches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Playable {
    pub uploaded_at: Timestamp,
    pub published_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    pub id: PublicationId,
    pub video: VideoId,
    /// Of the upload that renditions may refer to.
    pub source_attempt: AttemptId,
    pub created_at: Timestamp,
    /// Best first.
    pub renditions: Vec<PublishedRendition>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct PublishedRendition {
    pub name: RenditionName,
    /// Its files lie under this attempt.
    pub attempt: AttemptId,
    /// For the first time, which may be in a publication before this one.
    pub published_at: Timestamp,
    pub size: Size,
    pub frame_rate: f64,
    pub duration_s: f64,
    pub size_bytes: u64,
    pub bitrate_bps: u64,
    pub codecs: String,
}

impl Catalog {
    pub async fn watchable(&self, video: VideoId, now: Timestamp) -> Result<Option<Watchable>, SqlError> {
        let row = sqlx::query(AssertSqlSafe(format!(
            "-- publications.watchable
             SELECT v.id, v.author_id, v.title, v.visibility, v.state, v.publication_id, v.published_at,
                    coalesce(v.duration_s, 0.0) AS duration_s, v.cover_attempt, v.cover_width_max, {STORYBOARD_ATTEMPT},
                    v.gone_at
             FROM videos v
             WHERE v.id = $1 AND v.state IN ('playable', 'ready') AND (v.gone_at IS NULL OR v.gone_at > $2)"
        )))
        .bind(video.to_string())
        .bind(now.unix_ms())
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(watchable).transpose()
    }

    /// `None`: it cannot be watched yet.
    pub async fn playable(&self, video: VideoId) -> Result<Option<Playable>, SqlError> {
        let row = sqlx::query(
            "-- publications.playable\nSELECT uploaded_at, published_at FROM videos WHERE id = $1",
        )
        .bind(video.to_string())
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let times = instant_opt(&row, "uploaded_at")?.zip(instant_opt(&row, "published_at")?);
        Ok(times.map(|(uploaded_at, published_at)| Playable { uploaded_at, published_at }))
    }

    /// Also one that is not live any more, until its video is purged.
    pub async fn publication(&self, id: PublicationId) -> Result<Option<Publication>, SqlError> {
        let row = sqlx::query(
            "-- publications.one\nSELECT id, video_id, source_attempt, created_at FROM publications WHERE id = $1",
        )
        .bind(id.to_string())
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let rows = sqlx::query(
            "-- publications.renditions
             SELECT r.name, r.attempt_id, a.ended_at AS published_at, r.width, r.height, r.frame_rate, r.duration_s,
                    r.size_bytes, r.bitrate_bps, r.codecs
             FROM renditions r JOIN attempts a ON a.id = r.attempt_id WHERE r.publication_id = $1",
        )
        .bind(id.to_string())
        .fetch_all(&self.readers)
        .await?;
        let mut renditions = rows.iter().map(rendition).collect::<Result<Vec<_>, _>>()?;
        renditions.sort_by_key(|rendition| rendition.name);
        Ok(Some(Publication {
            id,
            video: parsed(&row, "video_id")?,
            source_attempt: parsed(&row, "source_attempt")?,
            created_at: instant(&row, "created_at")?,
            renditions,
        }))
    }
}

fn watchable(row: &AnyRow) -> Result<Watchable, SqlError> {
    Ok(Watchable {
        video: parsed(row, "id")?,
        owner: parsed(row, "author_id")?,
        title: text(row, "title")?,
        visibility: parsed(row, "visibility")?,
        state: parsed(row, "state")?,
        publication: parsed(row, "publication_id")?,
        published_at: instant(row, "published_at")?,
        duration_s: float(row, "duration_s")?,
        cover_attempt: parsed_opt(row, "cover_attempt")?,
        cover_width_max: natural_opt(row, "cover_width_max")?,
        storyboard_attempt: parsed_opt(row, "storyboard_attempt")?,
        gone_at: instant_opt(row, "gone_at")?,
    })
}

fn rendition(row: &AnyRow) -> Result<PublishedRendition, SqlError> {
    Ok(PublishedRendition {
        name: parsed(row, "name")?,
        attempt: parsed(row, "attempt_id")?,
        published_at: instant(row, "published_at")?,
        size: Size { width: natural(row, "width")?, height: natural(row, "height")? },
        frame_rate: float(row, "frame_rate")?,
        duration_s: float(row, "duration_s")?,
        size_bytes: natural(row, "size_bytes")?,
        bitrate_bps: natural(row, "bitrate_bps")?,
        codecs: text(row, "codecs")?,
    })
}

//! Videos as they are shown.

use std::collections::{HashMap, HashSet};

use domain::task::Plan;
use domain::{
    AttemptId, MediaProblem, PublicationId, RenditionName, RenditionState, Size, Stage, Timestamp, UserId,
    Username, VideoId, VideoState, Visibility,
};
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use crate::objects::STORYBOARD_ATTEMPT;
use crate::pool::Pool;
use crate::progress::work_on;
use crate::row::{
    float, float_opt, instant, instant_opt, json, natural, natural_opt, parsed, parsed_opt, placeholders,
    text, text_opt,
};
use crate::{Catalog, SqlError};

#[derive(Debug, Clone, PartialEq)]
pub struct Video {
    pub id: VideoId,
    pub author: Author,
    pub title: String,
    pub description: String,
    pub tags: Vec<String>,
    pub visibility: Visibility,
    pub state: VideoState,
    /// 0 to 1.
    pub progress: f64,
    /// What is being done for it, while something is.
    pub stage: Option<Stage>,
    /// Until it is ready, where that can be told.
    pub eta_s: Option<f64>,
    /// As shown.
    pub size: Option<Size>,
    pub frame_rate: Option<f64>,
    pub duration_s: Option<f64>,
    pub source_bytes: Option<u64>,
    pub source_filename: Option<String>,
    /// One sentence each, for the uploader.
    pub warnings: Vec<String>,
    pub failure: Option<Failure>,
    pub cover_at_s: Option<f64>,
    pub cover_attempt: Option<AttemptId>,
    pub cover_width_max: Option<u32>,
    pub storyboard_attempt: Option<AttemptId>,
    pub thumbhash: Option<String>,
    pub publication: Option<PublicationId>,
    /// Best first; planned ones are pending.
    pub renditions: Vec<Rendition>,
    pub comments_count: u64,
    /// Some seconds late.
    pub views_count: u64,
    /// Bytes of film that were sent, as late.
    pub served_bytes: u64,
    pub created_at: Timestamp,
    pub published_at: Option<Timestamp>,
    /// A scheduled deletion, while it lies in the future.
    pub gone_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    pub id: UserId,
    pub username: Username,
    pub display_name: String,
}

/// Why a video ended without being watchable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// `None`: the fault was ours.
    pub problem: Option<MediaProblem>,
    pub detail: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Rendition {
    pub name: RenditionName,
    pub state: RenditionState,
    pub size: Size,
    /// 0 to 1.
    pub progress: f64,
    /// The rest is known once it is ready.
    pub size_bytes: Option<u64>,
    pub bitrate_bps: Option<u64>,
    pub codecs: Option<String>,
    /// What made it, for an operator.
    pub engine: Option<String>,
}

/// The row that is looked at while events are streamed.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    pub state: VideoState,
    pub progress: f64,
    pub stage: Option<Stage>,
    pub eta_s: Option<f64>,
    pub renditions: Vec<Rendition>,
    pub failure: Option<Failure>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Public and watchable.
    Public,
    /// Every state and visibility: for the author.
    OwnAll,
}

#[derive(Debug, Clone)]
pub struct VideoFilter {
    pub author: Option<UserId>,
    pub tag: Option<String>,
    pub audience: Audience,
}

/// Where a list goes on. Ids sort by the time they were made.
pub type VideoCursor = VideoId;

const COLUMNS: &str =
    "v.id, v.author_id, u.username, u.display_name, v.title, v.description, v.tags, v.visibility,
    v.state, v.progress, v.width, v.height, v.frame_rate, v.duration_s, v.source_bytes, v.source_filename,
    v.warnings, v.problem, v.problem_detail, v.cover_at_s, v.cover_attempt, v.cover_width_max, v.thumbhash,
    v.publication_id, v.comments_count, coalesce(w.views_count, 0) AS views_count,
    coalesce(w.served_bytes, 0) AS served_bytes, v.created_at, v.published_at, v.gone_at";

impl Catalog {
    /// Whoever asks: who may see it is decided by the caller, from `state`, `visibility` and `author`.
    pub async fn video(&self, id: VideoId, now: Timestamp) -> Result<Option<Video>, SqlError> {
        let row = sqlx::query(AssertSqlSafe(format!(
            "-- videos.one
             SELECT {COLUMNS}, {STORYBOARD_ATTEMPT} FROM videos v JOIN users u ON u.id = v.author_id
             LEFT JOIN watching w ON w.video_id = v.id
             WHERE v.id = $1 AND (v.gone_at IS NULL OR v.gone_at > $2)"
        )))
        .bind(id.to_string())
        .bind(now.unix_ms())
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let mut videos = [video(&row)?];
        add_renditions(&self.readers, &mut videos).await?;
        add_work(&self.readers, &mut videos, now).await?;
        let [video] = videos;
        Ok(Some(video))
    }

    /// Newest first, from before `after` on.
    pub async fn videos(
        &self,
        filter: &VideoFilter,
        mut after: Option<VideoCursor>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Video>, SqlError> {
        let mut videos = Vec::new();
        loop {
            let asked = limit - videos.len();
            let some = self.list(filter, after, asked, now).await?;
            let came = some.len();
            after = some.last().map(|video| video.id);
            videos.extend(self.still_listed(filter, some, now).await?);
            if came < asked || videos.len() == limit {
                return Ok(videos);
            }
        }
    }

    /// As a replica sees it.
    async fn list(
        &self,
        filter: &VideoFilter,
        after: Option<VideoCursor>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Video>, SqlError> {
        let audience = listed_to(filter.audience);
        // Each condition stands only where it is asked for, so that the planner can take its index.
        let author = if filter.author.is_some() { "v.author_id = $4" } else { "$4 = ''" };
        let (tag_join, tag) = match filter.tag {
            Some(_) => ("JOIN video_tags t ON t.video_id = v.id", "t.tag = $5"),
            None => ("", "$5 = ''"),
        };
        let rows = sqlx::query(AssertSqlSafe(format!(
            "-- videos.list
             SELECT {COLUMNS}, {STORYBOARD_ATTEMPT} FROM videos v JOIN users u ON u.id = v.author_id {tag_join}
             LEFT JOIN watching w ON w.video_id = v.id
             WHERE {audience} AND {author} AND {tag} AND v.id < $1 AND (v.gone_at IS NULL OR v.gone_at > $2)
             ORDER BY v.id DESC LIMIT $3"
        )))
        // No id reaches `g`.
        .bind(after.map_or_else(|| "g".to_owned(), |id| id.to_string()))
        .bind(now.unix_ms())
        .bind(limit as i64)
        .bind(filter.author.map(|id| id.to_string()).unwrap_or_default())
        .bind(filter.tag.clone().unwrap_or_default())
        .fetch_all(&self.lagging_readers)
        .await?;
        let mut videos = rows.iter().map(video).collect::<Result<Vec<_>, _>>()?;
        add_renditions(&self.lagging_readers, &mut videos).await?;
        add_work(&self.lagging_readers, &mut videos, now).await?;
        Ok(videos)
    }

    /// A replica may not have heard yet that a video was deleted or hidden; nobody is shown it for that.
    async fn still_listed(
        &self,
        filter: &VideoFilter,
        mut videos: Vec<Video>,
        now: Timestamp,
    ) -> Result<Vec<Video>, SqlError> {
        if !self.has_replica || videos.is_empty() {
            return Ok(videos);
        }
        let (ids, audience) = (placeholders(2, videos.len()), listed_to(filter.audience));
        let mut query = sqlx::query(AssertSqlSafe(format!(
            "-- videos.still_listed
             SELECT v.id FROM videos v
             WHERE v.id IN ({ids}) AND {audience} AND (v.gone_at IS NULL OR v.gone_at > $1)"
        )))
        .bind(now.unix_ms());
        for video in &videos {
            query = query.bind(video.id.to_string());
        }
        let rows = query.fetch_all(&self.readers).await?;
        let listed = rows.iter().map(|row| parsed(row, "id")).collect::<Result<HashSet<VideoId>, _>>()?;
        videos.retain(|video| listed.contains(&video.id));
        Ok(videos)
    }

    /// A little of a video, for its events.
    pub async fn progress(&self, id: VideoId, now: Timestamp) -> Result<Option<Progress>, SqlError> {
        Ok(self.video(id, now).await?.map(|video| Progress {
            state: video.state,
            progress: video.progress,
            stage: video.stage,
            eta_s: video.eta_s,
            renditions: video.renditions,
            failure: video.failure,
        }))
    }

    /// What `ingest` planned to encode.
    pub async fn plan(&self, video: VideoId) -> Result<Option<Plan>, SqlError> {
        let row = sqlx::query("-- videos.plan\nSELECT plan FROM videos WHERE id = $1")
            .bind(video.to_string())
            .fetch_optional(&self.readers)
            .await?;
        let plan: Option<String> = row.map(|row| text_opt(&row, "plan")).transpose()?.flatten();
        plan.map(|plan| json("plan", &plan)).transpose()
    }
}

fn listed_to(audience: Audience) -> &'static str {
    match audience {
        Audience::Public => "v.visibility = 'public' AND v.state IN ('playable', 'ready')",
        Audience::OwnAll => "v.state <> 'deleted'",
    }
}

/// One statement for all of them: a list costs two queries, however long.
async fn add_renditions(readers: &Pool, videos: &mut [Video]) -> Result<(), SqlError> {
    if videos.is_empty() {
        return Ok(());
    }
    let ids = placeholders(1, videos.len());
    let statement = AssertSqlSafe(format!(
        "-- videos.renditions
         SELECT v.id AS video_id, r.name, 'ready' AS state, r.width, r.height, CAST(1.0 AS DOUBLE PRECISION) AS progress,
                r.size_bytes, r.bitrate_bps, r.codecs, r.engine
         FROM videos v JOIN renditions r ON r.publication_id = v.publication_id WHERE v.id IN ({ids})
         UNION ALL
         SELECT v.id AS video_id, g.name, 'pending' AS state, g.width, g.height, g.progress, NULL, NULL, NULL, NULL
         FROM videos v JOIN rungs g ON g.video_id = v.id
         WHERE v.id IN ({ids}) AND NOT EXISTS (SELECT 1 FROM renditions r
           WHERE r.publication_id = v.publication_id AND r.name = g.name)"
    ));
    let mut query = sqlx::query(statement);
    for video in videos.iter() {
        query = query.bind(video.id.to_string());
    }
    let mut by_video: HashMap<VideoId, Vec<Rendition>> = HashMap::new();
    for row in query.fetch_all(readers).await? {
        by_video.entry(parsed(&row, "video_id")?).or_default().push(rendition(&row)?);
    }
    for video in videos {
        video.renditions = by_video.remove(&video.id).unwrap_or_default();
        video.renditions.sort_by_key(|rendition| rendition.name);
    }
    Ok(())
}

/// Only what is under way has work to tell of.
async fn add_work(readers: &Pool, videos: &mut [Video], now: Timestamp) -> Result<(), SqlError> {
    use VideoState::{Playable, Processing, Uploaded};
    let moving = videos.iter().filter(|video| matches!(video.state, Uploaded | Processing | Playable));
    let moving: Vec<VideoId> = moving.map(|video| video.id).collect();
    let work = work_on(readers, &moving, now).await?;
    for video in videos {
        let Some(work) = work.get(&video.id) else { continue };
        (video.stage, video.eta_s) = (work.stage(), work.eta_s());
    }
    Ok(())
}

fn video(row: &AnyRow) -> Result<Video, SqlError> {
    Ok(Video {
        id: parsed(row, "id")?,
        author: author(row)?,
        title: text(row, "title")?,
        description: text(row, "description")?,
        tags: json("tags", &text(row, "tags")?)?,
        visibility: parsed(row, "visibility")?,
        state: parsed(row, "state")?,
        progress: float(row, "progress")?,
        stage: None,
        eta_s: None,
        size: size(row)?,
        frame_rate: float_opt(row, "frame_rate")?,
        duration_s: float_opt(row, "duration_s")?,
        source_bytes: natural_opt(row, "source_bytes")?,
        source_filename: text_opt(row, "source_filename")?,
        warnings: json("warnings", &text(row, "warnings")?)?,
        failure: failure(row)?,
        cover_at_s: float_opt(row, "cover_at_s")?,
        cover_attempt: parsed_opt(row, "cover_attempt")?,
        cover_width_max: natural_opt(row, "cover_width_max")?,
        storyboard_attempt: parsed_opt(row, "storyboard_attempt")?,
        thumbhash: text_opt(row, "thumbhash")?,
        publication: parsed_opt(row, "publication_id")?,
        renditions: Vec::new(),
        comments_count: natural(row, "comments_count")?,
        views_count: natural(row, "views_count")?,
        served_bytes: natural(row, "served_bytes")?,
        created_at: instant(row, "created_at")?,
        published_at: instant_opt(row, "published_at")?,
        gone_at: instant_opt(row, "gone_at")?,
    })
}

/// From `author_id`, `username` and `display_name`.
pub(crate) fn author(row: &AnyRow) -> Result<Author, SqlError> {
    Ok(Author {
        id: parsed(row, "author_id")?,
        username: parsed(row, "username")?,
        display_name: text(row, "display_name")?,
    })
}

fn size(row: &AnyRow) -> Result<Option<Size>, SqlError> {
    let width = natural_opt(row, "width")?;
    let height = natural_opt(row, "height")?;
    Ok(width.zip(height).map(|(width, height)| Size { width, height }))
}

fn failure(row: &AnyRow) -> Result<Option<Failure>, SqlError> {
    let problem = parsed_opt(row, "problem")?;
    Ok(text_opt(row, "problem_detail")?.map(|detail| Failure { problem, detail }))
}

fn rendition(row: &AnyRow) -> Result<Rendition, SqlError> {
    Ok(Rendition {
        name: parsed(row, "name")?,
        state: parsed(row, "state")?,
        size: Size { width: natural(row, "width")?, height: natural(row, "height")? },
        progress: float(row, "progress")?,
        size_bytes: natural_opt(row, "size_bytes")?,
        bitrate_bps: natural_opt(row, "bitrate_bps")?,
        codecs: text_opt(row, "codecs")?,
        engine: text_opt(row, "engine")?,
    })
}

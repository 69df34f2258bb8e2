//! `GET /stream/videos/:vid/storyboard.vtt`, `.json` and `.m3u8`, and the sprite that all of them name.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use chassis::{Path, Problem};
use domain::{AttemptId, ObjectFile, ObjectKey, VideoId};
use http::{HeaderMap, Method};
use sql::Watchable;

use crate::StreamServer;
use crate::answer::{self, Asked, Caching, Description};
use crate::cache_tag::CacheTag;
use crate::conditional::Validators;
use crate::publication_file::{pictures_address, sprite_address};
use crate::sheet::{Pictures, Sheet};
use crate::suffix::Suffix;
use crate::viewer::Viewer;
use crate::watch::Known;
use crate::{hls, playlist};

/// Storyboard
///
/// WebVTT: each cue names a part of a sprite (`#xywh=`) that shows this part of the film, as players take it for
/// pictures above their seek bar. There a moment after the video is `ready`.
#[utoipa::path(
    get,
    path = "/stream/videos/{vid}/storyboard.vtt",
    tag = "watching",
    params(("vid" = String, Path, description = "the video's id")),
    responses(
        (status = 200, description = "the cues", content_type = "text/vtt"),
        (status = 304, description = "you have it already"),
        (status = 400, description = "a malformed id", content_type = "application/problem+json"),
        (status = 404, description = "no such video, not yours to see, or none yet", content_type = "application/problem+json"),
    )
)]
pub async fn cues(
    State(server): State<StreamServer>,
    viewer: Viewer,
    Path(video): Path<VideoId>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let asked = Asked { method: &method, headers: &headers };
    storyboard(&server, &viewer, video, None, ObjectFile::StoryboardCues, &asked).await
}

/// Storyboard as JSON
///
/// The same as Mux describes it: where on the sprite which second of the film is. Vidstack takes it so.
#[utoipa::path(
    get,
    path = "/stream/videos/{vid}/storyboard.json",
    tag = "watching",
    params(("vid" = String, Path, description = "the video's id")),
    responses(
        (status = 200, description = "the tiles", content_type = "application/json"),
        (status = 304, description = "you have it already"),
        (status = 400, description = "a malformed id", content_type = "application/problem+json"),
        (status = 404, description = "no such video, not yours to see, or none yet", content_type = "application/problem+json"),
    )
)]
pub async fn tiles(
    State(server): State<StreamServer>,
    viewer: Viewer,
    Path(video): Path<VideoId>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let watchable = server.watch.watchable(video, &viewer).await?;
    let suffix = viewer.suffix(&watchable);
    let storyboard = Storyboard::load(&server, &watchable, &viewer).await?;
    let described = storyboard.described_as("json", "application/json", &watchable, &viewer);
    let sprite = sprite_address(storyboard.attempt, &suffix);
    let json = storyboard.sheet.json(&format!("{}/stream/videos/{video}/{sprite}", server.stream_url));
    answer::bytes(&Asked { method: &method, headers: &headers }, &described.naming(&suffix), json.into())
}

/// Storyboard as a playlist of HLS
///
/// The sprite as Roku's and other players take it (`EXT-X-IMAGES-ONLY`, `EXT-X-TILES`). The master playlist names it.
#[utoipa::path(
    get,
    path = "/stream/videos/{vid}/storyboard.m3u8",
    tag = "watching",
    params(("vid" = String, Path, description = "the video's id")),
    responses(
        (status = 200, description = "the playlist", content_type = "application/vnd.apple.mpegurl"),
        (status = 304, description = "you have it already"),
        (status = 400, description = "a malformed id", content_type = "application/problem+json"),
        (status = 404, description = "no such video, not yours to see, or none yet", content_type = "application/problem+json"),
    )
)]
pub async fn pictures(
    State(server): State<StreamServer>,
    viewer: Viewer,
    Path(video): Path<VideoId>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let watchable = server.watch.watchable(video, &viewer).await?;
    let suffix = viewer.suffix(&watchable);
    let storyboard = Storyboard::load(&server, &watchable, &viewer).await?;
    let described = storyboard.described_as("m3u8", playlist::HLS, &watchable, &viewer);
    let text = hls::pictures(&storyboard.pictures(&suffix));
    playlist::answer(&Asked { method: &method, headers: &headers }, described, &suffix, text)
}

/// Sprite of the storyboard
///
/// Small pictures from all over the film on one sheet. Immutable: what the cues named stays what it is until the video
/// is deleted.
#[utoipa::path(
    get,
    path = "/stream/videos/{vid}/{storyboard}/storyboard.jpg",
    tag = "watching",
    params(
        ("vid" = String, Path, description = "the video's id"),
        ("storyboard" = String, Path, description = "as the cues name it"),
    ),
    responses(
        (status = 200, description = "the sheet", content_type = "image/jpeg"),
        (status = 304, description = "you have it already"),
        (status = 400, description = "a malformed id", content_type = "application/problem+json"),
        (status = 404, description = "no such storyboard, or not yours to see", content_type = "application/problem+json"),
    )
)]
pub async fn sprite(
    State(server): State<StreamServer>,
    viewer: Viewer,
    Path((video, attempt)): Path<(VideoId, AttemptId)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let asked = Asked { method: &method, headers: &headers };
    storyboard(&server, &viewer, video, Some(attempt), ObjectFile::StoryboardSprite, &asked).await
}

/// The storyboard that a video has now.
pub struct Storyboard {
    pub attempt: AttemptId,
    sheet: Arc<Sheet>,
    sprite_bytes: u64,
    cache_tag: CacheTag,
}

impl Storyboard {
    /// A film is watched without one too: `None` where there is none, and where it cannot be had.
    pub async fn of(server: &StreamServer, watchable: &Watchable, viewer: &Viewer) -> Option<Storyboard> {
        Storyboard::load(server, watchable, viewer).await.ok()
    }

    async fn load(
        server: &StreamServer,
        watchable: &Watchable,
        viewer: &Viewer,
    ) -> Result<Storyboard, Problem> {
        let attempt = watchable.storyboard_attempt.ok_or_else(Problem::not_found)?;
        let key = |file| ObjectKey { video: watchable.video, attempt, file };
        let (sheet, sprite) = tokio::try_join!(
            server.watch.sheet(key(ObjectFile::StoryboardCues), viewer),
            server.watch.picture(key(ObjectFile::StoryboardSprite), viewer),
        )?;
        Ok(Storyboard {
            attempt,
            sheet,
            sprite_bytes: sprite.len() as u64,
            cache_tag: server.cache_tag(watchable.video),
        })
    }

    pub fn pictures(&self, suffix: &Suffix) -> Pictures<'_> {
        Pictures {
            sheet: &self.sheet,
            sprite: sprite_address(self.attempt, suffix),
            sprite_bytes: self.sprite_bytes,
            playlist: pictures_address(suffix),
        }
    }

    /// Of an answer in one of the forms that it has.
    fn described_as(
        &self,
        form: &str,
        content_type: &'static str,
        watchable: &Known,
        viewer: &Viewer,
    ) -> Description {
        Description {
            validators: Validators {
                etag: format!("{}.storyboard.{form}", self.attempt),
                last_modified: watchable.published_at,
            },
            content_type,
            caching: viewer.caching(watchable, Caching::Pointer),
            cache_tag: self.cache_tag,
            disposition: None,
            until: watchable.until(),
        }
    }
}

/// Of `named`, which means these bytes for ever, or the one that the video has now.
async fn storyboard(
    server: &StreamServer,
    viewer: &Viewer,
    video: VideoId,
    named: Option<AttemptId>,
    file: ObjectFile,
    asked: &Asked<'_>,
) -> Result<Response, Problem> {
    let watchable = server.watch.watchable(video, viewer).await?;
    let there = watchable.storyboard_attempt.filter(|there| named.is_none_or(|named| named == *there));
    let attempt = there.ok_or_else(Problem::not_found)?;
    let caching = if named.is_some() { Caching::Immutable } else { Caching::Pointer };
    let description = Description {
        validators: Validators { etag: format!("{attempt}.{file}"), last_modified: watchable.published_at },
        content_type: file.content_type(),
        caching: viewer.caching(&watchable, caching),
        cache_tag: server.cache_tag(video),
        disposition: None,
        until: watchable.until(),
    };
    let bytes = server.watch.picture(ObjectKey { video, attempt, file }, viewer).await?;
    if file != ObjectFile::StoryboardCues {
        return answer::bytes(asked, &description, bytes);
    }
    let suffix = viewer.suffix(&watchable);
    answer::bytes(asked, &description.naming(&suffix), with_suffix(bytes, &suffix))
}

/// Cues name the sprite in front of a `#xywh=`; nothing else of ours has one.
fn with_suffix(cues: Bytes, suffix: &Suffix) -> Bytes {
    if *suffix == Suffix::default() {
        return cues;
    }
    String::from_utf8_lossy(&cues).replace("#xywh=", &format!("{suffix}#xywh=")).into()
}

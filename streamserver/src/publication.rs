//! HLS and DASH: the master playlist, the manifest, and what lies under a publication: media playlists, init segments,
//! segments, tracks.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use chassis::{Caller, Path, Problem, Query};
use domain::{Layout, PublicationId, TrackKind, VideoId};
use http::{HeaderMap, Method};
use sql::Watchable;

use crate::StreamServer;
use crate::answer::{Asked, Caching, Description};
use crate::conditional::Validators;
use crate::dash::Addressing;
use crate::package::Package;
use crate::playlist;
use crate::publication_file::PublicationFile;
use crate::storyboard::Storyboard;
use crate::track_file::TrackFile;

/// HLS master playlist
///
/// Names media playlists and segments under the live publication; those never change.
#[utoipa::path(
    get,
    path = "/stream/videos/{vid}/master.m3u8",
    tag = "watching",
    params(("vid" = String, Path, description = "the video's id")),
    responses(
        (status = 200, description = "the playlist", content_type = "application/vnd.apple.mpegurl"),
        (status = 304, description = "you have it already"),
        (status = 400, description = "a malformed id", content_type = "application/problem+json"),
        (status = 404, description = "no such video, or not yours to see", content_type = "application/problem+json"),
    )
)]
pub async fn master(
    State(server): State<StreamServer>,
    caller: Caller,
    Path(video): Path<VideoId>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (watchable, package) = live(&server, video, &caller).await?;
    let description = pointer(&watchable, &package, "master", playlist::HLS);
    playlist::answer(&Asked { method: &method, headers: &headers }, description, package.master_playlist())
}

#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// `segments`: clients ask for segments by name. `ranges`: for byte ranges of one file a track, which holds the same
    /// bytes behind an index.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    addressing: Addressing,
}

/// DASH manifest
///
/// Names the same tracks and segments as the master playlist.
#[utoipa::path(
    get,
    path = "/stream/videos/{vid}/manifest.mpd",
    tag = "watching",
    params(("vid" = String, Path, description = "the video's id"), Wanted),
    responses(
        (status = 200, description = "the manifest", content_type = "application/dash+xml"),
        (status = 304, description = "you have it already"),
        (status = 400, description = "a malformed id or query", content_type = "application/problem+json"),
        (status = 404, description = "no such video, or not yours to see", content_type = "application/problem+json"),
    )
)]
pub async fn manifest(
    State(server): State<StreamServer>,
    caller: Caller,
    Path(video): Path<VideoId>,
    Query(wanted): Query<Wanted>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (watchable, package) = live(&server, video, &caller).await?;
    let storyboard = Storyboard::of(&server, &watchable, &caller).await;
    let drawn = storyboard.as_ref().map(|storyboard| format!(".{}", storyboard.attempt)).unwrap_or_default();
    let name = match wanted.addressing {
        Addressing::Segments => format!("manifest{drawn}"),
        Addressing::Ranges => format!("manifest-ranges{drawn}"),
    };
    let description = pointer(&watchable, &package, &name, playlist::DASH);
    let text = package.manifest(storyboard.as_ref().map(Storyboard::pictures), wanted.addressing);
    playlist::answer(&Asked { method: &method, headers: &headers }, description, text)
}

/// What is watched now.
async fn live(
    server: &StreamServer,
    video: VideoId,
    caller: &Caller,
) -> Result<(Arc<Watchable>, Arc<Package>), Problem> {
    let watchable = server.watch.watchable(video, caller).await?;
    let package = server.watch.package(video, watchable.publication, caller).await?;
    Ok((watchable, package))
}

/// Of a text that points at what is watched now.
fn pointer(watchable: &Watchable, package: &Package, name: &str, content_type: &'static str) -> Description {
    Description {
        validators: validators(package, name),
        content_type,
        caching: Caching::of(watchable.visibility, Caching::Pointer),
        disposition: None,
    }
}

/// Anything under a publication
///
/// Immutable: what a master playlist named stays what it is until the video is deleted.
#[utoipa::path(
    get,
    path = "/stream/videos/{vid}/{publication}/{file}",
    tag = "watching",
    params(
        ("vid" = String, Path, description = "the video's id"),
        ("publication" = String, Path, description = "as the master playlist names it"),
        ("file" = String, Path, description = "as a playlist names it, e.g. `low.video.00001.mp4`"),
    ),
    responses(
        (status = 200, description = "the playlist or segment"),
        (status = 206, description = "the ranges asked for"),
        (status = 304, description = "you have it already"),
        (status = 400, description = "a malformed id", content_type = "application/problem+json"),
        (status = 404, description = "no such file, or not yours to see", content_type = "application/problem+json"),
        (status = 416, description = "the range lies outside of the file", content_type = "application/problem+json"),
        (status = 503, description = "every place is taken", content_type = "application/problem+json"),
    )
)]
pub async fn file(
    State(server): State<StreamServer>,
    caller: Caller,
    Path((video, publication, name)): Path<(VideoId, PublicationId, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let file: PublicationFile = name.parse().map_err(|_| Problem::not_found())?;
    let watchable = server.watch.watchable(video, &caller).await?;
    let package = server.watch.package(video, publication, &caller).await?;
    let (rendition, kind) = file.track();
    let description = Description {
        validators: validators(&package, &name),
        content_type: content_type(file),
        caching: Caching::of(watchable.visibility, Caching::Immutable),
        disposition: None,
    };
    let asked = Asked { method: &method, headers: &headers };
    let text = match file {
        PublicationFile::MediaPlaylist(..) => Some(package.media_playlist(rendition, kind)),
        PublicationFile::KeyframePlaylist(_) => Some(package.keyframe_playlist(rendition)),
        _ => None,
    };
    if let Some(text) = text {
        return playlist::answer(&asked, description, text.ok_or_else(Problem::not_found)?);
    }
    let files = &package.rendition(rendition).ok_or_else(Problem::not_found)?.files;
    if let PublicationFile::Track(..) = file {
        let (track, segments) = package.track(rendition, kind).ok_or_else(Problem::not_found)?;
        let whole = TrackFile::new(track, segments).ok_or_else(Problem::not_found)?;
        return server.answer_layout(video, &caller, &asked, &description, files, &whole).await;
    }
    let layout = media_layout(&package, file).ok_or_else(Problem::not_found)?;
    server.answer_layout(video, &caller, &asked, &description, files, &layout).await
}

/// A publication never changes, so its id and the name of a file stand for the bytes.
fn validators(package: &Package, name: &str) -> Validators {
    Validators { etag: format!("{}.{name}", package.id), last_modified: package.published_at }
}

fn content_type(file: PublicationFile) -> &'static str {
    match file {
        PublicationFile::MediaPlaylist(..) | PublicationFile::KeyframePlaylist(_) => playlist::HLS,
        PublicationFile::Init(_, kind)
        | PublicationFile::Segment(_, kind, _)
        | PublicationFile::Track(_, kind) => match kind {
            TrackKind::Video => "video/mp4",
            TrackKind::Audio => "audio/mp4",
        },
    }
}

/// The bytes of an init segment or a segment; `None` where there is none such.
fn media_layout(package: &Package, file: PublicationFile) -> Option<Layout> {
    match file {
        PublicationFile::MediaPlaylist(..)
        | PublicationFile::KeyframePlaylist(_)
        | PublicationFile::Track(..) => None,
        PublicationFile::Init(rendition, kind) => Some(package.track(rendition, kind)?.0.init.clone()),
        PublicationFile::Segment(rendition, kind, number) => {
            let (track, segments) = package.track(rendition, kind)?;
            let segment = segments.get(usize::try_from(number).ok()?.checked_sub(1)?)?;
            let fragments = &track.fragments[segment.fragments.clone()];
            Some(Layout::join(fragments.iter().map(|fragment| &fragment.layout)))
        }
    }
}

//! HLS and DASH: the master playlist, the manifest, and what lies under a publication: media playlists, init segments,
//! segments, tracks.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use chassis::{Path, Problem, Query};
use domain::{Layout, PublicationId, TrackKind, VideoId};
use http::{HeaderMap, Method};

use crate::StreamServer;
use crate::answer::{Asked, Caching, Description};
use crate::cache_tag::CacheTag;
use crate::conditional::Validators;
use crate::dash::Addressing;
use crate::package::Package;
use crate::playlist;
use crate::publication_file::PublicationFile;
use crate::segments::Segment;
use crate::sheet::Pictures;
use crate::storyboard::Storyboard;
use crate::suffix::Suffix;
use crate::track_file::TrackFile;
use crate::viewer::Viewer;
use crate::watch::Known;

/// HLS master playlist
///
/// Names media playlists and segments under the live publication, which never change, and the storyboard's pictures.
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
    viewer: Viewer,
    Path(video): Path<VideoId>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let live = Live::load(&server, video, &viewer).await?;
    let suffix = viewer.suffix(&live.watchable);
    let text = live.package.master_playlist(&suffix, live.pictures(&suffix));
    let description = live.described_as("master", playlist::HLS, &viewer);
    playlist::answer(&Asked { method: &method, headers: &headers }, description, &suffix, text)
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
    viewer: Viewer,
    Path(video): Path<VideoId>,
    Query(wanted): Query<Wanted>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let live = Live::load(&server, video, &viewer).await?;
    let suffix = viewer.suffix(&live.watchable);
    let text = live.package.manifest(&suffix, live.pictures(&suffix), wanted.addressing);
    let name = match wanted.addressing {
        Addressing::Segments => "manifest",
        Addressing::Ranges => "manifest-ranges",
    };
    let description = live.described_as(name, playlist::DASH, &viewer);
    playlist::answer(&Asked { method: &method, headers: &headers }, description, &suffix, text)
}

/// What is watched now.
struct Live {
    watchable: Known,
    package: Arc<Package>,
    storyboard: Option<Storyboard>,
    cache_tag: CacheTag,
}

impl Live {
    async fn load(server: &StreamServer, video: VideoId, viewer: &Viewer) -> Result<Live, Problem> {
        let watchable = server.watch.watchable(video, viewer).await?;
        let (package, storyboard) = tokio::join!(
            server.watch.package(video, watchable.publication, viewer),
            Storyboard::of(server, &watchable, viewer),
        );
        Ok(Live { package: package?, storyboard, watchable, cache_tag: server.cache_tag(video) })
    }

    fn pictures(&self, suffix: &Suffix) -> Option<Pictures<'_>> {
        self.storyboard.as_ref().map(|storyboard| storyboard.pictures(suffix))
    }

    /// Of a text of this name that points at all of it.
    fn described_as(&self, name: &str, content_type: &'static str, viewer: &Viewer) -> Description {
        let drawn = self.storyboard.as_ref().map(|storyboard| format!(".{}", storyboard.attempt));
        let name = format!("{name}{}", drawn.unwrap_or_default());
        Description {
            validators: validators(&self.package, &name),
            content_type,
            caching: viewer.caching(&self.watchable, Caching::Pointer),
            cache_tag: self.cache_tag,
            disposition: None,
            until: self.watchable.until(),
        }
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
    viewer: Viewer,
    Path((video, publication, name)): Path<(VideoId, PublicationId, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let file: PublicationFile = name.parse().map_err(|_| Problem::not_found())?;
    let watchable = server.watch.watchable(video, &viewer).await?;
    let package = server.watch.package(video, publication, &viewer).await?;
    let (rendition, kind) = file.track();
    let description = Description {
        validators: validators(&package, &name),
        content_type: content_type(file),
        caching: viewer.caching(&watchable, Caching::Immutable),
        cache_tag: server.cache_tag(video),
        disposition: None,
        until: watchable.until(),
    };
    let asked = Asked { method: &method, headers: &headers };
    let suffix = viewer.suffix(&watchable);
    let text = match file {
        PublicationFile::MediaPlaylist(..) => Some(package.media_playlist(rendition, kind, &suffix)),
        PublicationFile::KeyframePlaylist(_) => Some(package.keyframe_playlist(rendition, &suffix)),
        _ => None,
    };
    if let Some(text) = text {
        return playlist::answer(&asked, description, &suffix, text.ok_or_else(Problem::not_found)?);
    }
    let files = &package.rendition(rendition).ok_or_else(Problem::not_found)?.files;
    if let PublicationFile::Track(..) = file {
        let (_, segments) = package.track(rendition, kind).ok_or_else(Problem::not_found)?;
        let whole = package.file(rendition, kind).ok_or_else(Problem::not_found)?;
        let viewer = match first_watched(&whole, kind, segments) {
            Some(byte) => viewer.watching_from(byte),
            None => viewer,
        };
        return server.answer_layout(video, &viewer, &asked, &description, files, &whole).await;
    }
    let layout = media_layout(&package, file).ok_or_else(Problem::not_found)?;
    let viewer = if is_watched(&package, file) { viewer.watching_from(0) } else { viewer };
    server.answer_layout(video, &viewer, &asked, &description, files, &layout).await
}

/// Players fetch the first segment before anybody asks them to play; who has another one watches.
fn is_watched(package: &Package, file: PublicationFile) -> bool {
    let PublicationFile::Segment(rendition, TrackKind::Video, number) = file else { return false };
    let track = package.track(rendition, TrackKind::Video);
    number > 1 || track.is_some_and(|(_, segments)| segments.len() == 1)
}

/// The same of a track as one file: where its second segment begins, or its only one.
fn first_watched(whole: &TrackFile<'_>, kind: TrackKind, segments: &[Segment]) -> Option<u64> {
    let first_bytes = segments.first().filter(|_| segments.len() > 1).map_or(0, |first| first.bytes);
    (kind == TrackKind::Video).then(|| whole.index().end + first_bytes)
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

//! HLS: the master playlist, and what lies under a publication: media playlists, init segments, segments.

use axum::extract::State;
use axum::response::Response;
use chassis::{Caller, Path, Problem};
use domain::{Layout, PublicationId, RenditionName, TrackKind, VideoId};
use http::{HeaderMap, Method};

use crate::StreamServer;
use crate::answer::{Asked, Caching, Description};
use crate::conditional::Validators;
use crate::package::Package;
use crate::playlist;
use crate::publication_file::PublicationFile;

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
    let watchable = server.watch.watchable(video, &caller).await?;
    let package = server.watch.package(video, watchable.publication, &caller).await?;
    let description = Description {
        validators: validators(&package, "master"),
        content_type: playlist::CONTENT_TYPE,
        caching: Caching::of(watchable.visibility, Caching::Pointer),
        disposition: None,
    };
    playlist::answer(&Asked { method: &method, headers: &headers }, description, package.master_playlist())
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
    if let PublicationFile::MediaPlaylist(..) = file {
        let text = package.media_playlist(rendition, kind).ok_or_else(Problem::not_found)?;
        return playlist::answer(&asked, description, text);
    }
    let layout = media_layout(&package, file).ok_or_else(Problem::not_found)?;
    let files = &package.rendition(rendition).ok_or_else(Problem::not_found)?.files;
    server.answer_layout(video, &caller, &asked, &description, files, &layout).await
}

/// A publication never changes, so its id and the name of a file stand for the bytes.
fn validators(package: &Package, name: &str) -> Validators {
    Validators { etag: format!("{}.{name}", package.id), last_modified: package.published_at }
}

fn content_type(file: PublicationFile) -> &'static str {
    match file {
        PublicationFile::MediaPlaylist(..) => playlist::CONTENT_TYPE,
        PublicationFile::Init(_, kind) | PublicationFile::Segment(_, kind, _) => match kind {
            TrackKind::Video => "video/mp4",
            TrackKind::Audio => "audio/mp4",
        },
    }
}

/// The bytes of an init segment or a segment; `None` where there is none such.
fn media_layout(package: &Package, file: PublicationFile) -> Option<Layout> {
    let track = |rendition: RenditionName, kind: TrackKind| package.rendition(rendition)?.track(kind);
    match file {
        PublicationFile::MediaPlaylist(..) => None,
        PublicationFile::Init(rendition, kind) => Some(track(rendition, kind)?.0.init.clone()),
        PublicationFile::Segment(rendition, kind, number) => {
            let (track, segments) = track(rendition, kind)?;
            let segment = segments.get(usize::try_from(number).ok()?.checked_sub(1)?)?;
            let fragments = &track.fragments[segment.fragments.clone()];
            Some(Layout::join(fragments.iter().map(|fragment| &fragment.layout)))
        }
    }
}

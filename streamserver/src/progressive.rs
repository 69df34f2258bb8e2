//! `GET /stream/videos/:vid`: a plain MP4 for any player, editor or download.

use axum::extract::State;
use axum::response::Response;
use chassis::{Path, Problem, Query};
use domain::{RenditionName, VideoId};
use http::{HeaderMap, Method};

use crate::StreamServer;
use crate::answer::{Asked, Caching, Description};
use crate::conditional::Validators;
use crate::disposition;
use crate::viewer::Viewer;

#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// `low`, `medium` or `original`, or another that the video names; the best ready one in H.264 by default. One that
    /// does not exist answers with the nearest in H.264.
    #[param(value_type = Option<String>)]
    rendition: Option<RenditionName>,
    /// `1`: as an attachment, named after the title.
    download: Option<String>,
}

/// Watch or download
///
/// A plain MP4: `ftyp moov mdat`, not fragmented. Ranges as in RFC 9110 §14, at most 8 in one request.
#[utoipa::path(
    get,
    path = "/stream/videos/{vid}",
    tag = "watching",
    params(("vid" = String, Path, description = "the video's id"), Wanted),
    responses(
        (status = 200, description = "the file", content_type = "video/mp4"),
        (status = 206, description = "the ranges asked for", content_type = "video/mp4"),
        (status = 304, description = "you have it already"),
        (status = 400, description = "a malformed id or rendition", content_type = "application/problem+json"),
        (status = 404, description = "no such video, or not yours to see", content_type = "application/problem+json"),
        (status = 416, description = "the range lies outside of the file", content_type = "application/problem+json"),
        (status = 503, description = "every place is taken", content_type = "application/problem+json"),
    )
)]
pub async fn progressive(
    State(server): State<StreamServer>,
    viewer: Viewer,
    Path(video): Path<VideoId>,
    Query(wanted): Query<Wanted>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let watchable = server.watch.watchable(video, &viewer).await?;
    let package = server.watch.package(video, watchable.publication, &viewer).await?;
    let rendition = package.nearest(wanted.rendition);
    let is_download = wanted.download.is_some_and(|download| download != "0");
    let description = Description {
        // The attempt, not the publication: the same bytes keep their tag when other renditions are added.
        validators: Validators {
            etag: format!("{}.{}", rendition.published.attempt, rendition.published.name),
            // Of another rendition that stood in for this one while it was missing, the time was another.
            last_modified: rendition.published.published_at,
        },
        content_type: "video/mp4",
        caching: viewer.caching(&watchable, Caching::Pointer),
        cache_tag: server.cache_tag(video),
        disposition: is_download.then(|| disposition::attachment(&watchable.title)),
        until: watchable.until(),
    };
    let layout = &rendition.index.progressive;
    // Whoever saves a file does not watch it now.
    let viewer = if is_download {
        viewer
    } else {
        viewer.watching_from(preview_bytes(layout.bytes(), rendition.published.duration_s))
    };
    let asked = Asked { method: &method, headers: &headers };
    server.answer_layout(video, &viewer, &asked, &description, &rendition.files, layout).await
}

/// Of the part that browsers fetch to show a film's length and first picture before anybody asks them to play.
fn preview_bytes(bytes: u64, duration_s: f64) -> u64 {
    const PREVIEW_S: f64 = 5.0;
    let preview_s = PREVIEW_S.min(duration_s / 2.0);
    if duration_s > 0.0 { (bytes as f64 * preview_s / duration_s) as u64 } else { 0 }
}

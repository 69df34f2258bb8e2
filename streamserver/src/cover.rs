//! `GET /stream/videos/:vid/cover.jpg` and `.webp`.

use axum::extract::State;
use axum::response::Response;
use chassis::{Path, Problem, Query};
use domain::{COVER_WIDTHS_PX, CoverFormat, ObjectFile, ObjectKey, VideoId};
use http::{HeaderMap, Method};

use crate::StreamServer;
use crate::answer::{self, Asked, Caching, Description};
use crate::conditional::Validators;
use crate::viewer::Viewer;

#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Width in pixels: 120, 240, 480 or 720, by default the largest there is. Another one, or one that the film is
    /// too small for, answers with the nearest that exists.
    w: Option<u32>,
}

/// Cover as JPEG
#[utoipa::path(
    get,
    path = "/stream/videos/{vid}/cover.jpg",
    tag = "watching",
    params(("vid" = String, Path, description = "the video's id"), Wanted),
    responses(
        (status = 200, description = "the picture", content_type = "image/jpeg"),
        (status = 304, description = "you have it already"),
        (status = 400, description = "a malformed id or width", content_type = "application/problem+json"),
        (status = 404, description = "no such video, or not yours to see", content_type = "application/problem+json"),
    )
)]
pub async fn jpeg(State(server): State<StreamServer>, request: CoverRequest) -> Result<Response, Problem> {
    cover(&server, request, CoverFormat::Jpeg).await
}

/// Cover as WebP
#[utoipa::path(
    get,
    path = "/stream/videos/{vid}/cover.webp",
    tag = "watching",
    params(("vid" = String, Path, description = "the video's id"), Wanted),
    responses(
        (status = 200, description = "the picture", content_type = "image/webp"),
        (status = 304, description = "you have it already"),
        (status = 400, description = "a malformed id or width", content_type = "application/problem+json"),
        (status = 404, description = "no such video, or not yours to see", content_type = "application/problem+json"),
    )
)]
pub async fn webp(State(server): State<StreamServer>, request: CoverRequest) -> Result<Response, Problem> {
    cover(&server, request, CoverFormat::Webp).await
}

type CoverRequest = (Viewer, Path<VideoId>, Query<Wanted>, Method, HeaderMap);

async fn cover(
    server: &StreamServer,
    (viewer, Path(video), Query(wanted), method, headers): CoverRequest,
    format: CoverFormat,
) -> Result<Response, Problem> {
    let watchable = server.watch.watchable(video, &viewer).await?;
    let (Some(attempt), Some(width_max)) = (watchable.cover_attempt, watchable.cover_width_max) else {
        return Err(Problem::not_found());
    };
    let key =
        ObjectKey { video, attempt, file: ObjectFile::Cover(nearest_width(wanted.w, width_max), format) };
    let description = Description {
        validators: Validators {
            etag: format!("{attempt}.{}", key.file),
            last_modified: watchable.published_at,
        },
        content_type: key.file.content_type(),
        caching: viewer.caching(&watchable, Caching::Pointer),
        cache_tag: server.cache_tag(video),
        disposition: None,
        until: watchable.until(),
    };
    let picture = server.watch.picture(key, &viewer).await?;
    answer::bytes(&Asked { method: &method, headers: &headers }, &description, picture)
}

/// Of the widths up to `width_max`, which is itself the only one where the film is smaller than all.
fn nearest_width(wanted: Option<u32>, width_max: u32) -> u32 {
    let made = COVER_WIDTHS_PX.into_iter().filter(|width| *width <= width_max);
    let wanted = wanted.unwrap_or(width_max);
    made.min_by_key(|width| width.abs_diff(wanted)).unwrap_or(width_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_width_that_was_made() {
        for (wanted, width_max, expected) in [
            (None, 720, 720),
            (None, 480, 480),
            (None, 90, 90),
            (Some(240), 720, 240),
            (Some(300), 720, 240),
            (Some(400), 720, 480),
            (Some(720), 240, 240),
            (Some(0), 720, 120),
            (Some(u32::MAX), 720, 720),
            (Some(720), 90, 90),
        ] {
            assert_eq!(nearest_width(wanted, width_max), expected, "{wanted:?} of {width_max}");
        }
    }
}

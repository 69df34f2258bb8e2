//! Where a video can be watched, by whoever has the addresses.

use std::sync::Arc;

use axum::extract::State;
use chassis::{Caller, Json, Path, Problem};
use domain::VideoId;

use crate::{Api, view};

/// Addresses to give to a player. Those of a private video are for its owner and admins to ask for: they are signed,
/// open the video and all that it consists of (playlists, segments, pictures) to whoever has them until `expires_at`,
/// and are refused afterwards with 403 `/problems/link-expired`. Nobody can take them back before; deleting the video ends
/// them at once. Public and unlisted videos have the plain addresses, for everybody, and no `expires_at`.
#[utoipa::path(get, path = "/api/videos/{vid}/playback", tag = "videos", params(("vid" = String, Path)), responses(
    (status = 200, body = view::Playback), (status = 400, description = "Not an id"),
    (status = 404, description = "Unknown, not yours to see, or not `playable` yet"),
))]
pub(crate) async fn playback(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<VideoId>,
) -> Result<Json<view::Playback>, Problem> {
    let video = api.visible_video(id, &caller).await?;
    api.playback_view(&video).map(Json).ok_or_else(Problem::not_found)
}

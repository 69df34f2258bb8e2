//! Comments.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use chassis::page::{Page, PageParams, PageQuery};
use chassis::{Caller, IdempotencyKey, Json, Path, Problem};
use domain::{CommentId, VideoId};
use http::StatusCode;
use http::header::LOCATION;
use serde::{Deserialize, Serialize};
use sql::{Comment, NewComment, Once};
use utoipa::ToSchema;

use crate::failure::OrProblem;
use crate::videos::created_once;
use crate::{Api, input, view};

const LIST: &str = "comments";

/// Comments on a video, newest first.
#[utoipa::path(get, path = "/api/videos/{vid}/comments", tag = "comments",
    params(("vid" = String, Path), PageParams), responses(
        (status = 200, body = Page<view::Comment>), (status = 400, description = "Not an id, or a bad page"),
        (status = 404, description = "Unknown video"),
))]
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(video): Path<VideoId>,
    page: PageQuery,
) -> Result<Json<Page<view::Comment>>, Problem> {
    let video = api.visible_video(video, &caller).await?;
    let after = page.after::<String>(LIST)?.map(|id| id.parse()).transpose();
    let after =
        after.map_err(|_| Problem::field("cursor", "take `next_cursor` of the page before, unchanged"))?;
    let comments = api.catalog.comments(video.id, after, page.limit + 1).await.or_problem()?;
    let position = |comment: &Comment| comment.id.to_string();
    Ok(Json(Page::of(LIST, comments, page.limit, position, view::Comment::from)))
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Create {
    /// 1 to 2,000 characters.
    content: String,
}

/// Comment on a video. Asked again with the same `Idempotency-Key` within a day, it is the same comment.
#[utoipa::path(post, path = "/api/videos/{vid}/comments", tag = "comments", params(("vid" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "names this request, in 1 to 255 characters")),
    request_body = Create, responses(
        (status = 201, body = view::Comment), (status = 400, description = "A field is wrong"),
        (status = 404, description = "Unknown video"),
        (status = 422, description = "`/problems/idempotency-key-reused`"),
))]
pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(video): Path<VideoId>,
    key: IdempotencyKey,
    Json(body): Json<Create>,
) -> Result<impl IntoResponse, Problem> {
    let author = caller.require_user()?;
    let once = key.of(&body).map(|(key, request)| Once { key, request });
    let video = api.visible_video(video, &caller).await?;
    let content = input::comment(body.content).map_err(|message| Problem::field("content", message))?;
    let new = NewComment { id: api.ids.next(api.now()), video: video.id, author, content };
    let created = match once {
        Some(once) => {
            created_once(api.catalog.create_comment_once(&new, &once, api.now()).await.or_problem()?)?
        }
        None => api.catalog.create_comment(&new, api.now()).await.or_problem()?,
    };
    let comment = created.ok_or_else(Problem::not_found)?;
    let location = format!("/api/videos/{}/comments/{}", comment.video, comment.id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(view::Comment::from(comment))))
}

/// Delete a comment: its author, the video's author and admins may.
#[utoipa::path(delete, path = "/api/videos/{vid}/comments/{cid}", tag = "comments",
    params(("vid" = String, Path), ("cid" = String, Path)), responses(
        (status = 204), (status = 400, description = "Not an id"), (status = 403, description = "Somebody else's comment"),
        (status = 404, description = "Unknown"),
))]
pub(crate) async fn delete(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path((video, id)): Path<(VideoId, CommentId)>,
) -> Result<StatusCode, Problem> {
    let video = api.visible_video(video, &caller).await?;
    let comment = api.catalog.comment(id).await.or_problem()?.filter(|comment| comment.video == video.id);
    let comment = comment.ok_or_else(Problem::not_found)?;
    let may = caller.is(comment.author.id) || caller.is(video.author.id) || caller.is_admin();
    if !may {
        return Err(Problem::forbidden("This is somebody else's comment on somebody else's video."));
    }
    let deleted = api.catalog.delete_comment(id).await.or_problem()?;
    if deleted { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::not_found()) }
}

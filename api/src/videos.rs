//! Videos as metadata.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use chassis::page::{Page, PageParams, PageQuery};
use chassis::{Caller, IdempotencyKey, Json, Path, Problem, Query};
use domain::{UserId, VideoId, Visibility};
use http::StatusCode;
use http::header::LOCATION;
use serde::{Deserialize, Serialize};
use sql::{Audience, CreateOnce, DeleteVideo, NewDeletion, NewVideo, Once, Video, VideoFilter, VideoPatch};
use utoipa::{IntoParams, ToSchema};

use crate::failure::OrProblem;
use crate::input::{self, Fields};
use crate::{Api, view};

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Create {
    /// 1 to 128 characters.
    title: String,
    /// At most 5,000 characters.
    description: Option<String>,
    /// At most 20, of 1 to 32 characters, case-folded.
    tags: Option<Vec<String>>,
    /// `public` (default), `unlisted` or `private`
    visibility: Option<String>,
}

/// Create a video. The answer says where to upload the file, and with which token. Asked again with the same
/// `Idempotency-Key` within a day, it is the same video.
#[utoipa::path(post, path = "/api/videos", tag = "videos", request_body = Create,
    params(("Idempotency-Key" = Option<String>, Header, description = "names this request, in 1 to 255 characters")),
    responses(
        (status = 201, body = view::Video), (status = 400, description = "A field is wrong"),
        (status = 403, description = "`/problems/quota-exceeded`"),
        (status = 422, description = "`/problems/idempotency-key-reused`"),
))]
pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    key: IdempotencyKey,
    Json(body): Json<Create>,
) -> Result<impl IntoResponse, Problem> {
    let author = caller.require_user()?;
    let once = key.of(&body).map(|(key, request)| Once { key, request });
    let new = api.new_video(author, body)?;
    let created = match once {
        Some(once) => {
            created_once(api.catalog.create_video_once(&new, &once, api.now()).await.or_problem()?)?
        }
        None => api.catalog.create_video(&new, api.now()).await.or_problem()?,
    };
    let video = created.ok_or_else(|| Problem::unauthorized("This account was deleted."))?;
    let location = format!("/api/videos/{}", video.id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(api.video_view(video, &caller))))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Only of this person.
    author: Option<String>,
    /// Only with this tag.
    tag: Option<String>,
    /// Searching is not offered yet: a 400.
    q: Option<String>,
}

/// Public videos that can be watched, newest first.
#[utoipa::path(get, path = "/api/videos", tag = "videos", params(ListParams, PageParams), responses(
    (status = 200, body = Page<view::Video>), (status = 400, description = "A bad filter or page"),
))]
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(params): Query<ListParams>,
    query: PageQuery,
) -> Result<Json<Page<view::Video>>, Problem> {
    if params.q.is_some() {
        // Better than a list that looks like an answer.
        return Err(Problem::field("q", "this version cannot search; filter by `author` or `tag`"));
    }
    let author: Option<UserId> =
        params.author.map(|id| id.parse()).transpose().map_err(|_| Problem::invalid_id())?;
    let tag = params.tag.map(input::tag).transpose();
    let tag = tag.map_err(|message| Problem::field("tag", message))?;
    let filter = VideoFilter { author, tag, audience: Audience::Public };
    page(&api, &filter, "videos", query, &caller).await.map(Json)
}

/// One video. Before it is `playable` only its owner and admins see it.
#[utoipa::path(get, path = "/api/videos/{vid}", tag = "videos", params(("vid" = String, Path)), responses(
    (status = 200, body = view::Video), (status = 400, description = "Not an id"), (status = 404, description = "Unknown"),
))]
pub(crate) async fn one(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<VideoId>,
) -> Result<Json<view::Video>, Problem> {
    let video = api.visible_video(id, &caller).await?;
    Ok(Json(api.video_view(video, &caller)))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Update {
    title: Option<String>,
    description: Option<String>,
    tags: Option<Vec<String>>,
    visibility: Option<String>,
    /// Take the cover here, in seconds from the start.
    cover_at_s: Option<f64>,
}

/// Change a video.
#[utoipa::path(patch, path = "/api/videos/{vid}", tag = "videos", params(("vid" = String, Path)), request_body = Update,
    responses(
        (status = 200, body = view::Video), (status = 400, description = "A field is wrong"),
        (status = 403, description = "Somebody else's video"), (status = 404, description = "Unknown"),
))]
pub(crate) async fn update(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<VideoId>,
    Json(body): Json<Update>,
) -> Result<Json<view::Video>, Problem> {
    let video = api.own_video(id, &caller).await?;
    let patch = patch(body, &video)?;
    let (cover_job, now) = (api.ids.next(api.now()), api.now());
    let updated = api.catalog.update_video(id, &patch, cover_job, now).await.or_problem()?;
    let video = updated.ok_or_else(Problem::not_found)?;
    Ok(Json(api.video_view(video, &caller)))
}

/// Delete a video. It is invisible within a second, and purged soon after.
#[utoipa::path(delete, path = "/api/videos/{vid}", tag = "videos", params(("vid" = String, Path)), responses(
    (status = 204), (status = 400, description = "Not an id"), (status = 403, description = "Somebody else's video"),
    (status = 404, description = "Unknown, or deleted before"),
))]
pub(crate) async fn delete(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<VideoId>,
) -> Result<StatusCode, Problem> {
    let video = api.own_video(id, &caller).await?;
    let now = api.now();
    let requested_by = caller.user().map_or_else(|| "service".to_owned(), |user| user.to_string());
    let deletion = NewDeletion {
        video: video.id,
        requested_by,
        due_at: now,
        id: api.ids.next(now),
        job: api.ids.next(now),
    };
    match api.catalog.delete_video(&deletion, now).await.or_problem()? {
        DeleteVideo::Accepted(_) => Ok(StatusCode::NO_CONTENT),
        DeleteVideo::NotFound => Err(Problem::not_found()),
    }
}

/// `None`: it is gone, or what it should belong to.
pub(crate) fn created_once<T>(created: CreateOnce<T>) -> Result<Option<T>, Problem> {
    match created {
        CreateOnce::Created(made) => Ok(Some(made)),
        CreateOnce::Gone => Ok(None),
        CreateOnce::KeyReused => Err(Problem::idempotency_key_reused()),
    }
}

/// A page of videos for `caller`.
pub(crate) async fn page(
    api: &Api,
    filter: &VideoFilter,
    list: &'static str,
    page: PageQuery,
    caller: &Caller,
) -> Result<Page<view::Video>, Problem> {
    let after = page.after::<String>(list)?.map(|id| id.parse()).transpose();
    let after =
        after.map_err(|_| Problem::field("cursor", "take `next_cursor` of the page before, unchanged"))?;
    let videos = api.catalog.videos(filter, after, page.limit + 1, api.now()).await.or_problem()?;
    let position = |video: &Video| video.id.to_string();
    Ok(Page::of(list, videos, page.limit, position, |video| api.video_view(video, caller)))
}

/// Whether this caller may know that the video exists.
pub(crate) fn may_see(caller: &Caller, video: &Video) -> bool {
    let shown = video.state.is_watchable() && video.visibility != Visibility::Private;
    shown || caller.is(video.author.id) || caller.is_admin()
}

impl Api {
    /// A video that this caller may change: 404 if they cannot see it, 403 if they can.
    async fn own_video(&self, id: VideoId, caller: &Caller) -> Result<Video, Problem> {
        let video = self.visible_video(id, caller).await?;
        if caller.is(video.author.id) || caller.is_admin() {
            return Ok(video);
        }
        Err(Problem::forbidden("This is somebody else's video."))
    }

    fn new_video(&self, author: UserId, body: Create) -> Result<NewVideo, Problem> {
        let mut fields = Fields::default();
        let title = fields.take("title", input::title(body.title));
        let description = fields.take_optional("description", body.description, input::description);
        let tags = fields.take_optional("tags", body.tags, input::tags);
        let visibility = fields.take_optional("visibility", body.visibility, input::visibility);
        let (Some(title), Some(description), Some(tags), Some(visibility)) =
            (title, description, tags, visibility)
        else {
            return Err(fields.problem());
        };
        Ok(NewVideo {
            quota: self.quota,
            id: self.ids.next(self.now()),
            author,
            title,
            description: description.unwrap_or_default(),
            tags: tags.unwrap_or_default(),
            visibility: visibility.unwrap_or(Visibility::Public),
        })
    }
}

fn patch(body: Update, video: &Video) -> Result<VideoPatch, Problem> {
    let mut fields = Fields::default();
    let title = fields.take_optional("title", body.title, input::title);
    let description = fields.take_optional("description", body.description, input::description);
    let tags = fields.take_optional("tags", body.tags, input::tags);
    let visibility = fields.take_optional("visibility", body.visibility, input::visibility);
    let within = |at_s| input::cover_at_s(at_s, video.duration_s);
    let cover_at_s = fields.take_optional("cover_at_s", body.cover_at_s, within);
    let (Some(title), Some(description), Some(tags), Some(visibility), Some(cover_at_s)) =
        (title, description, tags, visibility, cover_at_s)
    else {
        return Err(fields.problem());
    };
    Ok(VideoPatch { title, description, tags, visibility, cover_at_s })
}

//! tus 1.0.0 at `/stream/uploads`: uploads that go on where they broke off.
//!
//! **Invariant:** an offset is said only for bytes that are durable and whose row says that they belong to the upload.

mod append;
mod checksum;
mod concat;
mod create;
mod finish;
mod headers;
mod hold;
mod left_open;
mod piece;
mod refusal;

use std::time::{Duration, UNIX_EPOCH};

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::response::Response;
use chassis::{Caller, Path, Permit, Policy, Problem, Routes, Tokens};
use domain::{Timestamp, UploadId, UploadKind, UploadState};
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use sql::Resumable;
use utoipa_axum::routes;

use self::append::{Incoming, check_fits};
use self::headers::{
    METHOD_OVERRIDE, Protocol, TUS_CHECKSUM_ALGORITHM, TUS_EXTENSION, TUS_MAX_SIZE, TUS_RESUMABLE,
    TUS_VERSION, UPLOAD_CONCAT, UPLOAD_DEFER_LENGTH, UPLOAD_EXPIRES, UPLOAD_LENGTH, UPLOAD_METADATA,
    UPLOAD_OFFSET,
};
use self::hold::Held;
use crate::{StreamServer, failure};

pub use self::hold::Holds;

/// The list of routes.
pub fn routes(tokens: Tokens) -> Routes<StreamServer> {
    Routes::new(tokens)
        .route(Policy::Upload, routes!(create::create))
        .route(Policy::Public, routes!(describe))
        .route(Policy::Upload, routes!(look, patch, terminate, overridden))
        .route(Policy::Public, routes!(describe_one))
        .with_header(TUS_RESUMABLE, headers::VERSION)
}

/// What of tus is spoken here
#[utoipa::path(
    options,
    path = "/stream/uploads",
    tag = "uploading",
    responses((status = 204, description = "version, extensions, checksum algorithms and the largest upload, in headers")),
)]
async fn describe(State(server): State<StreamServer>) -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(TUS_VERSION, headers::VERSION);
    headers.insert(TUS_EXTENSION, headers::EXTENSIONS);
    headers.insert(TUS_CHECKSUM_ALGORITHM, headers::ALGORITHMS);
    headers.insert(TUS_MAX_SIZE, HeaderValue::from(server.limits.upload_bytes_max));
    response
}

/// What of tus is spoken here
#[utoipa::path(
    options,
    path = "/stream/uploads/{upload}",
    tag = "uploading",
    params(("upload" = String, Path, description = "the upload's id")),
    responses((status = 204, description = "as for `/stream/uploads`")),
)]
async fn describe_one(server: State<StreamServer>) -> Response {
    describe(server).await
}

/// How far an upload has come
///
/// Ends the request that writes to it, if there is one: the offset that is answered holds.
#[utoipa::path(
    head,
    path = "/stream/uploads/{upload}",
    tag = "uploading",
    params(("upload" = String, Path, description = "the upload's id"), ("Tus-Resumable" = String, Header, description = "`1.0.0`")),
    responses(
        (status = 200, description = "`Upload-Offset`, and `Upload-Length` or `Upload-Defer-Length`; all before the offset is durable"),
        (status = 400, description = "a malformed id"),
        (status = 404, description = "no such upload, or somebody else's"),
        (status = 410, description = "expired, ended, or its video is gone"),
        (status = 412, description = "another version of tus"),
        (status = 423, description = "another request is still storing bytes; ask again"),
    )
)]
async fn look(
    State(server): State<StreamServer>,
    caller: Caller,
    _: Protocol,
    Path(id): Path<UploadId>,
) -> Result<Response, Problem> {
    let looked = look_at(&server, &caller, id).await;
    looked.and_then(|upload| shown(&upload)).map_err(|problem| {
        if !problem.status().is_server_error() {
            return problem;
        }
        // Clients in use forget an upload whose offset they are refused, and begin anew.
        tracing::warn!(upload.id = %id, ?problem, "an upload cannot be looked at");
        refusal::ask_again()
    })
}

async fn look_at(server: &StreamServer, caller: &Caller, id: UploadId) -> Result<Resumable, Problem> {
    let upload = server.upload_of(caller, id).await?;
    if upload.state != UploadState::Open || upload.kind == UploadKind::Final {
        let now = server.clock.now();
        let touched = server.catalog.touch_resumable(id, server.upload_expires_at(now), now).await;
        return touched.map(|()| upload).map_err(failure::sql);
    }
    match at_rest(server, id, Held::acquire(server, id)).await {
        // Nothing more is to come from the client; it is put together later, or is being put together.
        Err(problem) if upload.length_bytes == Some(upload.offset_bytes) && is_passing(&problem) => {
            Ok(upload)
        }
        looked => looked,
    }
}

/// Another time it goes better.
fn is_passing(problem: &Problem) -> bool {
    problem.status().is_server_error() || problem.status() == StatusCode::LOCKED
}

/// Send more of an upload
///
/// What came when the request breaks off is kept, unless `Upload-Checksum` was there to vouch for the whole of it. The
/// last byte makes the file the video's.
#[utoipa::path(
    patch,
    path = "/stream/uploads/{upload}",
    tag = "uploading",
    params(
        ("upload" = String, Path, description = "the upload's id"),
        ("Tus-Resumable" = String, Header, description = "`1.0.0`"),
        ("Upload-Offset" = u64, Header, description = "where the body begins: the bytes that are there"),
        ("Upload-Length" = Option<u64>, Header, description = "where it had been deferred"),
        ("Upload-Checksum" = Option<String>, Header, description = "`sha1 …` or `sha256 …` of the body; also as a trailer"),
    ),
    request_body(content = Vec<u8>, content_type = "application/offset+octet-stream"),
    responses(
        (status = 204, description = "durable up to `Upload-Offset`"),
        (status = 400, description = "a header that cannot be read, or another length than before", content_type = "application/problem+json"),
        (status = 403, description = "a final upload takes no bytes", content_type = "application/problem+json"),
        (status = 404, description = "no such upload, or somebody else's", content_type = "application/problem+json"),
        (status = 409, description = "the upload has another offset, which is in `Upload-Offset`", content_type = "application/problem+json"),
        (status = 410, description = "expired, ended, or its video is gone", content_type = "application/problem+json"),
        (status = 412, description = "another version of tus", content_type = "application/problem+json"),
        (status = 413, description = "more than was announced, or than is allowed", content_type = "application/problem+json"),
        (status = 415, description = "not `application/offset+octet-stream`", content_type = "application/problem+json"),
        (status = 423, description = "another request has or takes the upload; ask for its offset again", content_type = "application/problem+json"),
        (status = 460, description = "not what `Upload-Checksum` says; nothing of this request is kept", content_type = "application/problem+json"),
        (status = 503, description = "every place is taken, no space is left, or the body broke off: come back", content_type = "application/problem+json"),
    )
)]
async fn patch(
    State(server): State<StreamServer>,
    caller: Caller,
    _: Protocol,
    Path(id): Path<UploadId>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    if !headers::has_bytes(&head.headers) {
        return Err(headers::wrong_body_type());
    }
    let offset_bytes = headers::offset(&head.headers)?;
    let length_bytes = headers::length(&head.headers)?;
    let checksum = headers::checksum(&head.headers)?;
    let upload = server.upload_of(&caller, id).await?;
    if upload.kind == UploadKind::Final {
        return Err(refusal::is_final());
    }
    // It only rises: no need to disturb whoever writes.
    if offset_bytes < upload.offset_bytes {
        return Err(refusal::wrong_offset(upload.offset_bytes));
    }
    let place = server.uploads.acquire()?;
    let Some(held) = Held::acquire(&server, id).await? else {
        return after_the_end(&server, id, offset_bytes, is_without_bytes(&body)).await;
    };
    let incoming = Incoming { body, checksum, length_bytes };
    let fits = if offset_bytes == held.upload.offset_bytes {
        check_fits(&held, &incoming)
    } else {
        Err(refusal::wrong_offset(held.upload.offset_bytes))
    };
    if let Err(problem) = fits {
        held.release().await;
        return Err(problem);
    }
    let upload = append_in_peace(held, incoming, place).await?;
    Ok(appended(&upload))
}

/// End an upload
///
/// What it has is thrown away. Of an upload that has become a video only the upload ends.
#[utoipa::path(
    delete,
    path = "/stream/uploads/{upload}",
    tag = "uploading",
    params(("upload" = String, Path, description = "the upload's id"), ("Tus-Resumable" = String, Header, description = "`1.0.0`")),
    responses(
        (status = 204, description = "ended"),
        (status = 404, description = "no such upload, or somebody else's", content_type = "application/problem+json"),
        (status = 410, description = "it had ended before", content_type = "application/problem+json"),
        (status = 412, description = "another version of tus", content_type = "application/problem+json"),
        (status = 423, description = "another request is still storing bytes; try again", content_type = "application/problem+json"),
    )
)]
async fn terminate(
    State(server): State<StreamServer>,
    caller: Caller,
    _: Protocol,
    Path(id): Path<UploadId>,
) -> Result<Response, Problem> {
    let upload = server.upload_of(&caller, id).await?;
    let held = if upload.state == UploadState::Open && upload.kind != UploadKind::Final {
        // Whoever writes has stopped before its pieces are swept.
        Held::acquire(&server, id).await?
    } else {
        None
    };
    let ended = server.catalog.terminate_resumable(id, server.clock.now()).await.map_err(failure::sql);
    if let Some(held) = held {
        held.release().await;
    }
    if ended? { Ok(empty(StatusCode::NO_CONTENT)) } else { Err(refusal::ended(UploadState::Terminated)) }
}

/// Any of the other methods, for clients that can only POST
///
/// `X-HTTP-Method-Override` says which: `PATCH`, `DELETE` or `HEAD`.
#[utoipa::path(
    post,
    path = "/stream/uploads/{upload}",
    tag = "uploading",
    params(
        ("upload" = String, Path, description = "the upload's id"),
        ("X-HTTP-Method-Override" = String, Header, description = "`PATCH`, `DELETE` or `HEAD`"),
    ),
    responses(
        (status = 204, description = "as the method that is meant"),
        (status = 405, description = "no other method is named", content_type = "application/problem+json"),
    )
)]
async fn overridden(
    server: State<StreamServer>,
    caller: Caller,
    protocol: Protocol,
    id: Path<UploadId>,
    request: Request,
) -> Result<Response, Problem> {
    let method = request.headers().get(METHOD_OVERRIDE).map(HeaderValue::as_bytes);
    match method.and_then(|method| Method::from_bytes(method).ok()) {
        Some(Method::PATCH) => patch(server, caller, protocol, id, request).await,
        Some(Method::DELETE) => terminate(server, caller, protocol, id).await,
        Some(Method::HEAD) => look(server, caller, protocol, id).await,
        _ => {
            let allow = HeaderValue::from_static("HEAD,PATCH,DELETE,OPTIONS");
            Err(Problem::method_not_allowed().with_header(http::header::ALLOW, allow))
        }
    }
}

/// Nobody writes to it. All its bytes may have been there before somebody died: then it is finished now.
async fn at_rest(
    server: &StreamServer,
    id: UploadId,
    acquired: impl Future<Output = Result<Option<Held>, Problem>>,
) -> Result<Resumable, Problem> {
    match acquired.await? {
        Some(held) if held.has_all_bytes() => finish_in_peace(held, None).await,
        Some(held) => {
            let upload = held.upload.clone();
            held.release().await;
            Ok(upload)
        }
        None => {
            let found = server.catalog.resumable(id, server.clock.now()).await.map_err(failure::sql)?;
            found.ok_or_else(Problem::not_found)
        }
    }
}

/// In a task of its own: a client that hangs up, and the handler with it, takes nothing away from what came.
async fn append_in_peace(mut held: Held, incoming: Incoming, place: Permit) -> Result<Resumable, Problem> {
    let tasks = held.server.tasks.clone();
    let appending = async move {
        let appended = append::append(&mut held, incoming).await;
        let upload = held.upload.clone();
        held.release().await;
        drop(place);
        appended.map(|()| upload)
    };
    tasks.spawn(appending).await.map_err(Problem::internal)?
}

/// As [`append_in_peace`].
async fn finish_in_peace(mut held: Held, place: Option<Permit>) -> Result<Resumable, Problem> {
    let tasks = held.server.tasks.clone();
    let finishing = async move {
        let finished = finish::finish(&mut held).await;
        let upload = held.upload.clone();
        held.release().await;
        drop(place);
        finished.map(|()| upload)
    };
    tasks.spawn(finishing).await.map_err(Problem::internal)?
}

/// More for an upload that is complete: nothing more is right, whose answer was lost.
async fn after_the_end(
    server: &StreamServer,
    id: UploadId,
    offset_bytes: u64,
    without_bytes: bool,
) -> Result<Response, Problem> {
    let found = server.catalog.resumable(id, server.clock.now()).await.map_err(failure::sql)?;
    let upload = found.ok_or_else(Problem::not_found)?;
    if offset_bytes != upload.offset_bytes {
        return Err(refusal::wrong_offset(upload.offset_bytes));
    }
    if without_bytes { Ok(appended(&upload)) } else { Err(refusal::longer_than_said(offset_bytes)) }
}

fn appended(upload: &Resumable) -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(upload.offset_bytes));
    if upload.state == UploadState::Open {
        headers.extend(expires(upload.expires_at));
    }
    response
}

fn shown(upload: &Resumable) -> Result<Response, Problem> {
    let mut response = empty(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let is_open = upload.state == UploadState::Open;
    if !(is_open && upload.kind == UploadKind::Final) {
        headers.insert(UPLOAD_OFFSET, HeaderValue::from(upload.offset_bytes));
    }
    match upload.length_bytes {
        Some(length_bytes) => headers.insert(UPLOAD_LENGTH, HeaderValue::from(length_bytes)),
        None => headers.insert(UPLOAD_DEFER_LENGTH, HeaderValue::from_static("1")),
    };
    if !upload.metadata.is_empty() {
        headers.insert(UPLOAD_METADATA, HeaderValue::try_from(&upload.metadata).map_err(Problem::internal)?);
    }
    let concat = match (upload.kind, &upload.concat) {
        (UploadKind::Partial, _) => Some("partial"),
        (_, concat) => concat.as_deref(),
    };
    if let Some(concat) = concat {
        headers.insert(UPLOAD_CONCAT, HeaderValue::try_from(concat).map_err(Problem::internal)?);
    }
    if is_open || upload.kind == UploadKind::Partial {
        headers.extend(expires(upload.expires_at));
    }
    Ok(response)
}

fn expires(at: Timestamp) -> HeaderMap {
    let at = UNIX_EPOCH + Duration::from_millis(at.unix_ms().unsigned_abs());
    let date = HeaderValue::try_from(httpdate::fmt_http_date(at)).expect("dates are plain ASCII");
    HeaderMap::from_iter([(UPLOAD_EXPIRES, date)])
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn is_without_bytes(body: &Body) -> bool {
    body.is_end_stream() || body.size_hint().exact() == Some(0)
}

impl StreamServer {
    /// The caller's. Somebody else's is as good as none.
    async fn upload_of(&self, caller: &Caller, id: UploadId) -> Result<Resumable, Problem> {
        let found = self.catalog.resumable(id, self.clock.now()).await.map_err(failure::sql)?;
        let upload = found.ok_or_else(Problem::not_found)?;
        let theirs = match caller {
            Caller::Upload { video, .. } => *video == upload.video,
            caller => caller.is(upload.author),
        };
        match upload.state {
            _ if !theirs => Err(Problem::not_found()),
            UploadState::Expired | UploadState::Terminated => Err(refusal::ended(upload.state)),
            UploadState::Open | UploadState::Complete => Ok(upload),
        }
    }

    /// An upload that is gone on with lives on.
    fn upload_expires_at(&self, now: Timestamp) -> Timestamp {
        now.plus_s(i64::try_from(self.limits.upload_expires_s).unwrap_or(i64::MAX))
    }
}

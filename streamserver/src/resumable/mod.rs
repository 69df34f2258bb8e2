//! Uploads that go on where they broke off, at `/stream/uploads`: one upload, and the protocols that speak of it.
//!
//! **Invariant:** an offset is said only for bytes that are durable and whose row says that they belong to the upload.

mod append;
pub mod checksum;
mod create;
pub mod draft;
mod finish;
mod hold;
mod left_open;
mod look;
mod piece;
pub mod refusal;
pub mod tus;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequestParts, Request, State};
use axum::response::Response;
use chassis::{Caller, Path, Policy, Problem, Routes, Tokens};
use domain::{Timestamp, UploadId, UploadKind, UploadState};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use sql::Resumable;
use utoipa_axum::routes;

use self::draft::Draft;
use self::draft::headers::Interop;
use self::hold::Held;
use self::tus::headers::{METHOD_OVERRIDE, TUS_RESUMABLE, VERSION, Version};
use crate::{StreamServer, failure};

pub use self::hold::Holds;

pub const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
pub const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");

/// An extractor: the protocol that a request about an upload speaks, or it is refused with 412 unread.
enum Protocol {
    Tus,
    Draft(Interop),
}

impl<S: Sync> FromRequestParts<S> for Protocol {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Interop::announced(&parts.headers) {
            Some(interop) if !parts.headers.contains_key(TUS_RESUMABLE) => Ok(Protocol::Draft(interop)),
            _ => Version::from_request_parts(parts, state).await.map(|Version| Protocol::Tus),
        }
    }
}

/// The list of routes.
pub fn routes(tokens: Tokens) -> Routes<StreamServer> {
    let of_tus = Routes::new(tokens.clone())
        // Parts that were begun in time are put together.
        .route(Policy::BegunUpload, routes!(tus::create::create))
        .route(Policy::Public, routes!(describe))
        .route(Policy::BegunUpload, routes!(look, patch, terminate, overridden))
        .route(Policy::Public, routes!(describe_one))
        .with_header(TUS_RESUMABLE, VERSION);
    Routes::new(tokens).route(Policy::Public, routes!(describe_video)).merge(of_tus)
}

/// What is spoken here of uploads that go on
#[utoipa::path(
    options,
    path = "/stream/uploads",
    tag = "uploading",
    responses((status = 204, description = "of tus: version, extensions, checksum algorithms and the largest upload, in headers; of the IETF's draft: `Accept-Patch` and `Upload-Limit`")),
)]
async fn describe(State(server): State<StreamServer>, headers: HeaderMap) -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    response.headers_mut().extend(tus::description(&server));
    response.headers_mut().extend(draft::description(&server, &headers));
    response
}

/// What is spoken here of uploads that go on
#[utoipa::path(
    options,
    path = "/stream/uploads/{upload}",
    tag = "uploading",
    params(("upload" = String, Path, description = "the upload's id")),
    responses((status = 204, description = "as for `/stream/uploads`")),
)]
async fn describe_one(server: State<StreamServer>, headers: HeaderMap) -> Response {
    describe(server, headers).await
}

/// What may be uploaded to a video
#[utoipa::path(
    options,
    path = "/stream/videos/{vid}",
    tag = "uploading",
    params(("vid" = String, Path, description = "the video's id")),
    responses((status = 204, description = "`Accept-Patch` and `Upload-Limit` of the IETF's draft: uploads that go on may begin here")),
)]
async fn describe_video(State(server): State<StreamServer>, headers: HeaderMap) -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    response.headers_mut().extend(draft::description(&server, &headers));
    response
}

/// How far an upload has come
///
/// Ends the request that writes to it, if there is one: the offset that is answered holds.
#[utoipa::path(
    head,
    path = "/stream/uploads/{upload}",
    tag = "uploading",
    params(
        ("upload" = String, Path, description = "the upload's id"),
        ("Tus-Resumable" = Option<String>, Header, description = "`1.0.0`"),
        ("Upload-Draft-Interop-Version" = Option<u8>, Header, description = "`6` or `8`, where it is not tus"),
    ),
    responses(
        (status = 200, description = "tus: `Upload-Offset`, and `Upload-Length` or `Upload-Defer-Length`; all before the offset is durable"),
        (status = 204, description = "the draft: `Upload-Offset`, `Upload-Complete`, `Upload-Limit`, and `Upload-Length` if it is known"),
        (status = 400, description = "a malformed id"),
        (status = 404, description = "no such upload, or somebody else's"),
        (status = 410, description = "expired, ended, or its video is gone"),
        (status = 412, description = "neither tus 1.0.0 nor the draft in a version that is spoken here"),
        (status = 423, description = "tus: it cannot be said at the moment, as another request is still storing bytes; ask again"),
        (status = 503, description = "the draft: as 423 of tus"),
    )
)]
async fn look(
    State(server): State<StreamServer>,
    caller: Caller,
    protocol: Protocol,
    Path(id): Path<UploadId>,
) -> Result<Response, Problem> {
    match protocol {
        Protocol::Tus => tus::look(&server, &caller, id).await,
        Protocol::Draft(interop) => Draft { server: &server, interop }.look(&caller, id).await,
    }
}

/// Send more of an upload
///
/// What came when the request breaks off is kept, unless `Upload-Checksum` was there to vouch for the whole of it. The
/// last byte makes the file the video's; in the draft, where no length was said, that is the last byte of the request that
/// says `Upload-Complete: ?1`.
#[utoipa::path(
    patch,
    path = "/stream/uploads/{upload}",
    tag = "uploading",
    params(
        ("upload" = String, Path, description = "the upload's id"),
        ("Tus-Resumable" = Option<String>, Header, description = "`1.0.0`"),
        ("Upload-Draft-Interop-Version" = Option<u8>, Header, description = "`6` or `8`, where it is not tus"),
        ("Upload-Offset" = u64, Header, description = "where the body begins: the bytes that are there"),
        ("Upload-Complete" = Option<String>, Header, description = "in the draft: `?1` with the last bytes, else `?0`"),
        ("Upload-Length" = Option<u64>, Header, description = "where it had been deferred"),
        ("Upload-Checksum" = Option<String>, Header, description = "tus: `sha1 …` or `sha256 …` of the body; also as a trailer"),
        ("Content-Digest" = Option<String>, Header, description = "the draft: `sha-256=:…:` of the body"),
    ),
    request_body(
        content = Vec<u8>,
        content_type = "application/offset+octet-stream",
        description = "in the draft as `application/partial-upload`"
    ),
    responses(
        (status = 201, description = "the draft: complete; what the address of the video answers to a whole upload", body = crate::upload::Uploaded),
        (status = 204, description = "durable up to `Upload-Offset`"),
        (status = 400, description = "a header that cannot be read, or a length that differs; the draft: the upload is complete, or the digest is another", content_type = "application/problem+json"),
        (status = 403, description = "a final upload takes no bytes; or `/problems/quota-exceeded`, where the length was not known before", content_type = "application/problem+json"),
        (status = 404, description = "no such upload, or somebody else's", content_type = "application/problem+json"),
        (status = 409, description = "the upload has another offset, which is in `Upload-Offset`", content_type = "application/problem+json"),
        (status = 410, description = "expired, ended, or its video is gone", content_type = "application/problem+json"),
        (status = 412, description = "neither tus 1.0.0 nor the draft in a version that is spoken here", content_type = "application/problem+json"),
        (status = 413, description = "more than is allowed; tus: more than was announced", content_type = "application/problem+json"),
        (status = 415, description = "not the type of body that the protocol has for this", content_type = "application/problem+json"),
        (status = 423, description = "tus: another request has or takes the upload; ask for its offset again", content_type = "application/problem+json"),
        (status = 460, description = "tus: not what `Upload-Checksum` says; nothing of this request is kept", content_type = "application/problem+json"),
        (status = 503, description = "every place is taken, the body broke off, or (in the draft) as 423: come back", content_type = "application/problem+json"),
        (status = 507, description = "no space is left", content_type = "application/problem+json"),
    )
)]
async fn patch(
    State(server): State<StreamServer>,
    caller: Caller,
    protocol: Protocol,
    Path(id): Path<UploadId>,
    request: Request,
) -> Result<Response, Problem> {
    match protocol {
        Protocol::Tus => tus::append(&server, &caller, id, request).await,
        Protocol::Draft(interop) => Draft { server: &server, interop }.append(&caller, id, request).await,
    }
}

/// End an upload
///
/// What it has is thrown away. Of an upload that has become a video only the upload ends.
#[utoipa::path(
    delete,
    path = "/stream/uploads/{upload}",
    tag = "uploading",
    params(
        ("upload" = String, Path, description = "the upload's id"),
        ("Tus-Resumable" = Option<String>, Header, description = "`1.0.0`"),
        ("Upload-Draft-Interop-Version" = Option<u8>, Header, description = "`6` or `8`, where it is not tus"),
    ),
    responses(
        (status = 204, description = "ended"),
        (status = 404, description = "no such upload, or somebody else's", content_type = "application/problem+json"),
        (status = 410, description = "it had ended before", content_type = "application/problem+json"),
        (status = 412, description = "neither tus 1.0.0 nor the draft in a version that is spoken here", content_type = "application/problem+json"),
        (status = 423, description = "tus: another request is still storing bytes; try again", content_type = "application/problem+json"),
        (status = 503, description = "the draft: as 423 of tus", content_type = "application/problem+json"),
    )
)]
async fn terminate(
    State(server): State<StreamServer>,
    caller: Caller,
    protocol: Protocol,
    Path(id): Path<UploadId>,
) -> Result<Response, Problem> {
    end(&server, &caller, id).await.map_err(|problem| match protocol {
        Protocol::Tus => problem,
        Protocol::Draft(interop) => Draft { server: &server, interop }.refused(problem),
    })
}

async fn end(server: &StreamServer, caller: &Caller, id: UploadId) -> Result<Response, Problem> {
    let upload = server.upload_of(caller, id).await?;
    let held = if upload.state == UploadState::Open && upload.kind != UploadKind::Final {
        // Whoever writes has stopped before its pieces are swept.
        Held::acquire(server, id).await?
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
            // It may have expired since.
            Caller::Upload { video, expires_at, .. } => {
                *video == upload.video && upload.created_at <= *expires_at
            }
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

//! `POST /stream/uploads`: a new upload, perhaps with its first bytes, or one made of others.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use chassis::{Caller, Problem};
use domain::{Timestamp, UploadId, UploadKind};
use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use sql::NewResumable;

use super::headers::{self, Concat, Metadata, Version};
use super::{concat, expires};
use crate::StreamServer;
use crate::resumable::append::Incoming;
use crate::resumable::create::{self, new_upload};
use crate::resumable::{UPLOAD_OFFSET, is_without_bytes, refusal};
use crate::upload::{Target, may_upload};

/// Begin a resumable upload (tus 1.0.0: creation, with upload, deferred length, concatenation)
///
/// `Upload-Metadata` names the video (`video_id`) unless the token does, and may name the file (`filename`). The answer's
/// `Location` is relative. `Upload-Concat: final;…` puts complete partial uploads of one video together.
#[utoipa::path(
    post,
    path = "/stream/uploads",
    tag = "uploading",
    params(
        ("Tus-Resumable" = String, Header, description = "`1.0.0`"),
        ("Upload-Length" = Option<u64>, Header, description = "bytes; not with a final upload"),
        ("Upload-Defer-Length" = Option<u8>, Header, description = "`1`: the length is said later"),
        ("Upload-Metadata" = Option<String>, Header, description = "`video_id …,filename …`, values in base64"),
        ("Upload-Concat" = Option<String>, Header, description = "`partial`, or `final;` and addresses"),
        ("Upload-Checksum" = Option<String>, Header, description = "`sha1 …` or `sha256 …` of the body"),
    ),
    request_body(content = Vec<u8>, content_type = "application/offset+octet-stream"),
    responses(
        (status = 201, description = "created; with a body, `Upload-Offset` says how much of it is durable"),
        (status = 400, description = "a header that cannot be read, an empty file, no video named", content_type = "application/problem+json"),
        (status = 403, description = "a token for another video, somebody else's video, or `/problems/quota-exceeded`", content_type = "application/problem+json"),
        (status = 404, description = "no such video or partial upload, or its time to upload is over", content_type = "application/problem+json"),
        (status = 409, description = "already uploaded", content_type = "application/problem+json"),
        (status = 412, description = "another version of tus", content_type = "application/problem+json"),
        (status = 413, description = "larger than allowed", content_type = "application/problem+json"),
        (status = 415, description = "a body that is not `application/offset+octet-stream`", content_type = "application/problem+json"),
        (status = 429, description = "too many requests, or too many uploads of this video are open", content_type = "application/problem+json"),
        (status = 460, description = "the body does not have its checksum; no upload was created", content_type = "application/problem+json"),
        (status = 503, description = "every place is taken", content_type = "application/problem+json"),
        (status = 507, description = "no space is left for it", content_type = "application/problem+json"),
    )
)]
pub async fn create(
    State(server): State<StreamServer>,
    caller: Caller,
    _: Version,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let metadata = headers::metadata(&head.headers)?;
    match headers::concat(&head.headers)? {
        Concat::Whole => one(&server, &caller, &head.headers, body, metadata, UploadKind::Whole).await,
        Concat::Partial => one(&server, &caller, &head.headers, body, metadata, UploadKind::Partial).await,
        Concat::Final { header, partials } => {
            if headers::length(&head.headers)?.is_some() {
                return Err(Problem::bad_request(
                    "A final upload has the length of its partials; leave `Upload-Length` out.",
                ));
            }
            if !is_without_bytes(&body) {
                return Err(refusal::is_final());
            }
            concat::join(&server, &caller, metadata, header, partials).await
        }
    }
}

async fn one(
    server: &StreamServer,
    caller: &Caller,
    headers: &HeaderMap,
    body: Body,
    metadata: Metadata,
    kind: UploadKind,
) -> Result<Response, Problem> {
    let length_bytes = headers::length_or_deferred(headers)?;
    let first = first_bytes(headers, body)?;
    let target = target(server, caller, &metadata).await?;
    let new = new_upload(server, target.video, kind, length_bytes, metadata.filename().as_deref());
    let new = NewResumable { metadata: metadata.header, ..new };
    let created = create::create(server, target.author, new, first).await?;
    let mut response = answer(created.id, created.expires_at);
    if let Some(offset_bytes) = created.offset_bytes {
        response.headers_mut().insert(UPLOAD_OFFSET, HeaderValue::from(offset_bytes));
    }
    Ok(response)
}

/// `None`: the request brings none.
fn first_bytes(headers: &HeaderMap, body: Body) -> Result<Option<Incoming>, Problem> {
    if !headers::has_bytes(headers) {
        return if is_without_bytes(&body) { Ok(None) } else { Err(headers::wrong_body_type()) };
    }
    let checksum = headers::checksum(headers)?;
    Ok(Some(Incoming { body, checksum, length_bytes: None, completes: false }))
}

/// The token's, or the one that the metadata names.
async fn target(server: &StreamServer, caller: &Caller, metadata: &Metadata) -> Result<Target, Problem> {
    let video = match (metadata.video()?, caller) {
        (Some(named), _) => named,
        (None, Caller::Upload { video, .. }) => *video,
        (None, _) => {
            return Err(Problem::bad_request(
                "Nothing says which video this is: send `Upload-Metadata: video_id …` (in base64; for parallel uploads too, \
                 there it is `metadataForPartialUploads`), or the token of the video's `upload`.",
            ));
        }
    };
    may_upload(server, caller, video).await
}

/// It was created.
pub fn answer(id: UploadId, expires_at: Timestamp) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::CREATED;
    let location = HeaderValue::try_from(format!("/stream/uploads/{id}"));
    let headers = response.headers_mut();
    headers.insert(LOCATION, location.expect("ids are plain ASCII"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.extend(expires(expires_at));
    response
}

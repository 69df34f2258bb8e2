//! `POST /stream/uploads`: a new upload, perhaps with its first bytes, or one made of others.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use chassis::{Caller, Problem};
use domain::{Timestamp, UploadId, UploadKind, VideoId};
use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use sql::{CreateResumable, NewResumable};

use super::append::{self, Incoming};
use super::headers::{self, Concat, Metadata, Protocol, UPLOAD_OFFSET};
use super::hold::Held;
use super::{append_in_peace, concat, expires, is_without_bytes, refusal};
use crate::upload::{already_uploaded, may_upload};
use crate::upload_request::clean_filename;
use crate::{StreamServer, failure};

const TOO_MANY_RETRY_AFTER_S: u64 = 60;

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
        (status = 403, description = "a token for another video, or somebody else's video", content_type = "application/problem+json"),
        (status = 404, description = "no such video or partial upload, or its time to upload is over", content_type = "application/problem+json"),
        (status = 409, description = "already uploaded", content_type = "application/problem+json"),
        (status = 412, description = "another version of tus", content_type = "application/problem+json"),
        (status = 413, description = "larger than allowed", content_type = "application/problem+json"),
        (status = 415, description = "a body that is not `application/offset+octet-stream`", content_type = "application/problem+json"),
        (status = 429, description = "too many requests, or too many uploads of this video are open", content_type = "application/problem+json"),
        (status = 460, description = "the body does not have its checksum; no upload was created", content_type = "application/problem+json"),
        (status = 503, description = "every place is taken, or no space is left", content_type = "application/problem+json"),
    )
)]
pub async fn create(
    State(server): State<StreamServer>,
    caller: Caller,
    _: Protocol,
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
    check_length(server, length_bytes, kind)?;
    let first = first_bytes(headers, body)?;
    let video = video(server, caller, &metadata).await?;
    // Held before the upload is there, so that nobody is told of one that takes no bytes.
    let place = first.as_ref().map(|_| server.uploads.acquire()).transpose()?;
    let new = new_upload(server, video, kind, length_bytes, metadata);
    let now = server.clock.now();
    match server.catalog.create_resumable(&new, now).await.map_err(failure::sql)? {
        CreateResumable::Created => {}
        CreateResumable::NotFound => return Err(Problem::not_found()),
        CreateResumable::AlreadyUploaded => return Err(already_uploaded()),
        CreateResumable::TooMany => return Err(too_many()),
    }
    let mut response = created(new.id, new.expires_at);
    if let (Some(incoming), Some(place)) = (first, place) {
        let offset_bytes = append_first(server, new.id, incoming, place).await?;
        response.headers_mut().insert(UPLOAD_OFFSET, HeaderValue::from(offset_bytes));
    }
    Ok(response)
}

/// Answers how much of it is durable. What the client can mend by asking for the offset is no failure of the creation.
async fn append_first(
    server: &StreamServer,
    id: UploadId,
    incoming: Incoming,
    place: chassis::Permit,
) -> Result<u64, Problem> {
    let appended = async {
        let Some(held) = Held::acquire(server, id).await? else {
            // A part without bytes is complete as it is made.
            return if is_without_bytes(&incoming.body) { Ok(0) } else { Err(refusal::longer_than_said(0)) };
        };
        append::check_fits(&held, &incoming)?;
        append_in_peace(held, incoming, place).await.map(|upload| upload.offset_bytes)
    };
    match appended.await {
        Ok(offset_bytes) => Ok(offset_bytes),
        Err(problem) if problem.status().is_client_error() && problem.status() != StatusCode::LOCKED => {
            // The client was told of no upload, so nobody goes on with it.
            if let Err(error) = server.catalog.terminate_resumable(id, server.clock.now()).await {
                tracing::warn!(upload.id = %id, %error, "an upload that failed at once stays until it expires");
            }
            Err(problem)
        }
        Err(problem) => {
            let found = server.catalog.resumable(id, server.clock.now()).await.map_err(failure::sql)?;
            found.map(|upload| upload.offset_bytes).ok_or(problem)
        }
    }
}

/// `None`: the request brings none.
fn first_bytes(headers: &HeaderMap, body: Body) -> Result<Option<Incoming>, Problem> {
    if !headers::has_bytes(headers) {
        return if is_without_bytes(&body) { Ok(None) } else { Err(headers::wrong_body_type()) };
    }
    let checksum = headers::checksum(headers)?;
    Ok(Some(Incoming { body, checksum, length_bytes: None }))
}

/// A video has at least one byte; a part of one may have none.
fn check_length(server: &StreamServer, length_bytes: Option<u64>, kind: UploadKind) -> Result<(), Problem> {
    let bytes_max = server.limits.upload_bytes_max;
    match length_bytes {
        Some(0) if kind == UploadKind::Whole => Err(refusal::empty()),
        Some(length) if length > bytes_max => Err(failure::upload_too_large(bytes_max)),
        _ => Ok(()),
    }
}

/// The token's, or the one that the metadata names.
async fn video(server: &StreamServer, caller: &Caller, metadata: &Metadata) -> Result<VideoId, Problem> {
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
    may_upload(server, caller, video).await.map(|()| video)
}

pub fn new_upload(
    server: &StreamServer,
    video: VideoId,
    kind: UploadKind,
    length_bytes: Option<u64>,
    metadata: Metadata,
) -> NewResumable {
    let now = server.clock.now();
    NewResumable {
        id: server.ids.next(now),
        video,
        kind,
        length_bytes,
        filename: metadata.filename().as_deref().and_then(clean_filename),
        metadata: metadata.header,
        concat: None,
        expires_at: server.upload_expires_at(now),
    }
}

pub fn created(id: UploadId, expires_at: Timestamp) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::CREATED;
    let location = HeaderValue::try_from(format!("/stream/uploads/{id}"));
    let headers = response.headers_mut();
    headers.insert(LOCATION, location.expect("ids are plain ASCII"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.extend(expires(expires_at));
    response
}

fn too_many() -> Problem {
    let detail = format!(
        "This video has {} uploads that are not finished; go on with one of them, or end one with DELETE.",
        sql::RESUMABLE_PER_VIDEO_MAX
    );
    let status = StatusCode::TOO_MANY_REQUESTS;
    Problem::new(status, "/problems/too-many-uploads", "Too many uploads of this video", detail)
        .with_retry_after_s(TOO_MANY_RETRY_AFTER_S)
}

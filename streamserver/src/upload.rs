//! `POST` or `PUT /stream/videos/:vid`: the whole file in one request, or the first word of an upload in several.
//!
//! The row of the attempt is there before the first byte, the bytes are durable before they are the video's, and
//! 201 is said only then. Whoever vanishes in between leaves nothing behind.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::prelude::{BASE64_STANDARD, Engine};
use chassis::{Caller, Path, Problem};
use domain::{JobId, ObjectKey, UserId, VideoId, VideoState, Visibility};
use http::{HeaderMap, StatusCode};
use sql::{BeginUpload, CompleteUpload, CompletedUpload, NewUpload};
use store::{ObjectWriter, Stored};

use crate::attempt::{Attempt, LEASE_S, Lease, ask_again};
use crate::receive::Received;
use crate::resumable::draft;
use crate::upload_request::{UploadRequest, clean_filename};
use crate::{StreamServer, digest, failure, receive};

const GIVE_UP_WAIT: Duration = Duration::from_secs(1);

/// What was stored.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct Uploaded {
    id: String,
    #[schema(example = "uploaded")]
    state: &'static str,
    size_bytes: u64,
    /// CRC-64/NVME of the file, base64 of its eight bytes.
    #[schema(example = "rosUhgp5mYg=")]
    crc64nvme: String,
}

/// Upload a whole file
///
/// The body is the file itself, or a form with one file part. 201 means that it is durable. A client that sends
/// `Content-Digest` or `Repr-Digest` (sha-256) has it checked; one that sends `Want-Repr-Digest: sha-256=1` gets
/// `Repr-Digest` back.
///
/// With `Upload-Draft-Interop-Version: 6` or `8` and `Upload-Complete: ?0` it begins an upload in several requests
/// (draft-ietf-httpbis-resumable-upload): `Location` says where it goes on, also when no bytes came. There is no
/// `104 (Upload Resumption Supported)`, so with `?1` it is a whole upload. A `Repr-Digest` is only checked of that.
#[utoipa::path(
    method(post, put),
    path = "/stream/videos/{vid}",
    tag = "uploading",
    params(
        ("vid" = String, Path, description = "the video's id"),
        ("Upload-Draft-Interop-Version" = Option<u8>, Header, description = "`6` or `8`, to speak the IETF's draft"),
        ("Upload-Complete" = Option<String>, Header, description = "`?0`: more is to come; `?1`: this is all"),
        ("Upload-Length" = Option<u64>, Header, description = "bytes of the whole file"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 201, description = "durable; processing begins. Or an upload has begun: `Location`, `Upload-Offset`, `Upload-Limit`, and no body", body = Uploaded),
        (status = 400, description = "a malformed id or form, a broken-off body, a digest or a length that does not match", content_type = "application/problem+json"),
        (status = 401, description = "no valid token", content_type = "application/problem+json"),
        (status = 403, description = "a token for another video, somebody else's video, or `/problems/quota-exceeded`", content_type = "application/problem+json"),
        (status = 404, description = "no such video, or its time to upload is over", content_type = "application/problem+json"),
        (status = 408, description = "the body stalled", content_type = "application/problem+json"),
        (status = 409, description = "already uploaded", content_type = "application/problem+json"),
        (status = 411, description = "neither a length nor chunks", content_type = "application/problem+json"),
        (status = 413, description = "larger than allowed", content_type = "application/problem+json"),
        (status = 415, description = "not a type of file that is taken", content_type = "application/problem+json"),
        (status = 429, description = "too many requests", content_type = "application/problem+json"),
        (status = 503, description = "every place is taken", content_type = "application/problem+json"),
        (status = 507, description = "no space is left for it", content_type = "application/problem+json"),
    )
)]
pub async fn upload(
    State(server): State<StreamServer>,
    caller: Caller,
    Path(video): Path<VideoId>,
    request: Request,
) -> Result<Response, Problem> {
    let target = may_upload(&server, &caller, video).await?;
    let (head, body) = request.into_parts();
    draft::upload_or_begin(&server, target, head.headers, body).await
}

/// `length_bytes`: the content is to have so many, if somebody said so beside `Content-Length`.
pub async fn whole(
    server: &StreamServer,
    Target { video, author }: Target,
    headers: &HeaderMap,
    body: Body,
    length_bytes: Option<u64>,
) -> Result<Whole, Problem> {
    let request = UploadRequest::read(headers, &body, server.limits.upload_bytes_max)?;
    let request = UploadRequest { length_bytes, ..request };
    let _place = server.uploads.acquire(author)?;
    let said_bytes = body.size_hint().exact().or(length_bytes);
    let attempt = begin(server, video, said_bytes).await?;
    let longest = match said_bytes {
        Some(_) => server.longest(),
        None => server.longest_unsaid(video).await?,
    };
    server.find_store(&attempt.key()).await?;
    let mut writer = server.store.create(&attempt.key()).await.map_err(failure::store)?;
    match receive::receive(&attempt, request, body, longest, &mut *writer).await {
        Ok(received) => commit_in_peace(server, attempt, writer, received).await,
        Err(problem) => {
            writer.abort().await;
            // The attempt abandons itself when it is dropped; the client need not wait for that.
            Err(problem)
        }
    }
}

/// A video that somebody may upload, and its author.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub video: VideoId,
    pub author: UserId,
}

/// The owner, or the holder of a token for this video. Somebody else's video is 403 where they can see it.
pub async fn may_upload(server: &StreamServer, caller: &Caller, video: VideoId) -> Result<Target, Problem> {
    match caller {
        Caller::Upload { video: allowed, user, expires_at } if *allowed == video => {
            if *expires_at <= server.clock.now() {
                return Err(Problem::unauthorized(
                    "This token was for an upload that began in time; log in.",
                ));
            }
            return Ok(Target { video, author: *user });
        }
        Caller::Upload { .. } => {
            return Err(Problem::forbidden("This token is for uploading another video."));
        }
        _ => {}
    }
    let found = server.catalog.video(video, server.clock.now()).await.map_err(failure::sql)?;
    let found = found.ok_or_else(Problem::not_found)?;
    if caller.is(found.author.id) {
        return Ok(Target { video, author: found.author.id });
    }
    let public = found.state.is_watchable() && found.visibility != Visibility::Private;
    if public || caller.is_admin() {
        Err(Problem::forbidden("Only its owner may upload this video."))
    } else {
        Err(Problem::not_found())
    }
}

async fn begin(server: &StreamServer, video: VideoId, length_bytes: Option<u64>) -> Result<Attempt, Problem> {
    let room = server.room().await?;
    let now = server.clock.now();
    let attempt = Attempt::new(server, video, now);
    let lease_until = now.plus_s(LEASE_S);
    let new = NewUpload { attempt: attempt.id(), video, lease_until, length_bytes, room };
    match server.catalog.begin_upload(&new, now).await.map_err(failure::sql)? {
        BeginUpload::Begun => Ok(attempt),
        BeginUpload::NotFound => Err(Problem::not_found()),
        BeginUpload::AlreadyUploaded => Err(already_uploaded()),
    }
}

/// Runs in a task of its own: once the bytes are there, a client that hangs up must not leave them between the store
/// and the database.
async fn commit_in_peace(
    server: &StreamServer,
    attempt: Attempt,
    writer: Box<dyn ObjectWriter>,
    received: Received,
) -> Result<Whole, Problem> {
    let (video, sha256, content_bytes) = (attempt.key().video, received.sha256, received.content_bytes);
    let task = {
        let server = server.clone();
        async move {
            let committed = commit(&server, &attempt, writer, received).await;
            if let Err(not_committed) = &committed {
                server.give_up(attempt.key(), not_committed).await;
            }
            attempt.keep();
            committed.map_err(NotCommitted::into_problem)
        }
    };
    let stored = server.tasks.spawn(task).await.map_err(Problem::internal)??;
    Ok(Whole { video, stored, sha256, content_bytes })
}

/// A whole upload that is the video's.
pub struct Whole {
    video: VideoId,
    stored: Stored,
    sha256: Option<digest::Sha256>,
    /// More than the file's where it came in a form.
    pub content_bytes: u64,
}

impl Whole {
    pub fn answer(self) -> Response {
        let mut response = created(self.video, self.stored);
        if let Some(sha256) = self.sha256 {
            response.headers_mut().insert(digest::REPR_DIGEST, digest::header_value(&sha256));
        }
        response
    }
}

enum NotCommitted {
    /// Nothing is there, or nobody knows whether it was committed: if there is an object, the sweeper judges it.
    Failed(Problem),
    /// The object is there, and will never be the video's.
    Refused(Problem),
}

impl NotCommitted {
    fn into_problem(self) -> Problem {
        match self {
            NotCommitted::Failed(problem) | NotCommitted::Refused(problem) => problem,
        }
    }
}

/// Makes the bytes durable, then the video's.
async fn commit(
    server: &StreamServer,
    attempt: &Attempt,
    writer: Box<dyn ObjectWriter>,
    received: Received,
) -> Result<Stored, NotCommitted> {
    let stored = attempt.finish(writer).await.map_err(NotCommitted::Failed)?;
    let now = server.clock.now();
    let done = CompletedUpload {
        video: attempt.key().video,
        attempt: attempt.id(),
        bytes: stored.bytes,
        crc64nvme: stored.crc64nvme,
        sha256_hex: received.sha256.map(|digest| hex(&digest)),
        filename: received.filename.as_deref().and_then(clean_filename),
        ingest_job: server.ids.next::<JobId>(now),
    };
    let completed = ask_again(|| server.catalog.complete_upload(&done, now)).await;
    match completed.map_err(NotCommitted::Failed)? {
        CompleteUpload::Completed => Ok(stored),
        CompleteUpload::AlreadyUploaded => Err(NotCommitted::Refused(already_uploaded())),
        CompleteUpload::Gone => Err(NotCommitted::Refused(Problem::not_found())),
    }
}

/// What the address of a video answers once the file is there.
pub fn created(video: VideoId, stored: Stored) -> Response {
    let uploaded = Uploaded {
        id: video.to_string(),
        state: VideoState::Uploaded.as_str(),
        size_bytes: stored.bytes,
        crc64nvme: BASE64_STANDARD.encode(stored.crc64nvme.to_be_bytes()),
    };
    (StatusCode::CREATED, chassis::Json(uploaded)).into_response()
}

pub fn already_uploaded() -> Problem {
    Problem::conflict(
        "/problems/already-uploaded",
        "This video has been uploaded",
        "The file of this video is there already; create another video for another file.",
    )
}

fn hex(digest: &digest::Sha256) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl StreamServer {
    /// The client does not wait for it to the end: what disturbed the upload may disturb this too.
    async fn give_up(&self, key: ObjectKey, why: &NotCommitted) {
        let (server, refused) = (self.clone(), matches!(why, NotCommitted::Refused(_)));
        let given_up = self.tasks.spawn(async move {
            server.abandon_upload(key.attempt).await;
            if refused {
                server.remove_object(&key).await;
            }
        });
        let _ = tokio::time::timeout(GIVE_UP_WAIT, given_up).await;
    }
}

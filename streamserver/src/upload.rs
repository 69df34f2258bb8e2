//! `POST` or `PUT /stream/videos/:vid`: the whole file in one request.
//!
//! The row of the attempt is there before the first byte, the bytes are durable before they are the video's, and
//! 201 is said only then. Whoever vanishes in between leaves nothing behind.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::prelude::{BASE64_STANDARD, Engine};
use chassis::{Caller, Path, Problem};
use domain::{AttemptId, JobId, ObjectFile, ObjectKey, Timestamp, VideoId, VideoState, Visibility};
use http::StatusCode;
use sql::{BeginUpload, CompleteUpload, CompletedUpload};
use store::{ObjectWriter, Stored};

use crate::receive::{LEASE_EXTENDED_EVERY, LEASE_S, Received};
use crate::upload_request::{UploadRequest, clean_filename};
use crate::{StreamServer, digest, failure, receive};

const FIND_STORE_MAX: Duration = Duration::from_secs(5);
/// The client waits this long for a database that does not answer, once its bytes are there.
const COMPLETE_MAX: Duration = Duration::from_secs(5);
const COMPLETE_AGAIN_AFTER: Duration = Duration::from_millis(200);
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
#[utoipa::path(
    method(post, put),
    path = "/stream/videos/{vid}",
    tag = "uploading",
    params(("vid" = String, Path, description = "the video's id")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 201, description = "durable; processing begins", body = Uploaded),
        (status = 400, description = "a malformed id or form, a broken-off body, a digest that does not match", content_type = "application/problem+json"),
        (status = 401, description = "no valid token", content_type = "application/problem+json"),
        (status = 403, description = "a token for another video, or somebody else's video", content_type = "application/problem+json"),
        (status = 404, description = "no such video, or its time to upload is over", content_type = "application/problem+json"),
        (status = 408, description = "the body stalled", content_type = "application/problem+json"),
        (status = 409, description = "already uploaded", content_type = "application/problem+json"),
        (status = 411, description = "neither a length nor chunks", content_type = "application/problem+json"),
        (status = 413, description = "larger than allowed", content_type = "application/problem+json"),
        (status = 415, description = "not a type of file that is taken", content_type = "application/problem+json"),
        (status = 429, description = "too many requests", content_type = "application/problem+json"),
        (status = 503, description = "every place is taken, or no space is left", content_type = "application/problem+json"),
    )
)]
pub async fn whole(
    State(server): State<StreamServer>,
    caller: Caller,
    Path(video): Path<VideoId>,
    request: Request,
) -> Result<Response, Problem> {
    may_upload(&server, &caller, video).await?;
    let (head, body) = request.into_parts();
    let request = UploadRequest::read(&head.headers, &body, server.limits.upload_bytes_max)?;
    let _place = server.uploads.acquire()?;
    let attempt = Attempt::begin(&server, video).await?;
    find_store(&server, &attempt.key()).await?;
    let mut writer = server.store.create(&attempt.key()).await.map_err(failure::store)?;
    match receive::receive(&server, attempt.id, request, body, &mut *writer).await {
        Ok(received) => attempt.commit(writer, received).await,
        Err(problem) => {
            writer.abort().await;
            // The attempt abandons itself when it is dropped; the client need not wait for that.
            Err(problem)
        }
    }
}

/// Before the first byte is taken: once it sends, a client has the store's patience, which is made for a pause in the
/// middle and not for a store that is away.
async fn find_store(server: &StreamServer, key: &ObjectKey) -> Result<(), Problem> {
    match tokio::time::timeout(FIND_STORE_MAX, server.store.head(key)).await {
        Ok(found) => found.map(drop).map_err(failure::store),
        Err(late) => Err(failure::unavailable(late)),
    }
}

/// The owner, or the holder of a token for this video. Somebody else's video is 403 where they can see it.
async fn may_upload(server: &StreamServer, caller: &Caller, video: VideoId) -> Result<(), Problem> {
    match caller {
        Caller::Upload { video: allowed, .. } if *allowed == video => return Ok(()),
        Caller::Upload { .. } => {
            return Err(Problem::forbidden("This token is for uploading another video."));
        }
        _ => {}
    }
    let found = server.catalog.video(video, server.clock.now()).await.map_err(failure::sql)?;
    let found = found.ok_or_else(Problem::not_found)?;
    if caller.is(found.author.id) {
        return Ok(());
    }
    let public = found.state.is_watchable() && found.visibility != Visibility::Private;
    if public || caller.is_admin() {
        Err(Problem::forbidden("Only its owner may upload this video."))
    } else {
        Err(Problem::not_found())
    }
}

/// One try at uploading. Dropped before it is committed, it abandons itself, also when the client went away and
/// the handler with it.
struct Attempt {
    server: StreamServer,
    video: VideoId,
    id: AttemptId,
    open: bool,
}

impl Attempt {
    async fn begin(server: &StreamServer, video: VideoId) -> Result<Attempt, Problem> {
        let now = server.clock.now();
        // Before the row: should the handler be dropped while it is written, it is abandoned too.
        let attempt = Attempt { server: server.clone(), video, id: server.ids.next(now), open: true };
        let begun = server.catalog.begin_upload(attempt.id, video, now.plus_s(LEASE_S), now).await;
        match begun.map_err(failure::sql)? {
            BeginUpload::Begun => Ok(attempt),
            BeginUpload::NotFound => Err(Problem::not_found()),
            BeginUpload::AlreadyUploaded => Err(already_uploaded()),
        }
    }

    fn key(&self) -> ObjectKey {
        ObjectKey { video: self.video, attempt: self.id, file: ObjectFile::Source }
    }

    /// Runs in a task of its own: once the bytes are there, a client that hangs up must not leave them between
    /// the store and the database.
    async fn commit(
        mut self,
        writer: Box<dyn ObjectWriter>,
        received: Received,
    ) -> Result<Response, Problem> {
        self.open = false;
        let (server, key) = (self.server.clone(), self.key());
        let sha256 = received.sha256;
        let task = async move {
            let committed = commit(&server, &key, writer, received).await;
            if let Err(not_committed) = &committed {
                server.give_up(key, not_committed).await;
            }
            committed.map_err(NotCommitted::into_problem)
        };
        let stored = self.server.tasks.spawn(task).await.map_err(Problem::internal)??;
        Ok(created(self.video, stored, sha256))
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.open {
            let (server, id) = (self.server.clone(), self.id);
            self.server.tasks.spawn(async move { server.abandon_upload(id).await });
        }
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
    key: &ObjectKey,
    writer: Box<dyn ObjectWriter>,
    received: Received,
) -> Result<Stored, NotCommitted> {
    let stored = finish(server, key.attempt, writer).await.map_err(NotCommitted::Failed)?;
    let now = server.clock.now();
    let done = CompletedUpload {
        video: key.video,
        attempt: key.attempt,
        bytes: stored.bytes,
        crc64nvme: stored.crc64nvme,
        sha256_hex: received.sha256.map(|digest| hex(&digest)),
        filename: received.filename.as_deref().and_then(clean_filename),
        ingest_job: server.ids.next::<JobId>(now),
    };
    match complete(server, &done, now).await.map_err(NotCommitted::Failed)? {
        CompleteUpload::Completed => Ok(stored),
        CompleteUpload::AlreadyUploaded => Err(NotCommitted::Refused(already_uploaded())),
        CompleteUpload::Gone => Err(NotCommitted::Refused(Problem::not_found())),
    }
}

/// The last sync may take long on a busy disk; nobody sweeps the attempt meanwhile. A purge waits for no longer than the
/// lease where this process dies.
async fn finish(
    server: &StreamServer,
    attempt: AttemptId,
    writer: Box<dyn ObjectWriter>,
) -> Result<Stored, Problem> {
    if let Err(problem) = server.extend_upload(attempt, server.clock.now().plus_s(LEASE_S)).await {
        writer.abort().await;
        return Err(problem);
    }
    let mut finishing = std::pin::pin!(writer.finish());
    loop {
        match tokio::time::timeout(LEASE_EXTENDED_EVERY, &mut finishing).await {
            Ok(stored) => return stored.map_err(failure::store),
            // Should the lease be lost, the commit is refused.
            Err(_) => drop(server.extend_upload(attempt, server.clock.now().plus_s(LEASE_S)).await),
        }
    }
}

/// A commit whose answer was lost may have happened: the bytes are there, so it is asked for again, and says which.
async fn complete(
    server: &StreamServer,
    done: &CompletedUpload,
    now: Timestamp,
) -> Result<CompleteUpload, Problem> {
    let give_up = tokio::time::Instant::now() + COMPLETE_MAX;
    loop {
        let completed = tokio::time::timeout_at(give_up, server.catalog.complete_upload(done, now)).await;
        let error = match completed {
            Ok(Ok(outcome)) => return Ok(outcome),
            Ok(Err(error)) => failure::sql(error),
            Err(late) => return Err(failure::unavailable(late)),
        };
        let again_at = tokio::time::Instant::now() + COMPLETE_AGAIN_AFTER;
        if error.status() != StatusCode::SERVICE_UNAVAILABLE || again_at >= give_up {
            return Err(error);
        }
        tokio::time::sleep_until(again_at).await;
    }
}

fn created(video: VideoId, stored: Stored, sha256: Option<digest::Sha256>) -> Response {
    let uploaded = Uploaded {
        id: video.to_string(),
        state: VideoState::Uploaded.as_str(),
        size_bytes: stored.bytes,
        crc64nvme: BASE64_STANDARD.encode(stored.crc64nvme.to_be_bytes()),
    };
    let mut response = (StatusCode::CREATED, chassis::Json(uploaded)).into_response();
    if let Some(sha256) = sha256 {
        response.headers_mut().insert(digest::REPR_DIGEST, digest::header_value(&sha256));
    }
    response
}

fn already_uploaded() -> Problem {
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
    /// Moves the end of an upload's lease; a problem where the upload has ended under our hands.
    pub(crate) async fn extend_upload(&self, attempt: AttemptId, until: Timestamp) -> Result<(), Problem> {
        let alive = self.catalog.extend_upload(attempt, until).await.map_err(failure::sql)?;
        if alive { Ok(()) } else { Err(Problem::not_found()) }
    }

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

    /// Should this fail, the lease runs out and the sweeper does it.
    async fn abandon_upload(&self, attempt: AttemptId) {
        if let Err(error) = self.catalog.abandon_upload(attempt, self.clock.now()).await {
            tracing::warn!(attempt.id = %attempt, %error, "an upload could not be abandoned");
        }
    }

    /// Of an attempt that is abandoned. Should this fail, the sweeper does it.
    async fn remove_object(&self, key: &ObjectKey) {
        for (path, result) in self.store.delete(&[key.path()]).await {
            if let Err(error) = result {
                tracing::warn!(path, %error, "an object of a lost upload stays until it is swept");
            }
        }
    }
}

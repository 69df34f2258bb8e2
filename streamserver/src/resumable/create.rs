//! A new upload: its row, and the bytes that came with it.

use chassis::{FairPermit, Problem};
use domain::{Timestamp, UploadId, UploadKind, UserId, VideoId};
use http::StatusCode;
use sql::{CreateResumable, NewResumable, Room};

use super::append::{Incoming, append_in_peace, check_fits};
use super::hold::Held;
use super::{is_without_bytes, refusal};
use crate::upload::already_uploaded;
use crate::upload_request::clean_filename;
use crate::{StreamServer, failure};

const TOO_MANY_RETRY_AFTER_S: u64 = 60;

pub struct Created {
    pub id: UploadId,
    pub expires_at: Timestamp,
    /// How much is durable; `None` where no bytes came.
    pub offset_bytes: Option<u64>,
}

/// `first`: the bytes that came with it.
pub async fn create(
    server: &StreamServer,
    author: UserId,
    new: NewResumable,
    first: Option<Incoming>,
) -> Result<Created, Problem> {
    check_length(server, &new)?;
    // Held before the upload is there, so that nobody is told of one that takes no bytes.
    let place = first.as_ref().map(|_| server.uploads.acquire(author)).transpose()?;
    let new = NewResumable { room: server.room().await?, ..new };
    let now = server.clock.now();
    match server.catalog.create_resumable(&new, now).await.map_err(failure::sql)? {
        CreateResumable::Created => {}
        CreateResumable::NotFound => return Err(Problem::not_found()),
        CreateResumable::AlreadyUploaded => return Err(already_uploaded()),
        CreateResumable::TooMany => return Err(too_many()),
    }
    let mut created = Created { id: new.id, expires_at: new.expires_at, offset_bytes: None };
    if let (Some(incoming), Some(place)) = (first, place) {
        created.offset_bytes = Some(append_first(server, new.id, incoming, place).await?);
    }
    Ok(created)
}

/// To be created; the room for it is added by then. What only one protocol knows of is empty.
pub fn new_upload(
    server: &StreamServer,
    video: VideoId,
    kind: UploadKind,
    length_bytes: Option<u64>,
    filename: Option<&str>,
) -> NewResumable {
    let now = server.clock.now();
    NewResumable {
        id: server.ids.next(now),
        video,
        kind,
        length_bytes,
        filename: filename.and_then(clean_filename),
        metadata: String::new(),
        concat: None,
        room: Room::default(),
        expires_at: server.upload_expires_at(now),
    }
}

/// A video has at least one byte; a part of one may have none.
fn check_length(server: &StreamServer, new: &NewResumable) -> Result<(), Problem> {
    let bytes_max = server.limits.upload_bytes_max;
    match new.length_bytes {
        Some(0) if new.kind == UploadKind::Whole => Err(refusal::empty()),
        Some(length) if length > bytes_max => Err(failure::upload_too_large(bytes_max)),
        _ => Ok(()),
    }
}

/// Answers how much of it is durable. What the client can mend by asking for the offset is no failure of the creation.
async fn append_first(
    server: &StreamServer,
    id: UploadId,
    incoming: Incoming,
    place: FairPermit<UserId>,
) -> Result<u64, Problem> {
    let appended = async {
        let Some(held) = Held::acquire(server, id).await? else {
            // A part without bytes is complete as it is made.
            return if is_without_bytes(&incoming.body) { Ok(0) } else { Err(refusal::longer_than_said(0)) };
        };
        let longest = check_fits(&held, incoming.announced()).await?;
        append_in_peace(held, incoming, longest, place).await.map(|upload| upload.offset_bytes)
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

fn too_many() -> Problem {
    let detail = format!(
        "This video has {} uploads that are not finished; go on with one of them, or end one with DELETE.",
        sql::RESUMABLE_PER_VIDEO_MAX
    );
    let status = StatusCode::TOO_MANY_REQUESTS;
    Problem::new(status, "/problems/too-many-uploads", "Too many uploads of this video", detail)
        .with_retry_after_s(TOO_MANY_RETRY_AFTER_S)
}

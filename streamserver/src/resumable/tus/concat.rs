//! Concatenation: partial uploads that are complete, put together in the order of their addresses.

use axum::response::Response;
use chassis::{Caller, Problem};
use domain::{UploadId, UploadKind};
use sql::{CreateFinal, NewResumable, Resumable};

use super::create::answer;
use super::headers::Metadata;
use crate::resumable::create::new_upload;
use crate::resumable::finish::finish_in_peace;
use crate::resumable::hold::Held;
use crate::resumable::refusal;
use crate::upload::already_uploaded;
use crate::{StreamServer, failure};

pub async fn join(
    server: &StreamServer,
    caller: &Caller,
    metadata: Metadata,
    header: String,
    ids: Vec<UploadId>,
) -> Result<Response, Problem> {
    let partials = load(server, caller, &ids).await?;
    let video = partials[0].video;
    if partials.iter().any(|partial| partial.video != video || partial.kind != UploadKind::Partial) {
        return Err(Problem::bad_request(
            "`Upload-Concat` names an upload that is not a part of the same video.",
        ));
    }
    if metadata.video()?.is_some_and(|named| named != video) {
        return Err(Problem::bad_request(
            "`Upload-Metadata` names another video than the partial uploads are of.",
        ));
    }
    let bytes_max = server.limits.upload_bytes_max;
    if partials.iter().map(|partial| partial.offset_bytes).sum::<u64>() > bytes_max {
        return Err(failure::upload_too_large(bytes_max));
    }
    let new = new_upload(server, video, UploadKind::Final, None, metadata.filename().as_deref());
    let new = NewResumable { metadata: metadata.header, concat: Some(header), ..new };
    let place = server.uploads.acquire(partials[0].author)?;
    let now = server.clock.now();
    let pieces = match server.catalog.create_final(&new, &ids, now).await.map_err(failure::sql)? {
        CreateFinal::Created(pieces) => pieces,
        CreateFinal::Completed(before) => return Ok(answer(before, new.expires_at)),
        CreateFinal::Unfinished => return Err(unfinished()),
        CreateFinal::Empty => return Err(refusal::empty()),
        CreateFinal::NotFound => return Err(Problem::not_found()),
        CreateFinal::AlreadyUploaded => return Err(already_uploaded()),
    };
    let upload = server.catalog.resumable(new.id, now).await.map_err(failure::sql)?;
    let upload = upload.ok_or_else(Problem::not_found)?;
    finish_in_peace(Held::new(server, upload, pieces), Some(place)).await?;
    Ok(answer(new.id, new.expires_at))
}

/// The parts, which are all the caller's.
async fn load(server: &StreamServer, caller: &Caller, ids: &[UploadId]) -> Result<Vec<Resumable>, Problem> {
    let mut partials = Vec::with_capacity(ids.len());
    for &id in ids {
        partials.push(server.upload_of(caller, id).await?);
    }
    Ok(partials)
}

fn unfinished() -> Problem {
    Problem::bad_request(
        "`Upload-Concat` names an upload that has not all its bytes yet; finish it first, then send this again.",
    )
}

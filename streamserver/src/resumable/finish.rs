//! An upload whose bytes are all there becomes its video's source: the one piece it has as it is, several read into one
//! object.

use chassis::{FairPermit, Problem};
use domain::{JobId, UploadKind, UploadState, UserId};
use sql::{CompleteResumable, CompletedUpload, Resumable, UploadPiece};
use store::Crc64Nvme;

use super::hold::Held;
use super::piece::{begin_object, copy};
use super::refusal;
use crate::attempt::{Lease, ask_again};
use crate::upload_request::clean_filename;

/// In a task of its own: a client that hangs up, and the handler with it, does not leave it half-way.
pub async fn finish_in_peace(
    mut held: Held,
    place: Option<FairPermit<UserId>>,
) -> Result<Resumable, Problem> {
    let tasks = held.server.tasks.clone();
    let finishing = async move {
        let finished = finish(&mut held).await;
        let upload = held.upload.clone();
        held.release().await;
        drop(place);
        finished.map(|()| upload)
    };
    tasks.spawn(finishing).await.map_err(Problem::internal)?
}

/// May be asked for again, by whoever finds the upload with all its bytes: a process may have died half-way.
pub async fn finish(held: &mut Held) -> Result<(), Problem> {
    if held.upload.kind == UploadKind::Partial {
        return finish_partial(held).await;
    }
    match held.pieces[..] {
        [] => Err(refusal::empty()),
        // The piece of a final one is its partial's.
        [only] if held.upload.kind != UploadKind::Final => complete(held, only).await,
        _ => {
            let assembled = assemble(held).await?;
            complete(held, assembled).await
        }
    }
}

/// It waits for the final upload that names it.
async fn finish_partial(held: &mut Held) -> Result<(), Problem> {
    let Held { server, upload, .. } = &*held;
    let finished = ask_again(|| server.catalog.finish_partial(upload.id, upload.token)).await?;
    if !finished {
        return Err(held.refused().await);
    }
    held.upload.state = UploadState::Complete;
    Ok(())
}

/// All pieces in order, as one object.
async fn assemble(held: &Held) -> Result<UploadPiece, Problem> {
    let (attempt, mut writer) = begin_object(held).await?;
    let mut crc = Crc64Nvme::default();
    for piece in &held.pieces {
        match copy(held, piece, &mut *writer).await {
            Ok(of_piece) => crc.append(&of_piece),
            Err(problem) => {
                writer.abort().await;
                return Err(problem);
            }
        }
    }
    let stored = held.finish(writer).await?;
    if (stored.bytes, stored.crc64nvme) != (held.upload.offset_bytes, crc.value()) {
        return Err(Problem::internal(format!("{} is not what its pieces are", held.key(attempt).path())));
    }
    Ok(UploadPiece { attempt, bytes: stored.bytes, crc64nvme: stored.crc64nvme })
}

async fn complete(held: &mut Held, source: UploadPiece) -> Result<(), Problem> {
    let Held { server, upload, .. } = &*held;
    let now = server.clock.now();
    let done = CompletedUpload {
        video: upload.video,
        attempt: source.attempt,
        bytes: source.bytes,
        crc64nvme: source.crc64nvme,
        sha256_hex: None,
        filename: upload.filename.as_deref().and_then(clean_filename),
        ingest_job: server.ids.next::<JobId>(now),
    };
    let completed =
        ask_again(|| server.catalog.complete_resumable(upload.id, upload.token, &done, now)).await?;
    match completed {
        CompleteResumable::Completed => {
            held.upload.state = UploadState::Complete;
            Ok(())
        }
        CompleteResumable::AlreadyUploaded => Err(refusal::video_gone()),
        CompleteResumable::Lost => Err(refusal::taken_over()),
        CompleteResumable::Gone => Err(held.refused().await),
        CompleteResumable::Unfinished => Err(Problem::internal("the upload has other bytes than its pieces")),
    }
}

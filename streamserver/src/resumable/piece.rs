//! One piece of an upload: a write-once object like any other. Only when it is durable does its row say that it
//! follows the pieces before it, and only the row moves the offset.

use bytes::Bytes;
use chassis::Problem;
use domain::{AttemptId, Timestamp};
use futures::TryStreamExt;
use sql::{CommitPieces, UploadPiece};
use store::{Crc64Nvme, ObjectWriter};

use super::hold::Held;
use super::refusal;
use crate::attempt::{Extending, LEASE_S, Lease, ask_again};
use crate::failure;

/// A piece that is shorter is written again at the front of the next one, which takes its place: however small the
/// requests are, an upload is a list of few pieces.
const PIECE_BYTES_MIN: u64 = if cfg!(any(test, fuzzing)) { 64 } else { 8 * 1024 * 1024 };
/// A request that lasts commits what it has this often, so that little is lost with a process.
const PIECE_MS_MAX: i64 = 30_000;

/// A piece being written. What is not committed is swept once the upload is released.
pub struct OpenPiece {
    attempt: AttemptId,
    writer: Box<dyn ObjectWriter>,
    /// Of the last piece, which this one replaces; 0 where it replaces none.
    carried_bytes: u64,
    received_bytes: u64,
    began_at: Timestamp,
}

impl OpenPiece {
    pub async fn begin(held: &Held) -> Result<OpenPiece, Problem> {
        let (attempt, mut writer) = begin_object(held).await?;
        let carried = held.pieces.last().filter(|last| last.bytes < PIECE_BYTES_MIN);
        if let Some(last) = carried
            && let Err(problem) = copy(held, last, &mut *writer).await
        {
            writer.abort().await;
            return Err(problem);
        }
        let (carried_bytes, began_at) = (carried.map_or(0, |last| last.bytes), held.server.clock.now());
        Ok(OpenPiece { attempt, writer, carried_bytes, received_bytes: 0, began_at })
    }

    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Problem> {
        self.received_bytes += bytes.len() as u64;
        self.writer.write(bytes).await.map_err(failure::store)
    }

    /// Time to commit it and to begin another.
    pub fn is_due(&self, now: Timestamp) -> bool {
        let bytes = self.carried_bytes + self.received_bytes;
        bytes >= PIECE_BYTES_MIN && now.ms_since(self.began_at) >= PIECE_MS_MAX
    }

    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    pub fn is_empty(&self) -> bool {
        self.received_bytes == 0
    }

    /// Nothing of it is kept.
    pub async fn abandon(self) {
        self.writer.abort().await;
    }

    /// Makes it durable and adds it to the upload.
    pub async fn commit(self, held: &mut Held, length_bytes: Option<u64>) -> Result<(), Problem> {
        let OpenPiece { attempt, writer, carried_bytes, received_bytes, .. } = self;
        let stored = held.finish(writer).await?;
        if stored.bytes != carried_bytes + received_bytes {
            return Err(Problem::internal(format!(
                "{} bytes were stored of {carried_bytes} and {received_bytes}",
                stored.bytes
            )));
        }
        let piece = UploadPiece { attempt, bytes: stored.bytes, crc64nvme: stored.crc64nvme };
        commit(held, carried_bytes > 0, Some(piece), length_bytes).await
    }
}

/// A row for a new attempt at this upload, then its object.
pub async fn begin_object(held: &Held) -> Result<(AttemptId, Box<dyn ObjectWriter>), Problem> {
    let Held { server, upload, .. } = held;
    let now = server.clock.now();
    let attempt = server.ids.next(now);
    let lease_until = now.plus_s(LEASE_S);
    let begun = server.catalog.begin_piece(upload.id, upload.token, attempt, lease_until, now).await;
    if !begun.map_err(failure::sql)? {
        return Err(held.refused().await);
    }
    let key = held.key(attempt);
    server.find_store(&key).await?;
    let writer = server.store.create(&key).await.map_err(failure::store)?;
    Ok((attempt, writer))
}

/// Reads a piece that is durable into `writer`, and makes sure that it is still what was written.
pub async fn copy(
    held: &Held,
    piece: &UploadPiece,
    writer: &mut dyn ObjectWriter,
) -> Result<Crc64Nvme, Problem> {
    let key = held.key(piece.attempt);
    let mut lease = Extending::from(held.server.clock.now());
    let mut blocks = held.server.store.read(&key, 0..piece.bytes).await.map_err(failure::store)?;
    let mut crc = Crc64Nvme::default();
    while let Some(block) = blocks.try_next().await.map_err(failure::store)? {
        crc.update(&block);
        writer.write(block).await.map_err(failure::store)?;
        lease.extend(held).await?;
    }
    if crc.value() == piece.crc64nvme {
        return Ok(crc);
    }
    Err(Problem::internal(format!("{} is not what was written", key.path())))
}

/// Adds a piece, or only the length if that is said now.
pub async fn commit(
    held: &mut Held,
    replaces_last: bool,
    piece: Option<UploadPiece>,
    length_bytes: Option<u64>,
) -> Result<(), Problem> {
    let Held { server, upload, .. } = &*held;
    let now = server.clock.now();
    let expires_at = server.upload_expires_at(now);
    let committed = ask_again(|| {
        let (id, token) = (upload.id, upload.token);
        let pieces = piece.as_slice();
        server.catalog.commit_pieces(id, token, replaces_last, pieces, length_bytes, expires_at, now)
    });
    match committed.await? {
        CommitPieces::Committed { offset_bytes } => {
            if replaces_last && let Some(replaced) = held.pieces.pop() {
                // Little requests would fill the store before a sweeper comes by.
                let (server, key) = (held.server.clone(), held.key(replaced.attempt));
                held.server.tasks.spawn(async move { server.remove_object(&key).await });
            }
            held.pieces.extend(piece);
            held.upload.offset_bytes = offset_bytes;
            held.upload.length_bytes = held.upload.length_bytes.or(length_bytes);
            held.upload.expires_at = expires_at;
            Ok(())
        }
        CommitPieces::Lost => Err(refusal::taken_over()),
        CommitPieces::Gone => Err(held.refused().await),
        CommitPieces::LengthDiffers | CommitPieces::BeyondLength => Err(refusal::other_length()),
    }
}

//! Whether an object is there and is ours, whatever the answer to sending it was.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::bucket::{Bucket, Head};
use super::failure::{Failure, Kind};
use super::piece::Piece;
use super::reader;
use crate::{Crc64Nvme, StoreError, Stored};

/// Sends an object in one piece.
pub(super) async fn put(bucket: &Arc<Bucket>, path: &str, piece: &Piece) -> Result<Stored, StoreError> {
    refuse_taken(bucket, path).await?;
    let stored = Stored { bytes: piece.bytes(), crc64nvme: piece.crc.value() };
    let sent = bucket.put(path, piece).await;
    settle(bucket, path, sent, &super::etag::hex(&piece.md5()), stored).await?;
    Ok(stored)
}

/// Keys are unique to an attempt, so this is for the attempt that tries the same again. It is no lock: of two
/// that race, the later one wins, and S3 has no other promise that all servers keep.
pub(super) async fn refuse_taken(bucket: &Bucket, path: &str) -> Result<(), StoreError> {
    match bucket.head(path).await? {
        Some(_) => Err(StoreError::Exists),
        None => Ok(()),
    }
}

/// After a success: the length is looked at. After a failure: the object may be there all the same, because the
/// answer was lost; then it is ours if its bytes are.
pub(super) async fn settle(
    bucket: &Arc<Bucket>,
    path: &str,
    sent: Result<(), Failure>,
    etag: &str,
    stored: Stored,
) -> Result<(), StoreError> {
    let Err(failure) = sent else {
        let head = bucket.head(path).await?;
        return match head {
            Some(head) if head.bytes == stored.bytes => Ok(()),
            other => Err(wrong_length(path, stored, other)),
        };
    };
    match bucket.head(path).await {
        Ok(Some(head)) if head.bytes == stored.bytes && is_ours(bucket, path, &head, etag, stored).await => {
            tracing::info!(path, error = %failure, "S3 answered a failure, but has the object");
            Ok(())
        }
        _ => Err(failure.into()),
    }
}

fn wrong_length(path: &str, stored: Stored, found: Option<Head>) -> StoreError {
    let found =
        found.map_or_else(|| "does not have it".to_owned(), |head| format!("has {} bytes", head.bytes));
    let text = format!("S3 took {} bytes and {found}", stored.bytes);
    Failure::found("HeadObject", path, Kind::Damaged, text).into()
}

/// By its ETag where that is a checksum, else by its bytes: a rare path, and no guess.
async fn is_ours(bucket: &Arc<Bucket>, path: &str, head: &Head, etag: &str, stored: Stored) -> bool {
    let found = head.etag.as_ref().map(|etag| etag.bare());
    if bucket.abilities.md5_etags.load(Ordering::Relaxed) && found == Some(etag) {
        return true;
    }
    let crc = async { Crc64Nvme::of(reader::read(bucket, path, 0..stored.bytes).await?).await };
    crc.await.is_ok_and(|crc| crc.value() == stored.crc64nvme)
}

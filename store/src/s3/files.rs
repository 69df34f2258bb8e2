//! Whole files in and out.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use tokio::io::AsyncWriteExt;

use super::bucket::{Bucket, SentPart};
use super::piece::Piece;
use super::settle;
use super::upload::{PARTS_MAX, Upload};
use super::writer::BLOCK_BYTES;
use super::{failure::Kind, reader};
use crate::disk::blocking;
use crate::{Crc64Nvme, StoreError, Stored};

/// Parts of one file on their way at once.
const PARTS_AT_ONCE: usize = 4;
/// Times that an object is fetched again because its bytes are not those of its checksum.
const FETCHES_MAX: u32 = 3;

pub(super) async fn put_file(bucket: &Arc<Bucket>, path: &str, from: &Path) -> Result<Stored, StoreError> {
    let from = from.to_owned();
    let (file, bytes) = blocking(move || {
        let file = File::open(&from)?;
        let bytes = file.metadata()?.len();
        Ok((Arc::new(file), bytes))
    })
    .await?;
    if bytes <= bucket.part_bytes {
        let piece = blocking(move || Ok(Piece::digest(file, 0..bytes)?)).await?;
        return settle::put(bucket, path, &piece).await;
    }
    settle::refuse_taken(bucket, path).await?;
    let part_bytes = part_bytes(bucket.part_bytes, bytes);
    let upload = Upload::begin(bucket, path, part_bytes).await?;
    match send_parts(&upload, file, bytes, part_bytes).await {
        Ok((parts, crc)) => upload.complete(&parts, Stored { bytes, crc64nvme: crc.value() }).await,
        Err(error) => {
            upload.abort().await;
            Err(error)
        }
    }
}

/// The usual length, or what it takes to need no more parts than S3 allows.
fn part_bytes(usual: u64, bytes: u64) -> u64 {
    let block = BLOCK_BYTES as u64;
    usual.max(bytes.div_ceil(u64::from(PARTS_MAX)).div_ceil(block) * block)
}

async fn send_parts(
    upload: &Upload,
    file: Arc<File>,
    bytes: u64,
    part_bytes: u64,
) -> Result<(Vec<SentPart>, Crc64Nvme), StoreError> {
    let count = bytes.div_ceil(part_bytes) as u32; // at most PARTS_MAX
    let parts = stream::iter(0..count).map(|index| {
        let (file, handle) = (file.clone(), upload.handle.clone());
        let start = u64::from(index) * part_bytes;
        let range = start..bytes.min(start + part_bytes);
        async move {
            let piece = blocking(move || Ok(Piece::digest(file, range)?)).await?;
            let crc = piece.crc.clone();
            Ok::<_, StoreError>((handle.send(index + 1, piece).await?, crc))
        }
    });
    let sent: Vec<(SentPart, Crc64Nvme)> = parts.buffered(PARTS_AT_ONCE).try_collect().await?;
    let mut crc = Crc64Nvme::default();
    sent.iter().for_each(|(_, of_part)| crc.append(of_part));
    let length = blocking(move || Ok(file.metadata()?.len())).await?;
    if length != bytes {
        return Err(StoreError::permanent("the file was changed while it was sent"));
    }
    Ok((sent.into_iter().map(|(part, _)| part).collect(), crc))
}

/// The file is not there, or it has all bytes of the object.
pub(super) async fn fetch(bucket: &Arc<Bucket>, path: &str, to: &Path) -> Result<u64, StoreError> {
    let mut file = tokio::fs::OpenOptions::new().write(true).create_new(true).open(to).await?;
    let fetched = fetch_into(bucket, path, &mut file).await;
    if fetched.is_err() {
        let _ = tokio::fs::remove_file(to).await;
    }
    fetched
}

async fn fetch_into(bucket: &Arc<Bucket>, path: &str, file: &mut tokio::fs::File) -> Result<u64, StoreError> {
    use tokio::io::AsyncSeekExt;

    let bytes = bucket.head(path).await?.ok_or(StoreError::NotFound)?.bytes;
    for left in (0..FETCHES_MAX).rev() {
        file.set_len(0).await?;
        file.rewind().await?;
        match copy(bucket, path, bytes, file).await {
            Err(StoreError::Transient(error)) if left > 0 && is_damage(&*error) => {
                tracing::warn!(%error, "damaged on the way from S3; fetched again");
            }
            copied => return copied.map(|()| bytes),
        }
    }
    Ok(bytes)
}

async fn copy(
    bucket: &Arc<Bucket>,
    path: &str,
    bytes: u64,
    file: &mut tokio::fs::File,
) -> Result<(), StoreError> {
    let mut blocks = reader::read(bucket, path, 0..bytes).await?;
    while let Some(block) = blocks.next().await {
        file.write_all(&block?).await?;
    }
    Ok(file.flush().await?)
}

fn is_damage(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error.downcast_ref::<super::failure::Failure>().is_some_and(|failure| failure.kind == Kind::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huge_file_gets_longer_parts() {
        let mib = 1024 * 1024;
        assert_eq!(part_bytes(8 * mib, 100 * mib), 8 * mib);
        assert_eq!(part_bytes(8 * mib, 80_000 * mib), 8 * mib);
        for bytes in [80_000 * mib + 1, 200_000 * mib, 5_000_000 * mib] {
            let part = part_bytes(8 * mib, bytes);
            assert!(bytes.div_ceil(part) <= u64::from(PARTS_MAX), "{bytes}");
            assert_eq!(part % BLOCK_BYTES as u64, 0);
        }
    }
}

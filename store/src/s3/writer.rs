//! One object being written: a block in memory, a part filling on the local disk, and one on its way.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::task::JoinHandle;

use super::bucket::{Bucket, SentPart};
use super::settle;
use super::spool::Spool;
use super::upload::Upload;
use crate::disk::blocking;
use crate::{Crc64Nvme, ObjectWriter, StoreError, Stored};

/// What a writer holds in memory. Parts are whole numbers of it.
pub(super) const BLOCK_BYTES: usize = 128 * 1024;

pub(super) struct S3Writer {
    bucket: Arc<Bucket>,
    path: String,
    /// Not yet in the spool.
    block: BytesMut,
    /// `None` while it is written to, and for good where that was broken off.
    spool: Option<Spool>,
    /// Of the parts that left the spool.
    bytes: u64,
    crc: Crc64Nvme,
    parts: Vec<SentPart>,
    /// Before the upload: what is being sent stops before the upload is aborted.
    sending: Option<Sending>,
    /// `None` while the object may still be a single part.
    upload: Option<Upload>,
}

impl S3Writer {
    pub async fn start(bucket: &Arc<Bucket>, path: String) -> Result<S3Writer, StoreError> {
        Ok(S3Writer {
            bucket: bucket.clone(),
            path,
            block: BytesMut::with_capacity(BLOCK_BYTES),
            spool: Some(new_spool(bucket).await?),
            bytes: 0,
            crc: Crc64Nvme::default(),
            parts: Vec::new(),
            sending: None,
            upload: None,
        })
    }

    /// Moves the block into the spool, after sending the spool if it is full.
    async fn spill(&mut self) -> Result<(), StoreError> {
        if self.block.is_empty() {
            return Ok(());
        }
        if self.spool.as_ref().is_some_and(|spool| spool.bytes() >= self.bucket.part_bytes) {
            self.send_spool().await?;
        }
        let mut spool = self.spool.take().ok_or_else(broken_off)?;
        let mut block = std::mem::take(&mut self.block);
        let (spool, block) = blocking(move || {
            spool.write(&block)?;
            block.clear();
            Ok((spool, block))
        })
        .await?;
        (self.spool, self.block) = (Some(spool), block);
        Ok(())
    }

    /// Starts sending what is spooled, once the part before it has arrived, and goes on with an empty spool.
    async fn send_spool(&mut self) -> Result<(), StoreError> {
        self.wait_for_part().await?;
        let upload = match self.upload.take() {
            Some(upload) => upload,
            None => Upload::begin(&self.bucket, &self.path, self.bucket.part_bytes).await?,
        };
        let handle = self.upload.insert(upload).handle.clone();
        let empty = new_spool(&self.bucket).await?;
        let piece = self.spool.replace(empty).ok_or_else(broken_off)?.into_piece();
        self.bytes += piece.bytes();
        self.crc.append(&piece.crc);
        let number = self.parts.len() as u32 + 1;
        self.sending = Some(Sending(tokio::spawn(async move { handle.send(number, piece).await })));
        Ok(())
    }

    async fn wait_for_part(&mut self) -> Result<(), StoreError> {
        if let Some(Sending(task)) = &mut self.sending {
            let sent = task.await.unwrap_or_else(|error| Err(StoreError::Permanent(error.into())));
            self.sending = None;
            match sent {
                Ok(part) => self.parts.push(part),
                Err(error) => {
                    // Its bytes are gone: nothing that goes on from here could become the object.
                    self.spool = None;
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl ObjectWriter for S3Writer {
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let room = BLOCK_BYTES - self.block.len();
            self.block.extend_from_slice(&bytes.split_to(bytes.len().min(room)));
            if self.block.len() == BLOCK_BYTES {
                self.spill().await?;
            }
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Stored, StoreError> {
        self.spill().await?;
        if self.upload.is_none() {
            let piece = self.spool.take().ok_or_else(broken_off)?.into_piece();
            return settle::put(&self.bucket, &self.path, &piece).await;
        }
        self.send_spool().await?;
        self.wait_for_part().await?;
        let stored = Stored { bytes: self.bytes, crc64nvme: self.crc.value() };
        let upload = self.upload.take().ok_or_else(broken_off)?;
        upload.complete(&self.parts, stored).await
    }

    async fn abort(mut self: Box<Self>) {
        drop(self.sending.take());
        if let Some(upload) = self.upload.take() {
            upload.abort().await;
        }
    }
}

/// A part on its way; dropped, it stops.
struct Sending(JoinHandle<Result<SentPart, StoreError>>);

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn new_spool(bucket: &Arc<Bucket>) -> Result<Spool, StoreError> {
    let bucket = bucket.clone();
    blocking(move || Ok(Spool::create(&bucket.spool_dir)?)).await
}

fn broken_off() -> StoreError {
    StoreError::permanent("a write was broken off, and bytes of it are lost")
}

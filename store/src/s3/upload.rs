//! An object on its way in parts. Dropped before its end, it is aborted in the background.

use std::sync::Arc;

use super::bucket::{Bucket, SentPart};
use super::etag::ETag;
use super::failure::{Failure, Kind};
use super::piece::Piece;
use super::settle;
use crate::{StoreError, Stored};

/// What S3 takes.
pub(super) const PARTS_MAX: u32 = 10_000;

pub(super) struct Upload {
    pub handle: UploadHandle,
    open: bool,
}

/// What sending a part needs; cheap to clone.
#[derive(Clone)]
pub(super) struct UploadHandle {
    bucket: Arc<Bucket>,
    path: Arc<str>,
    id: Arc<str>,
}

impl UploadHandle {
    pub async fn send(&self, number: u32, piece: Piece) -> Result<SentPart, StoreError> {
        if number > PARTS_MAX {
            let text = format!("an object has at most {PARTS_MAX} parts: raise S3_PART_BYTES");
            return Err(Failure::found("UploadPart", &self.path, Kind::Refused, text).into());
        }
        Ok(self.bucket.send_part(&self.path, &self.id, number, &piece).await?)
    }
}

impl Upload {
    pub async fn begin(bucket: &Arc<Bucket>, path: &str, part_bytes: u64) -> Result<Upload, StoreError> {
        let id = bucket.create_upload(path, part_bytes).await?;
        let handle = UploadHandle { bucket: bucket.clone(), path: path.into(), id: id.into() };
        Ok(Upload { handle, open: true })
    }

    /// Makes the object visible. Where the answer is lost or makes no sense, the object itself is asked.
    pub async fn complete(mut self, parts: &[SentPart], stored: Stored) -> Result<Stored, StoreError> {
        let UploadHandle { bucket, path, id } = self.handle.clone();
        settle::refuse_taken(&bucket, &path).await?;
        let completed = bucket.complete_upload(&path, &id, parts).await;
        let etag = ETag::of_parts(parts.iter().map(|part| &part.md5));
        settle::settle(&bucket, &path, completed, &etag, stored).await?;
        self.open = false;
        Ok(stored)
    }

    pub async fn abort(mut self) {
        self.open = false;
        let UploadHandle { bucket, path, id } = &self.handle;
        if let Err(error) = bucket.abort_upload(path, id).await {
            tracing::warn!(%error, "an unfinished upload stays behind until it is swept");
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !self.open {
            return;
        }
        let handle = self.handle.clone();
        let Ok(place) = handle.bucket.aborting.clone().try_acquire_owned() else {
            tracing::warn!(path = %handle.path, "too many are being aborted; this upload stays until it is swept");
            return;
        };
        runtime.spawn(async move {
            Upload { handle, open: false }.abort().await;
            drop(place);
        });
    }
}

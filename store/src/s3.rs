//! Objects in a bucket of S3, or of what speaks its protocol.
//!
//! Only what all servers do alike is used: put, ranged get, head, multipart uploads by ETags, list, delete. No
//! object ACLs, and no conditional put as a lock: some servers ignore the condition. That an object is written
//! once is the promise of the keys, which are unique to an attempt; [`StoreError::Exists`] is a look before.

mod access;
mod bucket;
mod etag;
mod failure;
mod files;
mod listing;
mod piece;
mod reader;
mod refusal;
mod removal;
mod settle;
mod spool;
mod start;
mod upload;
mod writer;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use domain::{ObjectKey, S3Place, StartError};

pub use access::{S3Access, S3Patience};
use bucket::Bucket;
use writer::S3Writer;

use crate::{ByteStream, ListPage, ObjectMeta, ObjectWriter, Store, StoreError, Stored, Unfinished};

/// A store in a bucket. Cheap to clone. Several processes may share one bucket and prefix.
#[derive(Clone)]
pub struct S3 {
    bucket: Arc<Bucket>,
}

impl S3 {
    /// Opens the bucket, after finding out whether it can be used: writes, reads, lists and removes a small object
    /// below the prefix. What the server lacks and the store can do without is logged.
    pub async fn open(place: &S3Place, access: &S3Access, patience: S3Patience) -> Result<S3, StartError> {
        Ok(S3 { bucket: Arc::new(start::open(place, access, patience).await?) })
    }
}

#[async_trait]
impl Store for S3 {
    async fn create(&self, key: &ObjectKey) -> Result<Box<dyn ObjectWriter>, StoreError> {
        Ok(Box::new(S3Writer::start(&self.bucket, key.path()).await?))
    }

    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<ByteStream, StoreError> {
        reader::read(&self.bucket, &key.path(), range).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        let head = self.bucket.head(&key.path()).await?;
        Ok(head.map(|head| ObjectMeta { bytes: head.bytes, modified: head.modified }))
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        listing::list(&self.bucket, prefix, after, limit).await
    }

    async fn list_unfinished(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Unfinished>, StoreError> {
        listing::list_unfinished(&self.bucket, after, limit).await
    }

    async fn remove_unfinished(&self, name: &str) -> Result<(), StoreError> {
        listing::remove_unfinished(&self.bucket, name).await
    }

    async fn delete(&self, paths: &[String]) -> Vec<(String, Result<(), StoreError>)> {
        removal::delete(&self.bucket, paths).await
    }

    fn is_local(&self) -> bool {
        false
    }

    async fn fetch(&self, key: &ObjectKey, to: &Path) -> Result<u64, StoreError> {
        files::fetch(&self.bucket, &key.path(), to).await
    }

    async fn put_file(&self, key: &ObjectKey, from: &Path) -> Result<Stored, StoreError> {
        files::put_file(&self.bucket, &key.path(), from).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        Ok(self.bucket.ask().await?)
    }
}

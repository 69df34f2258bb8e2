//! A store that does not let go of some of its objects, and takes others when it pleases.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use domain::ObjectKey;
use store::{ByteStream, ListPage, Memory, ObjectMeta, ObjectWriter, Store, StoreError, Stored, Unfinished};
use tokio::sync::Semaphore;

pub struct Stubborn {
    pub inner: Memory,
    /// Under this prefix nothing is removed.
    pub keeps: Option<String>,
    pub door: Arc<Door>,
}

/// Files on their way in wait here, also when whoever sent them has left.
pub struct Door {
    pub waiting: Semaphore,
    pub open: Semaphore,
}

impl Door {
    pub fn open() -> Arc<Door> {
        Arc::new(Door { waiting: Semaphore::new(0), open: Semaphore::new(Semaphore::MAX_PERMITS) })
    }

    pub fn closed() -> Arc<Door> {
        Arc::new(Door { waiting: Semaphore::new(0), open: Semaphore::new(0) })
    }
}

#[async_trait]
impl Store for Stubborn {
    async fn create(&self, key: &ObjectKey) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.inner.create(key).await
    }

    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<ByteStream, StoreError> {
        self.inner.read(key, range).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        self.inner.head(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        self.inner.list(prefix, after, limit).await
    }

    async fn list_unfinished(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Unfinished>, StoreError> {
        self.inner.list_unfinished(after, limit).await
    }

    async fn remove_unfinished(&self, name: &str) -> Result<(), StoreError> {
        self.inner.remove_unfinished(name).await
    }

    async fn delete(&self, paths: &[String]) -> Vec<(String, Result<(), StoreError>)> {
        let keeps = |path: &String| self.keeps.as_ref().is_some_and(|prefix| path.starts_with(prefix));
        let (kept, gone): (Vec<_>, Vec<_>) = paths.iter().cloned().partition(keeps);
        let refuse = |path| (path, Err(StoreError::Permanent("it is stuck".into())));
        let mut answers: Vec<_> = kept.into_iter().map(refuse).collect();
        answers.extend(self.inner.delete(&gone).await);
        answers
    }

    fn is_local(&self) -> bool {
        self.inner.is_local()
    }

    async fn fetch(&self, key: &ObjectKey, to: &Path) -> Result<u64, StoreError> {
        self.inner.fetch(key, to).await
    }

    async fn put_file(&self, key: &ObjectKey, from: &Path) -> Result<Stored, StoreError> {
        let bytes = Bytes::from(std::fs::read(from)?);
        let (inner, door, key) = (self.inner.clone(), self.door.clone(), key.clone());
        // As a call of the file system: once begun it is not broken off.
        let write = tokio::spawn(async move {
            door.waiting.add_permits(1);
            let _open = door.open.acquire().await;
            let mut writer = inner.create(&key).await?;
            writer.write(bytes).await?;
            writer.finish().await
        });
        write.await.unwrap()
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.inner.probe().await
    }
}

//! A store that does not let go of some of its objects.

use std::ops::Range;
use std::path::Path;

use async_trait::async_trait;
use domain::ObjectKey;
use store::{ByteStream, ListPage, Memory, ObjectMeta, ObjectWriter, Store, StoreError, Stored, Unfinished};

pub struct Stubborn {
    pub inner: Memory,
    /// Under this prefix nothing is removed.
    pub keeps: String,
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
        let (kept, gone): (Vec<_>, Vec<_>) =
            paths.iter().cloned().partition(|path| path.starts_with(&self.keeps));
        let refuse = |path| (path, Err(StoreError::Permanent("it is stuck".into())));
        let mut answers: Vec<_> = kept.into_iter().map(refuse).collect();
        answers.extend(self.inner.delete(&gone).await);
        answers
    }

    async fn fetch(&self, key: &ObjectKey, to: &Path) -> Result<u64, StoreError> {
        self.inner.fetch(key, to).await
    }

    async fn put_file(&self, key: &ObjectKey, from: &Path) -> Result<Stored, StoreError> {
        self.inner.put_file(key, from).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.inner.probe().await
    }
}

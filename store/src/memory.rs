//! A store that forgets, for tests.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use domain::ObjectKey;
use futures::{StreamExt, stream};

use crate::{
    ByteStream, Crc64Nvme, ListPage, ObjectMeta, ObjectWriter, READ_BLOCK_BYTES_MAX, Store, StoreError,
    Stored, Unfinished, check_range,
};

/// Cheap to clone; clones share the objects.
#[derive(Clone, Default)]
pub struct Memory {
    shelves: Arc<Mutex<Shelves>>,
}

#[derive(Default)]
struct Shelves {
    objects: BTreeMap<String, Bytes>,
    /// Length in bytes by name.
    unfinished: BTreeMap<String, u64>,
    writers_started: u64,
}

impl Memory {
    pub fn new() -> Self {
        Self::default()
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        // A test that panicked elsewhere leaves whole maps behind: every change is one call.
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn object(&self, key: &ObjectKey) -> Result<Bytes, StoreError> {
        self.shelves().objects.get(&key.path()).cloned().ok_or(StoreError::NotFound)
    }

    fn insert(&self, path: String, bytes: Bytes) -> Result<Stored, StoreError> {
        let mut crc = Crc64Nvme::default();
        crc.update(&bytes);
        let stored = Stored { bytes: bytes.len() as u64, crc64nvme: crc.value() };
        let mut shelves = self.shelves();
        if shelves.objects.contains_key(&path) {
            return Err(StoreError::Exists);
        }
        shelves.objects.insert(path, bytes);
        Ok(stored)
    }
}

#[async_trait]
impl Store for Memory {
    async fn create(&self, key: &ObjectKey) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let path = key.path();
        let mut shelves = self.shelves();
        let name = format!("{}~{}", path.replace('/', "~"), shelves.writers_started);
        shelves.writers_started += 1;
        shelves.unfinished.insert(name.clone(), 0);
        Ok(Box::new(MemoryWriter { memory: self.clone(), path, name, bytes: BytesMut::new() }))
    }

    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<ByteStream, StoreError> {
        let object = self.object(key)?;
        check_range(&range, object.len() as u64)?;
        let mut rest = object.slice(range.start as usize..range.end as usize);
        let blocks = std::iter::from_fn(move || {
            (!rest.is_empty()).then(|| Ok(rest.split_to(rest.len().min(READ_BLOCK_BYTES_MAX))))
        });
        Ok(stream::iter(blocks).boxed())
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        let bytes = self.shelves().objects.get(&key.path()).map(|object| object.len() as u64);
        Ok(bytes.map(|bytes| ObjectMeta { bytes, modified: None }))
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        let shelves = self.shelves();
        let start = after.filter(|after| *after >= prefix).map_or(Bound::Included(prefix), Bound::Excluded);
        let mut objects: Vec<_> = shelves
            .objects
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(path, _)| path.starts_with(prefix))
            .take(limit + 1)
            .map(|(path, object)| (path.clone(), object.len() as u64))
            .collect();
        let more = objects.len() > limit;
        objects.truncate(limit);
        Ok(ListPage { objects, more })
    }

    async fn list_unfinished(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Unfinished>, StoreError> {
        let shelves = self.shelves();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let names = shelves.unfinished.range::<str, _>((start, Bound::Unbounded)).take(limit);
        Ok(names
            .map(|(name, bytes)| Unfinished { name: name.clone(), bytes: *bytes, modified: None })
            .collect())
    }

    async fn remove_unfinished(&self, name: &str) -> Result<(), StoreError> {
        self.shelves().unfinished.remove(name);
        Ok(())
    }

    async fn delete(&self, paths: &[String]) -> Vec<(String, Result<(), StoreError>)> {
        let mut shelves = self.shelves();
        for path in paths {
            shelves.objects.remove(path);
        }
        paths.iter().map(|path| (path.clone(), Ok(()))).collect()
    }

    fn is_local(&self) -> bool {
        false
    }

    async fn fetch(&self, key: &ObjectKey, to: &Path) -> Result<u64, StoreError> {
        use tokio::io::AsyncWriteExt;

        let object = self.object(key)?;
        let mut file = tokio::fs::OpenOptions::new().write(true).create_new(true).open(to).await?;
        file.write_all(&object).await?;
        file.flush().await?;
        Ok(object.len() as u64)
    }

    async fn put_file(&self, key: &ObjectKey, from: &Path) -> Result<Stored, StoreError> {
        let bytes = tokio::fs::read(from).await?;
        self.insert(key.path(), bytes.into())
    }

    async fn probe(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

struct MemoryWriter {
    memory: Memory,
    path: String,
    name: String,
    bytes: BytesMut,
}

#[async_trait]
impl ObjectWriter for MemoryWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let mut shelves = self.memory.shelves();
        let unfinished = shelves.unfinished.get_mut(&self.name);
        *unfinished.ok_or_else(|| StoreError::transient("the unfinished bytes were swept away"))? +=
            bytes.len() as u64;
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Stored, StoreError> {
        let is_there = self.memory.shelves().unfinished.contains_key(&self.name);
        if !is_there {
            return Err(StoreError::transient("the unfinished bytes were swept away"));
        }
        let bytes = self.bytes.split().freeze();
        self.memory.insert(self.path.clone(), bytes)
    }

    async fn abort(self: Box<Self>) {}
}

impl Drop for MemoryWriter {
    fn drop(&mut self) {
        self.memory.shelves().unfinished.remove(&self.name);
    }
}

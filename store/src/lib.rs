//! Object bytes behind one small trait.
//!
//! Objects are write-once under keys that only [`domain::ObjectKey`] can spell, and they appear whole or not at
//! all: nothing is visible before [`ObjectWriter::finish`] has made it durable.
//!
//! **Invariant:** when `finish` or `put_file` returns `Ok`, the object survives a power cut.

mod checksum;
mod disk;
mod error;
mod faulty;
mod memory;
mod moving;
mod s3;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use domain::{ObjectKey, StartError, StorePlace, Timestamp};
use filemap::FileMap;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

pub use checksum::Crc64Nvme;
pub use disk::{Disk, file_blocks};
pub use error::StoreError;
pub use faulty::{Fault, Faulty, Weather};
pub use memory::Memory;
pub use moving::Moving;
pub use s3::{S3, S3Access, S3Patience};

/// Blocks that [`Store::read`] yields are at most this long, so that a slow reader holds little memory.
pub const READ_BLOCK_BYTES_MAX: usize = 256 * 1024;

/// Bytes that one [`ObjectWriter`] holds at most before `write` waits: four writes of one MiB.
pub const WRITE_QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The bytes of an object, in order.
pub type ByteStream = BoxStream<'static, Result<Bytes, StoreError>>;

/// Opens the store that the settings name, and finds out whether it can be used.
pub async fn open(place: &StorePlace) -> Result<Arc<dyn Store>, StartError> {
    match place {
        StorePlace::Disk { folder } => {
            let disk = Disk::open(folder).map_err(|error| {
                StartError::cannot_create(format!(
                    "Objects cannot be kept in {}: {error}. See SLUICE_STORE.",
                    folder.display()
                ))
            })?;
            Ok(Arc::new(disk))
        }
        StorePlace::Moving { to, from } => {
            let (to, from) = (Box::pin(open(to)).await?, Box::pin(open(from)).await?);
            Ok(Arc::new(Moving::new(to, from)))
        }
        StorePlace::S3(place) => {
            let access = S3Access::from_environment().await;
            Ok(Arc::new(S3::open(place, &access, S3Patience::default()).await?))
        }
    }
}

/// [`Store::probe`], again and again.
pub fn prober(
    store: &Arc<dyn Store>,
) -> impl Fn() -> BoxFuture<'static, Result<(), StoreError>> + Send + Sync + 'static {
    let store = store.clone();
    move || {
        let store = store.clone();
        async move { store.probe().await }.boxed()
    }
}

#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Starts an object. Nothing is visible under `key` before the writer's `finish`.
    async fn create(&self, key: &ObjectKey) -> Result<Box<dyn ObjectWriter>, StoreError>;

    /// The bytes of `range`, which must lie within the object. The object is opened once: a deletion that comes
    /// later does not cut the stream.
    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<ByteStream, StoreError>;

    /// The object as a file that can be sent without being read, where this store has it as one.
    async fn open(&self, _key: &ObjectKey) -> Result<Option<FileMap>, StoreError> {
        Ok(None)
    }

    /// `None` where there is no such object.
    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError>;

    /// Paths that start with `prefix` and sort after `after`, in byte order, at most `limit`. Paths are strings,
    /// because a check wants to see also what no key explains.
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError>;

    /// What writers began and have not finished, sorted by name, after `after`, at most
    /// `limit`. A writer that is still at work shows up here, so the caller decides by age.
    async fn list_unfinished(&self, after: Option<&str>, limit: usize)
    -> Result<Vec<Unfinished>, StoreError>;

    /// Throws away what [`Store::list_unfinished`] named. A writer still at work on it will fail.
    async fn remove_unfinished(&self, name: &str) -> Result<(), StoreError>;

    /// Removes objects by path, as [`Store::list`] gave them; answers for each one. A missing object is a success.
    async fn delete(&self, paths: &[String]) -> Vec<(String, Result<(), StoreError>)>;

    /// Whether [`Store::fetch`] costs next to nothing, however long the object is: its bytes lie here already.
    fn is_local(&self) -> bool;

    /// Brings an object into a local file that does not exist yet, and answers its length in bytes. The file may
    /// share its bytes with the object: it is there to be read, not to be changed.
    async fn fetch(&self, key: &ObjectKey, to: &Path) -> Result<u64, StoreError>;

    /// Takes a finished local file in. The file must not be changed afterwards: the object may share its bytes.
    async fn put_file(&self, key: &ObjectKey, from: &Path) -> Result<Stored, StoreError>;

    /// What may still be written. `None`: nobody can say.
    async fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    /// Whether the store can be used now, at little cost: this is asked every few seconds.
    async fn probe(&self) -> Result<(), StoreError>;
}

/// Whether `range` lies within an object of so many bytes.
pub fn check_range(range: &Range<u64>, bytes: u64) -> Result<(), StoreError> {
    if range.start > range.end || range.end > bytes {
        return Err(StoreError::permanent("the range reaches beyond the object"));
    }
    Ok(())
}

/// Writes one object. Dropping it is [`ObjectWriter::abort`] without waiting for the end.
#[async_trait]
pub trait ObjectWriter: Send {
    /// Takes more bytes; waits while [`WRITE_QUEUE_BYTES_MAX`] are on their way.
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError>;

    /// Makes the object durable, then visible. [`StoreError::Exists`] where the key is taken.
    async fn finish(self: Box<Self>) -> Result<Stored, StoreError>;

    /// Leaves nothing behind.
    async fn abort(self: Box<Self>);
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    pub bytes: u64,
    pub crc64nvme: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectMeta {
    pub bytes: u64,
    /// When it was written, by the clock of the store; `None` where the store does not know.
    pub modified: Option<Timestamp>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// Path and length in bytes, sorted by path.
    pub objects: Vec<(String, u64)>,
    /// There are more after the last one.
    pub more: bool,
}

/// Bytes of a writer that has not finished, or died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Tells the path that the object would have had: between `/` or `~` its second and third words are the video
    /// and the attempt.
    pub name: String,
    /// 0 where the store does not know.
    pub bytes: u64,
    /// When it last grew, by the clock of the store; `None` where the store does not know.
    pub modified: Option<Timestamp>,
}

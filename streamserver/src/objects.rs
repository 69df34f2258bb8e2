//! The bytes of objects, for those who send them. Where an object is a file here, what is sent of it is named by its
//! address and never read ([`filemap`]); else it comes from the store in blocks that are kept ([`crate::blocks`]).

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::ObjectKey;
use filemap::{CHUNK_BYTES, FileMap};
use futures::stream::{self, StreamExt};
use moka::future::Cache;
use store::{ByteStream, Store, StoreError};
use tokio_util::sync::CancellationToken;

use crate::blocks::{Blocks, Lookup};

/// Each of them is an open file.
const OPEN_FILES_MAX: u64 = 1024;
/// A file that is deleted keeps its place on the disk this long, and [`SWEEP_EVERY`].
const OPEN_FOR: Duration = Duration::from_secs(10);
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Cheap to clone.
#[derive(Clone)]
pub struct Objects {
    store: Arc<dyn Store>,
    open: Cache<ObjectKey, FileMap>,
    /// Of objects that are no files here.
    blocks: Blocks,
}

/// How a range is going to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Sent as it comes, in blocks of at most [`CHUNK_BYTES`], which cost no memory where the object is a file.
    Sent,
    /// Cut and put together with others.
    Read,
}

impl Objects {
    pub fn new(store: Arc<dyn Store>, cached_bytes_max: u64) -> Objects {
        let open = Cache::builder().max_capacity(OPEN_FILES_MAX).time_to_live(OPEN_FOR).build();
        Objects { blocks: Blocks::new(store.clone(), cached_bytes_max), store, open }
    }

    /// `range` must lie within the object. What is missing shows at once, not in the stream. With it whether its beginning
    /// was kept here; `None` of a file, which is nobody's copy.
    pub async fn read(
        &self,
        key: &ObjectKey,
        range: Range<u64>,
        wanted: Use,
    ) -> Result<(ByteStream, Option<Lookup>), StoreError> {
        let Some(file) = self.file(key).await? else {
            return self.blocks.read(key, range).await.map(|(bytes, lookup)| (bytes, Some(lookup)));
        };
        store::check_range(&range, file.bytes().len() as u64)?;
        let bytes = match wanted {
            Use::Sent => chunks(file.bytes().slice(range.start as usize..range.end as usize)),
            Use::Read => store::file_blocks(file.file().clone(), range),
        };
        Ok((bytes, None))
    }

    async fn file(&self, key: &ObjectKey) -> Result<Option<FileMap>, StoreError> {
        if let Some(file) = self.open.get(key).await {
            return Ok(Some(file));
        }
        let Some(file) = self.store.open(key).await? else { return Ok(None) };
        self.open.insert(key.clone(), file.clone()).await;
        Ok(Some(file))
    }

    /// Closes files in time also where nobody asks for any. Until the process is to end.
    pub async fn close_old(&self, shutdown: &CancellationToken) {
        while shutdown.run_until_cancelled(tokio::time::sleep(SWEEP_EVERY)).await.is_some() {
            self.open.run_pending_tasks().await;
        }
    }
}

fn chunks(bytes: Bytes) -> ByteStream {
    let cut = |mut rest: Bytes| async move {
        let chunk = rest.split_to(rest.len().min(CHUNK_BYTES));
        (!chunk.is_empty()).then_some((Ok(chunk), rest))
    };
    stream::unfold(bytes, cut).boxed()
}

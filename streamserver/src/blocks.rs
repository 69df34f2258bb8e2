//! Blocks of objects that lie elsewhere, kept here for the next one who asks: fetched once however many wait for them, and
//! held in memory that the kernel can send from, like a file's.

use std::collections::VecDeque;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use domain::ObjectKey;
use filemap::FileMap;
use futures::stream::{self, StreamExt, TryStreamExt};
use moka::future::Cache;
use rustix::fs::MemfdFlags;
use store::{ByteStream, Store, StoreError};
use tokio::task::JoinHandle;

/// One request to the store.
pub const BLOCK_BYTES: u64 = filemap::CHUNK_BYTES as u64;
/// Blocks that one reader has at once: the one that is being sent, and the next.
const BLOCKS_AT_ONCE: usize = 2;
const LENGTHS_MAX: u64 = 100_000;

/// Whether a block was there when it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    Hit,
    Miss,
    /// Somebody else was fetching it.
    Collapsed,
}

impl Lookup {
    fn count(self) {
        let result = match self {
            Lookup::Hit => "hit",
            Lookup::Miss => "miss",
            Lookup::Collapsed => "collapsed",
        };
        metrics::counter!("streamserver_cache_requests_total", "result" => result).increment(1);
    }
}

/// Of a block: its object, and its number there.
type Place = (ObjectKey, u64);

/// Cheap to clone.
#[derive(Clone)]
pub struct Blocks {
    store: Arc<dyn Store>,
    kept: Cache<Place, Bytes>,
    /// In bytes. Objects are write-once.
    lengths: Cache<ObjectKey, u64>,
}

impl Blocks {
    /// Keeps at most so many bytes; a block that is being sent counts only as long as it is kept.
    pub fn new(store: Arc<dyn Store>, kept_bytes_max: u64) -> Blocks {
        let weigh = |_: &Place, block: &Bytes| u32::try_from(block.len()).unwrap_or(u32::MAX);
        Blocks {
            store,
            kept: Cache::builder().max_capacity(kept_bytes_max).weigher(weigh).build(),
            lengths: Cache::builder().max_capacity(LENGTHS_MAX).build(),
        }
    }

    /// The first block is there when this returns, and whether it was there before.
    pub async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<(ByteStream, Lookup), StoreError> {
        let length = self.length(key).await?;
        store::check_range(&range, length)?;
        if range.is_empty() {
            return Ok((stream::empty().boxed(), Lookup::Hit));
        }
        let next = range.start / BLOCK_BYTES;
        let mut reading =
            Reading { blocks: self.clone(), key: key.clone(), length, range, next, begun: VecDeque::new() };
        let (first, lookup) = reading.next_part().await?.expect("a range that is not empty has a block");
        let rest = stream::try_unfold(reading, |mut reading| async move {
            Ok(reading.next_part().await?.map(|(part, _)| (part, reading)))
        });
        Ok((stream::iter([Ok(first)]).chain(rest).boxed(), lookup))
    }

    async fn block(&self, place: Place, length: u64) -> Result<(Bytes, Lookup), StoreError> {
        let (key, number) = place.clone();
        let start = number * BLOCK_BYTES;
        let range = start..(start + BLOCK_BYTES).min(length);
        let mut lookup = Lookup::Collapsed;
        let fetch = async {
            lookup = Lookup::Miss;
            self.fetch(&key, range).await
        };
        let block = self.kept.try_get_with(place, fetch).await;
        lookup.count();
        Ok((block.map_err(again)?, lookup))
    }

    async fn fetch(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, StoreError> {
        let expected = range.end - range.start;
        let mut memory = std::fs::File::from(rustix::fs::memfd_create("block", MemfdFlags::CLOEXEC)?);
        let mut read = self.store.read(key, range).await?;
        while let Some(bytes) = read.try_next().await? {
            memory.write_all(&bytes)?;
        }
        let block = FileMap::new(memory)?.bytes().clone();
        if block.len() as u64 != expected {
            return Err(StoreError::Permanent("an object is not as long as it was".into()));
        }
        Ok(block)
    }

    async fn length(&self, key: &ObjectKey) -> Result<u64, StoreError> {
        let ask = async { Ok(self.store.head(key).await?.ok_or(StoreError::NotFound)?.bytes) };
        self.lengths.try_get_with(key.clone(), ask).await.map_err(again)
    }
}

/// The blocks of a range, one after the other.
struct Reading {
    blocks: Blocks,
    key: ObjectKey,
    /// Of the object.
    length: u64,
    range: Range<u64>,
    /// The number of the first block that was not begun.
    next: u64,
    begun: VecDeque<(u64, Begun)>,
}

enum Begun {
    /// What is kept costs nobody a task.
    Kept(Bytes),
    /// Goes on while the reader is busy with the block before.
    Coming(JoinHandle<Result<(Bytes, Lookup), StoreError>>),
}

impl Reading {
    /// What lies in the next block of the range; `None` behind the last.
    async fn next_part(&mut self) -> Result<Option<(Bytes, Lookup)>, StoreError> {
        while self.begun.len() < BLOCKS_AT_ONCE && self.next * BLOCK_BYTES < self.range.end {
            let begun = self.begin(self.next).await;
            self.begun.push_back((self.next, begun));
            self.next += 1;
        }
        let Some((number, begun)) = self.begun.pop_front() else { return Ok(None) };
        let (block, lookup) = match begun {
            Begun::Kept(block) => (block, Lookup::Hit),
            Begun::Coming(block) => {
                block.await.unwrap_or_else(|died| Err(StoreError::Permanent(died.into())))?
            }
        };
        let start = number * BLOCK_BYTES;
        let from = self.range.start.saturating_sub(start);
        let to = (self.range.end - start).min(block.len() as u64);
        Ok(Some((block.slice(from as usize..to as usize), lookup)))
    }

    async fn begin(&self, number: u64) -> Begun {
        let place = (self.key.clone(), number);
        if let Some(block) = self.blocks.kept.get(&place).await {
            Lookup::Hit.count();
            return Begun::Kept(block);
        }
        let (blocks, length) = (self.blocks.clone(), self.length);
        Begun::Coming(tokio::spawn(async move { blocks.block(place, length).await }))
    }
}

/// For each of those who waited for the same.
fn again(error: Arc<StoreError>) -> StoreError {
    match &*error {
        StoreError::NotFound => StoreError::NotFound,
        StoreError::Exists => StoreError::Exists,
        StoreError::OutOfSpace => StoreError::OutOfSpace,
        StoreError::Transient(_) => StoreError::Transient(error.into()),
        StoreError::Permanent(_) => StoreError::Permanent(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use domain::{AttemptId, IdParts, ObjectFile, Timestamp, VideoId};
    use futures::FutureExt;
    use store::{Fault, Faulty, Memory};

    const OBJECT_BYTES: usize = 3 * BLOCK_BYTES as usize + 1_000;

    fn key() -> ObjectKey {
        let parts = IdParts { now: Timestamp::from_unix_ms(1), random: [1; 10] };
        ObjectKey { video: VideoId::from(parts), attempt: AttemptId::from(parts), file: ObjectFile::Source }
    }

    fn content() -> Vec<u8> {
        (0..OBJECT_BYTES).map(|at| (at / 3 % 251) as u8).collect()
    }

    /// The object behind a store that counts reads, and fails the first `failing` of them.
    async fn blocks(kept_bytes_max: u64, failing: usize) -> (Blocks, Arc<AtomicUsize>) {
        let store = Memory::new();
        let mut writer = store.create(&key()).await.unwrap();
        writer.write(content().into()).await.unwrap();
        writer.finish().await.unwrap();
        let reads = Arc::new(AtomicUsize::new(0));
        let counted = reads.clone();
        let store = Faulty::chosen(store, move |call| {
            let fails = call == "read" && counted.fetch_add(1, Ordering::Relaxed) < failing;
            fails.then_some(Fault::Before)
        });
        (Blocks::new(Arc::new(store), kept_bytes_max), reads)
    }

    async fn read(blocks: &Blocks, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let parts: Vec<Bytes> = blocks.read(&key(), range).await?.0.try_collect().await?;
        Ok(parts.concat())
    }

    #[tokio::test]
    async fn any_range_is_what_it_is_and_each_block_is_fetched_once() {
        let (blocks, reads) = blocks(u64::MAX, 0).await;
        let (content, end) = (content(), OBJECT_BYTES as u64);
        for range in
            [0..0, 0..1, 5..BLOCK_BYTES, BLOCK_BYTES - 1..BLOCK_BYTES + 1, 0..end, end - 1..end, end..end]
        {
            let expected = &content[range.start as usize..range.end as usize];
            assert!(read(&blocks, range.clone()).await.unwrap() == expected, "{range:?}");
        }
        assert_eq!(reads.load(Ordering::Relaxed), 4);
        assert!(read(&blocks, 0..end + 1).await.is_err());
    }

    #[tokio::test]
    async fn a_crowd_costs_one_read_a_block() {
        let (blocks, reads) = blocks(u64::MAX, 0).await;
        let crowd = (0..100).map(|_| {
            let blocks = blocks.clone();
            tokio::spawn(async move { read(&blocks, 0..OBJECT_BYTES as u64).await.unwrap() == content() })
        });
        assert!(futures::future::join_all(crowd).await.into_iter().all(Result::unwrap));
        assert_eq!(reads.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn the_next_block_comes_while_one_is_being_sent() {
        for first_is_kept in [false, true] {
            let (blocks, reads) = blocks(u64::MAX, 0).await;
            if first_is_kept {
                read(&blocks, 0..1).await.unwrap();
            }
            let (mut parts, _) = blocks.read(&key(), 0..OBJECT_BYTES as u64).await.unwrap();
            let ahead = async {
                while reads.load(Ordering::Relaxed) < BLOCKS_AT_ONCE {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), ahead).await.expect("nobody asks for it");
            parts.try_next().await.unwrap();
            assert_eq!(reads.load(Ordering::Relaxed), BLOCKS_AT_ONCE, "and no more than that");
        }
    }

    #[tokio::test]
    async fn what_is_kept_is_there_at_once() {
        let (blocks, reads) = blocks(u64::MAX, 0).await;
        read(&blocks, BLOCK_BYTES..OBJECT_BYTES as u64).await.unwrap();
        let (mut parts, _) =
            blocks.read(&key(), BLOCK_BYTES..OBJECT_BYTES as u64).now_or_never().unwrap().unwrap();
        let mut bytes = Vec::new();
        while let Some(part) = parts.try_next().now_or_never().expect("it waits for somebody").unwrap() {
            bytes.extend_from_slice(&part);
        }
        assert!(bytes == content()[BLOCK_BYTES as usize..]);
        assert_eq!(reads.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_failure_is_everybodys_who_waited_and_nobodys_after() {
        let (blocks, _) = blocks(u64::MAX, 1).await;
        assert!(read(&blocks, 0..1).await.unwrap_err().is_retryable());
        assert_eq!(read(&blocks, 0..1).await.unwrap(), content()[..1]);
    }

    #[tokio::test]
    async fn what_does_not_fit_is_fetched_again() {
        let (blocks, reads) = blocks(2 * BLOCK_BYTES, 0).await;
        for _ in 0..2 {
            assert!(read(&blocks, 0..OBJECT_BYTES as u64).await.unwrap() == content());
            blocks.kept.run_pending_tasks().await;
            assert!(blocks.kept.weighted_size() <= 2 * BLOCK_BYTES);
        }
        assert!(reads.load(Ordering::Relaxed) > 4);
    }
}

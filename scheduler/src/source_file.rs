//! A local file that stands for an upload. Where the store is elsewhere it is as long as the upload and empty at first;
//! what somebody asks for is brought by ranged reads, so that a film is judged before it was fetched.

use std::io::SeekFrom;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domain::ObjectKey;
use domain::task::DEMAND_BLOCK_BYTES as BLOCK_BYTES;
use futures::StreamExt;
use store::{Store, StoreError};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::failure::RunError;

/// Removed when nobody needs it any more.
pub struct SourceFile {
    path: PathBuf,
    bytes: u64,
    store: Arc<dyn Store>,
    key: ObjectKey,
    present: Mutex<Present>,
}

enum Present {
    Whole,
    /// These blocks of [`BLOCK_BYTES`].
    Blocks(Vec<bool>),
}

impl SourceFile {
    /// A file at `path`, which does not exist yet; nothing is fetched that lies elsewhere.
    pub async fn create(
        store: &Arc<dyn Store>,
        key: ObjectKey,
        path: PathBuf,
    ) -> Result<SourceFile, RunError> {
        let (bytes, present) = if store.is_local() {
            (store.fetch(&key, &path).await?, Present::Whole)
        } else {
            let bytes = store.head(&key).await?.ok_or(StoreError::NotFound)?.bytes;
            File::create_new(&path).await?.set_len(bytes).await?;
            let blocks = vec![false; usize::try_from(bytes.div_ceil(BLOCK_BYTES)).unwrap_or(0)];
            (bytes, if blocks.is_empty() { Present::Whole } else { Present::Blocks(blocks) })
        };
        Ok(SourceFile { path, bytes, store: store.clone(), key, present: Mutex::new(present) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Nothing of it has to be asked for.
    pub async fn is_whole(&self) -> bool {
        matches!(*self.present.lock().await, Present::Whole)
    }

    /// Brings what is missing of `range`. All of it is one read from the start, whose checksum counts.
    pub async fn bring(&self, range: Range<u64>) -> Result<(), RunError> {
        let mut present = self.present.lock().await;
        let Present::Blocks(blocks) = &mut *present else { return Ok(()) };
        if range.start >= range.end || range.end > self.bytes {
            return Err(RunError::failed(format_args!(
                "there are no bytes {range:?} in {} bytes",
                self.bytes
            )));
        }
        if range == (0..self.bytes) {
            self.copy(range).await?;
            *present = Present::Whole;
            return Ok(());
        }
        let end = range.end.div_ceil(BLOCK_BYTES) as usize;
        let mut next = (range.start / BLOCK_BYTES) as usize;
        while next < end {
            let first = next;
            while next < end && !blocks[next] {
                next += 1;
            }
            if first < next {
                let run = first as u64 * BLOCK_BYTES..self.bytes.min(next as u64 * BLOCK_BYTES);
                self.copy(run).await?;
                blocks[first..next].fill(true);
            } else {
                next += 1;
            }
        }
        Ok(())
    }

    pub async fn bring_all(&self) -> Result<(), RunError> {
        self.bring(0..self.bytes).await
    }

    async fn copy(&self, range: Range<u64>) -> Result<(), RunError> {
        let mut arriving = self.store.read(&self.key, range.clone()).await?;
        let mut file = OpenOptions::new().write(true).open(&self.path).await?;
        file.seek(SeekFrom::Start(range.start)).await?;
        while let Some(block) = arriving.next().await {
            file.write_all(&block?).await?;
        }
        Ok(file.flush().await?)
    }

    /// By a run that ends; `after` a moment, if nobody else has taken it.
    pub fn let_go(self: Arc<Self>, after: Duration) -> JoinHandle<()> {
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            drop(self);
        })
    }
}

impl Drop for SourceFile {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "a fetched upload stays until the next start");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use domain::{AttemptId, IdParts, ObjectFile, Timestamp, VideoId};
    use store::Memory;

    /// A store elsewhere that has one upload.
    pub async fn upload(bytes: &[u8]) -> (Arc<dyn Store>, ObjectKey) {
        let parts = IdParts { now: Timestamp::from_unix_ms(1), random: [1; 10] };
        let key = ObjectKey {
            video: VideoId::from(parts),
            attempt: AttemptId::from(parts),
            file: ObjectFile::Source,
        };
        let store = Memory::new();
        let mut writer = store.create(&key).await.unwrap();
        writer.write(bytes.to_vec().into()).await.unwrap();
        writer.finish().await.unwrap();
        (Arc::new(store), key)
    }

    #[tokio::test]
    async fn only_what_is_asked_for_is_brought() {
        let film: Vec<u8> = (0..5 * BLOCK_BYTES + 9).map(|n| (n / 7) as u8 | 1).collect();
        let (store, key) = upload(&film).await;
        let folder = tempfile::tempdir().unwrap();
        let file = SourceFile::create(&store, key, folder.path().join("film")).await.unwrap();
        let block = BLOCK_BYTES as usize;
        let brought = || {
            let here = std::fs::read(file.path()).unwrap();
            assert_eq!(here.len(), film.len());
            let same = here.chunks(block).zip(film.chunks(block)).map(|(here, there)| here == there);
            same.collect::<Vec<_>>()
        };
        assert_eq!(brought(), [false; 6]);
        file.bring(BLOCK_BYTES - 1..BLOCK_BYTES + 1).await.unwrap();
        assert_eq!(brought(), [true, true, false, false, false, false]);
        file.bring(0..file.bytes - 10).await.unwrap();
        assert_eq!(brought(), [true, true, true, true, true, false]);
        file.bring(file.bytes - 1..file.bytes).await.unwrap();
        assert_eq!(brought(), [true; 6]);
        assert!(!file.is_whole().await, "nobody has compared its checksum");
        file.bring_all().await.unwrap();
        assert!(file.is_whole().await);
    }

    #[tokio::test]
    async fn what_is_not_there_cannot_be_asked_for() {
        let (store, key) = upload(b"film").await;
        let folder = tempfile::tempdir().unwrap();
        let file = SourceFile::create(&store, key, folder.path().join("film")).await.unwrap();
        for (from, to) in [(0, 5), (3, 3), (2, 1), (u64::MAX - 1, u64::MAX)] {
            assert!(file.bring(from..to).await.is_err(), "{from}..{to}");
        }
    }
}

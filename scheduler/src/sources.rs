//! Uploads that runs of this process read, each fetched once for all of them: the chunks of a film are many.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use domain::{AttemptId, ObjectKey};
use store::Store;
use tokio::sync::Mutex as AsyncMutex;

use crate::failure::RunError;
use crate::source_file::SourceFile;

/// The next chunk of a film is claimed a moment after the last one's end. Shorter than any lease: what was deleted
/// is gone from here before it is swept for the last time.
pub const KEPT_UNUSED: Duration = Duration::from_secs(5);

/// The uploads at hand.
pub struct Sources {
    folder: PathBuf,
    /// By the attempt that wrote them.
    at_hand: Mutex<HashMap<AttemptId, Arc<AsyncMutex<Weak<SourceFile>>>>>,
    /// A file that is still being given up does not stand in the way of the next.
    fetched: AtomicU64,
}

impl Sources {
    pub fn new(folder: PathBuf) -> Sources {
        Sources { folder, at_hand: Mutex::default(), fetched: AtomicU64::new(0) }
    }

    /// The upload under `key`, or as much of it as somebody asked for.
    pub async fn get(&self, store: &Arc<dyn Store>, key: ObjectKey) -> Result<Arc<SourceFile>, RunError> {
        let attempt = key.attempt;
        let slot = self.slot(attempt);
        let mut slot = slot.lock().await;
        if let Some(at_hand) = slot.upgrade() {
            return Ok(at_hand);
        }
        let number = self.fetched.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{attempt}-{number}"));
        let file = Arc::new(SourceFile::create(store, key, path).await?);
        *slot = Arc::downgrade(&file);
        Ok(file)
    }

    fn slot(&self, attempt: AttemptId) -> Arc<AsyncMutex<Weak<SourceFile>>> {
        let mut at_hand = self.at_hand.lock().unwrap_or_else(PoisonError::into_inner);
        at_hand.retain(|_, slot| {
            Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|file| file.strong_count() > 0)
        });
        at_hand.entry(attempt).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source_file::tests::upload;
    use std::time::Duration;

    #[tokio::test]
    async fn what_several_need_is_fetched_once_and_goes_after_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources::new(folder.path().to_owned());
        let (store, key) = upload(b"film").await;
        let get = || sources.get(&store, key.clone());
        let (one, other) = tokio::join!(get(), get());
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(one.path(), other.path());

        let path = one.path().to_owned();
        drop(one);
        let kept = other.let_go(Duration::from_secs(600));
        let next = get().await.unwrap();
        assert_eq!(next.path(), &*path, "it was kept a moment");
        kept.abort();
        let _ = kept.await;
        next.let_go(Duration::ZERO).await.unwrap();
        assert!(!path.exists(), "nobody needs it");

        let again = get().await.unwrap();
        assert!(again.path().exists() && again.path() != path);
    }
}

//! Uploads that runs of this process read, each fetched once for all of them: the chunks of a film are many.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use domain::AttemptId;
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinHandle;

use crate::failure::RunError;

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

/// A local file, removed when nobody needs it any more.
pub struct SourceFile {
    path: PathBuf,
}

impl Sources {
    pub fn new(folder: PathBuf) -> Sources {
        Sources { folder, at_hand: Mutex::default(), fetched: AtomicU64::new(0) }
    }

    /// The upload of this attempt; `fetch` brings it to the path it is given, if nobody has.
    pub async fn get(
        &self,
        attempt: AttemptId,
        fetch: impl AsyncFnOnce(&Path) -> Result<(), RunError>,
    ) -> Result<Arc<SourceFile>, RunError> {
        let slot = self.slot(attempt);
        let mut slot = slot.lock().await;
        if let Some(at_hand) = slot.upgrade() {
            return Ok(at_hand);
        }
        let number = self.fetched.fetch_add(1, Ordering::Relaxed);
        let file = Arc::new(SourceFile { path: self.folder.join(format!("{attempt}-{number}")) });
        fetch(&file.path).await?;
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

impl SourceFile {
    pub fn path(&self) -> &Path {
        &self.path
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
mod tests {
    use super::*;
    use domain::{IdParts, Timestamp};

    #[tokio::test]
    async fn what_several_need_is_fetched_once_and_goes_after_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources::new(folder.path().to_owned());
        let attempt = AttemptId::from(IdParts { now: Timestamp::from_unix_ms(1), random: [1; 10] });
        let fetched = AtomicU64::new(0);
        let get = || {
            sources.get(attempt, async |path: &Path| {
                fetched.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Ok(std::fs::write(path, b"film")?)
            })
        };
        let (one, other) = tokio::join!(get(), get());
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!((one.path(), fetched.load(Ordering::Relaxed)), (other.path(), 1));

        let path = one.path().to_owned();
        drop(one);
        let kept = other.let_go(Duration::from_secs(600));
        let next = get().await.unwrap();
        assert_eq!((next.path(), fetched.load(Ordering::Relaxed)), (&*path, 1), "it was kept a moment");
        kept.abort();
        let _ = kept.await;
        next.let_go(Duration::ZERO).await.unwrap();
        assert!(!path.exists(), "nobody needs it");

        let again = get().await.unwrap();
        assert_eq!(fetched.load(Ordering::Relaxed), 2);
        assert!(again.path().exists() && again.path() != path);
    }
}

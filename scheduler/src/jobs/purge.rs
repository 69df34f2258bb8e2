//! Remove every object of a deleted video, and write the receipt.

use std::collections::HashMap;
use std::time::Duration;

use domain::ObjectKey;
use sql::{FencedError, Purge};
use store::{Store, StoreError};

use crate::failure::RunError;
use crate::unfinished::{Pages, video_of};
use crate::workplace::Run;

/// Objects of one batch; S3 takes as many in one call.
const BATCH_OBJECTS_MAX: usize = 1000;
/// Writers stop at the end of their lease by their own clocks, and a write in flight takes a moment more.
const WRITERS_GRACE: Duration = Duration::from_secs(2);
/// Most writers say that they stopped long before that.
const WRITERS_POLL: Duration = Duration::from_millis(250);
/// After the database did not answer.
const NOTE_AGAIN_AFTER: Duration = Duration::from_millis(500);

pub async fn run(run: &Run<'_>) -> Result<(), RunError> {
    let (scheduler, lease) = (run.scheduler, run.lease);
    let mut purge = scheduler.catalog.start_purge(lease, scheduler.now()).await?;
    sweep(run, &mut purge).await?;
    wait_for_writers(run).await?;
    remove_unfinished(run).await?;
    // What came since the first sweep, also from a writer that stopped before the wait began.
    sweep(run, &mut purge).await?;
    check_empty(run).await?;
    let swept_at = scheduler.now();
    scheduler.catalog.finish_purge(lease, swept_at, swept_at).await?;
    tracing::info!(video.id = %lease.job.video, deletion.id = %purge.deletion, "purged");
    Ok(())
}

/// Returns once nobody writes any more.
async fn wait_for_writers(run: &Run<'_>) -> Result<(), RunError> {
    let (catalog, video) = (&run.scheduler.catalog, run.lease.job.video);
    let mut waited = false;
    while catalog.writers_until(video, run.scheduler.now()).await?.is_some() {
        waited = true;
        tokio::time::sleep(WRITERS_POLL).await;
    }
    if waited {
        tokio::time::sleep(WRITERS_GRACE).await;
    }
    Ok(())
}

/// Nobody is left who could finish it.
async fn remove_unfinished(run: &Run<'_>) -> Result<(), RunError> {
    let store = &*run.scheduler.store;
    let mut pages = Pages::default();
    while let Some(page) = pages.next(store).await? {
        for unfinished in page {
            if video_of(&unfinished.name) == Some(run.lease.job.video) {
                store.remove_unfinished(&unfinished.name).await?;
            }
        }
    }
    Ok(())
}

/// Batch by batch, each counted for the receipt once it is gone, also where a part of it stays.
async fn sweep(run: &Run<'_>, purge: &mut Purge) -> Result<(), RunError> {
    let prefix = ObjectKey::video_prefix(run.lease.job.video);
    loop {
        let removed = remove_batch(&*run.scheduler.store, &prefix).await?;
        if removed.objects > 0 {
            purge.objects_deleted += removed.objects;
            purge.bytes_freed += removed.bytes;
            note(run, purge).await?;
        }
        if removed.into_nothing_left()? {
            return Ok(());
        }
    }
}

/// What is gone cannot be counted again, so this asks as long as the lease is held.
async fn note(run: &Run<'_>, purge: &Purge) -> Result<(), RunError> {
    loop {
        match run.scheduler.catalog.note_purged(run.lease, purge).await {
            Err(FencedError::Sql(error)) if error.is_unavailable() => {
                tracing::warn!(job.id = %run.lease.job.id, %error, "what was purged is not noted yet");
                tokio::time::sleep(NOTE_AGAIN_AFTER).await;
            }
            outcome => return Ok(outcome?),
        }
    }
}

/// The receipt says so, so it is looked at last.
async fn check_empty(run: &Run<'_>) -> Result<(), RunError> {
    let prefix = ObjectKey::video_prefix(run.lease.job.video);
    let left = run.scheduler.store.list(&prefix, None, 1).await?;
    if left.objects.is_empty() {
        return Ok(());
    }
    Err(RunError::failed(format_args!("`{}` appeared after the last sweep", left.objects[0].0)))
}

/// What became of a batch.
#[derive(Default)]
struct Removed {
    objects: u64,
    bytes: u64,
    /// What is left is listed again by the next attempt.
    error: Option<StoreError>,
}

impl Removed {
    /// There was nothing left to remove.
    fn into_nothing_left(self) -> Result<bool, StoreError> {
        self.error.map_or(Ok(self.objects == 0), Err)
    }
}

/// Removes everything under a prefix.
pub async fn remove_prefix(store: &dyn Store, prefix: &str) -> Result<(), StoreError> {
    while !remove_batch(store, prefix).await?.into_nothing_left()? {}
    Ok(())
}

async fn remove_batch(store: &dyn Store, prefix: &str) -> Result<Removed, StoreError> {
    let page = store.list(prefix, None, BATCH_OBJECTS_MAX).await?;
    let lengths: HashMap<&str, u64> = page.objects.iter().map(|(path, bytes)| (&**path, *bytes)).collect();
    let paths: Vec<String> = page.objects.iter().map(|(path, _)| path.clone()).collect();
    let mut removed = Removed::default();
    if paths.is_empty() {
        return Ok(removed);
    }
    for (path, result) in store.delete(&paths).await {
        match result {
            Ok(()) => {
                removed.objects += 1;
                removed.bytes += lengths.get(&*path).copied().unwrap_or(0);
            }
            Err(error) => {
                removed.error.get_or_insert(error);
            }
        }
    }
    Ok(removed)
}

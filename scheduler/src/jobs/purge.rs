//! Remove every object of a deleted video, and write the receipt.

use std::time::Duration;

use domain::{ObjectKey, Timestamp};
use store::{Store, StoreError};

use crate::failure::RunError;
use crate::workplace::Run;

/// Objects of one batch; S3 takes as many in one call.
const BATCH_OBJECTS_MAX: usize = 1000;
/// Writers stop at the end of their lease by their own clocks, and a write in flight takes a moment more.
const WRITERS_GRACE_MS: i64 = 2_000;

pub async fn run(run: &Run<'_>) -> Result<(), RunError> {
    let (scheduler, lease) = (run.scheduler, run.lease);
    let purge = scheduler.catalog.start_purge(lease, scheduler.now()).await?;
    sweep(run).await?;
    if let Some(until) = purge.writers_until {
        wait_until(run, until.plus_ms(WRITERS_GRACE_MS)).await;
        sweep(run).await?;
    }
    check_empty(run).await?;
    let swept_at = scheduler.now();
    scheduler.catalog.finish_purge(lease, swept_at, swept_at).await?;
    tracing::info!(video.id = %lease.job.video, deletion.id = %purge.deletion, "purged");
    Ok(())
}

/// Batch by batch, each counted for the receipt once it is gone.
async fn sweep(run: &Run<'_>) -> Result<(), RunError> {
    let (scheduler, lease) = (run.scheduler, run.lease);
    let prefix = ObjectKey::video_prefix(lease.job.video);
    loop {
        let removed = remove_batch(&*scheduler.store, &prefix).await?;
        if removed.objects == 0 {
            return Ok(());
        }
        scheduler.catalog.note_purged(lease, removed.objects, removed.bytes).await?;
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

async fn wait_until(run: &Run<'_>, instant: Timestamp) {
    let wait_ms = instant.ms_since(run.scheduler.now());
    tokio::time::sleep(Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0))).await;
}

struct Removed {
    objects: u64,
    bytes: u64,
}

/// Removes everything under a prefix.
pub async fn remove_prefix(store: &dyn Store, prefix: &str) -> Result<(), StoreError> {
    while remove_batch(store, prefix).await?.objects > 0 {}
    Ok(())
}

async fn remove_batch(store: &dyn Store, prefix: &str) -> Result<Removed, StoreError> {
    let page = store.list(prefix, None, BATCH_OBJECTS_MAX).await?;
    let bytes = page.objects.iter().map(|(_, bytes)| bytes).sum();
    let paths: Vec<String> = page.objects.into_iter().map(|(path, _)| path).collect();
    if paths.is_empty() {
        return Ok(Removed { objects: 0, bytes: 0 });
    }
    for (_, result) in store.delete(&paths).await {
        // What is left is listed again by the next attempt.
        result?;
    }
    Ok(Removed { objects: paths.len() as u64, bytes })
}

//! Remove every object of a deleted video, and write the receipt.

use std::time::Duration;

use domain::ObjectKey;
use store::{Store, StoreError};

use crate::failure::RunError;
use crate::workplace::Run;

/// Objects of one batch; S3 takes as many in one call.
const BATCH_OBJECTS_MAX: usize = 1000;
/// Writers stop at the end of their lease by their own clocks, and a write in flight takes a moment more.
const WRITERS_GRACE: Duration = Duration::from_secs(2);
/// Most writers say that they stopped long before that.
const WRITERS_POLL: Duration = Duration::from_millis(250);

pub async fn run(run: &Run<'_>) -> Result<(), RunError> {
    let (scheduler, lease) = (run.scheduler, run.lease);
    let deletion = scheduler.catalog.start_purge(lease, scheduler.now()).await?;
    sweep(run).await?;
    if wait_for_writers(run).await? {
        sweep(run).await?;
    }
    check_empty(run).await?;
    let swept_at = scheduler.now();
    scheduler.catalog.finish_purge(lease, swept_at, swept_at).await?;
    tracing::info!(video.id = %lease.job.video, deletion.id = %deletion, "purged");
    Ok(())
}

/// Returns once nobody writes any more. `false`: nobody did.
async fn wait_for_writers(run: &Run<'_>) -> Result<bool, RunError> {
    let (catalog, video) = (&run.scheduler.catalog, run.lease.job.video);
    let mut waited = false;
    while catalog.writers_until(video, run.scheduler.now()).await?.is_some() {
        waited = true;
        tokio::time::sleep(WRITERS_POLL).await;
    }
    if waited {
        tokio::time::sleep(WRITERS_GRACE).await;
    }
    Ok(waited)
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

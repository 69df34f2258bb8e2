//! Deleting, a thousand at once where the server can, and each one answered for.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::{StreamExt, stream};

use super::bucket::Bucket;
use super::failure::Failure;
use crate::StoreError;

const BATCH_MAX: usize = 1000;
const SINGLES_AT_ONCE: usize = 8;

pub(super) async fn delete(bucket: &Arc<Bucket>, paths: &[String]) -> Vec<(String, Result<(), StoreError>)> {
    let mut answers = Vec::with_capacity(paths.len());
    for batch in paths.chunks(BATCH_MAX) {
        let results = delete_batch(bucket, batch).await;
        answers.extend(batch.iter().cloned().zip(results.into_iter().map(|result| Ok(result?))));
    }
    answers
}

/// What the batch did not remove is removed one by one. A batch that was not answered at all has failed: asking
/// a thousand times what cannot be asked once would only make the storm worse.
async fn delete_batch(bucket: &Arc<Bucket>, paths: &[String]) -> Vec<Result<(), Failure>> {
    let mut gone = HashSet::new();
    if paths.len() > 1 && bucket.abilities.deletes_batches.load(Ordering::Relaxed) {
        match bucket.delete_batch(paths).await {
            Ok(removed) => gone.extend(removed),
            Err(failure) if failure.is_unknown_call() => {
                bucket.abilities.deletes_batches.store(false, Ordering::Relaxed);
                tracing::warn!(error = %failure, "S3 cannot delete in batches; deleting one by one from now on");
            }
            Err(failure) => return paths.iter().map(|_| Err(failure.clone())).collect(),
        }
    }
    let left: Vec<(String, bool)> = paths.iter().map(|path| (path.clone(), !gone.contains(path))).collect();
    let singles = stream::iter(left)
        .map(|(path, is_left)| async move { if is_left { bucket.delete_one(&path).await } else { Ok(()) } });
    singles.buffered(SINGLES_AT_ONCE).collect().await
}

//! The working half of the process, without its routes: what an all-in-one program runs beside the services.

use std::sync::Arc;
use std::time::Duration;

use chassis::Failure;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Scheduler;
use crate::dispatcher::dispatch;
use crate::scratch::Scratch;
use crate::sweeper::sweep_regularly;

/// Dispatches, executes and sweeps until `shutdown`; jobs in hand are then given back.
pub async fn work(scheduler: Scheduler, shutdown: CancellationToken) -> Result<(), Failure> {
    let folder = &scheduler.config.scratch_dir;
    let scratch = Scratch::open(folder, &scheduler.worker).map_err(|error| {
        Failure::cannot_create(format!("The scratch folder {} cannot be made: {error}", folder.display()))
    })?;
    let drain_max = Duration::from_secs(scheduler.config.drain_s_max);
    let tasks = TaskTracker::new();
    let sweeping = tokio::spawn(sweep_regularly(scheduler.clone(), shutdown.clone()));
    let dispatching = tokio::spawn(dispatch(scheduler, Arc::new(scratch), tasks.clone(), shutdown.clone()));
    // Neither ends before `shutdown`, unless it panicked: then nothing would be done any more, so the process
    // says so and goes.
    let ended = tokio::select! {
        ended = dispatching => ended.map_err(|error| Failure::software("dispatch", error)),
        ended = sweeping => ended.map_err(|error| Failure::software("sweep", error)),
    };
    shutdown.cancel();
    tasks.close();
    if tokio::time::timeout(drain_max, tasks.wait()).await.is_err() {
        tracing::warn!(executors = tasks.len(), "the drain took too long; their leases will end");
    }
    ended
}

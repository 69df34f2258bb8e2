//! Leases due jobs and hands them to executors, lane by lane: what makes a video playable never waits behind an
//! encode, and a purge that waits for writers holds up nobody.

use std::sync::Arc;
use std::time::Duration;

use domain::JobKind;
use sql::{Claim, Lease, SqlError};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Scheduler;
use crate::executor::execute;
use crate::scratch::Scratch;

/// Purges mostly wait, for the store or for the end of a lease.
const PURGE_SLOTS: usize = 4;
/// Nobody waits for a picture before watching.
const COVER_SLOTS: usize = 1;
/// Joining is reading and writing: more at once would only share the disk. A short film passes a long one.
const ASSEMBLE_SLOTS: usize = 2;
/// After the database did not answer.
const DISTURBED_WAIT: Duration = Duration::from_millis(500);
/// Leases ended while nobody could renew them. Those who held them give them back in this time after the database's
/// return; whom nobody hears of then was lost.
const GIVE_BACK_WAIT: Duration = Duration::from_secs(1);

/// Executors of some kinds of jobs, and the bounded channel that leads to them.
struct Lane {
    kinds: Vec<JobKind>,
    /// A permit for each executor that has nothing to do: no job is leased before one can run it.
    idle: Arc<Semaphore>,
    sender: mpsc::Sender<Assignment>,
}

struct Assignment {
    lease: Lease,
    /// Given back when the run is over.
    _slot: OwnedSemaphorePermit,
}

/// Until `shutdown`; runs in hand are then given back.
pub async fn dispatch(
    scheduler: Scheduler,
    scratch: Arc<Scratch>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
) {
    let lanes = lanes(&scheduler, &scratch, &tasks, &shutdown);
    let poll = Duration::from_millis(scheduler.config.jobs.poll_ms);
    while !shutdown.is_cancelled() {
        if let Err(error) = fill(&scheduler, &lanes).await {
            tracing::warn!(%error, "the queue cannot be read");
            shutdown.run_until_cancelled(until_back(&scheduler)).await;
            continue;
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = scheduler.catalog.bell().notified() => {}
            () = tokio::time::sleep(poll) => {}
        }
    }
}

/// Until the database answers, and everybody had time to say so.
async fn until_back(scheduler: &Scheduler) {
    loop {
        tokio::time::sleep(DISTURBED_WAIT).await;
        if scheduler.catalog.ping().await.is_ok() {
            return tokio::time::sleep(GIVE_BACK_WAIT).await;
        }
    }
}

fn lanes(
    scheduler: &Scheduler,
    scratch: &Arc<Scratch>,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Vec<Lane> {
    let jobs = &scheduler.config.jobs;
    let plan: [(&[JobKind], usize); 5] = [
        (&[JobKind::Ingest], jobs.ingest_slots as usize),
        (&[JobKind::Cover], COVER_SLOTS),
        (&[JobKind::Purge], PURGE_SLOTS),
        (&[JobKind::Assemble], ASSEMBLE_SLOTS),
        (&[JobKind::Encode], encode_slots(jobs.encode_slots)),
    ];
    let mut lanes = Vec::new();
    for (kinds, slots) in plan {
        let kinds: Vec<_> =
            kinds.iter().copied().filter(|kind| scheduler.config.kinds.contains(kind)).collect();
        if !kinds.is_empty() {
            lanes.push(Lane::open(kinds, slots.max(1), scheduler, scratch, tasks, shutdown));
        }
    }
    lanes
}

fn encode_slots(setting: Option<u32>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    setting.map_or(cores, |slots| slots as usize)
}

impl Lane {
    fn open(
        kinds: Vec<JobKind>,
        slots: usize,
        scheduler: &Scheduler,
        scratch: &Arc<Scratch>,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Lane {
        let (sender, receiver) = mpsc::channel(slots);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..slots {
            let (scheduler, scratch) = (scheduler.clone(), scratch.clone());
            let (receiver, shutdown) = (receiver.clone(), shutdown.clone());
            let keeps_spare = kinds.contains(&JobKind::Ingest);
            tasks.spawn(work_off(scheduler, scratch, receiver, keeps_spare, shutdown));
        }
        Lane { kinds, idle: Arc::new(Semaphore::new(slots)), sender }
    }
}

async fn fill(scheduler: &Scheduler, lanes: &[Lane]) -> Result<(), SqlError> {
    for lane in lanes {
        let claim = Claim {
            kinds: &lane.kinds,
            worker: &scheduler.worker,
            lease_ms: scheduler.config.lease_ms(),
            attempts_max: scheduler.config.jobs.attempts_max,
            left_to_others_ms: scheduler.config.left_to_others_ms(),
            limit: lane.idle.available_permits(),
        };
        if claim.limit == 0 {
            continue;
        }
        for lease in scheduler.catalog.claim_jobs(&claim, scheduler.now()).await? {
            let Ok(slot) = lane.idle.clone().acquire_owned().await else { return Ok(()) };
            // Executors live as long as the channel, and there is room for each slot.
            if lane.sender.send(Assignment { lease, _slot: slot }).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// One executor: until the channel is closed and empty.
async fn work_off(
    scheduler: Scheduler,
    scratch: Arc<Scratch>,
    receiver: Arc<Mutex<mpsc::Receiver<Assignment>>>,
    keeps_spare: bool,
    shutdown: CancellationToken,
) {
    loop {
        // Not sooner: its start would take time from the run before.
        if keeps_spare {
            scheduler.transcoder.keep_spare();
        }
        let next = receiver.lock().await.recv().await;
        let Some(Assignment { lease, _slot }) = next else { return };
        // In a task of its own, so that a panic costs this run and no executor.
        let run = tokio::spawn({
            let (scheduler, scratch, lease) = (scheduler.clone(), scratch.clone(), lease.clone());
            let shutdown = shutdown.clone();
            async move { execute(&scheduler, &scratch, &lease, &shutdown).await }
        });
        if let Err(error) = run.await {
            tracing::error!(job.id = %lease.job.id, %error, "the run of a job panicked; its lease will end");
        }
        drop(_slot);
        // What it queued, or what waited for its slot, starts now.
        scheduler.catalog.bell().notify_one();
    }
}

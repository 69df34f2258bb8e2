//! What nobody will finish any more: uploads that never came, attempts whose writer is lost, bytes of writers
//! that died. What is old is told by rows and leases, never by the age of a file.

use std::collections::HashSet;
use std::time::Duration;

use domain::{AttemptId, ObjectKey, Timestamp};
use sql::AttemptState;
use store::Unfinished;
use tokio_util::sync::CancellationToken;

use crate::Scheduler;
use crate::failure::RunError;
use crate::jobs::remove_prefix;
use crate::unfinished::{Pages, attempt_of};

const ATTEMPTS_MAX: usize = 100;
/// After as many a sweep ends early.
const FAILURES_MAX: usize = 1000;
/// A probe of the store is over in seconds; it has no row that could tell.
const PROBE_AGE_MS_MAX: i64 = 3_600_000;
/// Until then whoever asks for an upload that has ended is told so.
const RESUMABLES_KEPT_MS: i64 = 7 * 24 * 3_600_000;
/// Clients give up asking again long before.
const IDEMPOTENCY_KEYS_KEPT_MS: i64 = 24 * 3_600_000;

/// Until `shutdown`.
pub async fn sweep_regularly(scheduler: Scheduler, shutdown: CancellationToken) {
    let pause = Duration::from_secs(scheduler.config.jobs.sweep_s);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            // Dropped in the middle, a sweep is taken up where it was: every step may be done again.
            swept = sweep(&scheduler) => if let Err(error) = swept {
                tracing::warn!(error = %format_args!("{error:#}"), "sweep cut short");
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Every step is taken, whatever became of those before it; answers with the first error.
pub async fn sweep(scheduler: &Scheduler) -> Result<(), RunError> {
    let now = scheduler.now();
    let steps = [
        // Before videos: those that were waited for in vain are let go in the same sweep.
        sweep_resumables(scheduler, now).await,
        expire_videos(scheduler, now).await,
        scheduler.catalog.forget_expired_sessions(now).await.map(drop).map_err(RunError::from),
        forget_idempotency_keys(scheduler, now).await,
        sweep_attempts(scheduler, now).await,
        sweep_unfinished(scheduler, now).await,
        show_depths(scheduler, now).await,
    ];
    steps.into_iter().collect()
}

async fn sweep_resumables(scheduler: &Scheduler, now: Timestamp) -> Result<(), RunError> {
    let expired = scheduler.catalog.sweep_resumables(now.plus_ms(-RESUMABLES_KEPT_MS), now).await?;
    if expired > 0 {
        tracing::info!(uploads = expired, "resumable uploads expired");
    }
    Ok(())
}

async fn expire_videos(scheduler: &Scheduler, now: Timestamp) -> Result<(), RunError> {
    let created_before = now.plus_ms(-scheduler.config.upload_token_ms());
    let expired = scheduler.catalog.expire_videos(created_before, now).await?;
    if expired > 0 {
        tracing::info!(videos = expired, "waits for uploads ended");
    }
    Ok(())
}

async fn forget_idempotency_keys(scheduler: &Scheduler, now: Timestamp) -> Result<(), RunError> {
    let made_before = now.plus_ms(-IDEMPOTENCY_KEYS_KEPT_MS);
    scheduler.catalog.forget_idempotency_keys(made_before).await.map(drop).map_err(RunError::from)
}

/// What could not be removed is left for the next sweep, and nothing waits behind it.
#[derive(Default)]
struct Failures {
    first: Option<RunError>,
    names: HashSet<String>,
}

impl Failures {
    fn note(&mut self, name: String, error: RunError) {
        tracing::warn!(name, error = %format_args!("{error:#}"), "what is abandoned could not be removed");
        self.names.insert(name);
        self.first.get_or_insert(error);
    }

    /// So many fail only where the store itself does.
    fn are_too_many(&self) -> bool {
        self.names.len() >= FAILURES_MAX
    }

    fn into_result(self) -> Result<(), RunError> {
        self.first.map_or(Ok(()), Err)
    }
}

async fn sweep_attempts(scheduler: &Scheduler, now: Timestamp) -> Result<(), RunError> {
    // A writer that lost its lease has stopped by the end of another.
    let grace_ms = scheduler.config.lease_ms();
    let mut failures = Failures::default();
    loop {
        // Those that failed are listed again, so there must be room for others besides them.
        let listed_max = ATTEMPTS_MAX + failures.names.len();
        let stale = scheduler.catalog.stale_attempts(now, grace_ms, listed_max).await?;
        for &(video, attempt) in &stale {
            let prefix = ObjectKey::attempt_prefix(video, attempt);
            if failures.names.contains(&prefix) {
                continue;
            }
            match sweep_attempt(scheduler, attempt, &prefix).await {
                Ok(()) => tracing::info!(video.id = %video, attempt.id = %attempt, "attempt swept"),
                Err(error) => failures.note(prefix, error),
            }
        }
        if stale.len() < listed_max || failures.are_too_many() {
            return failures.into_result();
        }
    }
}

async fn sweep_attempt(scheduler: &Scheduler, attempt: AttemptId, prefix: &str) -> Result<(), RunError> {
    remove_prefix(&*scheduler.store, prefix).await?;
    scheduler.catalog.forget_attempt(attempt).await?;
    Ok(())
}

async fn sweep_unfinished(scheduler: &Scheduler, now: Timestamp) -> Result<(), RunError> {
    let store = &*scheduler.store;
    let (mut pages, mut failures) = (Pages::default(), Failures::default());
    while let Some(page) = pages.next(store).await? {
        for unfinished in page {
            if may_grow(scheduler, &unfinished, now).await? {
                continue;
            }
            if let Err(error) = store.remove_unfinished(&unfinished.name).await {
                failures.note(unfinished.name, error.into());
            }
        }
        if failures.are_too_many() {
            break;
        }
    }
    failures.into_result()
}

async fn may_grow(scheduler: &Scheduler, unfinished: &Unfinished, now: Timestamp) -> Result<bool, RunError> {
    let Some(attempt) = attempt_of(&unfinished.name) else {
        return Ok(unfinished.modified.is_none_or(|at| now.ms_since(at) < PROBE_AGE_MS_MAX));
    };
    let attempt = scheduler.catalog.attempt(attempt).await?;
    Ok(attempt.is_some_and(|attempt| attempt.state == AttemptState::Open))
}

async fn show_depths(scheduler: &Scheduler, now: Timestamp) -> Result<(), RunError> {
    let depths = scheduler.catalog.queue_depths(now).await?;
    for &kind in domain::JobKind::ALL {
        for state in [domain::JobState::Queued, domain::JobState::Running, domain::JobState::Dead] {
            let depth = depths.iter().find(|depth| (depth.kind, depth.state) == (kind, state));
            let labels = [("kind", kind.as_str()), ("state", state.as_str())];
            metrics::gauge!("scheduler_jobs", &labels).set(depth.map_or(0, |depth| depth.jobs) as f64);
        }
        let oldest =
            depths.iter().filter(|depth| depth.kind == kind).find_map(|depth| depth.oldest_ready_since);
        let age_ms = oldest.map_or(0, |since| now.ms_since(since));
        metrics::gauge!("scheduler_oldest_ready_age_seconds", "kind" => kind.as_str())
            .set(age_ms as f64 / 1000.0);
    }
    Ok(())
}

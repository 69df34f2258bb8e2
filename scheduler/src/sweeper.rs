//! What nobody will finish any more: uploads that never came, attempts whose writer is lost, bytes of writers
//! that died. What is old is told by rows and leases, never by the age of a file.

use std::time::Duration;

use domain::{AttemptId, ObjectKey, Timestamp};
use sql::AttemptState;
use store::Unfinished;
use tokio_util::sync::CancellationToken;

use crate::Scheduler;
use crate::failure::RunError;
use crate::jobs::remove_prefix;

const ATTEMPTS_MAX: usize = 100;
const UNFINISHED_MAX: usize = 1000;
/// A probe of the store is over in seconds; it has no row that could tell.
const PROBE_AGE_MS_MAX: i64 = 3_600_000;

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

pub async fn sweep(scheduler: &Scheduler) -> Result<(), RunError> {
    let (catalog, now) = (&scheduler.catalog, scheduler.now());
    let expired = catalog.expire_videos(now.plus_ms(-scheduler.config.upload_token_ms()), now).await?;
    if expired > 0 {
        tracing::info!(videos = expired, "waits for uploads ended");
    }
    catalog.forget_expired_sessions(now).await?;
    sweep_attempts(scheduler, now).await?;
    sweep_unfinished(scheduler, now).await?;
    show_depths(scheduler, now).await
}

async fn sweep_attempts(scheduler: &Scheduler, now: Timestamp) -> Result<(), RunError> {
    // A writer that lost its lease has stopped by the end of another.
    let grace_ms = scheduler.config.lease_ms();
    loop {
        let stale = scheduler.catalog.stale_attempts(now, grace_ms, ATTEMPTS_MAX).await?;
        for &(video, attempt) in &stale {
            remove_prefix(&*scheduler.store, &ObjectKey::attempt_prefix(video, attempt)).await?;
            scheduler.catalog.forget_attempt(attempt).await?;
            tracing::info!(video.id = %video, attempt.id = %attempt, "attempt swept");
        }
        if stale.len() < ATTEMPTS_MAX {
            return Ok(());
        }
    }
}

async fn sweep_unfinished(scheduler: &Scheduler, now: Timestamp) -> Result<(), RunError> {
    let mut after = None;
    loop {
        let found = scheduler.store.list_unfinished(after.as_deref(), UNFINISHED_MAX).await?;
        for unfinished in &found {
            if !may_grow(scheduler, unfinished, now).await? {
                scheduler.store.remove_unfinished(&unfinished.name).await?;
            }
        }
        match found.last() {
            Some(last) if found.len() == UNFINISHED_MAX => after = Some(last.name.clone()),
            _ => return Ok(()),
        }
    }
}

async fn may_grow(scheduler: &Scheduler, unfinished: &Unfinished, now: Timestamp) -> Result<bool, RunError> {
    let Some(attempt) = attempt_of(&unfinished.name) else {
        return Ok(unfinished.modified.is_none_or(|at| now.ms_since(at) < PROBE_AGE_MS_MAX));
    };
    let attempt = scheduler.catalog.attempt(attempt).await?;
    Ok(attempt.is_some_and(|attempt| attempt.state == AttemptState::Open))
}

/// A store names what is unfinished after the key it will have: `videos`, the video, the attempt.
fn attempt_of(name: &str) -> Option<AttemptId> {
    name.split(['~', '/']).nth(2)?.parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;
    use domain::IdParts;

    #[test]
    fn an_unfinished_name_tells_its_attempt() {
        let id = AttemptId::from(IdParts { now: Timestamp::from_unix_ms(1), random: [1; 10] });
        assert_eq!(attempt_of(&format!("videos~{id}~{id}~source~0")), Some(id));
        assert_eq!(attempt_of(&format!("videos/{id}/{id}/source")), Some(id));
        assert_eq!(attempt_of("probe~0"), None);
    }
}

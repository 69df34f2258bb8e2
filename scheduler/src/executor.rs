//! Runs one leased job to its ending, whatever that is.

use std::time::{Duration, Instant};

use domain::{Timestamp, retry_delay_ms};
use sql::{EncodeAnew, FencedError, Lease};
use tokio::sync::futures::Notified;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Scheduler;
use crate::failure::{RunError, Unsound};
use crate::jobs;
use crate::scratch::Scratch;
use crate::workplace::Run;

/// What is kept of an error as the reason of a failure, in characters.
const REASON_CHARS_MAX: usize = 4000;

/// The word for the ending of a run whose writes were refused, or would be.
const LEASE_LOST: &str = "lease_lost";
/// The word where the database did not answer: the lease ends by itself.
const UNWRITTEN: &str = "unwritten";

/// Whoever watches a video being made sees it move at least this often, and the database is not busy with it.
const PROGRESS_SHOWN_EVERY: Duration = Duration::from_secs(1);

/// An ending that could not be written is tried again after this; sooner than anybody looks for lost jobs again.
const WRITE_AGAIN_EVERY: Duration = Duration::from_millis(500);

pub async fn execute(scheduler: &Scheduler, scratch: &Scratch, lease: &Lease, shutdown: &CancellationToken) {
    let started = Instant::now();
    let (progress, seen) = watch::channel(0.0);
    let run = Run::new(scheduler, scratch, lease, progress);
    // Whichever ends first drops the others; dropping a run kills its child and removes its files. A commit that
    // is cut is whole or not there, and the fence tells which.
    let result = tokio::select! {
        biased;
        () = shutdown.cancelled() => Err(RunError::Stopped),
        result = jobs::run(&run) => result,
        error = keep_lease(scheduler, lease, seen) => Err(error),
    };
    run.settle().await;
    let ending = conclude(scheduler, lease, result, shutdown).await;
    if ending == LEASE_LOST || ending == UNWRITTEN {
        clear_away(&run).await;
    }
    let elapsed = started.elapsed();
    let labels = [("kind", lease.job.kind.as_str()), ("ending", ending)];
    metrics::histogram!("scheduler_job_duration_seconds", &labels).record(elapsed.as_secs_f64());
    tracing::info!(
        job.id = %lease.job.id,
        job.kind = %lease.job.kind,
        video.id = %lease.job.video,
        attempt = lease.job.attempt,
        duration_ms = elapsed.as_millis() as u64,
        ending,
        "job ended"
    );
}

async fn clear_away(run: &Run<'_>) {
    if let Err(error) = run.clear_away().await {
        let (job, video) = (run.lease.job.id, run.lease.job.video);
        tracing::warn!(job.id = %job, video.id = %video, error = %format_args!("{error:#}"),
            "what a run wrote that lost its lease may stay; `sluice check` tells");
    }
}

/// Returns when the lease is lost, or can no longer be known to be held.
async fn keep_lease(scheduler: &Scheduler, lease: &Lease, mut progress: watch::Receiver<f64>) -> RunError {
    let (heartbeat, lease_ms) = (scheduler.config.heartbeat(), scheduler.config.lease_ms());
    let lease_duration = Duration::from_millis(u64::try_from(lease_ms).unwrap_or(0));
    let mut held_until = tokio::time::Instant::now() + lease_duration;
    let mut deletion = scheduler.catalog.deletions_bell().notified();
    loop {
        next_beat(heartbeat, &mut progress, deletion).await;
        deletion = scheduler.catalog.deletions_bell().notified();
        let (asked_at, now) = (tokio::time::Instant::now(), scheduler.now());
        let fraction = *progress.borrow_and_update();
        let beat = scheduler.catalog.heartbeat(lease, Some(fraction), now.plus_ms(lease_ms), now);
        match tokio::time::timeout_at(held_until, beat).await {
            Ok(Ok(())) => held_until = asked_at + lease_duration,
            Ok(Err(FencedError::LeaseLost)) => return RunError::LeaseLost,
            Err(_) => return out_of_touch(),
            Ok(Err(FencedError::Sql(error))) => {
                tracing::warn!(job.id = %lease.job.id, %error, "heartbeat failed");
                // Stop before the lease ends: whoever claims the job next must be alone.
                if tokio::time::Instant::now() + heartbeat >= held_until {
                    return out_of_touch();
                }
            }
        }
    }
}

/// No fault of the job, which nobody else may have claimed yet.
fn out_of_touch() -> RunError {
    RunError::Disturbed(anyhow::anyhow!("its lease could not be kept: the database did not answer"))
}

/// A heartbeat's time, or less where there is progress to show, or where a video was deleted, perhaps this one.
async fn next_beat(heartbeat: Duration, progress: &mut watch::Receiver<f64>, deletion: Notified<'_>) {
    let news = async {
        tokio::time::sleep(PROGRESS_SHOWN_EVERY).await;
        if progress.changed().await.is_err() {
            // The run has ended, and this ends with it.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        _ = tokio::time::timeout(heartbeat, news) => {}
        () = deletion => {}
    }
}

/// Writes the ending down; answers with its word for metrics and logs. While the database is away it is tried again:
/// left to the end of its lease, the run would count as one that killed its worker.
async fn conclude(
    scheduler: &Scheduler,
    lease: &Lease,
    result: Result<(), RunError>,
    shutdown: &CancellationToken,
) -> &'static str {
    loop {
        let (ending, written) = write_ending(scheduler, lease, &result).await;
        let error = match written {
            Ok(()) => return ending,
            Err(FencedError::LeaseLost) => return LEASE_LOST,
            Err(FencedError::Sql(error)) => error,
        };
        tracing::warn!(job.id = %lease.job.id, %error, ending, "the ending of a job was not written");
        let again = error.is_unavailable()
            && shutdown.run_until_cancelled(tokio::time::sleep(WRITE_AGAIN_EVERY)).await.is_some();
        if !again {
            // The lease ends by itself, and the job is claimed again.
            return UNWRITTEN;
        }
    }
}

async fn write_ending(
    scheduler: &Scheduler,
    lease: &Lease,
    result: &Result<(), RunError>,
) -> (&'static str, Result<(), FencedError>) {
    let (catalog, now) = (&scheduler.catalog, scheduler.now());
    match result {
        Ok(()) => ("done", Ok(())),
        Err(RunError::LeaseLost) => {
            (LEASE_LOST, catalog.stop_writing(lease).await.map_err(FencedError::from))
        }
        Err(RunError::Stopped) => ("released", catalog.release_job(lease, now).await),
        Err(RunError::Rejected { problem, detail }) => {
            ("rejected", catalog.reject_video(lease, *problem, detail, now).await)
        }
        Err(RunError::Disturbed(error)) => postpone(scheduler, lease, error, now).await,
        Err(RunError::Unsound(unsound)) => encode_anew(scheduler, lease, unsound, now).await,
        Err(RunError::Failed(error)) => fail(scheduler, lease, error, now).await,
    }
}

/// The attempt does not count. A disturbance that stays ends the job all the same: a person should look.
async fn postpone(
    scheduler: &Scheduler,
    lease: &Lease,
    error: &anyhow::Error,
    now: Timestamp,
) -> (&'static str, Result<(), FencedError>) {
    let reason = reason(error);
    let disturbed_ms = lease.job.postponed_since.map_or(0, |since| now.ms_since(since));
    if disturbed_ms >= scheduler.config.postponed_ms_max {
        return give_up(scheduler, lease, &reason, now).await;
    }
    tracing::warn!(job.id = %lease.job.id, error = %reason, disturbed_ms, "job postponed");
    // There is no count to go by: wait as before the last attempt.
    let retry_at = retry_at(scheduler, scheduler.config.jobs.attempts_max, now);
    ("postponed", scheduler.catalog.postpone_job(lease, &reason, retry_at, now).await)
}

/// To join the same chunks again would fail again. Encoding them counts as an attempt of theirs, so this ends.
async fn encode_anew(
    scheduler: &Scheduler,
    lease: &Lease,
    unsound: &Unsound,
    now: Timestamp,
) -> (&'static str, Result<(), FencedError>) {
    let reason = reason(&anyhow::anyhow!("{unsound}"));
    let payloads: Vec<_> = unsound.parts.iter().map(|&part| jobs::payload(part)).collect();
    let (attempts_max, retry_at) =
        (scheduler.config.jobs.attempts_max, retry_at(scheduler, lease.job.attempt, now));
    let (catalog, video) = (&scheduler.catalog, lease.job.video);
    match catalog.encode_anew(lease, &payloads, &reason, attempts_max, retry_at, now).await {
        Ok(EncodeAnew::Queued) => {
            tracing::warn!(job.id = %lease.job.id, video.id = %video, error = %reason,
                parts = payloads.len(), "a rendition failed its check, parts of it are encoded anew");
            ("unsound", Ok(()))
        }
        Ok(EncodeAnew::GivenUp) => {
            tracing::error!(job.id = %lease.job.id, video.id = %video, error = %reason,
                "a rendition fails its check however often it is encoded");
            ("unsound", Ok(()))
        }
        Ok(EncodeAnew::NoSuchPart) => fail(scheduler, lease, &anyhow::anyhow!("{unsound}"), now).await,
        Err(error) => ("unsound", Err(error)),
    }
}

async fn fail(
    scheduler: &Scheduler,
    lease: &Lease,
    error: &anyhow::Error,
    now: Timestamp,
) -> (&'static str, Result<(), FencedError>) {
    let reason = reason(error);
    if lease.job.attempt < scheduler.config.jobs.attempts_max {
        tracing::warn!(job.id = %lease.job.id, job.kind = %lease.job.kind, error = %reason, "job failed, will be retried");
        let retry_at = retry_at(scheduler, lease.job.attempt, now);
        ("failed", scheduler.catalog.fail_job(lease, &reason, Some(retry_at), now).await)
    } else {
        give_up(scheduler, lease, &reason, now).await
    }
}

/// A person should look: nothing more happens by itself.
async fn give_up(
    scheduler: &Scheduler,
    lease: &Lease,
    reason: &str,
    now: Timestamp,
) -> (&'static str, Result<(), FencedError>) {
    tracing::error!(job.id = %lease.job.id, job.kind = %lease.job.kind, video.id = %lease.job.video, error = reason, "job is dead");
    ("dead", scheduler.catalog.fail_job(lease, reason, None, now).await)
}

fn retry_at(scheduler: &Scheduler, attempt: u32, now: Timestamp) -> Timestamp {
    let jobs = &scheduler.config.jobs;
    let (base_ms, max_ms) = (jobs.retry_base_ms as i64, jobs.retry_max_ms as i64);
    now.plus_ms(retry_delay_ms(attempt, base_ms, max_ms, scheduler.ids.fraction()))
}

fn reason(error: &anyhow::Error) -> String {
    format!("{error:#}").chars().take(REASON_CHARS_MAX).collect()
}

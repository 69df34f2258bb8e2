//! The time of day, given to everything that needs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use domain::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;

use crate::Failure;

/// A kept clock asks its reference this often.
const KEEP_EVERY: Duration = Duration::from_secs(5);
/// A reference that takes longer to answer than this says too little about now.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(500);
/// A difference worth a line in the log: the machine's clock and the database's are minutes apart.
const APART_MS: i64 = 60_000;

/// Where the time comes from: the system, a reference that the system's clock is held against, or a test.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    /// What is added to the time since boot, in milliseconds. That clock runs on while the machine sleeps, and nobody
    /// can set it.
    Kept(Arc<AtomicI64>),
    Manual(Arc<AtomicI64>),
}

impl Clock {
    pub fn system() -> Self {
        Clock(Source::System)
    }

    /// Goes by `reference`, which leases of several machines are compared by: the database's clock. It is asked once
    /// here, and then every few seconds until `shutdown`; a jump of the system's own clock moves nothing.
    pub async fn kept_by<F, E>(
        reference: impl Fn() -> F + Send + Sync + 'static,
        shutdown: &CancellationToken,
    ) -> Result<Self, Failure>
    where
        F: Future<Output = Result<Timestamp, E>> + Send,
        E: std::fmt::Display + Send + 'static,
    {
        let offset_ms = Arc::new(AtomicI64::new(system_now().unix_ms() - since_boot_ms()));
        let apart_ms = keep(&offset_ms, &reference).await.map_err(|error| {
            Failure::unavailable(format!("The database's clock does not answer: {error}. See DATABASE_URL."))
        })?;
        if apart_ms.abs() > APART_MS {
            let minutes = apart_ms / 60_000;
            tracing::warn!(
                minutes,
                "the database's clock is ahead of this machine's by this; its time counts"
            );
        }
        let (kept, shutdown) = (offset_ms.clone(), shutdown.clone());
        tokio::spawn(async move {
            while shutdown.run_until_cancelled(tokio::time::sleep(KEEP_EVERY)).await.is_some() {
                if let Err(error) = keep(&kept, &reference).await {
                    tracing::debug!(%error, "the database's clock did not answer");
                }
            }
        });
        Ok(Clock(Source::Kept(offset_ms)))
    }

    /// Stands still until [`Clock::advance_ms`].
    pub fn manual(start: Timestamp) -> Self {
        Clock(Source::Manual(Arc::new(AtomicI64::new(start.unix_ms()))))
    }

    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => system_now(),
            Source::Kept(offset_ms) => {
                Timestamp::from_unix_ms(since_boot_ms() + offset_ms.load(Ordering::SeqCst))
            }
            Source::Manual(unix_ms) => Timestamp::from_unix_ms(unix_ms.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock, and all its clones; any other is nobody's to move.
    pub fn advance_ms(&self, ms: i64) {
        if let Source::Manual(unix_ms) = &self.0 {
            unix_ms.fetch_add(ms, Ordering::SeqCst);
        }
    }
}

/// Asks the reference and goes by its answer, taken to be half a round trip old; by how much that moved the clock, in
/// milliseconds.
async fn keep<F, E>(offset_ms: &AtomicI64, reference: &impl Fn() -> F) -> Result<i64, E>
where
    F: Future<Output = Result<Timestamp, E>>,
{
    let asked_ms = since_boot_ms();
    let answer = reference().await?;
    let answered_ms = since_boot_ms();
    if answered_ms - asked_ms > ROUND_TRIP_MAX.as_millis() as i64 {
        return Ok(0);
    }
    let now_offset_ms = answer.unix_ms() - (asked_ms + answered_ms) / 2;
    Ok(now_offset_ms - offset_ms.swap(now_offset_ms, Ordering::SeqCst))
}

fn since_boot_ms() -> i64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}

#[allow(clippy::disallowed_methods)] // The one place that asks the system.
fn system_now() -> Timestamp {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told_and_for_all_clones() {
        let clock = Clock::manual(Timestamp::from_unix_ms(1_000));
        let clone = clock.clone();
        clock.advance_ms(250);
        assert_eq!(clone.now(), Timestamp::from_unix_ms(1_250));
    }

    #[test]
    fn the_system_clock_is_in_this_century() {
        assert!(Clock::system().now() > Timestamp::parse_rfc3339("2025-01-01T00:00:00Z").unwrap());
    }

    #[tokio::test]
    async fn a_kept_clock_goes_by_its_reference_and_not_by_the_machine() {
        let hour_ms = 3_600_000;
        let ahead = move || async move { Ok::<_, String>(system_now().plus_ms(hour_ms)) };
        let shutdown = CancellationToken::new();
        let clock = Clock::kept_by(ahead, &shutdown).await.unwrap();
        let apart_ms = clock.now().ms_since(system_now());
        assert!((hour_ms - 100..=hour_ms + 100).contains(&apart_ms), "{apart_ms}");
        shutdown.cancel();
    }

    #[tokio::test]
    async fn an_answer_that_took_long_is_no_answer() {
        let offset_ms = AtomicI64::new(7);
        let slow = || async {
            tokio::time::sleep(ROUND_TRIP_MAX + Duration::from_millis(50)).await;
            Ok::<_, String>(Timestamp::from_unix_ms(0))
        };
        assert_eq!(keep(&offset_ms, &slow).await, Ok(0));
        assert_eq!(offset_ms.load(Ordering::SeqCst), 7);
    }

    #[tokio::test]
    async fn without_a_reference_there_is_no_clock() {
        let refused = || async { Err::<Timestamp, _>("no answer") };
        assert!(Clock::kept_by(refused, &CancellationToken::new()).await.is_err());
    }
}

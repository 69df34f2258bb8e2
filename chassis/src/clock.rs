//! The time of day, given to everything that needs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use domain::Timestamp;

/// Where the time comes from: the system, or a test.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    pub fn system() -> Self {
        Clock(Source::System)
    }

    /// Stands still until [`Clock::advance_ms`].
    pub fn manual(start: Timestamp) -> Self {
        Clock(Source::Manual(Arc::new(AtomicI64::new(start.unix_ms()))))
    }

    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => system_now(),
            Source::Manual(unix_ms) => Timestamp::from_unix_ms(unix_ms.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock, and all its clones; the system's clock is nobody's to move.
    pub fn advance_ms(&self, ms: i64) {
        if let Source::Manual(unix_ms) = &self.0 {
            unix_ms.fetch_add(ms, Ordering::SeqCst);
        }
    }
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
}

//! An upload may be held to a rate: what is not read waits in the client.

use std::time::Duration;

use tokio::time::Instant;

/// The bytes of one request, each at its time.
pub struct Pace {
    began: Instant,
    bytes: u64,
    bytes_per_s_max: u64,
}

impl Pace {
    /// 0: any.
    pub fn start(bytes_per_s_max: u64) -> Pace {
        Pace { began: Instant::now(), bytes: 0, bytes_per_s_max }
    }

    pub fn passed(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Until the next ones may come.
    pub async fn wait(&self) {
        if let Some(due) = self.due_after() {
            tokio::time::sleep_until(self.began + due).await;
        }
    }

    fn due_after(&self) -> Option<Duration> {
        let rate = (self.bytes_per_s_max > 0).then_some(self.bytes_per_s_max)?;
        Some(Duration::from_secs_f64(self.bytes as f64 / rate as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_at_their_time() {
        let mut pace = Pace::start(1000);
        assert_eq!(pace.due_after(), Some(Duration::ZERO), "the first ones at once");
        pace.passed(500);
        pace.passed(1500);
        assert_eq!(pace.due_after(), Some(Duration::from_secs(2)));
        let mut any = Pace::start(0);
        any.passed(u64::MAX);
        assert_eq!(any.due_after(), None);
    }
}

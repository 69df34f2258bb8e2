//! Jobs: leased rows; the row is the truth.

use crate::closed_enum::closed_enum;

closed_enum!(
    /// What a job does; a scheduler can be told to run only some kinds.
    JobKind {
        /// Judge the upload, make it playable, take covers, plan the encode.
        Ingest = "ingest",
        /// Encode one chunk at every rung, or the audio that the rungs share.
        Encode = "encode",
        /// Join, package, verify and publish the rungs.
        Assemble = "assemble",
        /// Take pictures of the film: a new cover at the place the author chose, or the storyboard.
        Cover = "cover",
        /// Remove every object of a deleted video, and write the receipt.
        Purge = "purge",
    }
);

closed_enum!(
    /// Which rungs of a film a job makes.
    Phase {
        /// The one that is encoded and published alone, so that there is something to watch soon, and the audio.
        First = "first",
        /// All others.
        Last = "last",
    }
);

closed_enum!(
    JobState {
        /// Waits for `run_at`, then for a worker.
        Queued = "queued",
        /// Leased until `lease_until`; after that anyone may claim it again under a higher token.
        Running = "running",
        Done = "done",
        /// Gave up after the last attempt; an admin can retry it.
        Dead = "dead",
        /// Its video was deleted, or what it was for is gone.
        Cancelled = "cancelled",
    }
);

/// How long to wait before attempt `attempt + 1`, in milliseconds: exponential from `base_ms`, at most
/// `max_ms`, with full jitter. `jitter` is uniform in 0..=1.
pub fn retry_delay_ms(attempt: u32, base_ms: i64, max_ms: i64, jitter: f64) -> i64 {
    let exponential = base_ms.saturating_mul(1_i64 << attempt.saturating_sub(1).min(30));
    let ceiling = exponential.clamp(base_ms, max_ms.max(base_ms));
    (ceiling as f64 * jitter.clamp(0.0, 1.0)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_are_bounded() {
        assert_eq!(retry_delay_ms(1, 1000, 60_000, 1.0), 1000);
        assert_eq!(retry_delay_ms(3, 1000, 60_000, 1.0), 4000);
        assert_eq!(retry_delay_ms(3, 1000, 60_000, 0.5), 2000);
        assert_eq!(retry_delay_ms(u32::MAX, 1000, 60_000, 1.0), 60_000);
        assert_eq!(retry_delay_ms(5, 1000, 60_000, 0.0), 0);
    }
}

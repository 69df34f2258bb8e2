//! Uploads whose bytes are all there, and whose process died before it made the video of them. Their client need not
//! come back: for all it knows, it has nothing more to send.

use std::time::Duration;

use super::hold::Held;
use super::look::at_rest;
use crate::StreamServer;

const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Whoever finishes one shows it more often than this.
const UNTOUCHED_S_MIN: i64 = 60;
const FINISHED_AT_ONCE: usize = 20;

impl StreamServer {
    pub async fn look_for_left_open(&self) {
        let pause = || self.shutdown.run_until_cancelled(tokio::time::sleep(LOOK_EVERY));
        while pause().await.is_some() {
            self.finish_left_open().await;
        }
    }

    /// Those that nobody has touched for a minute. What fails is tried again the next time, until it expires.
    pub async fn finish_left_open(&self) {
        let now = self.clock.now();
        let touched_before = self.upload_expires_at(now).plus_s(-UNTOUCHED_S_MIN);
        let left = match self.catalog.full_resumables(touched_before, now, FINISHED_AT_ONCE).await {
            Ok(left) => left,
            Err(error) => return tracing::warn!(%error, "uploads that were left open cannot be looked for"),
        };
        for id in left {
            if self.shutdown.is_cancelled() {
                return;
            }
            match at_rest(self, id, Held::acquire_unwanted(self, id)).await {
                Ok(_) => tracing::info!(upload.id = %id, "an upload that was left open is finished"),
                Err(problem) => {
                    tracing::warn!(upload.id = %id, ?problem, "an upload that was left open cannot be finished");
                }
            }
        }
    }
}

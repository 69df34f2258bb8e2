//! The one list of jobs. Each is a paragraph: load, work under an attempt of its own, commit in one call.

mod assemble;
mod cover;
mod encode;
mod ingest;
mod purge;
mod rates;
mod storyboard;

use domain::task::Outcome;
use domain::{JobKind, Timestamp};

use crate::failure::RunError;
use crate::workplace::Run;

pub use encode::payload;
pub use purge::remove_prefix;

pub async fn run(run: &Run<'_>) -> Result<(), RunError> {
    match run.lease.job.kind {
        JobKind::Ingest => ingest::run(run).await,
        JobKind::Encode if run.lease.job.payload == sql::RATES => rates::run(run).await,
        JobKind::Encode => encode::run(run).await,
        JobKind::Assemble => assemble::run(run).await,
        JobKind::Cover if run.lease.job.payload == sql::STORYBOARD => storyboard::run(run).await,
        JobKind::Cover => cover::run(run).await,
        JobKind::Purge => purge::run(run).await,
    }
}

/// Where this publication, of `now`, is the first one of its video: from the last byte of the upload to it.
async fn show_playable(run: &Run<'_>, now: Timestamp) {
    let video = run.lease.job.video;
    // What is done is done, whether it can be shown or not.
    let Ok(Some(playable)) = run.scheduler.catalog.playable(video).await else { return };
    if playable.published_at == now {
        let time_to_playable_ms = now.ms_since(playable.uploaded_at);
        metrics::histogram!("scheduler_time_to_playable_seconds").record(time_to_playable_ms as f64 / 1000.0);
        tracing::info!(video.id = %video, time_to_playable_ms, "playable");
    }
}

fn unexpected(outcome: &Outcome) -> RunError {
    RunError::failed(format_args!("the transcoder answered another question: {outcome:?}"))
}

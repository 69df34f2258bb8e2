//! The one list of jobs. Each is a paragraph: load, work under an attempt of its own, commit in one call.

mod assemble;
mod cover;
mod encode;
mod ingest;
mod purge;
mod storyboard;

use domain::JobKind;
use domain::task::Outcome;

use crate::failure::RunError;
use crate::workplace::Run;

pub use purge::remove_prefix;

pub async fn run(run: &Run<'_>) -> Result<(), RunError> {
    match run.lease.job.kind {
        JobKind::Ingest => ingest::run(run).await,
        JobKind::Encode => encode::run(run).await,
        JobKind::Assemble => assemble::run(run).await,
        JobKind::Cover if run.lease.job.payload == sql::STORYBOARD => storyboard::run(run).await,
        JobKind::Cover => cover::run(run).await,
        JobKind::Purge => purge::run(run).await,
    }
}

fn unexpected(outcome: &Outcome) -> RunError {
    RunError::failed(format_args!("the transcoder answered another question: {outcome:?}"))
}

//! Why a run ended without success, sorted by what follows from it.

use std::io;

use chassis::Problem;
use domain::MediaProblem;
use domain::task::Part;
use sql::{FencedError, SqlError};
use store::StoreError;

use crate::child::Stopped;
use crate::run_limits::Exceeded;

/// When a client should come back after the database did not answer.
const RETRY_AFTER_S: u64 = 2;

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Someone else has the job, or nobody: stop, nothing more to write.
    #[error("the lease is lost")]
    LeaseLost,
    /// This process is going down: the job is given back unharmed.
    #[error("the scheduler is shutting down")]
    Stopped,
    /// The fault is in the file: no retry.
    #[error("the file is refused: {detail}")]
    Rejected { problem: MediaProblem, detail: String },
    /// What the job needs is disturbed or full: later, and the attempt does not count.
    #[error(transparent)]
    Disturbed(anyhow::Error),
    /// The fault is in these parts of the encode: they are encoded anew.
    #[error(transparent)]
    Unsound(Unsound),
    /// The fault may be the job's: it counts, and too many of them end it.
    #[error(transparent)]
    Failed(anyhow::Error),
}

#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub struct Unsound {
    pub parts: Vec<Part>,
    pub detail: String,
}

impl RunError {
    pub fn failed(reason: impl std::fmt::Display) -> RunError {
        RunError::Failed(anyhow::anyhow!("{reason}"))
    }
}

impl From<Stopped> for RunError {
    fn from(stopped: Stopped) -> Self {
        RunError::Failed(stopped.into())
    }
}

impl From<Exceeded> for RunError {
    fn from(exceeded: Exceeded) -> Self {
        RunError::Failed(exceeded.into())
    }
}

impl From<FencedError> for RunError {
    fn from(error: FencedError) -> Self {
        match error {
            FencedError::LeaseLost => RunError::LeaseLost,
            FencedError::Sql(error) => error.into(),
        }
    }
}

impl From<SqlError> for RunError {
    fn from(error: SqlError) -> Self {
        if error.is_unavailable() {
            RunError::Disturbed(error.into())
        } else {
            RunError::Failed(error.into())
        }
    }
}

impl From<StoreError> for RunError {
    fn from(error: StoreError) -> Self {
        if error.is_retryable() { RunError::Disturbed(error.into()) } else { RunError::Failed(error.into()) }
    }
}

/// Of the scratch folder.
impl From<io::Error> for RunError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{OutOfMemory, QuotaExceeded, ResourceBusy, StorageFull, WouldBlock};
        match error.kind() {
            StorageFull | QuotaExceeded | OutOfMemory | ResourceBusy | WouldBlock => {
                RunError::Disturbed(error.into())
            }
            _ => RunError::Failed(error.into()),
        }
    }
}

/// For the routes.
pub fn sql(error: SqlError) -> Problem {
    if error.is_unavailable() {
        Problem::unavailable(RETRY_AFTER_S).with_source(error)
    } else {
        Problem::internal(error)
    }
}

//! Failures of the database as problems.

use chassis::Problem;
use sql::{NoRoom, SqlError};

const RETRY_AFTER_S: u64 = 1;

/// For results whose error is ours, not the client's.
pub(crate) trait OrProblem<T> {
    fn or_problem(self) -> Result<T, Problem>;
}

impl<T> OrProblem<T> for Result<T, SqlError> {
    fn or_problem(self) -> Result<T, Problem> {
        self.map_err(|error| match error {
            SqlError::NoRoom(NoRoom::UserVideos { videos_max }) => Problem::quota_exceeded(format!(
                "You may have {videos_max} videos, and have them; delete one, or ask the operator for more."
            )),
            error if error.is_unavailable() => Problem::unavailable(RETRY_AFTER_S).with_source(error),
            error => Problem::internal(error),
        })
    }
}

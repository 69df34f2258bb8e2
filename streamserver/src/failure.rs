//! From errors of the rooms below to problems.

use std::sync::Arc;

use chassis::Problem;
use http::StatusCode;
use sql::SqlError;
use store::StoreError;

/// When a client should come back after something we depend on did not answer.
const RETRY_AFTER_S: u64 = 2;
/// Space is made by people.
const RETRY_AFTER_FULL_S: u64 = 60;

pub fn sql(error: SqlError) -> Problem {
    if error.is_unavailable() {
        Problem::unavailable(RETRY_AFTER_S).with_source(error)
    } else {
        Problem::internal(error)
    }
}

/// What we depend on did not answer in time.
pub fn unavailable(late: tokio::time::error::Elapsed) -> Problem {
    Problem::unavailable(RETRY_AFTER_S).with_source(late)
}

pub fn store(error: StoreError) -> Problem {
    match error {
        StoreError::OutOfSpace => Problem::unavailable(RETRY_AFTER_FULL_S).with_source(error),
        error if error.is_retryable() => Problem::unavailable(RETRY_AFTER_S).with_source(error),
        error => Problem::internal(error),
    }
}

pub const TOO_LARGE: &str = "/problems/upload-too-large";

/// The file is larger than uploads may be.
pub fn upload_too_large(bytes_max: u64) -> Problem {
    let detail = format!(
        "The file is larger than the {bytes_max} bytes that this server takes. Export it at a lower bit rate, or ask the operator to raise upload_bytes_max."
    );
    let status = StatusCode::PAYLOAD_TOO_LARGE;
    Problem::new(status, TOO_LARGE, "The file is too large", detail)
}

/// Why something could not be loaded into a cache. Shared by all who waited for the same load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("it does not exist")]
    NotFound,
    #[error(transparent)]
    Sql(#[from] SqlError),
    #[error("reading an object")]
    Store(#[from] StoreError),
    #[error("what is stored makes no sense: {0}")]
    Corrupt(String),
    #[error("the store does not answer in time")]
    Slow,
}

pub fn load(error: Arc<LoadError>) -> Problem {
    match &*error {
        LoadError::NotFound => Problem::not_found(),
        LoadError::Slow => Problem::unavailable(RETRY_AFTER_S).with_source(error),
        LoadError::Sql(sql) if sql.is_unavailable() => Problem::unavailable(RETRY_AFTER_S).with_source(error),
        LoadError::Store(store) if store.is_retryable() => {
            Problem::unavailable(RETRY_AFTER_S).with_source(error)
        }
        _ => Problem::internal(error),
    }
}

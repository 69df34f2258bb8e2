//! From errors of the rooms below to problems.

use std::sync::Arc;

use chassis::Problem;
use http::StatusCode;
use sql::{NoRoom, SqlError};
use store::StoreError;

/// When a client should come back after something we depend on did not answer.
const RETRY_AFTER_S: u64 = 2;
/// Space is made by people.
const RETRY_AFTER_FULL_S: u64 = 60;

pub fn sql(error: SqlError) -> Problem {
    match error {
        SqlError::NoRoom(bound) => no_room(bound),
        error if error.is_unavailable() => Problem::unavailable(RETRY_AFTER_S).with_source(error),
        error => Problem::internal(error),
    }
}

fn no_room(bound: NoRoom) -> Problem {
    match bound {
        // Only new videos are refused for that.
        NoRoom::UserVideos { .. } => Problem::internal(bound),
        NoRoom::UserBytes { used_bytes, bytes_max } => user_has_too_much(used_bytes, bytes_max),
        NoRoom::UserUploads { uploads_max } => Problem::quota_exceeded(format!(
            "You have {uploads_max} videos on their way already, broken off ones included; finish or end one of them."
        )),
        NoRoom::Store { free_bytes } => out_of_space(free_bytes),
    }
}

fn user_has_too_much(used_bytes: u64, bytes_max: u64) -> Problem {
    Problem::quota_exceeded(format!(
        "You have used {used_bytes} of your {bytes_max} bytes, and there is no room for this file; delete videos, or ask \
         the operator for more."
    ))
}

/// The user has room for `bytes` of it.
pub fn longer_than_quota(bytes: u64) -> Problem {
    Problem::quota_exceeded(format!(
        "There are {bytes} bytes left of what you may have, and the file is longer; delete videos, or ask the operator \
         for more."
    ))
}

/// `free_bytes`: of those that nobody else was promised.
pub fn out_of_space(free_bytes: u64) -> Problem {
    full(format!(
        "The server has {free_bytes} bytes left, which is not enough for this file. Try again later; the operator was \
         told."
    ))
}

fn full(detail: impl Into<String>) -> Problem {
    let status = StatusCode::INSUFFICIENT_STORAGE;
    Problem::new(status, "/problems/out-of-space", "The server has no room for this file", detail)
        .with_retry_after_s(RETRY_AFTER_FULL_S)
}

/// What we depend on did not answer in time.
pub fn unavailable(late: tokio::time::error::Elapsed) -> Problem {
    Problem::unavailable(RETRY_AFTER_S).with_source(late)
}

pub fn store(error: StoreError) -> Problem {
    match error {
        StoreError::OutOfSpace => full(
            "The server's disk is full. What was acknowledged is kept; ask for the offset later, and go on from there.",
        )
        .with_source(error),
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

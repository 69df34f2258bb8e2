//! What can go wrong, as far as a caller decides differently.

use crate::carry::MOVED;

/// A statement failed.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// Nothing answers, or nothing answers in time: the same call may succeed later.
    #[error("the database does not answer")]
    Unavailable(#[source] sqlx::Error),
    #[error("the database refused a statement")]
    Refused(#[source] sqlx::Error),
    /// A row holds what this program never writes.
    #[error("column `{column}` holds `{value}`, which has no meaning here")]
    Meaningless { column: &'static str, value: String },
    /// A state move that the state machine does not have: stop rather than write wrongly.
    #[error("video {video} cannot go from {from} to {to}")]
    IllegalMove { video: domain::VideoId, from: domain::VideoState, to: domain::VideoState },
    #[error(
        "The database was upgraded on {upgraded_on} by a newer Sluice (its schema has migration {migration}); this is \
         {}, up to migration {known}. Start the newer one, or restore a backup from before that day.",
        env!("CARGO_PKG_VERSION")
    )]
    NewerSchema { migration: i64, known: i64, upgraded_on: String },
    #[error(
        "The database is older than this Sluice (its schema has no migration {migration}), and this process was told \
         not to change it. Run `sluice migrate` once, with every process of an older version stopped."
    )]
    OlderSchema { migration: i64 },
    /// What was asked for goes beyond a quota, or the store; nothing was written.
    #[error(transparent)]
    NoRoom(#[from] crate::NoRoom),
    /// Its rows were carried elsewhere, and it takes no more writes.
    #[error("this database was moved to {place}; restart with DATABASE_URL set to it")]
    Moved { place: String },
    #[error("the database schema could not be brought up to date")]
    Migration(#[source] sqlx::migrate::MigrateError),
    #[error(
        "`{url}` names no database that is supported; write sqlite://<path> or \
         postgres://<user>:<password>@<host>:<port>/<database>."
    )]
    UnknownDatabase { url: String },
}

/// A job's write failed.
#[derive(Debug, thiserror::Error)]
pub enum FencedError {
    /// Someone else has the job, or nobody: it was reclaimed, cancelled or finished. Stop; nothing was written.
    #[error("the lease is lost")]
    LeaseLost,
    #[error(transparent)]
    Sql(#[from] SqlError),
}

impl SqlError {
    /// Whether to answer 503 and ask to come back.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, SqlError::Unavailable(_) | SqlError::Moved { .. })
    }
}

impl From<sqlx::Error> for SqlError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error::{Io, PoolClosed, PoolTimedOut, Tls, WorkerCrashed};
        let passes = match &error {
            Io(_) | Tls(_) | PoolTimedOut | PoolClosed | WorkerCrashed => true,
            sqlx::Error::Database(database) => database.code().is_some_and(|code| passes(&code)),
            _ => false,
        };
        let moved = matches!(&error, sqlx::Error::Database(database) if database.message() == MOVED);
        if moved {
            return SqlError::Moved { place: "another one".to_owned() };
        }
        if passes { SqlError::Unavailable(error) } else { SqlError::Refused(error) }
    }
}

/// Whether an error says more about the moment than about the statement.
fn passes(code: &str) -> bool {
    // SQLite's codes are numbers of at most four digits; SQLITE_BUSY, SQLITE_LOCKED, SQLITE_IOERR and SQLITE_FULL (a disk
    // that fails, or is full) are the low bytes 5, 6, 10 and 13 of several. PostgreSQL's have five characters, of which
    // the first two are the class.
    if code.len() < 5 {
        return code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 10 | 13));
    }
    // Connections, and whatever there is too little of.
    code.starts_with("08")
        || code.starts_with("53")
        // The server goes down, or comes up.
        || matches!(code, "57P01" | "57P02" | "57P03" | "57P05")
        // Too slow: a statement, a wait for a row, a transaction.
        || matches!(code, "57014" | "55P03" | "25P03")
        // Broken off for the sake of another transaction, and tried often enough.
        || matches!(code, "40001" | "40P01")
        // It takes no writes any more: a failover is under way.
        || code == "25006"
}

pub(crate) fn is_unique_violation(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_unique_violation())
}

/// PostgreSQL broke the transaction off because of another one; the next try may find the way free.
pub(crate) fn is_conflict(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("40001" | "40P01"))
}

impl From<sqlx::Error> for FencedError {
    fn from(error: sqlx::Error) -> Self {
        FencedError::Sql(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::passes;

    #[test]
    fn what_passes_and_what_stays() {
        // SQLITE_BUSY, SQLITE_BUSY_SNAPSHOT, SQLITE_LOCKED, SQLITE_IOERR_WRITE, SQLITE_FULL; then a restart, a crowd, a slow
        // statement, a conflict, a full disk.
        for code in [
            "5", "517", "6", "778", "13", "53100", "57P01", "57P03", "08006", "53300", "57014", "55P03",
            "40001", "40P01", "25006",
        ] {
            assert!(passes(code), "{code}");
        }
        // A unique column, and codes of PostgreSQL that as numbers would look like SQLite's.
        for code in ["2067", "1", "23505", "23503", "42P01", "22021", "22P02"] {
            assert!(!passes(code), "{code}");
        }
    }
}

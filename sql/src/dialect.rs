//! All that differs between databases. Statements elsewhere are one text for each of them.

use crate::SqlError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
}

impl Dialect {
    pub fn of(url: &str) -> Result<Dialect, SqlError> {
        if url.starts_with("sqlite:") {
            Ok(Dialect::Sqlite)
        } else {
            // What stands before the `:` tells enough, and the rest may hold a password.
            let scheme = url.split(':').next().unwrap_or_default();
            Err(SqlError::UnknownDatabase { url: format!("{scheme}:…") })
        }
    }

    /// The address to connect to: SQLite makes a missing file only when asked.
    pub fn connect_url(self, url: &str) -> String {
        match self {
            Dialect::Sqlite if url.contains("mode=") => url.to_owned(),
            Dialect::Sqlite if url.contains('?') => format!("{url}&mode=rwc"),
            Dialect::Sqlite => format!("{url}?mode=rwc"),
        }
    }

    /// One writer keeps SQLite from answering BUSY within the process.
    pub fn writers_max(self) -> u32 {
        match self {
            Dialect::Sqlite => 1,
        }
    }

    pub fn readers_max(self) -> u32 {
        match self {
            Dialect::Sqlite => 8,
        }
    }

    /// Run on every new connection.
    pub fn connection_setup(self, role: Role) -> &'static str {
        match (self, role) {
            // FULL: a commit is on disk before it is answered, which acknowledging an upload relies on.
            (Dialect::Sqlite, Role::Writer) => {
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=5000; \
                 PRAGMA foreign_keys=ON; PRAGMA journal_size_limit=67108864"
            }
            (Dialect::Sqlite, Role::Reader) => {
                "PRAGMA busy_timeout=5000; PRAGMA foreign_keys=ON; PRAGMA query_only=ON"
            }
        }
    }

    /// What time it is, in milliseconds since the epoch.
    pub fn now(self) -> &'static str {
        match self {
            Dialect::Sqlite => {
                "-- catalog.now\nSELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) AS unix_ms"
            }
        }
    }

    /// Begins a transaction that will write. SQLite must take the write lock at once: a transaction that
    /// turns from reading to writing later fails where another wrote in between.
    pub fn begin(self) -> &'static str {
        match self {
            Dialect::Sqlite => "BEGIN IMMEDIATE",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Writer,
    Reader,
}

//! All that differs between databases. Statements elsewhere are one text for each of them.

use domain::DatabasePlace;

use crate::SqlError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Writer,
    Reader,
    /// Changes the schema: as long as that takes.
    Migrator,
}

/// How a statement that reads takes hold of what it reads.
///
/// SQLite lets one transaction write at a time, and a transaction that will write waits for its turn before it
/// reads: there nothing is to be locked. PostgreSQL runs them side by side (READ COMMITTED), so whoever reads
/// in order to write locks first. All lock in this order, which keeps them from waiting for each other in a
/// circle: the user's row, the video's row (several: by id), then what hangs on the video.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// To write: until our end nobody else writes this row, or locks it.
    Write,
    /// To refer to: until our end nobody removes this row.
    Keep,
    /// As [`Lock::Write`], but leaves out rows that somebody else holds.
    WriteFree,
}

impl Dialect {
    pub fn of(url: &str) -> Result<Dialect, SqlError> {
        match url.split(':').next().unwrap_or_default() {
            "sqlite" => Ok(Dialect::Sqlite),
            "postgres" | "postgresql" => Ok(Dialect::Postgres),
            // What stands before the `:` tells enough, and the rest may hold a password.
            scheme => Err(SqlError::UnknownDatabase { url: format!("{scheme}:…") }),
        }
    }

    /// The address without what must not be shown.
    pub fn describe(url: &str) -> String {
        match url.split_once("://").map(|(scheme, rest)| (scheme, rest.rsplit_once('@'))) {
            Some((scheme, Some((_, place)))) => format!("{scheme}://{place}"),
            _ => url.to_owned(),
        }
    }

    /// The address to connect to: SQLite makes a missing file only when asked.
    pub fn connect_url(self, url: &str) -> String {
        match self {
            Dialect::Sqlite if url.contains("mode=") => url.to_owned(),
            Dialect::Sqlite if url.contains('?') => format!("{url}&mode=rwc"),
            Dialect::Sqlite => format!("{url}?mode=rwc"),
            Dialect::Postgres => url.to_owned(),
        }
    }

    pub fn connections_max(self, role: Role, place: &DatabasePlace) -> u32 {
        match (self, role) {
            // One writer keeps SQLite from answering BUSY within the process.
            (Dialect::Sqlite, Role::Writer | Role::Migrator) => 1,
            (Dialect::Sqlite, Role::Reader) => 8,
            (Dialect::Postgres, _) => place.connections_max.max(1),
        }
    }

    /// Run on every new connection.
    pub fn connection_setup(self, role: Role, place: &DatabasePlace) -> String {
        match (self, role) {
            // FULL: a commit is on disk before it is answered, which acknowledging an upload relies on.
            (Dialect::Sqlite, Role::Writer | Role::Migrator) => {
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=5000; \
                 PRAGMA foreign_keys=ON; PRAGMA journal_size_limit=67108864"
                    .to_owned()
            }
            (Dialect::Sqlite, Role::Reader) => {
                "PRAGMA busy_timeout=5000; PRAGMA foreign_keys=ON; PRAGMA query_only=ON".to_owned()
            }
            (Dialect::Postgres, role) => postgres_setup(role, place),
        }
    }

    /// Keeps everybody else from writing to a table.
    pub fn lock_table(self, table: &str) -> Option<String> {
        match self {
            Dialect::Sqlite => None,
            Dialect::Postgres => Some(format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")),
        }
    }

    /// Keeps everybody else from asking for the same lock. The number is ours, and stands for nothing else.
    pub fn lock_promises(self) -> Option<&'static str> {
        match self {
            Dialect::Sqlite => None,
            Dialect::Postgres => Some("-- quotas.lock\nSELECT pg_advisory_xact_lock(7106583115)"),
        }
    }

    /// What time it is, in milliseconds since the epoch.
    pub fn now(self) -> &'static str {
        match self {
            Dialect::Sqlite => {
                "-- catalog.now\nSELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) AS unix_ms"
            }
            Dialect::Postgres => {
                "-- catalog.now\nSELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) AS unix_ms"
            }
        }
    }

    /// Begins a transaction that will write. SQLite must take the write lock at once: a transaction that
    /// turns from reading to writing later fails where another wrote in between.
    pub fn begin(self) -> &'static str {
        match self {
            Dialect::Sqlite => "BEGIN IMMEDIATE",
            Dialect::Postgres => "BEGIN",
        }
    }

    /// Ends a `SELECT`.
    pub fn lock(self, lock: Lock) -> &'static str {
        match (self, lock) {
            (Dialect::Sqlite, _) => "",
            (Dialect::Postgres, Lock::Write) => "FOR UPDATE",
            (Dialect::Postgres, Lock::Keep) => "FOR KEY SHARE",
            (Dialect::Postgres, Lock::WriteFree) => "FOR UPDATE SKIP LOCKED",
        }
    }

    /// Answers with a row once a migration has run.
    pub fn find_migrations(self) -> &'static str {
        match self {
            Dialect::Sqlite => "SELECT 1 AS found FROM sqlite_schema WHERE name = '_sqlx_migrations'",
            Dialect::Postgres => "SELECT 1 AS found WHERE to_regclass('_sqlx_migrations') IS NOT NULL",
        }
    }

    /// A migration as this database wants it. SQLite compares text byte by byte; PostgreSQL does as its
    /// database was made, by the rules of some language, unless a column says otherwise.
    pub fn migration(self, text: &str) -> String {
        match self {
            Dialect::Sqlite => text.to_owned(),
            Dialect::Postgres => text.replace(" TEXT", " TEXT COLLATE \"C\""),
        }
    }
}

/// How long somebody waits for a row that somebody else holds. Transactions here are short: whoever holds one
/// longer has been stopped or cut off. A statement may wait twice: for its turn, then for the row.
const LOCK_S_MAX: u64 = 2;

fn postgres_setup(role: Role, place: &DatabasePlace) -> String {
    let (name, read_only) = match role {
        Role::Writer => ("sluice writer", "off"),
        Role::Reader => ("sluice reader", "on"),
        Role::Migrator => ("sluice migrate", "off"),
    };
    // Changing the schema of a large library takes its time, and so does waiting for whoever is doing it.
    let (statement_s_max, lock_s_max) = match role {
        Role::Migrator => (0, 0),
        _ => (place.statement_s_max, LOCK_S_MAX),
    };
    let idle_s_max = place.idle_in_transaction_s_max;
    // A commit is on the server's disk before it is answered, whatever the server was told; where it was told
    // to wait for a replica as well, it does. The last settings have the server notice within 25 s that we
    // are gone, and let go of what we held.
    format!(
        "SET application_name = '{name}'; SET statement_timeout = '{statement_s_max}s'; \
         SET lock_timeout = '{lock_s_max}s'; SET idle_in_transaction_session_timeout = '{idle_s_max}s'; \
         SET default_transaction_isolation = 'read committed'; \
         SET default_transaction_read_only = {read_only}; \
         SELECT set_config('synchronous_commit', 'on', false) \
           WHERE current_setting('synchronous_commit') IN ('off', 'local'); \
         SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; \
         SET tcp_user_timeout = '25s'; SET client_connection_check_interval = '10s'"
    )
}

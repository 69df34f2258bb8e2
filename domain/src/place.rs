//! Where rows and objects are kept, as the settings say it, and why a process cannot start there.

use std::path::PathBuf;

/// The database.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabasePlace {
    /// `sqlite://<path>` or `postgres://…`; may hold a password.
    pub url: String,
    /// Answers reads that may lag; `None`: `url` does.
    pub read_url: Option<String>,
    /// Where `url` was set, for messages: `env DATABASE_URL`.
    pub origin: String,
    /// PostgreSQL: connections of this process that write, and as many again that read.
    pub connections_max: u32,
    /// PostgreSQL: a statement that takes longer is given up, in seconds.
    pub statement_s_max: u64,
    /// PostgreSQL: a transaction that says nothing for longer is given up, in seconds.
    pub idle_in_transaction_s_max: u64,
    /// Whether opening brings the schema up to date; else an older one is refused.
    pub migrate: bool,
}

impl DatabasePlace {
    /// With the defaults of everything but the address.
    pub fn at(url: impl Into<String>) -> DatabasePlace {
        DatabasePlace {
            url: url.into(),
            read_url: None,
            origin: "default".to_owned(),
            connections_max: 16,
            statement_s_max: 30,
            idle_in_transaction_s_max: 30,
            migrate: true,
        }
    }

    /// A SQLite file, made when it is missing.
    pub fn sqlite(file: &std::path::Path) -> DatabasePlace {
        // Only these three have a meaning of their own in such an address.
        let path = file.to_string_lossy().replace('%', "%25").replace('?', "%3F").replace('#', "%23");
        DatabasePlace::at(format!("sqlite://{path}"))
    }
}

/// The objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorePlace {
    Disk {
        folder: PathBuf,
    },
    /// Credentials, region and endpoint come from the `AWS_*` variables and files that every S3 client reads.
    S3(S3Place),
    /// Objects are on their way from one to the other; they are read wherever they are.
    Moving {
        to: Box<StorePlace>,
        from: Box<StorePlace>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Place {
    pub bucket: String,
    /// Before every key; empty, or without a slash at either end.
    pub prefix: String,
    /// Parts that are being filled or sent lie here, in files without a name.
    pub spool_dir: PathBuf,
    /// `None`: yes where an endpoint is set, as everything but Amazon wants it.
    pub force_path_style: Option<bool>,
    /// Length of a part of a multipart upload, in bytes; S3 allows 5 MiB to 5 GiB, and 10,000 parts.
    pub part_bytes: u64,
    /// Parts that this process sends at once.
    pub parts_in_flight_max: usize,
}

/// Why what a process stands on cannot be used at its start; what to do stands in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartError {
    pub fault: StartFault,
    /// One block for a person: what, why, how to mend. Never a secret.
    pub text: String,
}

/// Whose fault it is; it decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFault {
    /// What we stand on does not answer: it may come back.
    Unavailable,
    /// A file or folder cannot be made.
    CannotCreate,
    /// A setting is wrong.
    Settings,
}

impl StartError {
    pub fn unavailable(text: impl Into<String>) -> Self {
        StartError { fault: StartFault::Unavailable, text: text.into() }
    }

    pub fn cannot_create(text: impl Into<String>) -> Self {
        StartError { fault: StartFault::CannotCreate, text: text.into() }
    }

    pub fn settings(text: impl Into<String>) -> Self {
        StartError { fault: StartFault::Settings, text: text.into() }
    }
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for StartError {}

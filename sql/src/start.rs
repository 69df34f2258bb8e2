//! Connecting at the start: patience with a server that is not there yet, and words for what is wrong with it.

use std::io::ErrorKind;
use std::time::Duration;

use domain::{DatabasePlace, StartError};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AnyConnection, Connection as _, Error};

use crate::SqlError;
use crate::dialect::Dialect;

/// How long a start waits for a server that does not answer.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    pub tries: u32,
    /// From the beginning of one try to that of the next; a try takes no longer.
    pub pause: Duration,
}

impl Default for Patience {
    /// Long enough for a server that is started together with us.
    fn default() -> Patience {
        Patience { tries: 5, pause: Duration::from_secs(6) }
    }
}

/// An address and the setting it is from.
#[derive(Clone, Copy)]
pub(crate) struct Address<'a> {
    pub url: &'a str,
    /// `DATABASE_URL`, say, and where that was set.
    pub setting: &'a str,
    pub origin: &'a str,
}

impl<'a> Address<'a> {
    pub fn primary(place: &'a DatabasePlace) -> Address<'a> {
        Address { url: &place.url, setting: "DATABASE_URL", origin: &place.origin }
    }

    pub fn replica(url: &'a str) -> Address<'a> {
        Address { url, setting: "DATABASE_READ_URL", origin: "DATABASE_READ_URL" }
    }

    /// A copy of a database is of the same kind.
    pub fn require(self, dialect: Dialect) -> Result<(), StartError> {
        match Dialect::of(self.url).map_err(|error| self.refusal(error))? {
            own if own == dialect => Ok(()),
            _ => Err(StartError::settings(format!(
                "{} is of another kind than DATABASE_URL, and can be no copy of it. Leave it out, or name a replica.",
                self.setting
            ))),
        }
    }

    /// The first connection. Only a server that may yet come is tried again.
    pub async fn connect(self, patience: Patience) -> Result<AnyConnection, StartError> {
        let dialect = Dialect::of(self.url).map_err(|error| self.refusal(error))?;
        let url = dialect.connect_url(self.url);
        let mut tries = tokio::time::interval(patience.pause);
        let mut tried = 0;
        loop {
            tries.tick().await;
            tried += 1;
            let connected = tokio::time::timeout(patience.pause, AnyConnection::connect(&url)).await;
            let error = match connected {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => error,
                Err(_) => Error::PoolTimedOut,
            };
            if dialect == Dialect::Sqlite || !may_yet_come(&error) {
                return Err(self.refusal(error.into()));
            }
            let why = why_not(&error);
            tracing::warn!(try = tried, tries_max = patience.tries, "{} {why}", self.server());
            if tried >= patience.tries {
                let seconds = patience.pause.as_secs() * u64::from(tried);
                return Err(StartError::unavailable(format!(
                    "{} {why} ({tried} tries in {seconds} s). {}",
                    self.server(),
                    self.source()
                )));
            }
        }
    }

    /// What to tell a person about an error that ends the start.
    pub fn refusal(self, error: SqlError) -> StartError {
        let source = self.source();
        match error {
            SqlError::NewerSchema { .. }
            | SqlError::OlderSchema { .. }
            | SqlError::UnknownDatabase { .. } => StartError::settings(format!("{error} {source}")),
            SqlError::Refused(Error::Configuration(error)) => {
                StartError::settings(format!("{} is no address: {error}. {source}", self.setting))
            }
            SqlError::Refused(error) | SqlError::Unavailable(error) => self.refused(&error),
            error => {
                StartError::unavailable(format!("The database cannot be opened: {}. {source}", chain(&error)))
            }
        }
    }

    fn refused(self, error: &Error) -> StartError {
        let (server, source) = (self.server(), self.source());
        let (user, database) = self.user_and_database();
        let code = error.as_database_error().and_then(|error| error.code());
        match code.as_deref() {
            Some("28P01") => StartError::settings(format!(
                "{server} refused the password of the user \"{user}\". {source}"
            )),
            Some("28000") => StartError::settings(format!(
                "{server} does not let \"{user}\" in: {}. {source}",
                message(error)
            )),
            Some("3D000") => StartError::settings(format!(
                "{server} has no database \"{database}\". Make it (CREATE DATABASE \"{database}\" OWNER \"{user}\"), \
                 or name another one. {source}"
            )),
            // Since version 15 nobody but the owner of a database may create anything in it, unless told otherwise.
            Some("42501") => StartError::settings(format!(
                "{server} does not let \"{user}\" change the schema: {}. Make it the owner of the database \
                 (ALTER DATABASE \"{database}\" OWNER TO \"{user}\"), or have somebody else run `sluice migrate`. \
                 {source}",
                message(error)
            )),
            // SQLITE_CANTOPEN and SQLITE_READONLY, also as extended codes.
            Some(code)
                if code.len() < 5 && code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 14 | 8)) =>
            {
                StartError::cannot_create(format!(
                    "The database file cannot be opened or made: {}. Is its folder there, and may this user write \
                     in it? See SLUICE_DATA_DIR. {source}",
                    message(error)
                ))
            }
            _ if matches!(error, Error::Tls(_)) => StartError::settings(format!(
                "{server} does not encrypt as it was asked to: {error}. See sslmode. {source}"
            )),
            _ if may_yet_come(error) => {
                StartError::unavailable(format!("{server} {}. {source}", why_not(error)))
            }
            _ => {
                StartError::unavailable(format!("The database cannot be opened: {}. {source}", chain(error)))
            }
        }
    }

    fn source(self) -> String {
        format!("{} from: {}.", self.setting, self.origin)
    }

    /// Where the server is; never what may be a secret.
    fn server(self) -> String {
        match self.url.parse::<PgConnectOptions>() {
            Ok(options) => match options.get_socket() {
                Some(socket) => format!("PostgreSQL at {}", socket.display()),
                None => format!("PostgreSQL at {}:{}", options.get_host(), options.get_port()),
            },
            Err(_) => "The database".to_owned(),
        }
    }

    fn user_and_database(self) -> (String, String) {
        let Ok(options) = self.url.parse::<PgConnectOptions>() else { return Default::default() };
        let user = options.get_username().to_owned();
        // One that is not named is named as the user.
        let database = options.get_database().unwrap_or(&user).to_owned();
        (user, database)
    }
}

/// Whether waiting may help.
fn may_yet_come(error: &Error) -> bool {
    match error {
        Error::Io(_) | Error::PoolTimedOut => true,
        // Starting up, shutting down, or no place left.
        Error::Database(error) => {
            error.code().is_some_and(|code| code.starts_with("57P0") || code == "53300")
        }
        _ => false,
    }
}

fn why_not(error: &Error) -> String {
    match error {
        Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused => {
            "refused the connection".to_owned()
        }
        Error::Io(error) => format!("cannot be reached: {error}"),
        Error::Database(_) => format!("is not ready: {}", message(error)),
        _ => "does not answer".to_owned(),
    }
}

fn message(error: &Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

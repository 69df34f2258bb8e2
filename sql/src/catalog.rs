//! The door to the database.

use std::sync::Arc;
use std::time::Duration;

use domain::{DatabasePlace, SessionId, StartError, Timestamp};
use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::any::AnyPoolOptions;
use sqlx::{Any, AnyConnection, AnyPool, AssertSqlSafe, Connection, Executor, Transaction};

use crate::dialect::{Dialect, Role};
use crate::{SqlError, schema};

/// How long a call waits for a connection before it says that the database does not answer.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Every row there is. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Catalog {
    /// What they answer is as new as the last commit.
    pub(crate) readers: AnyPool,
    /// Of a replica, if there is one: what they answer may be some seconds old. For what is only shown.
    pub(crate) lagging_readers: AnyPool,
    pub(crate) writer: AnyPool,
    pub(crate) dialect: Dialect,
}

/// A transaction that writes.
pub(crate) type Tx = Transaction<'static, Any>;

impl Catalog {
    /// Connects, and brings the schema up to date where the place says so.
    pub async fn open(place: &DatabasePlace) -> Result<Catalog, StartError> {
        let catalog = Catalog::open_even_moved(place).await?;
        match catalog.moved_to().await.map_err(|error| start_error(place, error))? {
            Some(to) => Err(StartError::settings(format!(
                "The database ({}) was moved to {to}. Set DATABASE_URL to it; what is here is a copy of then.",
                place.origin
            ))),
            None => Ok(catalog),
        }
    }

    pub(crate) async fn open_even_moved(place: &DatabasePlace) -> Result<Catalog, StartError> {
        Catalog::connect(place).await.map_err(|error| start_error(place, error))
    }

    /// Brings the schema up to date, whatever the place says.
    pub async fn migrate(place: &DatabasePlace) -> Result<(), StartError> {
        let place = DatabasePlace { migrate: true, ..place.clone() };
        Catalog::prepare_schema(&place).await.map_err(|error| start_error(&place, error))
    }

    async fn connect(place: &DatabasePlace) -> Result<Catalog, SqlError> {
        Catalog::prepare_schema(place).await?;
        let dialect = Dialect::of(&place.url)?;
        let writer = pool(dialect, Role::Writer, &place.url, place).await?;
        let readers = pool(dialect, Role::Reader, &place.url, place).await?;
        let lagging_readers = match &place.read_url {
            Some(url) => pool(Dialect::of(url)?, Role::Reader, url, place).await?,
            None => readers.clone(),
        };
        Ok(Catalog { readers, lagging_readers, writer, dialect })
    }

    async fn prepare_schema(place: &DatabasePlace) -> Result<(), SqlError> {
        sqlx::any::install_default_drivers();
        let dialect = Dialect::of(&place.url)?;
        let mut connection = AnyConnection::connect(&dialect.connect_url(&place.url)).await?;
        connection.execute(AssertSqlSafe(dialect.connection_setup(Role::Migrator, place))).await?;
        let ready = if place.migrate {
            schema::migrate(dialect, &mut connection).await
        } else {
            schema::require_current(dialect, &mut connection).await
        };
        connection.close().await?;
        ready
    }

    /// The database's clock: what leases of several machines are compared by.
    pub async fn now(&self) -> Result<Timestamp, SqlError> {
        let row = sqlx::query(self.dialect.now()).fetch_one(&self.readers).await?;
        crate::row::instant(&row, "unix_ms")
    }

    /// [`Catalog::ping`], again and again.
    pub fn pinger(&self) -> impl Fn() -> BoxFuture<'static, Result<(), SqlError>> + Send + Sync + 'static {
        let catalog = self.clone();
        move || {
            let catalog = catalog.clone();
            async move { catalog.ping().await }.boxed()
        }
    }

    /// [`Catalog::now`], again and again.
    pub fn clock(
        &self,
    ) -> impl Fn() -> BoxFuture<'static, Result<Timestamp, SqlError>> + Send + Sync + 'static {
        let catalog = self.clone();
        move || {
            let catalog = catalog.clone();
            async move { catalog.now().await }.boxed()
        }
    }

    /// [`Catalog::session_alive`], for whoever knows tokens and no rows.
    pub fn session_lookup(
        &self,
    ) -> impl Fn(SessionId, Timestamp) -> BoxFuture<'static, Result<bool, SqlError>> + Send + Sync + 'static
    {
        let catalog = self.clone();
        move |session, now| {
            let catalog = catalog.clone();
            async move { catalog.session_alive(session, now).await }.boxed()
        }
    }

    /// Whether both reading and writing are answered.
    pub async fn ping(&self) -> Result<(), SqlError> {
        if let Some(place) = self.moved_to().await? {
            return Err(SqlError::Moved { place });
        }
        let tx = self.begin().await?;
        tx.rollback().await?;
        Ok(())
    }

    /// Writes what is pending and closes every connection.
    pub async fn close(&self) {
        self.readers.close().await;
        self.lagging_readers.close().await;
        self.writer.close().await;
    }

    pub(crate) async fn begin(&self) -> Result<Tx, SqlError> {
        Ok(self.writer.begin_with(self.dialect.begin()).await?)
    }
}

async fn pool(dialect: Dialect, role: Role, url: &str, place: &DatabasePlace) -> Result<AnyPool, SqlError> {
    let setup: Arc<str> = dialect.connection_setup(role, place).into();
    let options = AnyPoolOptions::new()
        .max_connections(dialect.connections_max(role, place))
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(move |connection, _| {
            let setup = setup.clone();
            Box::pin(async move {
                connection.execute(AssertSqlSafe(setup)).await?;
                Ok(())
            })
        });
    Ok(options.connect(&dialect.connect_url(url)).await?)
}

fn start_error(place: &DatabasePlace, error: SqlError) -> StartError {
    let text = format!(
        "The database ({}) cannot be opened: {error}. See DATABASE_URL and SLUICE_DATA_DIR.",
        place.origin
    );
    match error {
        SqlError::NewerSchema { .. } | SqlError::OlderSchema { .. } | SqlError::UnknownDatabase { .. } => {
            StartError::settings(text)
        }
        _ => StartError::unavailable(text),
    }
}

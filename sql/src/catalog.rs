//! The door to the database.

use std::time::Duration;

use domain::{DatabasePlace, SessionId, StartError, Timestamp};
use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::any::AnyPoolOptions;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Any, AnyPool, Executor, Transaction};

use crate::SqlError;
use crate::dialect::{Dialect, Role};

static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// How long a call waits for a connection before it says that the database does not answer.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Every row there is. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Catalog {
    pub(crate) readers: AnyPool,
    pub(crate) writer: AnyPool,
    dialect: Dialect,
}

/// A transaction that writes.
pub(crate) type Tx = Transaction<'static, Any>;

impl Catalog {
    /// Connects, and brings the schema up to date.
    pub async fn open(place: &DatabasePlace) -> Result<Catalog, StartError> {
        Catalog::connect(place).await.map_err(|error| {
            let text = format!(
                "The database ({}) cannot be opened: {error}. See DATABASE_URL and SLUICE_DATA_DIR.",
                place.origin
            );
            match error {
                SqlError::NewerSchema { .. } | SqlError::UnknownDatabase { .. } => StartError::settings(text),
                _ => StartError::unavailable(text),
            }
        })
    }

    async fn connect(place: &DatabasePlace) -> Result<Catalog, SqlError> {
        sqlx::any::install_default_drivers();
        let dialect = Dialect::of(&place.url)?;
        let url = dialect.connect_url(&place.url);
        let writer = pool(dialect, Role::Writer, dialect.writers_max(), &url).await?;
        MIGRATOR.run(&writer).await.map_err(migration_error)?;
        let readers = pool(dialect, Role::Reader, dialect.readers_max(), &url).await?;
        Ok(Catalog { readers, writer, dialect })
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
        sqlx::query("-- catalog.ping\nSELECT 1").execute(&self.readers).await?;
        let tx = self.begin().await?;
        tx.rollback().await?;
        Ok(())
    }

    /// Writes what is pending and closes every connection.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    pub(crate) async fn begin(&self) -> Result<Tx, SqlError> {
        Ok(self.writer.begin_with(self.dialect.begin()).await?)
    }
}

async fn pool(dialect: Dialect, role: Role, connections_max: u32, url: &str) -> Result<AnyPool, SqlError> {
    let options = AnyPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                connection.execute(dialect.connection_setup(role)).await?;
                Ok(())
            })
        });
    Ok(options.connect(url).await?)
}

fn migration_error(error: MigrateError) -> SqlError {
    match error {
        MigrateError::VersionMissing(migration) => SqlError::NewerSchema { migration },
        MigrateError::Execute(error) => error.into(),
        other => SqlError::Migration(other),
    }
}

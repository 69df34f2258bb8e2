//! The door to the database.

use std::path::Path;
use std::time::Duration;

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
    pub async fn open(database_url: &str) -> Result<Catalog, SqlError> {
        sqlx::any::install_default_drivers();
        let dialect = Dialect::of(database_url)?;
        let url = dialect.connect_url(database_url);
        let writer = pool(dialect, Role::Writer, dialect.writers_max(), &url).await?;
        MIGRATOR.run(&writer).await.map_err(migration_error)?;
        let readers = pool(dialect, Role::Reader, dialect.readers_max(), &url).await?;
        Ok(Catalog { readers, writer, dialect })
    }

    /// The address of a SQLite file.
    pub fn sqlite_url(file: &Path) -> String {
        // Only these three have a meaning of their own in such an address.
        let path = file.to_string_lossy().replace('%', "%25").replace('?', "%3F").replace('#', "%23");
        format!("sqlite://{path}")
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

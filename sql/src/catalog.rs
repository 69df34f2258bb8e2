//! The door to the database.

use domain::{DatabasePlace, SessionId, StartError, Timestamp};
use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor};

use crate::dialect::{Dialect, Role};
use crate::pool::Pool;
use crate::tx::commit;
use crate::{SqlError, schema};

/// Every row there is. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Catalog {
    /// What they answer is as new as the last commit.
    pub(crate) readers: Pool,
    /// Of a replica, if there is one: what they answer may be some seconds old. For what is only shown.
    pub(crate) lagging_readers: Pool,
    pub(crate) has_replica: bool,
    pub(crate) writer: Pool,
    pub(crate) dialect: Dialect,
}

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
        let writer = Pool::open(dialect, Role::Writer, &place.url, place).await?;
        let readers = Pool::open(dialect, Role::Reader, &place.url, place).await?;
        let lagging_readers = match &place.read_url {
            Some(url) => Pool::open(Dialect::of(url)?, Role::Reader, url, place).await?,
            None => readers.clone(),
        };
        Ok(Catalog { readers, lagging_readers, has_replica: place.read_url.is_some(), writer, dialect })
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
        commit!(self, async |_tx| { Ok(()) })
    }

    /// Writes what is pending and closes every connection.
    pub async fn close(&self) {
        self.readers.close().await;
        self.lagging_readers.close().await;
        self.writer.close().await;
    }
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

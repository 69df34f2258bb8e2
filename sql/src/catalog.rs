//! The door to the database.

use std::sync::Arc;

use domain::{DatabasePlace, SessionId, StartError, Timestamp};
use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::{AssertSqlSafe, Connection, Executor};
use tokio::sync::Notify;

use crate::dialect::{Dialect, Role};
use crate::pool::Pool;
use crate::start::{Address, Patience};
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
    bell: Arc<Notify>,
    deletions_bell: Arc<Notify>,
}

impl Catalog {
    /// Connects, and brings the schema up to date where the place says so. Waits for a server that is not there
    /// yet, for half a minute.
    pub async fn open(place: &DatabasePlace) -> Result<Catalog, StartError> {
        Catalog::open_patiently(place, Patience::default()).await
    }

    /// [`Catalog::open`], with another patience.
    pub async fn open_patiently(place: &DatabasePlace, patience: Patience) -> Result<Catalog, StartError> {
        let catalog = Catalog::open_even_moved(place, patience).await?;
        let moved = catalog.moved_to().await.map_err(|error| Address::primary(place).refusal(error))?;
        match moved {
            Some(to) => Err(StartError::settings(format!(
                "The database ({}) was moved to {to}. Set DATABASE_URL to it; what is here is a copy of then.",
                place.origin
            ))),
            None => Ok(catalog),
        }
    }

    /// Brings the schema up to date, whatever the place says.
    pub async fn migrate(place: &DatabasePlace) -> Result<(), StartError> {
        let place = DatabasePlace { migrate: true, ..place.clone() };
        prepare_schema(&place, Patience::default()).await
    }

    pub(crate) async fn open_even_moved(
        place: &DatabasePlace,
        patience: Patience,
    ) -> Result<Catalog, StartError> {
        prepare_schema(place, patience).await?;
        let primary = Address::primary(place);
        let dialect = Dialect::of(primary.url).map_err(|error| primary.refusal(error))?;
        let writer = pool(primary, Role::Writer, place).await?;
        let readers = pool(primary, Role::Reader, place).await?;
        let lagging_readers = match &place.read_url {
            Some(url) => {
                let replica = Address::replica(url);
                replica.require(dialect)?;
                replica
                    .connect(patience)
                    .await?
                    .close()
                    .await
                    .map_err(|error| replica.refusal(error.into()))?;
                pool(replica, Role::Reader, place).await?
            }
            None => readers.clone(),
        };
        Ok(Catalog {
            readers,
            lagging_readers,
            has_replica: place.read_url.is_some(),
            writer,
            dialect,
            bell: Arc::default(),
            deletions_bell: Arc::default(),
        })
    }

    /// The database's clock: what leases of several machines are compared by.
    pub async fn now(&self) -> Result<Timestamp, SqlError> {
        let row = sqlx::query(self.dialect.now()).fetch_one(&self.readers).await?;
        crate::row::instant(&row, "unix_ms")
    }

    /// The bell of this catalog and its clones. Whoever queued a job that somebody waits for rings it after the commit;
    /// the dispatcher listens. What other processes queue is not told; a poll finds it.
    pub fn bell(&self) -> &Notify {
        &self.bell
    }

    /// Rung after a deletion by this catalog or its clones: whoever works on a video asks whether it still may. What other
    /// processes delete is not told; a heartbeat finds it.
    pub fn deletions_bell(&self) -> &Notify {
        &self.deletions_bell
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

/// On a connection of its own: migrating takes as long as it takes, and closing lets go of every lock.
async fn prepare_schema(place: &DatabasePlace, patience: Patience) -> Result<(), StartError> {
    sqlx::any::install_default_drivers();
    let primary = Address::primary(place);
    let mut connection = primary.connect(patience).await?;
    let prepared = async {
        let dialect = Dialect::of(primary.url)?;
        connection.execute(AssertSqlSafe(dialect.connection_setup(Role::Migrator, place))).await?;
        if place.migrate {
            schema::migrate(dialect, &mut connection).await
        } else {
            schema::require_current(dialect, &mut connection).await
        }
    }
    .await;
    // What went wrong before matters more.
    let _ = connection.close().await;
    prepared.map_err(|error| primary.refusal(error))
}

async fn pool(address: Address<'_>, role: Role, place: &DatabasePlace) -> Result<Pool, StartError> {
    let open = async { Ok(Pool::open(Dialect::of(address.url)?, role, address.url, place).await?) };
    open.await.map_err(|error: SqlError| address.refusal(error))
}

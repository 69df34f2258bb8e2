//! Connections of one role. What is done on one is bounded in time, and whoever leaves in the middle of it
//! leaves no connection behind that nobody knows the state of.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use domain::DatabasePlace;
use futures::future::{BoxFuture, Either as First, select};
use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use sqlx::any::{AnyPoolOptions, AnyQueryResult, AnyRow, AnyStatement, AnyTypeInfo};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, AssertSqlSafe, Describe, Either, Error, Execute, Executor, SqlStr};

use crate::dialect::{Dialect, Role};
use crate::weather::{Call, Weather};

/// How long a call waits for a connection before it says that the database does not answer.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(4);
/// A statement that takes longer has us ask whether the server is still there, again and again.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long the server may take to say that it is there.
const SIGN_OF_LIFE_TIMEOUT: Duration = Duration::from_secs(2);

/// Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    connections: AnyPool,
    /// One connection more, to ask a server on the network whether it is still there. A machine that lost its
    /// power does not say that it is gone, and our sockets would wait for it for a quarter of an hour.
    signs_of_life: Option<AnyPool>,
    role: Role,
    pub weather: Weather,
}

/// A connection out of a pool.
pub(crate) struct Held {
    connection: PoolConnection<Any>,
    /// Nothing is under way on it. Else it is closed, not kept for others.
    at_rest: bool,
}

impl Pool {
    /// Connects once, to find out whether that is possible.
    pub async fn open(dialect: Dialect, role: Role, url: &str, place: &DatabasePlace) -> Result<Pool, Error> {
        let url = dialect.connect_url(url);
        let setup: Arc<str> = dialect.connection_setup(role, place).into();
        let options = AnyPoolOptions::new().after_connect(move |connection, _| {
            let setup = setup.clone();
            Box::pin(async move {
                connection.execute(AssertSqlSafe(setup)).await?;
                Ok(())
            })
        });
        let signs_of_life = match dialect {
            Dialect::Sqlite => None,
            Dialect::Postgres => {
                let one = options.clone().max_connections(1).acquire_timeout(SIGN_OF_LIFE_TIMEOUT);
                Some(one.connect_lazy(&url)?)
            }
        };
        let connections = options
            .max_connections(dialect.connections_max(role, place))
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect(&url)
            .await?;
        Ok(Pool { connections, signs_of_life, role, weather: Weather::default() })
    }

    /// A connection to do something on that can be broken off. It goes back to the others once it is told to
    /// [`Held::rest`].
    pub async fn get(&self) -> Result<Held, Error> {
        Ok(Held { connection: self.connections.acquire().await?, at_rest: false })
    }

    async fn once<T>(
        &self,
        statement: impl AsyncFnOnce(&mut AnyConnection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut held = self.get().await?;
        let call = if self.role == Role::Reader { Call::Read } else { Call::Write };
        let answer = self.answer(self.weather.befall(call, statement(&mut held))).await;
        held.rest(answer.as_ref().err());
        answer
    }

    pub async fn close(&self) {
        self.connections.close().await;
        if let Some(signs_of_life) = &self.signs_of_life {
            signs_of_life.close().await;
        }
    }

    /// Waits for what the server was asked for, as long as there is a server.
    pub async fn answer<T, E: From<Error>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let Some(signs_of_life) = &self.signs_of_life else { return work.await };
        match select(std::pin::pin!(work), std::pin::pin!(silence(signs_of_life))).await {
            First::Left((answer, _)) => answer,
            First::Right((error, _)) => Err(error.into()),
        }
    }
}

/// Ends when the server gives no sign of life.
async fn silence(signs_of_life: &AnyPool) -> Error {
    loop {
        tokio::time::sleep(PATIENCE).await;
        // Before it hands out a connection the pool has it answer.
        if let Err(error) = signs_of_life.acquire().await {
            return error;
        }
    }
}

/// After most errors of a statement the next one may well succeed.
pub(crate) fn keeps_the_connection(error: &Error) -> bool {
    match error {
        // A server that takes no writes any more is a replica since a moment ago; the address may lead elsewhere.
        Error::Database(error) => error.code().as_deref() != Some("25006"),
        Error::RowNotFound | Error::ColumnDecode { .. } | Error::Decode(_) | Error::Encode(_) => true,
        _ => false,
    }
}

impl Held {
    /// What was under way is over, with this error if with any.
    pub fn rest(&mut self, error: Option<&Error>) {
        self.at_rest = error.is_none_or(keeps_the_connection);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.at_rest {
            self.connection.close_on_drop();
        }
    }
}

impl Deref for Held {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.connection
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }
}

/// A statement of its own. Answers are lists with a limit, so they are taken whole.
impl<'p> Executor<'p> for &'_ Pool {
    type Database = Any;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<AnyQueryResult, AnyRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Any>,
    {
        let pool = self.clone();
        let whole = async move {
            let rows: Vec<_> = pool.once(async |c| c.fetch_many(query).try_collect().await).await?;
            Ok::<_, Error>(stream::iter(rows.into_iter().map(Ok)))
        };
        stream::once(whole).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<AnyRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Any>,
    {
        let pool = self.clone();
        Box::pin(async move { pool.once(async |c| c.fetch_optional(query).await).await })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [AnyTypeInfo],
    ) -> BoxFuture<'e, Result<AnyStatement, Error>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        Box::pin(async move { pool.once(async |c| c.prepare_with(sql, parameters).await).await })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Any>, Error>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        Box::pin(async move { pool.once(async |c| c.describe(sql).await).await })
    }
}

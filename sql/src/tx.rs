//! Transactions that write: begun, committed and, where the database asks for it, repeated in one place.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::{AnyConnection, AssertSqlSafe, Executor as _};

use crate::dialect::{Dialect, Lock};
use crate::error::is_conflict;
use crate::pool::{Held, keeps_the_connection};
use crate::weather::{Call, Weather};
use crate::{Catalog, FencedError, SqlError};

/// How often a transaction is tried that PostgreSQL breaks off for the sake of another one.
const TRIES_MAX: u32 = 4;
const PAUSE: Duration = Duration::from_millis(20);

/// A transaction that writes.
pub(crate) struct Tx {
    held: Held,
    dialect: Dialect,
    weather: Weather,
}

/// What the work of a transaction fails with.
pub(crate) trait Failure: From<SqlError> + From<sqlx::Error> {
    fn of_database(&self) -> Option<&sqlx::Error>;
}

impl Failure for SqlError {
    fn of_database(&self) -> Option<&sqlx::Error> {
        match self {
            SqlError::Unavailable(error) | SqlError::Refused(error) => Some(error),
            _ => None,
        }
    }
}

impl Failure for FencedError {
    fn of_database(&self) -> Option<&sqlx::Error> {
        match self {
            FencedError::Sql(error) => error.of_database(),
            FencedError::LeaseLost => None,
        }
    }
}

/// [`Catalog::commit`] of a block that may borrow whatever is around it.
macro_rules! commit {
    ($catalog:expr, async |$tx:ident| $work:block) => {
        $catalog.commit(move |$tx, _| Box::pin(async move $work)).await
    };
}
pub(crate) use commit;

impl Catalog {
    /// Commits what `work` does, unless it fails; then nothing was done. `work` may run more than once, and
    /// leaves effects nowhere else.
    ///
    /// Where the connection breaks while the commit is under way, nobody knows whether it happened; the caller
    /// hears [`SqlError::Unavailable`]. Whoever then asks for the same again, with the same ids and tokens,
    /// is told what was done, and nothing is done twice.
    pub(crate) async fn commit<'a, T, E: Failure>(
        &self,
        mut work: impl for<'t> FnMut(&'t mut Tx, PhantomData<&'t &'a ()>) -> BoxFuture<'t, Result<T, E>> + Send,
    ) -> Result<T, E> {
        let mut tries = 1;
        loop {
            match self.writer.answer(self.try_commit(&mut work)).await {
                // Of transactions that wait for each other one is broken off, and the others go on at once.
                Err(error) if error.of_database().is_some_and(is_conflict) && tries < TRIES_MAX => {
                    tokio::time::sleep(PAUSE * tries).await;
                    tries += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn try_commit<'a, T, E: Failure>(
        &self,
        work: &mut (impl for<'t> FnMut(&'t mut Tx, PhantomData<&'t &'a ()>) -> BoxFuture<'t, Result<T, E>> + Send),
    ) -> Result<T, E> {
        let mut tx = self.begin().await?;
        let outcome = work(&mut tx, PhantomData).await;
        let failure = outcome.as_ref().err().and_then(Failure::of_database);
        match outcome {
            Ok(done) => {
                tx.commit().await?;
                Ok(done)
            }
            // Closed, the connection ends its transaction as well.
            Err(_) if failure.is_some_and(|error| !keeps_the_connection(error)) => outcome,
            Err(failure) => {
                // What the work failed with matters more than a rollback that fails.
                let _ = tx.rollback().await;
                Err(failure)
            }
        }
    }

    /// A transaction that ends by [`Tx::commit`] or [`Tx::rollback`]. Whoever drops it before closes its
    /// connection, and the transaction ends with that.
    pub(crate) async fn begin(&self) -> Result<Tx, SqlError> {
        let mut held = self.writer.get().await?;
        let weather = self.writer.weather.clone();
        if let Err(error) = weather.befall(Call::Begin, held.execute(self.dialect.begin())).await {
            held.rest(Some(&error));
            return Err(error.into());
        }
        Ok(Tx { held, dialect: self.dialect, weather })
    }
}

impl Tx {
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        self.weather.befall(Call::Commit, self.held.execute("COMMIT")).await?;
        self.held.rest(None);
        Ok(())
    }

    pub async fn rollback(mut self) -> Result<(), sqlx::Error> {
        self.held.execute("ROLLBACK").await?;
        self.held.rest(None);
        Ok(())
    }

    /// Nobody else inserts or changes a user until our end.
    pub async fn lock_users(&mut self) -> Result<(), sqlx::Error> {
        if let Some(lock) = self.dialect.lock_table("users") {
            self.held.execute(AssertSqlSafe(lock)).await?;
        }
        Ok(())
    }

    /// Nobody else adds up what was promised of the store until our end.
    pub async fn lock_promises(&mut self) -> Result<(), sqlx::Error> {
        if let Some(lock) = self.dialect.lock_promises() {
            self.held.execute(lock).await?;
        }
        Ok(())
    }

    /// `select`, and takes hold of its rows.
    pub fn locking(&self, select: &str, lock: Lock) -> AssertSqlSafe<String> {
        AssertSqlSafe(format!("{select} {}", self.lock(lock)))
    }

    pub fn lock(&self, lock: Lock) -> &'static str {
        self.dialect.lock(lock)
    }
}

impl Deref for Tx {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.held
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.held
    }
}

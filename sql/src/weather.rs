//! Bad weather by choice, for tests: calls to the database that fail before or after they took effect.

use std::io;
use std::sync::Arc;

use sqlx::Error;

use crate::Catalog;

/// What is asked of the database at once. What stands within a transaction counts with its commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// A statement of its own on a connection that only reads.
    Read,
    /// A statement of its own on one that writes.
    Write,
    Begin,
    Commit,
}

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails and nothing has happened.
    Before,
    /// It has happened, and fails all the same: the answer was lost on the way.
    After,
}

type Choice = Arc<dyn Fn(Call) -> Option<Fault> + Send + Sync>;

/// Fine, unless somebody chose otherwise.
#[derive(Clone, Default)]
pub(crate) struct Weather(Option<Choice>);

impl Catalog {
    /// The same catalog; `choice` is asked before each call whether and how it is to go wrong.
    pub fn under(mut self, choice: impl Fn(Call) -> Option<Fault> + Send + Sync + 'static) -> Catalog {
        let weather = Weather(Some(Arc::new(choice)));
        for pool in [&mut self.readers, &mut self.lagging_readers, &mut self.writer] {
            pool.weather = weather.clone();
        }
        self
    }
}

impl Weather {
    pub async fn befall<T>(
        &self,
        call: Call,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let fault = self.0.as_ref().and_then(|choice| choice(call));
        if fault == Some(Fault::Before) {
            return Err(lost("the call was lost"));
        }
        let done = work.await?;
        if fault == Some(Fault::After) { Err(lost("the answer was lost")) } else { Ok(done) }
    }
}

fn lost(what: &str) -> Error {
    Error::Io(io::Error::other(what))
}

impl std::fmt::Debug for Weather {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "chosen" } else { "fine" })
    }
}

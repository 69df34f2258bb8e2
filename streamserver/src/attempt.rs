//! One try at writing an object of an upload: its row is there before its bytes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chassis::Problem;
use domain::{AttemptId, ObjectFile, ObjectKey, Timestamp, VideoId};
use http::StatusCode;
use sql::SqlError;
use store::{ObjectWriter, Stored};

use crate::{StreamServer, failure};

const FIND_STORE_MAX: Duration = Duration::from_secs(5);
/// Whoever writes shows that it lives by moving this end of its lease.
pub const LEASE_S: i64 = 60;
const EXTENDED_EVERY_MS: i64 = 20_000;
/// After the database did not answer.
const EXTENDED_AGAIN_MS: i64 = 2_000;
/// The client waits this long for a database that does not answer, once its bytes are there.
const ANSWER_MAX: Duration = Duration::from_secs(5);
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Dropped before it was kept, it abandons itself, also when the client went away and the handler with it.
pub struct Attempt {
    server: StreamServer,
    video: VideoId,
    id: AttemptId,
    received_bytes: AtomicU64,
    open: bool,
}

impl Attempt {
    /// To be made before the row: should the handler be dropped while that is written, it is abandoned too.
    pub fn new(server: &StreamServer, video: VideoId, now: Timestamp) -> Attempt {
        Attempt {
            server: server.clone(),
            video,
            id: server.ids.next(now),
            received_bytes: AtomicU64::new(0),
            open: true,
        }
    }

    pub fn id(&self) -> AttemptId {
        self.id
    }

    pub fn key(&self) -> ObjectKey {
        ObjectKey { video: self.video, attempt: self.id, file: ObjectFile::Source }
    }

    /// In all. Told with the next extension: the rest is what is still promised to it.
    pub fn received(&self, bytes: u64) {
        self.received_bytes.store(bytes, Ordering::Relaxed);
    }

    /// It is in the hands of whoever commits it.
    pub fn keep(mut self) {
        self.open = false;
    }
}

impl Lease for Attempt {
    fn server(&self) -> &StreamServer {
        &self.server
    }

    async fn extend(&self, until: Timestamp) -> Result<(), Problem> {
        let received_bytes = self.received_bytes.load(Ordering::Relaxed);
        let extended = self.server.catalog.extend_upload(self.id, received_bytes, until).await;
        let alive = extended.map_err(failure::sql)?;
        if alive { Ok(()) } else { Err(Problem::not_found()) }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.open {
            let (server, id) = (self.server.clone(), self.id);
            self.server.tasks.spawn(async move { server.abandon_upload(id).await });
        }
    }
}

/// What gives the right to write an object, as long as it is extended.
pub trait Lease: Sync {
    fn server(&self) -> &StreamServer;

    /// A problem where the right is lost.
    fn extend(&self, until: Timestamp) -> impl Future<Output = Result<(), Problem>> + Send;

    /// The last sync may take long on a busy disk; nobody sweeps the attempt meanwhile. A purge waits for no longer than
    /// the lease where this process dies.
    fn finish(&self, writer: Box<dyn ObjectWriter>) -> impl Future<Output = Result<Stored, Problem>> + Send {
        async {
            let until = || self.server().clock.now().plus_s(LEASE_S);
            if let Err(problem) = self.extend(until()).await {
                writer.abort().await;
                return Err(problem);
            }
            let mut finishing = std::pin::pin!(writer.finish());
            let patience = Duration::from_millis(EXTENDED_EVERY_MS.unsigned_abs());
            loop {
                match tokio::time::timeout(patience, &mut finishing).await {
                    Ok(stored) => return stored.map_err(failure::store),
                    // Should the lease be lost, the commit is refused.
                    Err(_) => drop(self.extend(until()).await),
                }
            }
        }
    }
}

/// Extends a lease now and then, while bytes flow.
pub struct Extending {
    extend_at: Timestamp,
    lease_until: Timestamp,
}

impl Extending {
    pub fn from(now: Timestamp) -> Extending {
        Extending { extend_at: now.plus_ms(EXTENDED_EVERY_MS), lease_until: now.plus_s(LEASE_S) }
    }

    /// A database that is away for less than the lease costs nobody an upload.
    pub async fn extend(&mut self, lease: &impl Lease) -> Result<(), Problem> {
        let clock = &lease.server().clock;
        let now = clock.now();
        if now < self.extend_at {
            return Ok(());
        }
        match lease.extend(now.plus_s(LEASE_S)).await {
            Ok(()) => {
                *self = Extending::from(now);
                Ok(())
            }
            Err(problem)
                if problem.status() == StatusCode::SERVICE_UNAVAILABLE
                    && clock.now().plus_ms(EXTENDED_AGAIN_MS) < self.lease_until =>
            {
                self.extend_at = clock.now().plus_ms(EXTENDED_AGAIN_MS);
                Ok(())
            }
            Err(problem) => Err(problem),
        }
    }
}

/// Asks the database for something that may be asked for twice. A commit whose answer was lost may have happened: the
/// bytes are there, so it is asked for again, and says which.
pub async fn ask_again<T, F>(mut ask: impl FnMut() -> F) -> Result<T, Problem>
where
    F: Future<Output = Result<T, SqlError>>,
{
    let give_up = tokio::time::Instant::now() + ANSWER_MAX;
    loop {
        let error = match tokio::time::timeout_at(give_up, ask()).await {
            Ok(Ok(outcome)) => return Ok(outcome),
            Ok(Err(error)) => failure::sql(error),
            Err(late) => return Err(failure::unavailable(late)),
        };
        let again_at = tokio::time::Instant::now() + AGAIN_AFTER;
        if error.status() != StatusCode::SERVICE_UNAVAILABLE || again_at >= give_up {
            return Err(error);
        }
        tokio::time::sleep_until(again_at).await;
    }
}

impl StreamServer {
    /// Before the first byte is taken: once it sends, a client has the store's patience, which is made for a pause in
    /// the middle and not for a store that is away.
    pub(crate) async fn find_store(&self, key: &ObjectKey) -> Result<(), Problem> {
        match tokio::time::timeout(FIND_STORE_MAX, self.store.head(key)).await {
            Ok(found) => found.map(drop).map_err(failure::store),
            Err(late) => Err(failure::unavailable(late)),
        }
    }

    /// Should this fail, the lease runs out and the sweeper does it.
    pub(crate) async fn abandon_upload(&self, attempt: AttemptId) {
        if let Err(error) = self.catalog.abandon_upload(attempt, self.clock.now()).await {
            tracing::warn!(attempt.id = %attempt, %error, "an upload could not be abandoned");
        }
    }

    /// Of an attempt that is abandoned. Should this fail, the sweeper does it.
    pub(crate) async fn remove_object(&self, key: &ObjectKey) {
        for (path, result) in self.store.delete(&[key.path()]).await {
            if let Err(error) = result {
                tracing::warn!(path, %error, "an object of a lost upload stays until it is swept");
            }
        }
    }
}

//! Who may write to an upload: one request at a time, in whatever process. Another request for the same upload asks
//! it to let go and takes over, because most often it comes from a client whose old connection is dead, and only the
//! server has not noticed.
//!
//! The row says who holds it (a token, higher at every turn) and whether somebody waits. The process of the holder
//! looks for that a few times a second, stops reading and keeps what came. A holder that does not hear, because its
//! process is dead, is passed over: its token is old, and no commit of it counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chassis::Problem;
use domain::{AttemptId, ObjectFile, ObjectKey, Timestamp, UploadId, UploadState};
use sql::{Acquire, Resumable, UploadPiece};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::refusal;
use crate::attempt::Lease;
use crate::{StreamServer, failure};

const LISTEN_EVERY: Duration = Duration::from_millis(200);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// A process that is alive has heard by then, and shows it as often, until it has let go.
const HEARD_WITHIN: Duration = Duration::from_secs(1);
/// The holder makes durable what came; on a busy disk that takes its time.
const RELEASED_WITHIN: Duration = Duration::from_secs(10);
/// The client does not wait for longer; whoever comes next asks for the upload, and passes us over.
const RELEASE_WAIT: Duration = Duration::from_secs(1);

/// An upload that nobody else writes to. Dropped, it is released.
pub struct Held {
    pub server: StreamServer,
    pub upload: Resumable,
    /// What is committed, in order.
    pub pieces: Vec<UploadPiece>,
    /// Its client wants it, so it lives on.
    wanted: bool,
    stop: CancellationToken,
    released: bool,
}

impl Held {
    /// `None`: it is complete.
    pub async fn acquire(server: &StreamServer, id: UploadId) -> Result<Option<Held>, Problem> {
        Held::acquire_if(server, id, true).await
    }

    /// As [`Held::acquire`]; it does not expire later for that.
    pub async fn acquire_unwanted(server: &StreamServer, id: UploadId) -> Result<Option<Held>, Problem> {
        Held::acquire_if(server, id, false).await
    }

    async fn acquire_if(server: &StreamServer, id: UploadId, wanted: bool) -> Result<Option<Held>, Problem> {
        let began = Instant::now();
        let (mut signs, mut seen_at, mut force) = (0, began, false);
        loop {
            let now = server.clock.now();
            let expires_at = if wanted { server.upload_expires_at(now) } else { now };
            let acquired = server.catalog.acquire_resumable(id, force, expires_at, now).await;
            match acquired.map_err(failure::sql)? {
                Acquire::Held(upload, pieces) => {
                    let mut held = Held::new(server, upload, pieces);
                    held.wanted = wanted;
                    return Ok(Some(held));
                }
                Acquire::NotFound => return Err(Problem::not_found()),
                Acquire::Ended(UploadState::Complete) => return Ok(None),
                Acquire::Ended(state) => return Err(refusal::ended(state)),
                Acquire::Busy { .. } if began.elapsed() > RELEASED_WITHIN => return Err(refusal::held()),
                Acquire::Busy { signs: newer } => {
                    if newer > signs {
                        (signs, seen_at) = (newer, Instant::now());
                    }
                    force = seen_at.elapsed() > HEARD_WITHIN;
                }
            }
            server.holds.listen_now();
            tokio::time::sleep(ASK_AGAIN_AFTER).await;
        }
    }

    /// Of an upload whose row says that we hold it.
    pub fn new(server: &StreamServer, upload: Resumable, pieces: Vec<UploadPiece>) -> Held {
        let stop = server.holds.add(server, upload.id, upload.token);
        Held { server: server.clone(), upload, pieces, wanted: true, stop, released: false }
    }

    /// Somebody else wants the upload, or has it, or the process ends: what came is to be kept, and no more is read.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    pub fn key(&self, attempt: AttemptId) -> ObjectKey {
        ObjectKey { video: self.upload.video, attempt, file: ObjectFile::Source }
    }

    /// Everything that was announced is there.
    pub fn has_all_bytes(&self) -> bool {
        self.upload.length_bytes == Some(self.upload.offset_bytes)
    }

    /// Why the database refuses what we write.
    pub async fn refused(&self) -> Problem {
        let found = self.server.catalog.resumable(self.upload.id, self.server.clock.now()).await;
        match found.map_err(failure::sql) {
            Ok(Some(upload)) if upload.token != self.upload.token => refusal::taken_over(),
            Ok(Some(upload)) if upload.state != UploadState::Open => refusal::ended(upload.state),
            Ok(_) => refusal::video_gone(),
            Err(problem) => problem,
        }
    }

    pub async fn release(mut self) {
        let released = self.let_go();
        let _ = tokio::time::timeout(RELEASE_WAIT, released).await;
    }

    fn let_go(&mut self) -> tokio::task::JoinHandle<()> {
        self.released = true;
        let (server, id, token) = (self.server.clone(), self.upload.id, self.upload.token);
        self.server.tasks.spawn(async move {
            let released = server.catalog.release_resumable(id, token, server.clock.now()).await;
            server.holds.remove(id, token);
            if let Err(error) = released {
                tracing::warn!(upload.id = %id, %error, "an upload could not be released");
            }
        })
    }
}

impl Lease for Held {
    fn server(&self) -> &StreamServer {
        &self.server
    }

    /// The upload lives on as well.
    async fn extend(&self, until: Timestamp) -> Result<(), Problem> {
        let now = self.server.clock.now();
        let expires_at = if self.wanted { self.server.upload_expires_at(now) } else { now };
        let (id, token) = (self.upload.id, self.upload.token);
        let extended = self.server.catalog.extend_pieces(id, token, until, expires_at).await;
        if extended.map_err(failure::sql)? { Ok(()) } else { Err(self.refused().await) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.released {
            drop(self.let_go());
        }
    }
}

/// The uploads that requests of this process hold.
#[derive(Clone, Default)]
pub struct Holds(Arc<Inner>);

#[derive(Default)]
struct Inner {
    table: Mutex<Table>,
    now: Notify,
}

#[derive(Default)]
struct Table {
    held: HashMap<UploadId, (i64, CancellationToken)>,
    /// There is a task that listens; it ends when nothing is held.
    listened: bool,
}

impl Holds {
    /// The token is cancelled when the upload is to be let go, or when the process ends.
    fn add(&self, server: &StreamServer, id: UploadId, token: i64) -> CancellationToken {
        let stop = server.shutdown.child_token();
        let mut table = self.table();
        if let Some((_, passed_over)) = table.held.insert(id, (token, stop.clone())) {
            passed_over.cancel();
        }
        if !std::mem::replace(&mut table.listened, true) {
            let (holds, catalog) = (self.clone(), server.catalog.clone());
            server.tasks.spawn(async move { holds.listen(catalog).await });
        }
        stop
    }

    fn remove(&self, id: UploadId, token: i64) {
        let mut table = self.table();
        if table.held.get(&id).is_some_and(|(held, _)| *held == token) {
            table.held.remove(&id);
        }
    }

    /// Somebody in this process waits: it need not take the usual while.
    fn listen_now(&self) {
        self.0.now.notify_one();
    }

    /// One question for all uploads held here, while there are any.
    async fn listen(&self, catalog: sql::Catalog) {
        loop {
            let _ = tokio::time::timeout(LISTEN_EVERY, self.0.now.notified()).await;
            let Some(held) = self.held() else { return };
            let asked = match catalog.releases_asked(&held).await {
                Ok(asked) => asked,
                // Whoever waits passes us over in a second; then the commit is refused.
                Err(error) => {
                    tracing::debug!(%error, "not heard whether uploads are asked for");
                    continue;
                }
            };
            self.stop(&asked);
            if let Err(error) = catalog.hear_releases(&asked).await {
                tracing::debug!(%error, "not shown that uploads are about to be let go");
            }
        }
    }

    /// `None`, and nobody listens any more: nothing is held.
    fn held(&self) -> Option<Vec<(UploadId, i64)>> {
        let mut table = self.table();
        if table.held.is_empty() {
            table.listened = false;
            return None;
        }
        Some(table.held.iter().map(|(id, (token, _))| (*id, *token)).collect())
    }

    /// Whoever holds one of them under another token by now is not meant.
    fn stop(&self, asked: &[(UploadId, i64)]) {
        let table = self.table();
        for (id, token) in asked {
            if let Some((_, stop)) = table.held.get(id).filter(|(held, _)| held == token) {
                stop.cancel();
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

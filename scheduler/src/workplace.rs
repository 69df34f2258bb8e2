//! One run of a media job: its row before its bytes, its files, its child, its objects.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use domain::task::{Outcome, OutputFile, Task};
use domain::{AttemptId, ObjectFile, ObjectKey};
use futures::stream::{self, StreamExt, TryStreamExt};
use sql::{AttemptState, Film, Lease, NewObject, Source};
use store::Stored;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::Scheduler;
use crate::child::Told;
use crate::estimate;
use crate::failure::RunError;
use crate::jobs::remove_prefix;
use crate::run_limits::{self, RunLimits};
use crate::scratch::{Scratch, ScratchDir};
use crate::source_file::SourceFile;
use crate::sources::KEPT_UNUSED;

/// Covers are many small files, each of which waits to be durable.
const WRITES_AT_ONCE: usize = 4;

/// With less on the disk, a run that failed is taken to have failed for want of it.
const FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// The last writes of a run that was dropped get this long to end by themselves.
const LAST_WRITES_MAX: Duration = Duration::from_secs(5);

/// A job that is being run under a lease.
pub struct Run<'a> {
    pub scheduler: &'a Scheduler,
    pub scratch: &'a Scratch,
    pub lease: &'a Lease,
    /// 0 to 1; heartbeats carry it.
    pub progress: watch::Sender<f64>,
    attempt: OnceLock<AttemptId>,
    /// They go on where the run is dropped under them, so that their end can be waited for.
    writes: Mutex<JoinSet<()>>,
}

/// Where a run keeps its files, and under which attempt its objects go.
pub struct Workplace<'a> {
    run: &'a Run<'a>,
    pub attempt: AttemptId,
    files: ScratchDir,
    source: OnceLock<Arc<SourceFile>>,
}

impl Drop for Workplace<'_> {
    fn drop(&mut self) {
        if let Some(source) = self.source.take() {
            source.let_go(KEPT_UNUSED);
        }
    }
}

impl<'a> Run<'a> {
    pub fn new(
        scheduler: &'a Scheduler,
        scratch: &'a Scratch,
        lease: &'a Lease,
        progress: watch::Sender<f64>,
    ) -> Run<'a> {
        Run { scheduler, scratch, lease, progress, attempt: OnceLock::new(), writes: Mutex::default() }
    }

    /// Once it was dropped: from here on it writes nothing.
    pub async fn settle(&self) {
        let mut writes = std::mem::take(&mut *self.writes.lock().unwrap_or_else(PoisonError::into_inner));
        let ended = async { while writes.join_next().await.is_some() {} };
        if timeout(LAST_WRITES_MAX, ended).await.is_err() {
            writes.shutdown().await;
        }
    }

    /// For whoever lost its lease. Sweepers go by the row of an attempt: while this process stood still they may have
    /// swept it and forgotten it, and what was written after that nobody but us would ever look for.
    pub async fn clear_away(&self) -> Result<(), RunError> {
        let Some(&attempt) = self.attempt.get() else { return Ok(()) };
        let row = self.scheduler.catalog.attempt(attempt).await?;
        // In another state it may count, or become what counts: a commit can be on its way.
        if row.is_none_or(|row| row.state == AttemptState::Lost) {
            let prefix = ObjectKey::attempt_prefix(self.lease.job.video, attempt);
            remove_prefix(&*self.scheduler.store, &prefix).await?;
        }
        Ok(())
    }

    pub async fn source(&self) -> Result<Source, RunError> {
        let source = self.scheduler.catalog.source(self.lease.job.video).await?;
        source.ok_or_else(|| RunError::failed("the video has no source"))
    }

    pub async fn begin(&'a self) -> Result<Workplace<'a>, RunError> {
        let attempt = self.scheduler.id();
        let now = self.scheduler.now();
        self.scheduler.catalog.begin_attempt(self.lease, attempt, now).await?;
        let attempt = *self.attempt.get_or_init(|| attempt);
        Ok(Workplace { run: self, attempt, files: self.scratch.attempt(attempt)?, source: OnceLock::new() })
    }

    /// What a payload says.
    pub fn payload<T: for<'de> serde::Deserialize<'de>>(&self) -> Result<T, RunError> {
        serde_json::from_str(&self.lease.job.payload)
            .map_err(|error| RunError::failed(format_args!("its payload makes no sense: {error}")))
    }
}

impl Workplace<'_> {
    pub fn output(&self) -> PathBuf {
        self.files.output()
    }

    /// The whole upload in a local file.
    pub async fn fetch_source(&self, source: &Source) -> Result<PathBuf, RunError> {
        let file = self.source(source).await?;
        file.bring_all().await?;
        Ok(file.path().to_owned())
    }

    /// The upload for a task that asks for what it needs of it, where it is not here yet.
    pub async fn source_on_demand(&self, source: &Source) -> Result<(PathBuf, bool), RunError> {
        let file = self.source(source).await?;
        Ok((file.path().to_owned(), !file.is_whole().await))
    }

    async fn source(&self, source: &Source) -> Result<&SourceFile, RunError> {
        let video = self.run.lease.job.video;
        let key = ObjectKey { video, attempt: source.attempt, file: ObjectFile::Source };
        let file = self.run.scratch.sources.get(&self.run.scheduler.store, key).await?;
        Ok(self.source.get_or_init(|| file))
    }

    /// Into a local file of the same name.
    pub async fn fetch(&self, key: &ObjectKey) -> Result<PathBuf, RunError> {
        let path = self.files.input().join(key.file.to_string());
        self.run.scheduler.store.fetch(key, &path).await?;
        Ok(path)
    }

    /// `film`: what is known of the source, for the limits of the run.
    pub async fn transcode(&self, task: Task, film: Option<&Film>) -> Result<Outcome, RunError> {
        let limits = self.limits(&task, film).await?;
        let (output, started) = (self.output(), Instant::now());
        let told = Told { progress: &self.run.progress, source: self.source.get().map(|source| &**source) };
        let result = self.run.scheduler.transcoder.run(&task, &output, limits, told).await;
        let error = match result {
            Ok(outcome) => {
                estimate::show_speed(&task, &outcome, started.elapsed());
                return Ok(outcome);
            }
            // Not the file's fault, and gone when there is space again.
            Err(RunError::Failed(error)) if is_full(&output) => error,
            Err(RunError::Unsound(error)) if is_full(&output) => error.into(),
            Err(error) => return Err(error),
        };
        Err(RunError::Disturbed(error.context("the scratch folder is full")))
    }

    async fn limits(&self, task: &Task, film: Option<&Film>) -> Result<RunLimits, RunError> {
        let config = &self.run.scheduler.config;
        let mut input_bytes = 0;
        for input in task.inputs() {
            input_bytes += tokio::fs::metadata(input).await?.len();
        }
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        Ok(run_limits::of(task, film, input_bytes, cores, &config.jobs, &config.media))
    }

    /// Takes files of the child into the store. They are durable when this returns, and shown by nobody before
    /// the commit that follows. A file that several renditions name is taken once.
    pub async fn store(&self, files: &[&OutputFile]) -> Result<Vec<NewObject>, RunError> {
        let mut names = BTreeSet::new();
        let once = files.iter().filter(|file| names.insert(file.name.as_str()));
        let writes: Vec<_> = once.map(|file| self.store_one(file)).collect();
        stream::iter(writes).buffered(WRITES_AT_ONCE).try_collect().await
    }

    async fn store_one(&self, file: &OutputFile) -> Result<NewObject, RunError> {
        // Parsing leaves no way out of the folder.
        let object: ObjectFile = file.name.parse().map_err(|_| {
            RunError::failed(format_args!("the transcoder made `{}`, which no object is", file.name))
        })?;
        let path = self.output().join(object.to_string());
        check_output(&path, file).await?;
        take_over(&path)?;
        let key = ObjectKey { video: self.run.lease.job.video, attempt: self.attempt, file: object };
        let stored = self.put_file(key.clone(), path).await?;
        Ok(NewObject { key, bytes: stored.bytes, crc64nvme: Some(stored.crc64nvme) })
    }

    async fn put_file(&self, key: ObjectKey, path: PathBuf) -> Result<Stored, RunError> {
        let store = self.run.scheduler.store.clone();
        let (done, stored) = oneshot::channel();
        let write = async move { drop(done.send(store.put_file(&key, &path).await)) };
        self.run.writes.lock().unwrap_or_else(PoisonError::into_inner).spawn(write);
        let stored = stored.await.map_err(|_| RunError::failed("a write ended without a result"))?;
        Ok(stored?)
    }
}

fn is_full(folder: &Path) -> bool {
    rustix::fs::statvfs(folder).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < FREE_BYTES_MIN)
}

/// The child opened what nobody vouches for, so its word is checked: a link in place of a file would let it
/// publish what only we can read.
async fn check_output(path: &Path, file: &OutputFile) -> Result<(), RunError> {
    let found = tokio::fs::symlink_metadata(path).await?;
    if !found.is_file() || found.len() != file.bytes {
        return Err(RunError::failed(format_args!(
            "`{}` is not the file of {} bytes that the transcoder announced",
            file.name, file.bytes
        )));
    }
    Ok(())
}

/// Objects are ours, whoever the child was when it made them.
fn take_over(path: &Path) -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if uid.is_root() { lchown(path, Some(uid.as_raw()), Some(gid.as_raw())) } else { Ok(()) }
}

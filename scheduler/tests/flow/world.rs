//! A scheduler at work, and the steps of those who give it work.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chassis::{Clock, Failure, Ids, ServiceName, Settings};
use domain::{
    AttemptId, DeletionState, JobId, ObjectFile, ObjectKey, Role, Timestamp, UploadKind, UserId, VideoId,
    VideoState, Visibility,
};
use scheduler::{Config, Deps, Scheduler, Transcoder, work};
use sql::{
    Acquire, AttemptState, BeginUpload, Catalog, CommitPieces, CompleteUpload, CompletedUpload,
    CreateResumable, CreateUser, DeleteVideo, Deletion, JobRow, NewDeletion, NewResumable, NewUpload,
    NewUser, NewVideo, UploadPiece, Video,
};
use store::Store;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::database::Database;

/// Nothing here takes longer on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct World {
    pub database: Arc<Database>,
    pub catalog: Catalog,
    pub store: Arc<dyn Store>,
    pub config: Config,
    pub clock: Clock,
    pub ids: Ids,
    folder: Arc<tempfile::TempDir>,
}

/// A scheduler that works until it is told to stop.
pub struct AtWork {
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), Failure>>,
}

impl AtWork {
    pub async fn stop(self) {
        self.shutdown.cancel();
        let stopped = tokio::time::timeout(PATIENCE, self.task).await.expect("it stops in time");
        stopped.unwrap().unwrap();
    }
}

impl World {
    pub async fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::sqlite(folder.path());
        World::of(folder, database).await
    }

    pub async fn on(database: Database) -> World {
        World::of(tempfile::tempdir().unwrap(), database).await
    }

    async fn of(folder: tempfile::TempDir, database: Database) -> World {
        let mut settings = Settings::defaults(ServiceName::Scheduler);
        settings.data_dir = folder.path().to_owned();
        let mut config = Config::new(&settings);
        config.jobs.poll_ms = 10;
        config.jobs.retry_base_ms = 1;
        config.jobs.retry_max_ms = 20;
        config.jobs.attempts_max = 3;
        config.jobs.lease_s = 6;
        config.jobs.heartbeat_s = 1;
        World {
            catalog: Catalog::open(&database.place).await.unwrap(),
            database: Arc::new(database),
            store: store::open(&settings.store_place()).await.unwrap(),
            config,
            clock: Clock::system(),
            ids: Ids::system(),
            folder: Arc::new(folder),
        }
    }

    /// The same world, seen by another process.
    pub async fn connected_anew(self) -> World {
        World { catalog: Catalog::open(&self.database.place).await.unwrap(), ..self }
    }

    pub fn scheduler(&self) -> Scheduler {
        let deps = Deps {
            catalog: self.catalog.clone(),
            store: self.store.clone(),
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            transcoder: Transcoder::new(fake_transcoder()),
        };
        Scheduler::new(deps, self.config.clone())
    }

    pub fn start(&self) -> AtWork {
        let shutdown = CancellationToken::new();
        AtWork { task: tokio::spawn(work(self.scheduler(), shutdown.clone())), shutdown }
    }

    pub async fn user(&self) -> UserId {
        let id: UserId = self.ids.next(self.clock.now());
        // The end of an id is random.
        let username = format!("user_{}", &id.to_string()[28..]).parse().unwrap();
        let new = NewUser {
            id,
            username,
            email: None,
            password_hash: String::new(),
            role: Role::User,
            display_name: String::new(),
        };
        let created = self.catalog.create_user(&new, self.clock.now()).await.unwrap();
        assert!(matches!(created, CreateUser::Created(_)));
        id
    }

    pub async fn create(&self) -> VideoId {
        self.create_at(self.clock.now()).await
    }

    pub async fn create_at(&self, created_at: Timestamp) -> VideoId {
        self.create_by(self.user().await, created_at).await
    }

    async fn create_by(&self, author: UserId, created_at: Timestamp) -> VideoId {
        let new = NewVideo {
            quota: Default::default(),
            id: self.ids.next(self.clock.now()),
            author,
            title: "Words".to_owned(),
            description: String::new(),
            tags: Vec::new(),
            visibility: Visibility::Public,
        };
        self.catalog.create_video(&new, created_at).await.unwrap().unwrap();
        new.id
    }

    /// Row before bytes, as the streamserver does it.
    pub async fn write_source(&self, video: VideoId, words: &str, lease_s: i64) -> AttemptId {
        let (now, attempt) = (self.clock.now(), self.ids.next(self.clock.now()));
        let begun = self
            .catalog
            .begin_upload(&NewUpload::unbounded(attempt, video, now.plus_s(lease_s)), now)
            .await
            .unwrap();
        assert_eq!(begun, BeginUpload::Begun);
        self.put(&ObjectKey { video, attempt, file: ObjectFile::Source }, words).await;
        attempt
    }

    /// Two pieces that count and one that somebody is writing, of an upload that ends at `expires_at`.
    pub async fn write_pieces(&self, video: VideoId, expires_at: Timestamp) -> Vec<AttemptId> {
        let now = self.clock.now();
        let new = NewResumable {
            room: Default::default(),
            id: self.ids.next(now),
            video,
            kind: UploadKind::Whole,
            length_bytes: None,
            metadata: String::new(),
            concat: None,
            filename: None,
            expires_at,
        };
        assert_eq!(self.catalog.create_resumable(&new, now).await.unwrap(), CreateResumable::Created);
        let acquired = self.catalog.acquire_resumable(new.id, false, expires_at, now).await.unwrap();
        let Acquire::Held(upload, _) = acquired else { panic!("{acquired:?}") };
        let mut attempts = Vec::new();
        for n in 0..3 {
            let attempt = self.ids.next(now);
            let lease_until = now.plus_s(60);
            assert!(self.catalog.begin_piece(new.id, upload.token, attempt, lease_until, now).await.unwrap());
            self.put(&ObjectKey { video, attempt, file: ObjectFile::Source }, "half").await;
            attempts.push(attempt);
            if n < 2 {
                let pieces = [UploadPiece { attempt, bytes: 4, crc64nvme: 0 }];
                let committed =
                    self.catalog.commit_pieces(new.id, upload.token, false, &pieces, None, now, now).await;
                assert_eq!(committed.unwrap(), CommitPieces::Committed { offset_bytes: 4 * (n + 1) });
            }
        }
        attempts
    }

    pub async fn put(&self, key: &ObjectKey, text: &str) {
        let mut writer = self.store.create(key).await.unwrap();
        writer.write(Bytes::copy_from_slice(text.as_bytes())).await.unwrap();
        writer.finish().await.unwrap();
    }

    pub async fn upload(&self, words: &str) -> VideoId {
        self.upload_by(self.user().await, words).await
    }

    pub async fn upload_by(&self, author: UserId, words: &str) -> VideoId {
        let video = self.create_by(author, self.clock.now()).await;
        let attempt = self.write_source(video, words, 60).await;
        let now = self.clock.now();
        let ingest_job: JobId = self.ids.next(now);
        let done = CompletedUpload {
            video,
            attempt,
            bytes: words.len() as u64,
            crc64nvme: 0,
            sha256_hex: None,
            filename: None,
            ingest_job,
        };
        let completed = self.catalog.complete_upload(&done, now).await.unwrap();
        assert_eq!(completed, CompleteUpload::Completed);
        video
    }

    pub async fn delete(&self, video: VideoId) -> Deletion {
        let now = self.clock.now();
        let (id, job) = (self.ids.next(now), self.ids.next(now));
        let new = NewDeletion { video, requested_by: "test".to_owned(), due_at: now, id, job };
        match self.catalog.delete_video(&new, now).await.unwrap() {
            DeleteVideo::Accepted(deletion) => deletion,
            DeleteVideo::NotFound => panic!("the video was there"),
        }
    }

    pub async fn seen(&self, video: VideoId) -> Video {
        self.catalog.video(video, self.clock.now()).await.unwrap().expect("the video is there")
    }

    pub async fn until(&self, video: VideoId, state: VideoState) -> Video {
        let wanted = async || {
            let seen = self.seen(video).await;
            assert!(seen.state == state || !seen.state.is_terminal(), "ended as {}: {seen:?}", seen.state);
            (seen.state == state).then_some(seen)
        };
        eventually(wanted, || format!("the video becomes {state}")).await
    }

    /// Until its storyboard is there too: then nothing more is written, and what it owns can be counted.
    pub async fn until_drawn(&self, video: VideoId) -> Video {
        self.until(video, VideoState::Ready).await;
        let wanted = async || Some(self.seen(video).await).filter(|seen| seen.storyboard_attempt.is_some());
        eventually(wanted, || "the storyboard is there".to_owned()).await
    }

    pub async fn until_purged(&self, deletion: &Deletion) -> Deletion {
        let wanted = async || {
            let seen = self.catalog.deletion(deletion.id).await.unwrap().unwrap();
            (seen.state == DeletionState::Done).then_some(seen)
        };
        eventually(wanted, || "the purge is done".to_owned()).await
    }

    pub async fn until_jobs(&self, what: &str, holds: impl Fn(&[JobRow]) -> bool) -> Vec<JobRow> {
        let wanted = async || {
            let jobs = self.catalog.jobs(None, None, None, 100).await.unwrap();
            holds(&jobs).then_some(jobs)
        };
        eventually(wanted, || what.to_owned()).await
    }

    /// At most a thousand paths.
    pub async fn stored(&self) -> Vec<String> {
        let page = self.store.list("", None, 1000).await.unwrap();
        page.objects.into_iter().map(|(path, _)| path).collect()
    }

    pub async fn objects_of(&self, video: VideoId) -> Vec<String> {
        let page = self.store.list(&ObjectKey::video_prefix(video), None, 1000).await.unwrap();
        page.objects.into_iter().map(|(path, _)| path).collect()
    }

    /// What runs in hand have on the local disk.
    pub fn scratch_files(&self) -> Vec<PathBuf> {
        let entries =
            |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
        let workers = entries(self.folder.path().join("scratch"));
        // Uploads are kept a moment for the next run.
        workers.flat_map(entries).filter(|path| path.is_dir() && !path.ends_with("sources")).collect()
    }

    /// Every object is explained by a row, every row by the rules, and no file of a run is left.
    pub async fn check(&self) {
        self.check_library().await;
        // What was dropped in the middle goes with the last task that held it.
        let left = || -> Vec<PathBuf> {
            let entries =
                std::fs::read_dir(self.folder.path().join("scratch")).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect()
        };
        eventually(
            async || left().is_empty().then_some(()),
            || format!("no scratch files are left: {:?}", left()),
        )
        .await;
    }

    /// Also beside schedulers at work.
    pub async fn check_library(&self) {
        assert_eq!(self.catalog.violations().await.unwrap(), []);
        for path in self.stored().await {
            let key: ObjectKey = path.parse().unwrap();
            let explained = self.catalog.attempt(key.attempt).await.unwrap().is_some();
            // Or it was swept just now.
            assert!(explained || self.store.head(&key).await.unwrap().is_none(), "{path} is unexplained");
        }
        for object in self.catalog.objects_after(None, 1000).await.unwrap() {
            let there = self.store.head(&object.key).await.unwrap().is_some();
            let attempt = self.catalog.attempt(object.key.attempt).await.unwrap();
            // Of a retired attempt objects may be gone before their rows: a sweep can be cut short.
            let counts = attempt.is_some_and(|attempt| attempt.state != AttemptState::Retired);
            assert!(there || !counts, "{:?} is missing", object.key);
        }
    }
}

pub async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>, what: impl Fn() -> String) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("waited in vain until {}", what()))
}

/// Built together with the tests, as every example of the crate.
fn fake_transcoder() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(|deps| deps.parent()).unwrap();
    let fake = target.join("examples/fake_transcoder");
    assert!(fake.exists(), "{} is there after `cargo build --examples`", fake.display());
    fake
}

//! A catalog with a clock and ids of its own, and the steps that most tests begin with.

use domain::task::{
    Boundaries, ChunkSpan, Covers, EncodeSettingsPlanned, Expected, OutputFile, Plan, RenditionOutput,
    SourceInfo,
};
use domain::{
    AttemptId, IdParts, JobId, JobKind, LadderSettings, ObjectFile, ObjectKey, Phase, RenditionName, Role,
    Rung, Size, Timestamp, UserId, VideoCodec, VideoId, Visibility, ladder,
};
use sql::{
    Catalog, Claim, CompleteUpload, CompletedUpload, CreateUser, IngestCommit, Lease, NewEncode, NewObject,
    NewUpload, NewUser, NewVideo, OriginalPublished, RenditionsPublished, Video,
};

use crate::database::Database;

pub const LEASE_MS: i64 = 20_000;
pub const ATTEMPTS_MAX: u32 = 3;
pub const ALL: &[JobKind] = JobKind::ALL;

pub struct World {
    pub catalog: Catalog,
    pub now: Timestamp,
    pub database: Database,
    ids: u64,
}

impl World {
    pub async fn on(database: Database) -> World {
        let catalog = Catalog::open(&database.place).await.unwrap();
        World { catalog, now: Timestamp::from_unix_ms(1_790_000_000_000), database, ids: 0 }
    }

    pub fn id<T: From<IdParts>>(&mut self) -> T {
        self.ids += 1;
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.ids.to_be_bytes());
        T::from(IdParts { now: self.now, random })
    }

    pub fn advance_ms(&mut self, ms: i64) {
        self.now = self.now.plus_ms(ms);
    }

    pub async fn user(&mut self, name: &str) -> UserId {
        let new = NewUser {
            id: self.id(),
            username: name.parse().unwrap(),
            email: Some(format!("{name}@example.org")),
            password_hash: "hash".to_owned(),
            role: Role::User,
            display_name: name.to_owned(),
        };
        let created = self.catalog.create_user(&new, self.now).await.unwrap();
        assert!(matches!(created, CreateUser::Created(_)), "{created:?}");
        new.id
    }

    pub async fn video_of(&mut self, author: UserId) -> VideoId {
        let new = NewVideo {
            quota: Default::default(),
            id: self.id(),
            author,
            title: "A film".to_owned(),
            description: String::new(),
            tags: vec!["sea".to_owned(), "sun".to_owned()],
            visibility: Visibility::Public,
        };
        self.catalog.create_video(&new, self.now).await.unwrap().unwrap();
        new.id
    }

    pub async fn video(&mut self) -> VideoId {
        let name = format!("author{}", self.ids);
        let author = self.user(&name).await;
        self.video_of(author).await
    }

    pub async fn begin_upload(&mut self, video: VideoId) -> AttemptId {
        let attempt = self.id();
        let begun = self
            .catalog
            .begin_upload(&NewUpload::unbounded(attempt, video, self.now.plus_ms(LEASE_MS)), self.now)
            .await
            .unwrap();
        assert_eq!(begun, sql::BeginUpload::Begun);
        attempt
    }

    pub fn upload(&mut self, video: VideoId, attempt: AttemptId) -> CompletedUpload {
        CompletedUpload {
            video,
            attempt,
            bytes: 1000,
            crc64nvme: u64::MAX - 1,
            sha256_hex: None,
            filename: Some("sea.mp4".to_owned()),
            ingest_job: self.id(),
        }
    }

    /// A video with its bytes and its `ingest` job.
    pub async fn uploaded(&mut self) -> VideoId {
        let video = self.video().await;
        self.uploaded_as(video).await
    }

    pub async fn uploaded_as(&mut self, video: VideoId) -> VideoId {
        let attempt = self.begin_upload(video).await;
        let upload = self.upload(video, attempt);
        let done = self.catalog.complete_upload(&upload, self.now).await.unwrap();
        assert_eq!(done, CompleteUpload::Completed);
        video
    }

    pub async fn claim_all(&self, kinds: &[JobKind]) -> Vec<Lease> {
        self.claim_as("w", kinds).await
    }

    pub async fn claim_as(&self, worker: &str, kinds: &[JobKind]) -> Vec<Lease> {
        let claim = claim_of(worker, kinds);
        self.catalog.claim_jobs(&claim, self.now).await.unwrap()
    }

    /// One of several.
    pub async fn claim_one(&self, worker: &str, kind: JobKind) -> Lease {
        let kinds = [kind];
        let claim = Claim { limit: 1, ..claim_of(worker, &kinds) };
        self.catalog.claim_jobs(&claim, self.now).await.unwrap().remove(0)
    }

    pub async fn claim(&self, kind: JobKind) -> Lease {
        let mut leases = self.claim_all(&[kind]).await;
        assert_eq!(leases.len(), 1, "one {kind} job is due: {leases:?}");
        leases.remove(0)
    }

    pub async fn begin(&mut self, lease: &Lease) -> AttemptId {
        let attempt = self.id();
        self.catalog.begin_attempt(lease, attempt, self.now).await.unwrap();
        attempt
    }

    /// Runs `ingest` to its commit; `chunks` encode jobs are queued.
    pub async fn ingest(&mut self, lease: &Lease, chunks: usize) -> Result<(), sql::FencedError> {
        self.catalog.start_processing(lease, self.now).await?;
        let attempt = self.id();
        self.catalog.begin_attempt(lease, attempt, self.now).await?;
        let parts = IngestParts::new(self, lease.job.video, attempt, chunks);
        let (publication, storyboard_job) = (self.id(), self.id());
        let original = OriginalPublished { publication, rendition: &parts.original, storyboard_job };
        self.catalog.publish_original(lease, &parts.commit(), &original, self.now).await
    }

    /// A video that can be watched, with `chunks` encode jobs to come.
    pub async fn playable(&mut self, chunks: usize) -> VideoId {
        let video = self.video().await;
        self.playable_as(video, chunks).await
    }

    pub async fn playable_as(&mut self, video: VideoId, chunks: usize) -> VideoId {
        self.uploaded_as(video).await;
        let lease = self.claim(JobKind::Ingest).await;
        assert_eq!(lease.job.video, video);
        self.ingest(&lease, chunks).await.unwrap();
        video
    }

    /// One that browsers cannot play, of `chunks` chunks in two phases.
    pub async fn unplayable_as(&mut self, video: VideoId, chunks: usize) {
        self.uploaded_as(video).await;
        let lease = self.claim(JobKind::Ingest).await;
        self.catalog.start_processing(&lease, self.now).await.unwrap();
        let attempt = self.begin(&lease).await;
        let mut parts = IngestParts::new(self, video, attempt, chunks);
        let ladder = LadderSettings {
            crf: 23.0,
            rungs: "high:720,lowest:144".parse().unwrap(),
            codecs: vec![VideoCodec::Av1],
        };
        parts.plan.rungs = vec![Rung::original(parts.source.size)];
        parts.plan.rungs.extend(ladder.rungs(parts.source.size));
        parts.plan.first = Plan::first_of(&parts.plan.rungs);
        parts.encode_jobs.clear();
        for &phase in Phase::ALL {
            parts.encode_jobs.extend((0..chunks).map(|n| NewEncode { phase, ..encode_job(self, n) }));
        }
        self.catalog.plan_encode(&lease, &parts.commit(), self.now).await.unwrap();
    }

    pub async fn encode(&mut self, lease: &Lease, number: u32) -> Result<(), sql::FencedError> {
        let attempt = self.id();
        self.catalog.begin_attempt(lease, attempt, self.now).await?;
        let objects = objects(lease.job.video, attempt, &[ObjectFile::Chunk(RenditionName::Low, number)]);
        let assemble: JobId = self.id();
        self.catalog.finish_encode(lease, attempt, &objects, assemble, self.now).await
    }

    pub async fn assemble(&mut self, lease: &Lease) -> Result<(), sql::FencedError> {
        self.assemble_phase(lease, &[RenditionName::Medium, RenditionName::Low]).await
    }

    pub async fn assemble_phase(
        &mut self,
        lease: &Lease,
        names: &[RenditionName],
    ) -> Result<(), sql::FencedError> {
        let attempt = self.id();
        self.catalog.begin_attempt(lease, attempt, self.now).await?;
        let renditions: Vec<_> = names.iter().map(|&name| rendition(name, 640, 360)).collect();
        let files: Vec<_> = names.iter().map(|&name| ObjectFile::Index(name)).collect();
        let objects = objects(lease.job.video, attempt, &files);
        let (publication, next_job) = (self.id(), self.id());
        let published = RenditionsPublished {
            attempt,
            publication,
            renditions: &renditions,
            objects: &objects,
            next_job,
        };
        self.catalog.publish_renditions(lease, &published, self.now).await
    }

    pub async fn ready(&mut self) -> VideoId {
        let video = self.playable(1).await;
        let lease = self.claim(JobKind::Encode).await;
        self.encode(&lease, 0).await.unwrap();
        let lease = self.claim(JobKind::Assemble).await;
        self.assemble(&lease).await.unwrap();
        video
    }

    pub async fn seen(&self, video: VideoId) -> Video {
        self.catalog.video(video, self.now).await.unwrap().expect("the video is there")
    }

    /// Every test ends like this.
    pub async fn check(&self) {
        assert_eq!(self.catalog.violations().await.unwrap(), []);
    }
}

pub fn claim_of<'a>(worker: &'a str, kinds: &'a [JobKind]) -> Claim<'a> {
    Claim { kinds, worker, lease_ms: LEASE_MS, attempts_max: ATTEMPTS_MAX, left_to_others_ms: 0, limit: 100 }
}

/// What an `ingest` of a 1280x720 film reports.
pub struct IngestParts {
    pub attempt: AttemptId,
    pub source: SourceInfo,
    pub covers: Covers,
    pub plan: Plan,
    pub original: RenditionOutput,
    pub objects: Vec<NewObject>,
    pub encode_jobs: Vec<NewEncode>,
}

impl IngestParts {
    pub fn new(world: &mut World, video: VideoId, attempt: AttemptId, chunks: usize) -> IngestParts {
        let size = Size { width: 1280, height: 720 };
        let files = [ObjectFile::Index(RenditionName::Original), ObjectFile::Head(RenditionName::Original)];
        IngestParts {
            attempt,
            source: SourceInfo {
                container: "mov".to_owned(),
                video_codec: "h264".to_owned(),
                audio_codec: None,
                size,
                frame_rate: 29.97,
                duration_s: 10.0,
                warnings: vec!["The file was cut off.".to_owned()],
            },
            covers: Covers { files: Vec::new(), width_max: 720, thumbhash: "aGFzaA==".to_owned() },
            plan: plan(size, chunks),
            original: rendition(RenditionName::Original, 1280, 720),
            objects: objects(video, attempt, &files),
            encode_jobs: (0..chunks).map(|n| encode_job(world, n)).collect(),
        }
    }

    pub fn commit(&self) -> IngestCommit<'_> {
        IngestCommit {
            attempt: self.attempt,
            source: &self.source,
            covers: &self.covers,
            plan: &self.plan,
            objects: &self.objects,
            encode_jobs: &self.encode_jobs,
        }
    }
}

pub fn objects(video: VideoId, attempt: AttemptId, files: &[ObjectFile]) -> Vec<NewObject> {
    files
        .iter()
        .map(|&file| NewObject { key: ObjectKey { video, attempt, file }, bytes: 10, crc64nvme: None })
        .collect()
}

pub fn rendition(name: RenditionName, width: u32, height: u32) -> RenditionOutput {
    RenditionOutput {
        name,
        size: Size { width, height },
        frame_rate: 29.97,
        frames: 300,
        duration_s: 10.0,
        size_bytes: 1000,
        bitrate_bps: 800,
        codecs: "avc1.64001f".to_owned(),
        files: vec![OutputFile { name: format!("{name}.index.json"), bytes: 10 }],
        engine: "test".to_owned(),
    }
}

/// Each takes 10 s by the guess.
fn encode_job(world: &mut World, number: usize) -> NewEncode {
    let payload = format!("{{\"chunk\":{number}}}");
    NewEncode { id: world.id(), phase: Phase::Last, payload, estimate_s: 10.0 }
}

fn plan(size: Size, chunks: usize) -> Plan {
    Plan {
        rungs: if chunks == 0 { Vec::new() } else { ladder(size, 23.0) },
        first: None,
        audio: false,
        settings: EncodeSettingsPlanned {
            x264_preset: "veryfast".to_owned(),
            gop_s_max: 2.0,
            ..Default::default()
        },
        boundaries: Boundaries { timescale: 1000, starts: vec![0] },
        chunks: vec![ChunkSpan { start: 0, end: None }; chunks],
        expected: Expected {
            frames: Some(300),
            duration_s: 10.0,
            frame_duration_s: 0.03,
            audio_offset_s: None,
        },
    }
}

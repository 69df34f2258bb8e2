//! What the streamserver and the scheduler would do to a video, as their commits.

use domain::task::{
    Boundaries, ChunkSpan, Covers, EncodeSettingsPlanned, Expected, OutputFile, Plan, RenditionOutput,
    SourceInfo,
};
use domain::{
    AttemptId, IdParts, JobKind, MediaProblem, ObjectFile, ObjectKey, Phase, RenditionName, Rung, Size,
    VideoId,
};
use sql::{
    Claim, CompletedUpload, IngestCommit, Lease, NewEncode, NewObject, NewUpload, OriginalPublished,
    RenditionsPublished,
};

use crate::app::App;

const SIZE: Size = Size { width: 1280, height: 720 };

impl App {
    fn next<T: From<IdParts>>(&self) -> T {
        self.ids.next(self.clock.now())
    }

    pub async fn claim(&self, kind: JobKind) -> Lease {
        let claim = Claim {
            kinds: &[kind],
            worker: "w",
            lease_ms: 20_000,
            attempts_max: 3,
            left_to_others_ms: 0,
            limit: 1,
        };
        self.catalog.claim_jobs(&claim, self.clock.now()).await.unwrap().remove(0)
    }

    async fn begin(&self, lease: &Lease) -> AttemptId {
        let attempt = self.next();
        self.catalog.begin_attempt(lease, attempt, self.clock.now()).await.unwrap();
        attempt
    }

    /// `path` is the video's, as in `/api/videos/<id>`.
    pub async fn upload(&self, path: &str) -> VideoId {
        let video: VideoId = path.rsplit('/').next().unwrap().parse().unwrap();
        let (attempt, now) = (self.next(), self.clock.now());
        self.catalog.begin_upload(&NewUpload::unbounded(attempt, video, now.plus_s(20)), now).await.unwrap();
        let upload = CompletedUpload {
            video,
            attempt,
            bytes: 1000,
            crc64nvme: 1,
            sha256_hex: None,
            filename: None,
            ingest_job: self.next(),
        };
        self.catalog.complete_upload(&upload, now).await.unwrap();
        video
    }

    pub async fn start_processing(&self) -> Lease {
        let lease = self.claim(JobKind::Ingest).await;
        self.catalog.start_processing(&lease, self.clock.now()).await.unwrap();
        lease
    }

    pub async fn reject(&self, lease: &Lease, problem: MediaProblem, detail: &str) {
        self.catalog.reject_video(lease, problem, detail, self.clock.now()).await.unwrap();
    }

    /// Gives up for good.
    pub async fn fail(&self, lease: &Lease, error: &str) {
        self.catalog.fail_job(lease, error, None, self.clock.now()).await.unwrap();
    }

    pub async fn publish_original(&self, lease: &Lease) {
        let attempt = self.begin(lease).await;
        let source = SourceInfo {
            container: "mov".into(),
            video_codec: "h264".into(),
            audio_codec: None,
            size: SIZE,
            frame_rate: 29.97,
            duration_s: 10.0,
            warnings: Vec::new(),
        };
        let covers = Covers { files: Vec::new(), width_max: 720, thumbhash: "aGFzaA==".into() };
        let commit = IngestCommit {
            attempt,
            source: &source,
            covers: &covers,
            plan: &plan(),
            objects: &objects(lease.job.video, attempt, ObjectFile::Index(RenditionName::Original)),
            encode_jobs: &[NewEncode {
                id: self.next(),
                phase: Phase::Last,
                payload: "{}".to_owned(),
                estimate_s: 4.0,
            }],
        };
        let rendition = rendition(RenditionName::Original, SIZE);
        let original = OriginalPublished {
            publication: self.next(),
            rendition: &rendition,
            storyboard_job: self.next(),
        };
        self.catalog.publish_original(lease, &commit, &original, self.clock.now()).await.unwrap();
    }

    pub async fn finish_encode(&self) {
        let lease = self.claim(JobKind::Encode).await;
        let attempt = self.begin(&lease).await;
        let objects = objects(lease.job.video, attempt, ObjectFile::Chunk(RenditionName::Low, 0));
        let (assemble, now) = (self.next(), self.clock.now());
        self.catalog.finish_encode(&lease, attempt, &objects, assemble, now).await.unwrap();
    }

    pub async fn publish_renditions(&self) {
        let lease = self.claim(JobKind::Assemble).await;
        let attempt = self.begin(&lease).await;
        let renditions = [rendition(RenditionName::Low, Size { width: 640, height: 360 })];
        let objects = objects(lease.job.video, attempt, ObjectFile::Index(RenditionName::Low));
        let published = RenditionsPublished {
            attempt,
            publication: self.next(),
            renditions: &renditions,
            objects: &objects,
            next_job: self.next(),
        };
        self.catalog.publish_renditions(&lease, &published, self.clock.now()).await.unwrap();
    }

    /// Uploaded, processed, watchable.
    pub async fn make_playable(&self, path: &str) {
        self.upload(path).await;
        let lease = self.start_processing().await;
        self.publish_original(&lease).await;
    }
}

fn objects(video: VideoId, attempt: AttemptId, file: ObjectFile) -> Vec<NewObject> {
    vec![NewObject { key: ObjectKey { video, attempt, file }, bytes: 10, crc64nvme: None }]
}

fn rendition(name: RenditionName, size: Size) -> RenditionOutput {
    RenditionOutput {
        name,
        size,
        frame_rate: 29.97,
        frames: 300,
        duration_s: 10.0,
        size_bytes: 1000,
        bitrate_bps: 800,
        codecs: "avc1.64001f".into(),
        files: vec![OutputFile { name: format!("{name}.index.json"), bytes: 10 }],
        engine: "test".into(),
    }
}

fn plan() -> Plan {
    let low = Rung {
        name: RenditionName::Low,
        size: Size { width: 640, height: 360 },
        crf: 23.0,
        bitrate_bps_max: 800_000,
    };
    Plan {
        rungs: vec![low],
        first: None,
        audio: false,
        settings: EncodeSettingsPlanned {
            x264_preset: "veryfast".into(),
            gop_s_max: 2.0,
            ..Default::default()
        },
        boundaries: Boundaries { timescale: 1000, starts: vec![0] },
        chunks: vec![ChunkSpan { start: 0, end: None }],
        expected: Expected {
            frames: Some(300),
            duration_s: 10.0,
            frame_duration_s: 0.03,
            audio_offset_s: None,
        },
    }
}

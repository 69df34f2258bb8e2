//! A film of random bytes: three renditions with their indexes, published through the catalog as the scheduler
//! does it. The streamserver knows layouts and nothing of media, so bytes are all it takes.

use bytes::Bytes;
use domain::task::{
    Boundaries, ChunkSpan, Covers, EncodeSettingsPlanned, Expected, OutputFile, Plan, RenditionOutput,
    SourceInfo,
};
use domain::{
    AttemptId, CoverFormat, Fragment, JobKind, Layout, ObjectFile, ObjectKey, Phase, Piece, PublicationId,
    RenditionIndex, RenditionName, Rung, Size, Timestamp, TrackIndex, TrackKind, VideoId, Visibility, ladder,
};
use sql::{
    Claim, CompleteUpload, CompletedUpload, IngestCommit, Lease, NewEncode, NewObject, NewUpload,
    OriginalPublished, RenditionsPublished,
};

use crate::world::{Person, World};

pub const SECONDS: u64 = 21;
const SOURCE_BYTES: usize = 2_000_000;
const SIZE: Size = Size { width: 1280, height: 720 };

pub struct Film {
    pub video: VideoId,
    pub owner: Person,
    pub original: Bytes,
    /// From when everything is ready.
    pub medium: Bytes,
    pub low: Bytes,
}

/// The bytes of one rendition: its index, and what the progressive file is.
struct Rendition {
    objects: Vec<(ObjectFile, Bytes)>,
    progressive: Bytes,
    output: RenditionOutput,
}

impl World {
    /// `playable`: `original` and the covers are there.
    pub async fn playable(&self, owner: &Person, visibility: Visibility) -> Film {
        self.film(owner, visibility, SOURCE_BYTES).await
    }

    /// The same, with an upload of so many bytes.
    pub async fn playable_of(&self, owner: &Person, visibility: Visibility, bytes: usize) -> Film {
        self.film(owner, visibility, bytes).await
    }

    /// `ready`: so are the rungs.
    pub async fn ready(&self, owner: &Person, visibility: Visibility) -> Film {
        let mut film = self.film(owner, visibility, SOURCE_BYTES).await;
        self.assemble(&mut film).await;
        film
    }

    async fn film(&self, owner: &Person, visibility: Visibility, source_bytes: usize) -> Film {
        let video = self.video(owner, visibility).await;
        let source = pattern(7, source_bytes);
        self.put_source(video, &source).await;
        let lease = self.claim(JobKind::Ingest, video).await;
        let now = self.clock.now();
        self.catalog.start_processing(&lease, now).await.unwrap();
        let attempt: AttemptId = self.id();
        self.catalog.begin_attempt(&lease, attempt, now).await.unwrap();
        let original = by_reference(&source);
        let mut objects = self.put_all(video, attempt, original.objects).await;
        let covers = self.put_covers(video, attempt, &mut objects).await;
        let encode_jobs =
            [NewEncode { id: self.id(), phase: Phase::Last, payload: "{}".to_owned(), estimate_s: 4.0 }];
        let commit = IngestCommit {
            attempt,
            source: &source_info(),
            covers: &covers,
            plan: &plan(),
            objects: &objects,
            encode_jobs: &encode_jobs,
        };
        let published = OriginalPublished {
            publication: self.id(),
            rendition: &original.output,
            storyboard_job: self.id(),
        };
        self.catalog.publish_original(&lease, &commit, &published, now).await.unwrap();
        let (medium, low) = (Bytes::new(), Bytes::new());
        Film { video, owner: owner.clone(), original: original.progressive, medium, low }
    }

    /// `playable` without an `original`, which is being encoded; `low` stands in for it.
    pub async fn encoded_low(&self, owner: &Person) -> Film {
        let video = self.video(owner, Visibility::Public).await;
        self.put_source(video, &pattern(7, 1000)).await;
        let lease = self.claim(JobKind::Ingest, video).await;
        let now = self.clock.now();
        self.catalog.start_processing(&lease, now).await.unwrap();
        let attempt: AttemptId = self.id();
        self.catalog.begin_attempt(&lease, attempt, now).await.unwrap();
        let encode = |phase| NewEncode { id: self.id(), phase, payload: "{}".to_owned(), estimate_s: 4.0 };
        let rungs: Vec<_> = [Rung::original(SIZE)].into_iter().chain(ladder(SIZE, 23.0)).collect();
        let commit = IngestCommit {
            attempt,
            source: &source_info(),
            covers: &Covers::default(),
            plan: &Plan { first: Plan::first_of(&rungs), rungs, ..plan() },
            objects: &[],
            encode_jobs: &[encode(Phase::First), encode(Phase::Last)],
        };
        self.catalog.plan_encode(&lease, &commit, now).await.unwrap();
        let low = as_tracks(RenditionName::Low, 50_000, Size { width: 640, height: 360 });
        let (original, medium, owner) = (Bytes::new(), Bytes::new(), owner.clone());
        let film = Film { video, owner, original, medium, low: low.progressive.clone() };
        self.publish_phase(video, vec![low], now).await;
        film
    }

    /// The others follow two seconds later, with their own copy of the shared sound.
    pub async fn encode_original(&self, film: &mut Film) {
        let original = as_tracks(RenditionName::Original, 900_000, SIZE);
        let medium = as_tracks(RenditionName::Medium, 250_000, Size { width: 854, height: 480 });
        (film.original, film.medium) = (original.progressive.clone(), medium.progressive.clone());
        self.publish_phase(film.video, vec![original, medium], self.clock.now().plus_s(2)).await;
    }

    async fn publish_phase(&self, video: VideoId, made: Vec<Rendition>, now: Timestamp) {
        for lease in self.claim_all(JobKind::Encode, video).await {
            let attempt: AttemptId = self.id();
            self.catalog.begin_attempt(&lease, attempt, now).await.unwrap();
            self.catalog.finish_encode(&lease, attempt, &[], self.id(), now).await.unwrap();
        }
        let lease = self.claim(JobKind::Assemble, video).await;
        let attempt: AttemptId = self.id();
        self.catalog.begin_attempt(&lease, attempt, now).await.unwrap();
        let mut all = vec![(ObjectFile::SharedAudio, shared_audio())];
        let mut renditions = Vec::new();
        for rendition in made {
            all.extend(rendition.objects);
            renditions.push(rendition.output);
        }
        let objects = self.put_all(video, attempt, all).await;
        let (publication, next_job) = (self.id(), self.id());
        let published = RenditionsPublished {
            attempt,
            publication,
            renditions: &renditions,
            objects: &objects,
            next_job,
        };
        self.catalog.publish_renditions(&lease, &published, now).await.unwrap();
    }

    pub async fn assemble(&self, film: &mut Film) {
        self.assemble_with(film, &[]).await;
    }

    /// With rungs of other names beside `medium` and `low`; answers with their progressive files.
    pub async fn assemble_with(&self, film: &mut Film, others: &[RenditionName]) -> Vec<Bytes> {
        let now = self.clock.now();
        let lease = self.claim(JobKind::Encode, film.video).await;
        let attempt: AttemptId = self.id();
        self.catalog.begin_attempt(&lease, attempt, now).await.unwrap();
        self.catalog.finish_encode(&lease, attempt, &[], self.id(), now).await.unwrap();
        let lease = self.claim(JobKind::Assemble, film.video).await;
        let attempt: AttemptId = self.id();
        self.catalog.begin_attempt(&lease, attempt, now).await.unwrap();
        let medium = as_tracks(RenditionName::Medium, 250_000, Size { width: 854, height: 480 });
        let low = as_tracks(RenditionName::Low, 50_000, Size { width: 640, height: 360 });
        (film.medium, film.low) = (medium.progressive, low.progressive);
        let shared = vec![(ObjectFile::SharedAudio, shared_audio())];
        let others: Vec<_> =
            others.iter().map(|&name| as_tracks(name, 40_000, Size { width: 640, height: 360 })).collect();
        let bytes = others.iter().map(|other| other.progressive.clone()).collect();
        let (mut all, mut renditions) =
            ([medium.objects, low.objects, shared].concat(), vec![medium.output, low.output]);
        for other in others {
            all.extend(other.objects);
            renditions.push(other.output);
        }
        let objects = self.put_all(film.video, attempt, all).await;
        let published = RenditionsPublished {
            attempt,
            publication: self.id(),
            renditions: &renditions,
            objects: &objects,
            next_job: self.id(),
        };
        self.catalog.publish_renditions(&lease, &published, now).await.unwrap();
        bytes
    }

    /// Draws the storyboard of a film that is ready; answers with the attempt that holds it.
    pub async fn draw_storyboard(&self, video: VideoId) -> AttemptId {
        let lease = self.claim(JobKind::Cover, video).await;
        let (attempt, now): (AttemptId, _) = (self.id(), self.clock.now());
        self.catalog.begin_attempt(&lease, attempt, now).await.unwrap();
        let cues = format!("WEBVTT\n\n00:00.000 --> 00:21.000\n{attempt}/storyboard.jpg#xywh=0,0,160,90\n");
        let files = vec![(ObjectFile::StoryboardCues, cues.into()), (ObjectFile::StoryboardSprite, sprite())];
        let objects = self.put_all(video, attempt, files).await;
        self.catalog.publish_storyboard(&lease, attempt, &objects, now).await.unwrap();
        attempt
    }

    pub async fn publication(&self, video: VideoId) -> PublicationId {
        self.catalog.watchable(video, self.clock.now()).await.unwrap().unwrap().publication
    }

    /// As an upload leaves it.
    async fn put_source(&self, video: VideoId, bytes: &Bytes) {
        let attempt: AttemptId = self.id();
        let now = self.clock.now();
        self.catalog.begin_upload(&NewUpload::unbounded(attempt, video, now.plus_s(60)), now).await.unwrap();
        let stored = self.put(&key(video, attempt, ObjectFile::Source), bytes).await;
        let done = CompletedUpload {
            video,
            attempt,
            bytes: stored.bytes,
            crc64nvme: stored.crc64nvme.unwrap(),
            sha256_hex: None,
            filename: None,
            ingest_job: self.id(),
        };
        assert_eq!(self.catalog.complete_upload(&done, now).await.unwrap(), CompleteUpload::Completed);
    }

    async fn claim(&self, kind: JobKind, video: VideoId) -> Lease {
        self.claim_all(kind, video).await.into_iter().next().expect("the job is queued")
    }

    async fn claim_all(&self, kind: JobKind, video: VideoId) -> Vec<Lease> {
        let claim = Claim {
            kinds: &[kind],
            worker: "test",
            lease_ms: 60_000,
            attempts_max: 3,
            left_to_others_ms: 0,
            limit: 10,
        };
        let leases = self.catalog.claim_jobs(&claim, self.clock.now()).await.unwrap();
        leases.into_iter().filter(|lease| lease.job.video == video).collect()
    }

    async fn put_covers(&self, video: VideoId, attempt: AttemptId, objects: &mut Vec<NewObject>) -> Covers {
        let mut files = Vec::new();
        for width in [120, 240] {
            for format in [CoverFormat::Jpeg, CoverFormat::Webp] {
                let file = ObjectFile::Cover(width, format);
                let bytes = cover(width, format);
                files.push(OutputFile { name: file.to_string(), bytes: bytes.len() as u64 });
                objects.extend(self.put_all(video, attempt, vec![(file, bytes)]).await);
            }
        }
        Covers { files, width_max: 240, thumbhash: "aGFzaA==".into() }
    }

    async fn put_all(
        &self,
        video: VideoId,
        attempt: AttemptId,
        objects: Vec<(ObjectFile, Bytes)>,
    ) -> Vec<NewObject> {
        let mut stored = Vec::new();
        for (file, bytes) in objects {
            stored.push(self.put(&key(video, attempt, file), &bytes).await);
        }
        stored
    }

    async fn put(&self, key: &ObjectKey, bytes: &Bytes) -> NewObject {
        let mut writer = self.store.create(key).await.unwrap();
        writer.write(bytes.clone()).await.unwrap();
        let stored = writer.finish().await.unwrap();
        NewObject { key: key.clone(), bytes: stored.bytes, crc64nvme: Some(stored.crc64nvme) }
    }
}

pub fn cover(width: u32, format: CoverFormat) -> Bytes {
    pattern(width as u8, 1000 + width as usize + format.as_str().len())
}

pub fn sprite() -> Bytes {
    pattern(8, 5_000)
}

/// The audio that `medium` and `low` share.
fn shared_audio() -> Bytes {
    pattern(9, 400_000)
}

/// Bytes that differ everywhere.
fn pattern(seed: u8, bytes: usize) -> Bytes {
    let mix = |i: usize| (i as u32 ^ u32::from(seed) << 24).wrapping_mul(2_654_435_761).to_be_bytes()[0];
    (0..bytes).map(mix).collect::<Vec<u8>>().into()
}

fn key(video: VideoId, attempt: AttemptId, file: ObjectFile) -> ObjectKey {
    ObjectKey { video, attempt, file }
}

/// `original` by reference: the samples stay where they are in the upload, audio and video by turns.
fn by_reference(source: &Bytes) -> Rendition {
    let source_bytes = source.len() as u64;
    let files = vec!["source".to_owned()];
    let per_second = source_bytes / SECONDS;
    let second = |s: u64| s * per_second;
    // Keyframes every 3 s; in each second the first tenth is audio.
    let video = track(30_000, 3, |from, to| {
        let mut layout = Layout { pieces: vec![Piece::Inline(format!("moof video {from}").into_bytes())] };
        (from..to).for_each(|s| {
            layout.push(Piece::Extent(0, second(s) + per_second / 10, per_second - per_second / 10));
        });
        layout
    });
    let audio = track(48_000, 3, |from, to| {
        let mut layout = Layout { pieces: vec![Piece::Inline(format!("moof audio {from}").into_bytes())] };
        (from..to).for_each(|s| layout.push(Piece::Extent(0, second(s), per_second / 10)));
        layout
    });
    let mut progressive = Layout { pieces: vec![Piece::Inline(b"ftyp moov mdat".to_vec())] };
    progressive.push(Piece::Extent(0, 0, source_bytes));
    let bytes = [b"ftyp moov mdat", &source[..]].concat();
    rendition(RenditionName::Original, SIZE, files, video, audio, progressive, bytes.into(), Vec::new())
}

/// A rung: a track file of its own and the shared audio.
fn as_tracks(name: RenditionName, bytes_per_second: u64, size: Size) -> Rendition {
    let file = ObjectFile::Track(name, TrackKind::Video);
    let track_bytes = pattern(name.as_str().len() as u8, (100 + bytes_per_second * SECONDS) as usize);
    let files = vec![file.to_string(), "shared.audio.mp4".to_owned()];
    let video = track(90_000, 1, |from, to| Layout {
        pieces: vec![Piece::Extent(0, 100 + from * bytes_per_second, (to - from) * bytes_per_second)],
    });
    let audio = track(48_000, 1, |from, to| Layout {
        pieces: vec![Piece::Extent(1, 100 + from * 16_000, (to - from) * 16_000)],
    });
    let progressive = Layout {
        pieces: vec![Piece::Inline(b"head".to_vec()), Piece::Extent(0, 100, 500), Piece::Extent(1, 100, 500)],
    };
    let bytes = [b"head", &track_bytes[100..600], &shared_audio()[100..600]].concat();
    let objects = vec![(file, track_bytes)];
    rendition(name, size, files, video, audio, progressive, bytes.into(), objects)
}

/// Fragments of `step_s` seconds over the whole film.
fn track(timescale: u32, step_s: u64, layout: impl Fn(u64, u64) -> Layout) -> TrackIndex {
    let fragment = |from: u64| {
        let to = (from + step_s).min(SECONDS);
        Fragment {
            start: (from * u64::from(timescale)) as i64,
            duration: (to - from) * u64::from(timescale),
            lead_bytes: Some(layout(from, to).bytes() / 5),
            layout: layout(from, to),
        }
    };
    TrackIndex {
        codec: if timescale == 48_000 { "mp4a.40.2" } else { "avc1.64001f" }.to_owned(),
        timescale,
        channels: (timescale == 48_000).then_some(2),
        init: Layout { pieces: vec![Piece::Inline(format!("init {timescale}").into_bytes())] },
        fragments: (0..SECONDS).step_by(step_s as usize).map(fragment).collect(),
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of a rendition")]
fn rendition(
    name: RenditionName,
    size: Size,
    files: Vec<String>,
    video: TrackIndex,
    audio: TrackIndex,
    progressive: Layout,
    bytes: Bytes,
    mut objects: Vec<(ObjectFile, Bytes)>,
) -> Rendition {
    assert_eq!(progressive.bytes(), bytes.len() as u64);
    let index =
        RenditionIndex { version: RenditionIndex::VERSION, files, video, audio: Some(audio), progressive };
    objects.push((ObjectFile::Index(name), serde_json::to_vec(&index).unwrap().into()));
    let output = RenditionOutput {
        name,
        size,
        frame_rate: 30_000.0 / 1001.0,
        frames: 629,
        duration_s: SECONDS as f64,
        size_bytes: bytes.len() as u64,
        bitrate_bps: 8 * bytes.len() as u64 / SECONDS,
        codecs: "avc1.64001f,mp4a.40.2".into(),
        files: objects
            .iter()
            .map(|(file, bytes)| OutputFile { name: file.to_string(), bytes: bytes.len() as u64 })
            .collect(),
        engine: "test".into(),
    };
    Rendition { objects, progressive: bytes, output }
}

fn source_info() -> SourceInfo {
    SourceInfo {
        container: "mov,mp4,m4a,3gp,3g2,mj2".into(),
        video_codec: "h264".into(),
        audio_codec: Some("aac".into()),
        size: SIZE,
        frame_rate: 30_000.0 / 1001.0,
        duration_s: SECONDS as f64,
        warnings: Vec::new(),
    }
}

fn plan() -> Plan {
    Plan {
        rungs: ladder(SIZE, 23.0),
        first: None,
        audio: true,
        settings: EncodeSettingsPlanned {
            x264_preset: "veryfast".into(),
            gop_s_max: 2.0,
            ..Default::default()
        },
        boundaries: Boundaries { timescale: 30_000, starts: vec![0] },
        chunks: vec![ChunkSpan { start: 0, end: None }],
        expected: Expected {
            frames: Some(629),
            duration_s: SECONDS as f64,
            frame_duration_s: 0.034,
            audio_offset_s: Some(0.0),
        },
    }
}

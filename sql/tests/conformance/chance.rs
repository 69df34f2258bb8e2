//! Whatever meets whatever, by seed: nothing breaks, and nobody waits for each other for ever.

use domain::{
    AttemptId, IdParts, JobKind, Phase, Timestamp, UploadId, UploadKind, UploadState, UserId, VideoId,
};
use sql::{
    Catalog, Claim, DeleteVideo, FencedError, Lease, NewComment, NewDeletion, NewEncode, NewUpload,
    OriginalPublished, VideoPatch,
};

use crate::both;
use crate::crowd::{at_once, deadlocks, parts_of};
use crate::world::{ALL, ATTEMPTS_MAX, IngestParts, LEASE_MS, World};

/// Small numbers that look like chance, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

both!(whatever_meets_whatever_nothing_breaks);
async fn whatever_meets_whatever_nothing_breaks(mut world: World) {
    let authors: Vec<UserId> = [world.user("ada").await, world.user("bob").await].to_vec();
    let mut videos = Vec::new();
    for n in 0..6 {
        videos.push(world.video_of(authors[n % 2]).await);
    }
    for round in 0..4 {
        let (videos, authors, now) = (videos.clone(), authors.clone(), world.now);
        let tasks = (0..8).map(|task: u8| {
            let (catalog, videos, authors) = (world.catalog.clone(), videos.clone(), authors.clone());
            let template = IngestParts::new(&mut world, videos[0], AttemptId::from(parts_of(3)), 2);
            let mut dice = Dice(u64::from(task) + 100 * round);
            let mut ids = 0_u32;
            async move {
                let mut id = move || {
                    ids += 1;
                    let mut random = [0; 10];
                    random[1..3].copy_from_slice(&[task + 1, round as u8]);
                    random[6..].copy_from_slice(&ids.to_be_bytes());
                    IdParts { now, random }
                };
                for _ in 0..60 {
                    let (video, author) = (videos[dice.below(videos.len())], authors[dice.below(2)]);
                    step(&catalog, &mut dice, &mut id, video, author, &template, now).await;
                }
            }
        });
        at_once(tasks.collect::<Vec<_>>()).await;
        world.advance_ms(LEASE_MS / 2);
    }
    world.check().await;
    assert_eq!(deadlocks(&world).await, 0);
}

/// One thing of all that can happen. Whether it succeeds depends on what came before; it must not break.
async fn step(
    catalog: &Catalog,
    dice: &mut Dice,
    id: &mut impl FnMut() -> IdParts,
    video: VideoId,
    author: UserId,
    template: &IngestParts,
    now: Timestamp,
) {
    match dice.below(14) {
        12 | 13 => upload_in_pieces(catalog, dice, id, video, now).await,
        0 => {
            let comment = NewComment { id: id().into(), video, author, content: "sea".to_owned() };
            if let Some(made) = catalog.create_comment(&comment, now).await.unwrap()
                && dice.below(2) == 0
            {
                catalog.delete_comment(made.id).await.unwrap();
            }
        }
        1 | 2 => {
            let attempt = id().into();
            let until = now.plus_ms(LEASE_MS);
            if catalog.begin_upload(&NewUpload::unbounded(attempt, video, until), now).await.unwrap()
                != sql::BeginUpload::Begun
            {
                return;
            }
            let done = sql::CompletedUpload {
                video,
                attempt,
                bytes: 10,
                crc64nvme: 1,
                sha256_hex: None,
                filename: None,
                ingest_job: id().into(),
            };
            match dice.below(4) {
                0 => catalog.abandon_upload(attempt, now).await.unwrap(),
                1 => drop(catalog.extend_upload(attempt, 0, until.plus_s(1)).await.unwrap()),
                _ => drop(catalog.complete_upload(&done, now).await.unwrap()),
            }
        }
        3 => {
            let patch = VideoPatch {
                cover_at_s: (dice.below(2) == 0).then_some(1.0),
                tags: Some(vec![format!("tag{}", dice.below(3))]),
                ..VideoPatch::default()
            };
            catalog.update_video(video, &patch, id().into(), now).await.unwrap();
        }
        4 if dice.below(8) == 0 => {
            let due_at = now.plus_s([0, 5, 3600][dice.below(3)]);
            let new = NewDeletion {
                video,
                requested_by: "admin".to_owned(),
                due_at,
                id: id().into(),
                job: id().into(),
            };
            if let DeleteVideo::Accepted(deletion) = catalog.delete_video(&new, now).await.unwrap() {
                catalog.cancel_deletion(deletion.id, now).await.unwrap();
            }
        }
        5 => {
            for (_, attempt) in catalog.stale_attempts(now, 0, 5).await.unwrap() {
                catalog.forget_attempt(attempt).await.unwrap();
            }
            catalog.sweep_resumables(now.plus_s(-60), now).await.unwrap();
            catalog.expire_videos(now.plus_s(-3600), now).await.unwrap();
        }
        6 => {
            let dead = catalog.jobs(None, Some(domain::JobState::Dead), None, 3).await.unwrap();
            for job in dead {
                catalog.retry_job(job.id, now).await.unwrap();
            }
        }
        _ => run_something(catalog, dice, id, template, now).await,
    }
}

/// Of a few uploads that everybody goes on with.
async fn upload_in_pieces(
    catalog: &Catalog,
    dice: &mut Dice,
    id: &mut impl FnMut() -> IdParts,
    video: VideoId,
    now: Timestamp,
) {
    let kinds = [UploadKind::Whole, UploadKind::Partial];
    // The same for all who throw the same: ids that are made again find what was made before.
    let (kind, n) = (dice.below(2), dice.below(2));
    let mut random = [200; 10];
    random[..8].copy_from_slice(&video.to_string().as_bytes()[28..36]);
    random[8..].copy_from_slice(&[kind as u8, n as u8]);
    let upload: UploadId = IdParts { now, random }.into();
    let expires_at = now.plus_s(5);
    let new = sql::NewResumable {
        room: Default::default(),
        id: upload,
        video,
        kind: kinds[kind],
        length_bytes: Some(3),
        metadata: String::new(),
        concat: None,
        filename: None,
        expires_at,
    };
    if dice.below(4) == 0 {
        catalog.create_resumable(&new, now).await.unwrap();
    }
    let force = dice.below(3) == 0;
    match catalog.acquire_resumable(upload, force, expires_at, now).await.unwrap() {
        sql::Acquire::Held(held, pieces) => {
            let (token, attempt) = (held.token, id().into());
            let mut piece = sql::UploadPiece { attempt, bytes: 1, crc64nvme: 1 };
            let offset = held.offset_bytes;
            if offset < 3 && catalog.begin_piece(upload, token, attempt, expires_at, now).await.unwrap() {
                let replaces = dice.below(2) == 0;
                piece.bytes += if replaces { pieces.last().map_or(0, |last| last.bytes) } else { 0 };
                catalog.extend_pieces(upload, token, expires_at, expires_at).await.unwrap();
                let written = [piece];
                let commit =
                    catalog.commit_pieces(upload, token, replaces, &written, None, expires_at, now).await;
                commit.unwrap();
            }
            if offset == 3 && kinds[kind] == UploadKind::Partial {
                catalog.finish_partial(upload, token).await.unwrap();
            } else if offset == 3 {
                catalog.begin_piece(upload, token, attempt, expires_at, now).await.unwrap();
                let done = sql::CompletedUpload {
                    video,
                    attempt,
                    bytes: 3,
                    crc64nvme: 1,
                    sha256_hex: None,
                    filename: None,
                    ingest_job: id().into(),
                };
                catalog.complete_resumable(upload, token, &done, now).await.unwrap();
            }
            if dice.below(4) > 0 {
                catalog.release_resumable(upload, token, now).await.unwrap();
            }
        }
        sql::Acquire::Ended(UploadState::Complete) => {
            let new = sql::NewResumable { room: Default::default(), id: id().into(), ..new };
            catalog.create_final(&new, &[upload], now).await.unwrap();
        }
        _ if dice.below(4) == 0 => drop(catalog.terminate_resumable(upload, now).await.unwrap()),
        _ => {
            let asked = catalog.releases_asked(&[(upload, 1)]).await.unwrap();
            catalog.hear_releases(&asked).await.unwrap();
        }
    }
}

async fn run_something(
    catalog: &Catalog,
    dice: &mut Dice,
    id: &mut impl FnMut() -> IdParts,
    template: &IngestParts,
    now: Timestamp,
) {
    let claim = Claim {
        kinds: ALL,
        worker: "w",
        lease_ms: LEASE_MS,
        attempts_max: ATTEMPTS_MAX,
        left_to_others_ms: 0,
        limit: 2,
    };
    for lease in catalog.claim_jobs(&claim, now).await.unwrap() {
        // Some workers are lost.
        if dice.below(6) > 0 {
            match run(catalog, dice, id, template, &lease, now).await {
                Ok(()) | Err(FencedError::LeaseLost) => {}
                Err(error) => panic!("{} {error:?}", lease.job.kind),
            }
        }
    }
}

async fn run(
    catalog: &Catalog,
    dice: &mut Dice,
    id: &mut impl FnMut() -> IdParts,
    template: &IngestParts,
    lease: &Lease,
    now: Timestamp,
) -> Result<(), FencedError> {
    let video = lease.job.video;
    if lease.job.kind == JobKind::Purge {
        let mut purge = catalog.start_purge(lease, now).await?;
        purge.objects_deleted += 1;
        catalog.note_purged(lease, &purge).await?;
        return catalog.finish_purge(lease, now, now).await;
    }
    let attempt = id().into();
    if lease.job.kind == JobKind::Ingest {
        catalog.start_processing(lease, now).await?;
    }
    catalog.begin_attempt(lease, attempt, now).await?;
    catalog.heartbeat(lease, Some(0.5), now.plus_ms(LEASE_MS), now).await?;
    match dice.below(8) {
        0 => return catalog.release_job(lease, now).await,
        1 => return catalog.fail_job(lease, "bad luck", Some(now), now).await,
        2 => return catalog.fail_job(lease, "poison", None, now).await,
        _ => {}
    }
    let index = domain::ObjectFile::Index(domain::RenditionName::Original);
    let objects = crate::world::objects(video, attempt, &[index]);
    match lease.job.kind {
        JobKind::Ingest => {
            let mut encode = || NewEncode {
                id: id().into(),
                phase: Phase::Last,
                payload: "{}".to_owned(),
                estimate_s: 4.0,
            };
            let encode_jobs = [encode(), encode()];
            let commit = sql::IngestCommit {
                attempt,
                objects: &objects,
                encode_jobs: &encode_jobs,
                ..template.commit()
            };
            let original = OriginalPublished {
                publication: id().into(),
                rendition: &template.original,
                storyboard_job: id().into(),
            };
            catalog.publish_original(lease, &commit, &original, now).await
        }
        JobKind::Encode => {
            let chunk = domain::ObjectFile::Chunk(domain::RenditionName::Low, 0);
            let objects = crate::world::objects(video, attempt, &[chunk]);
            catalog.finish_encode(lease, attempt, &objects, id().into(), now).await
        }
        JobKind::Assemble => {
            let renditions = [
                crate::world::rendition(domain::RenditionName::Medium, 854, 480),
                crate::world::rendition(domain::RenditionName::Low, 640, 360),
            ];
            let published = sql::RenditionsPublished {
                attempt,
                publication: id().into(),
                renditions: &renditions,
                objects: &objects,
                next_job: id().into(),
            };
            catalog.publish_renditions(lease, &published, now).await
        }
        JobKind::Cover if lease.job.payload == sql::STORYBOARD => {
            let files = [domain::ObjectFile::StoryboardCues, domain::ObjectFile::StoryboardSprite];
            let objects = crate::world::objects(video, attempt, &files);
            catalog.publish_storyboard(lease, attempt, &objects, now).await
        }
        JobKind::Cover => {
            let covers =
                domain::task::Covers { files: Vec::new(), width_max: 480, thumbhash: "eA".to_owned() };
            catalog.replace_cover(lease, attempt, &covers, &objects, now).await
        }
        JobKind::Purge => unreachable!("it was run above"),
    }
}

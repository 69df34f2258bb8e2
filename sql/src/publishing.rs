//! Going live: the commits of `ingest`, `encode`, `assemble`, `cover` and the storyboard. Each is one fenced transaction, and
//! the first thing it does is to end its own job, so that it happens once.

use domain::task::{Covers, Plan, RenditionOutput, SourceInfo};
use domain::{AttemptId, JobId, JobKind, Phase, PublicationId, Timestamp, VideoId, VideoState};

use crate::attempts::was_committed;
use crate::jobs::{NewJob, fence, finish};
use crate::objects::NewObject;
use crate::progress::refresh_progress;
use crate::row::{bigint, natural, parsed_opt, storable};
use crate::tx::{Tx, commit};
use crate::video_moves::{advance, state};
use crate::{Catalog, FencedError, Lease, SqlError, objects};

/// What every `ingest` found out.
#[derive(Debug, Clone)]
pub struct IngestCommit<'a> {
    pub attempt: AttemptId,
    pub source: &'a SourceInfo,
    pub covers: &'a Covers,
    pub plan: &'a Plan,
    /// All that the attempt wrote.
    pub objects: &'a [NewObject],
    /// None when there is nothing to encode.
    pub encode_jobs: &'a [NewEncode],
}

/// An `encode` job to be queued.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEncode {
    pub id: JobId,
    pub phase: Phase,
    pub payload: String,
    /// How long it is likely to take: what its progress is weighed by. Of the choice of rates, what those take that wait
    /// for it.
    pub estimate_s: f64,
}

#[derive(Debug, Clone)]
pub struct OriginalPublished<'a> {
    pub publication: PublicationId,
    pub rendition: &'a RenditionOutput,
    /// Queued where the video is ready.
    pub storyboard_job: JobId,
}

#[derive(Debug, Clone)]
pub struct RenditionsPublished<'a> {
    pub attempt: AttemptId,
    pub publication: PublicationId,
    pub renditions: &'a [RenditionOutput],
    pub objects: &'a [NewObject],
    /// What may be queued by it: of the first phase the assembly of the last, of the last the storyboard.
    pub next_job: JobId,
}

/// The payload of a `cover` job that draws the storyboard.
pub const STORYBOARD: &str = "\"storyboard\"";

/// The payload of an `encode` job that chooses the factors of the rungs, before the chunks are encoded.
pub const RATES: &str = "\"rates\"";

impl Catalog {
    /// `uploaded` becomes `processing`; a later attempt finds it there.
    pub async fn start_processing(&self, lease: &Lease, now: Timestamp) -> Result<(), FencedError> {
        commit!(self, async |tx| {
            fence(tx, lease).await?;
            if state(tx, lease.job.video).await? == Some(VideoState::Uploaded) {
                advance(tx, lease.job.video, VideoState::Uploaded, VideoState::Processing, now).await?;
            }
            Ok(())
        })
    }

    /// `original` can be watched: `playable`, and `ready` where nothing is to be encoded.
    pub async fn publish_original(
        &self,
        lease: &Lease,
        ingest: &IngestCommit<'_>,
        original: &OriginalPublished<'_>,
        now: Timestamp,
    ) -> Result<(), FencedError> {
        commit!(self, async |tx| {
            if commit_run(tx, lease, ingest.attempt, ingest.objects, now).await? == Run::CommittedBefore {
                return Ok(());
            }
            note_ingest(tx, lease.job.video, ingest, now).await?;
            let video = lease.job.video;
            let renditions = std::slice::from_ref(original.rendition);
            publish(tx, video, original.publication, ingest.attempt, renditions, now).await?;
            advance(tx, video, VideoState::Processing, VideoState::Playable, now).await?;
            if ingest.encode_jobs.is_empty() {
                become_ready(tx, video, original.storyboard_job, now).await?;
            }
            Ok(())
        })
    }

    /// Browsers cannot play the source: there is nothing to watch before the first rungs are encoded.
    pub async fn plan_encode(
        &self,
        lease: &Lease,
        ingest: &IngestCommit<'_>,
        now: Timestamp,
    ) -> Result<(), FencedError> {
        commit!(self, async |tx| {
            if commit_run(tx, lease, ingest.attempt, ingest.objects, now).await? == Run::CommittedBefore {
                return Ok(());
            }
            Ok(note_ingest(tx, lease.job.video, ingest, now).await?)
        })
    }

    /// The factors of the rungs are chosen: the encodes of `plan` begin.
    pub async fn choose_rates(
        &self,
        lease: &Lease,
        attempt: AttemptId,
        plan: &Plan,
        encode_jobs: &[NewEncode],
        now: Timestamp,
    ) -> Result<(), FencedError> {
        commit!(self, async |tx| {
            if commit_run(tx, lease, attempt, &[], now).await? == Run::CommittedBefore {
                return Ok(());
            }
            let video = lease.job.video;
            change_plan(tx, video, plan, now).await?;
            crate::jobs::insert_encodes(tx, video, encode_jobs, now).await?;
            Ok(refresh_progress(tx, video, now).await?)
        })
    }

    /// One chunk, or the audio, is encoded. The last one of a phase queues its `assemble` in the same breath.
    pub async fn finish_encode(
        &self,
        lease: &Lease,
        attempt: AttemptId,
        objects: &[NewObject],
        assemble_job: JobId,
        now: Timestamp,
    ) -> Result<(), FencedError> {
        commit!(self, async |tx| {
            if commit_run(tx, lease, attempt, objects, now).await? == Run::CommittedBefore {
                return Ok(());
            }
            let video = lease.job.video;
            refresh_progress(tx, video, now).await?;
            Ok(queue_assembly(tx, video, assemble_job, now).await?)
        })
    }

    /// What a phase made is there: a new publication of what was out and what came. After the first phase the film is
    /// `playable`; after the last the whole ladder is there, and it is `ready`.
    pub async fn publish_renditions(
        &self,
        lease: &Lease,
        published: &RenditionsPublished<'_>,
        now: Timestamp,
    ) -> Result<(), FencedError> {
        commit!(self, async |tx| {
            let RenditionsPublished { attempt, publication, renditions, objects, next_job } = *published;
            if commit_run(tx, lease, attempt, objects, now).await? == Run::CommittedBefore {
                return Ok(());
            }
            let video = lease.job.video;
            publish(tx, video, publication, attempt, renditions, now).await?;
            if state(tx, video).await? == Some(VideoState::Processing) {
                advance(tx, video, VideoState::Processing, VideoState::Playable, now).await?;
            }
            match lease.job.phase {
                Phase::First => {
                    refresh_progress(tx, video, now).await?;
                    Ok(queue_assembly(tx, video, next_job, now).await?)
                }
                Phase::Last => {
                    objects::retire(tx, video, "chunk", now).await?;
                    Ok(become_ready(tx, video, next_job, now).await?)
                }
            }
        })
    }

    /// The cover taken anew takes the place of the one before.
    pub async fn replace_cover(
        &self,
        lease: &Lease,
        attempt: AttemptId,
        covers: &Covers,
        objects: &[NewObject],
        now: Timestamp,
    ) -> Result<(), FencedError> {
        commit!(self, async |tx| {
            if commit_run(tx, lease, attempt, objects, now).await? == Run::CommittedBefore {
                return Ok(());
            }
            let before = cover_attempt(tx, lease.job.video).await?;
            set_cover(tx, lease.job.video, attempt, covers, now).await?;
            if let Some(before) = before {
                objects::retire_pictures(tx, before, now).await?;
            }
            Ok(())
        })
    }

    /// The storyboard is there: its objects are all there is to it.
    pub async fn publish_storyboard(
        &self,
        lease: &Lease,
        attempt: AttemptId,
        objects: &[NewObject],
        now: Timestamp,
    ) -> Result<(), FencedError> {
        commit!(self, async |tx| { commit_run(tx, lease, attempt, objects, now).await.map(|_| ()) })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    Committed,
    /// By the same call before, whose answer was lost: there is nothing left to do.
    CommittedBefore,
}

/// What begins every commit of a run: its job is done, and what the attempt wrote counts.
async fn commit_run(
    tx: &mut Tx,
    lease: &Lease,
    attempt: AttemptId,
    objects: &[NewObject],
    now: Timestamp,
) -> Result<Run, FencedError> {
    match finish(tx, lease, now).await {
        Err(FencedError::LeaseLost) if was_committed(tx, lease, attempt).await? => {
            return Ok(Run::CommittedBefore);
        }
        finished => finished?,
    }
    crate::attempts::commit(tx, lease, attempt, now).await?;
    objects::insert(tx, objects, now).await?;
    Ok(Run::Committed)
}

async fn note_ingest(
    tx: &mut Tx,
    video: VideoId,
    ingest: &IngestCommit<'_>,
    now: Timestamp,
) -> Result<(), SqlError> {
    note_media(tx, video, ingest.source, ingest.plan, now).await?;
    // A cover that was asked for while this ran is newer than ours.
    if cover_attempt(tx, video).await?.is_none() {
        set_cover(tx, video, ingest.attempt, ingest.covers, now).await?;
    }
    note_rungs(tx, video, ingest.plan).await?;
    crate::jobs::insert_encodes(tx, video, ingest.encode_jobs, now).await?;
    refresh_progress(tx, video, now).await
}

/// From here on the film is as good as it gets, and there is time for its storyboard.
async fn become_ready(
    tx: &mut Tx,
    video: VideoId,
    storyboard_job: JobId,
    now: Timestamp,
) -> Result<(), SqlError> {
    advance(tx, video, VideoState::Playable, VideoState::Ready, now).await?;
    let job = NewJob::new(storyboard_job, JobKind::Cover, video, STORYBOARD.to_owned(), now);
    crate::jobs::insert(tx, &job, now).await
}

async fn note_media(
    tx: &mut Tx,
    video: VideoId,
    source: &SourceInfo,
    plan: &Plan,
    now: Timestamp,
) -> Result<(), SqlError> {
    sqlx::query(
        "-- videos.note_media
         UPDATE videos SET container = $2, video_codec = $3, audio_codec = $4, width = $5, height = $6,
           frame_rate = $7, duration_s = $8, warnings = $9, plan = $10, updated_at = $11
         WHERE id = $1",
    )
    .bind(video.to_string())
    .bind(storable(&source.container))
    .bind(storable(&source.video_codec))
    .bind(source.audio_codec.as_deref().map(storable))
    .bind(i64::from(source.size.width))
    .bind(i64::from(source.size.height))
    .bind(source.frame_rate)
    .bind(source.duration_s)
    .bind(serde_json::Value::from(source.warnings.clone()).to_string())
    .bind(plan_as_json(plan))
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn change_plan(tx: &mut Tx, video: VideoId, plan: &Plan, now: Timestamp) -> Result<(), SqlError> {
    sqlx::query("-- videos.change_plan\nUPDATE videos SET plan = $2, updated_at = $3 WHERE id = $1")
        .bind(video.to_string())
        .bind(plan_as_json(plan))
        .bind(now.unix_ms())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

fn plan_as_json(plan: &Plan) -> String {
    serde_json::to_string(plan).expect("a plan is numbers and texts under texts, which JSON has")
}

async fn cover_attempt(tx: &mut Tx, video: VideoId) -> Result<Option<AttemptId>, SqlError> {
    let row = sqlx::query("-- videos.cover_attempt\nSELECT cover_attempt FROM videos WHERE id = $1")
        .bind(video.to_string())
        .fetch_one(&mut **tx)
        .await?;
    parsed_opt(&row, "cover_attempt")
}

async fn set_cover(
    tx: &mut Tx,
    video: VideoId,
    attempt: AttemptId,
    covers: &Covers,
    now: Timestamp,
) -> Result<(), SqlError> {
    sqlx::query(
        "-- videos.set_cover
         UPDATE videos SET cover_attempt = $2, cover_width_max = $3, thumbhash = $4, updated_at = $5
         WHERE id = $1",
    )
    .bind(video.to_string())
    .bind(attempt.to_string())
    .bind(i64::from(covers.width_max))
    .bind(&*covers.thumbhash)
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn note_rungs(tx: &mut Tx, video: VideoId, plan: &Plan) -> Result<(), SqlError> {
    for (position, rung) in plan.rungs.iter().enumerate() {
        sqlx::query(
            "-- videos.note_rung
             INSERT INTO rungs (video_id, name, position, width, height, phase) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(video.to_string())
        .bind(rung.name.as_str())
        .bind(position as i64)
        .bind(i64::from(rung.size.width))
        .bind(i64::from(rung.size.height))
        .bind(plan.phase_of(rung.name).as_str())
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

/// Of the phase that can be joined now, if there is one: one assembly at a time.
async fn queue_assembly(tx: &mut Tx, video: VideoId, job: JobId, now: Timestamp) -> Result<(), SqlError> {
    let row = sqlx::query(
        "-- jobs.left_to_encode
         SELECT coalesce(sum(CASE WHEN kind = 'assemble' THEN 1 ELSE 0 END), 0) AS assemblies,
           coalesce(sum(CASE WHEN kind = 'encode' AND state <> 'done' THEN 1 ELSE 0 END), 0) AS encodes,
           coalesce(sum(CASE WHEN kind = 'encode' AND state <> 'done' AND phase = 'first' THEN 1 ELSE 0 END), 0)
             AS first_encodes,
           coalesce(sum(CASE WHEN kind = 'encode' AND phase = 'first' THEN 1 ELSE 0 END), 0) AS first_planned
         FROM jobs
         WHERE video_id = $1 AND (kind = 'encode' OR kind = 'assemble' AND state IN ('queued', 'running'))",
    )
    .bind(video.to_string())
    .fetch_one(&mut **tx)
    .await?;
    let count = |column| natural::<u64>(&row, column);
    let is_watched = state(tx, video).await? == Some(VideoState::Playable);
    let (phase, left) = if is_watched || count("first_planned")? == 0 {
        (Phase::Last, count("encodes")?)
    } else {
        (Phase::First, count("first_encodes")?)
    };
    if left + count("assemblies")? > 0 {
        return Ok(());
    }
    let payload = "{}".to_owned();
    let assemble = NewJob { id: job, kind: JobKind::Assemble, video, phase, payload, run_at: now };
    crate::jobs::insert(tx, &assemble, now).await
}

/// Makes a publication of what the live one shows and of `renditions`, which win, and points the video at it.
async fn publish(
    tx: &mut Tx,
    video: VideoId,
    publication: PublicationId,
    attempt: AttemptId,
    renditions: &[RenditionOutput],
    now: Timestamp,
) -> Result<(), SqlError> {
    sqlx::query(
        "-- publications.create
         INSERT INTO publications (id, video_id, source_attempt, created_at)
         SELECT $2, id, source_attempt, $3 FROM videos WHERE id = $1",
    )
    .bind(video.to_string())
    .bind(publication.to_string())
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    for rendition in renditions {
        insert_rendition(tx, publication, attempt, rendition).await?;
    }
    carry_over(tx, video, publication).await?;
    sqlx::query(
        "-- publications.go_live
         UPDATE videos SET publication_id = $2, published_at = coalesce(published_at, $3), updated_at = $3
         WHERE id = $1",
    )
    .bind(video.to_string())
    .bind(publication.to_string())
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn insert_rendition(
    tx: &mut Tx,
    publication: PublicationId,
    attempt: AttemptId,
    rendition: &RenditionOutput,
) -> Result<(), SqlError> {
    sqlx::query(
        "-- publications.add_rendition
         INSERT INTO renditions (publication_id, name, attempt_id, width, height, frame_rate, frames, duration_s,
                                 size_bytes, bitrate_bps, codecs, engine)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(publication.to_string())
    .bind(rendition.name.as_str())
    .bind(attempt.to_string())
    .bind(i64::from(rendition.size.width))
    .bind(i64::from(rendition.size.height))
    .bind(rendition.frame_rate)
    .bind(bigint(rendition.frames))
    .bind(rendition.duration_s)
    .bind(bigint(rendition.size_bytes))
    .bind(bigint(rendition.bitrate_bps))
    .bind(storable(&rendition.codecs))
    .bind(storable(&rendition.engine))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn carry_over(tx: &mut Tx, video: VideoId, publication: PublicationId) -> Result<(), SqlError> {
    sqlx::query(
        "-- publications.carry_over
         INSERT INTO renditions (publication_id, name, attempt_id, width, height, frame_rate, frames, duration_s,
                                 size_bytes, bitrate_bps, codecs, engine)
         SELECT $2, r.name, r.attempt_id, r.width, r.height, r.frame_rate, r.frames, r.duration_s,
                r.size_bytes, r.bitrate_bps, r.codecs, r.engine
         FROM videos v JOIN renditions r ON r.publication_id = v.publication_id
         WHERE v.id = $1 AND NOT EXISTS (
           SELECT 1 FROM renditions n WHERE n.publication_id = $2 AND n.name = r.name)",
    )
    .bind(video.to_string())
    .bind(publication.to_string())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

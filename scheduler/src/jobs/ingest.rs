//! Judge the upload, make it playable, take covers, plan the encode.

use domain::Phase;
use domain::task::{Ingested, Outcome, OutputFile, Part, Plan, Task};
use sql::{Film, IngestCommit, NewEncode, OriginalPublished};

use super::encode::payload;
use super::{rates, show_playable, unexpected};
use crate::Scheduler;
use crate::estimate;
use crate::failure::RunError;
use crate::workplace::Run;

pub async fn run(run: &Run<'_>) -> Result<(), RunError> {
    let (scheduler, lease) = (run.scheduler, run.lease);
    scheduler.catalog.start_processing(lease, scheduler.now()).await?;
    // Read after that: the place of a cover that is chosen before is ours to take, one chosen later has a job of
    // its own.
    let source = run.source().await?;
    let place = run.begin().await?;
    let (input, on_demand) = place.source_on_demand(&source).await?;
    let task = Task::Ingest {
        input,
        on_demand,
        output: place.output(),
        limits: scheduler.config.media_limits(),
        settings: scheduler.config.encode_settings(),
        cover_at_s: source.cover_at_s,
    };
    let ingested = match place.transcode(task, None).await? {
        Outcome::Ingest(ingested) => ingested,
        other => return Err(unexpected(&other)),
    };
    let objects = place.store(&files(&ingested)).await?;
    let encode_jobs = encode_jobs(scheduler, &ingested.plan, &film(&ingested));
    let encode_jobs = rates::first(scheduler, &ingested.plan, encode_jobs);
    let commit = IngestCommit {
        attempt: place.attempt,
        source: &ingested.source,
        covers: &ingested.covers,
        plan: &ingested.plan,
        objects: &objects,
        encode_jobs: &encode_jobs,
    };
    publish(run, &commit, &ingested).await
}

async fn publish(run: &Run<'_>, commit: &IngestCommit<'_>, ingested: &Ingested) -> Result<(), RunError> {
    let (scheduler, lease, now) = (run.scheduler, run.lease, run.scheduler.now());
    match &ingested.original {
        Some(rendition) => {
            let original =
                OriginalPublished { publication: scheduler.id(), rendition, storyboard_job: scheduler.id() };
            scheduler.catalog.publish_original(lease, commit, &original, now).await?;
            show_playable(run, now).await;
        }
        None if commit.encode_jobs.is_empty() => {
            return Err(RunError::failed(
                "the transcoder made nothing to watch and planned nothing to encode",
            ));
        }
        None => scheduler.catalog.plan_encode(lease, commit, now).await?,
    }
    Ok(())
}

fn files(ingested: &Ingested) -> Vec<&OutputFile> {
    let original = ingested.original.iter().flat_map(|original| &original.files);
    original.chain(&ingested.covers.files).chain(&ingested.facts).collect()
}

fn film(ingested: &Ingested) -> Film {
    let source = &ingested.source;
    Film { pixels: source.size.pixels(), frame_rate: source.frame_rate, duration_s: source.duration_s }
}

/// One for the audio that the rungs share, one for each chunk in each phase.
pub fn encode_jobs(scheduler: &Scheduler, plan: &Plan, film: &Film) -> Vec<NewEncode> {
    let encode = |phase: Phase, part: Part| NewEncode {
        id: scheduler.id(),
        phase,
        payload: payload(part),
        estimate_s: estimate::encode_s(part, &plan.of_phase(phase), film),
    };
    let chunks = || (0..).zip(&plan.chunks).map(|(number, _)| Part::Chunk(number));
    let mut jobs = Vec::new();
    for phase in plan.phases() {
        let audio = plan.audio.then_some(Part::Audio).filter(|_| jobs.is_empty());
        jobs.extend(audio.into_iter().chain(chunks()).map(|part| encode(phase, part)));
    }
    jobs
}

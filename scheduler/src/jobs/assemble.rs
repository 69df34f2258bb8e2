//! Join, package, verify and publish the rungs of a phase.

use std::collections::HashMap;
use std::path::PathBuf;

use domain::task::{Outcome, OutputFile, Plan, RenditionOutput, Task};
use domain::{ObjectFile, ObjectKey};
use sql::RenditionsPublished;

use super::{show_playable, unexpected};
use crate::failure::RunError;
use crate::workplace::{Run, Workplace};

pub async fn run(run: &Run<'_>) -> Result<(), RunError> {
    let (scheduler, lease) = (run.scheduler, run.lease);
    let plan = scheduler.catalog.plan(lease.job.video).await?;
    let plan = plan.ok_or_else(|| RunError::failed("the video has no plan"))?.of_phase(lease.job.phase);
    let stored = scheduler.catalog.objects_of(lease.job.video, "chunk").await?;
    let chunks = Chunks(stored.into_iter().map(|object| (object.key.file, object.key)).collect());
    let place = run.begin().await?;
    let task = Task::Assemble {
        chunks: chunks.video(&place, &plan).await?,
        audio: chunks.audio(&place, &plan).await?,
        output: place.output(),
        plan,
    };
    let renditions = match place.transcode(task, None).await? {
        Outcome::Assemble { renditions } => renditions,
        other => return Err(unexpected(&other)),
    };
    let objects = place.store(&files(&renditions)).await?;
    let published = RenditionsPublished {
        attempt: place.attempt,
        publication: scheduler.id(),
        renditions: &renditions,
        objects: &objects,
        next_job: scheduler.id(),
    };
    let now = scheduler.now();
    scheduler.catalog.publish_renditions(lease, &published, now).await?;
    show_playable(run, now).await;
    let engines: Vec<_> = renditions.iter().map(|rendition| rendition.engine.as_str()).collect();
    tracing::info!(video.id = %lease.job.video, phase = %lease.job.phase, ?engines, "published");
    Ok(())
}

fn files(renditions: &[RenditionOutput]) -> Vec<&OutputFile> {
    renditions.iter().flat_map(|rendition| &rendition.files).collect()
}

/// What the encodes made, by file.
struct Chunks(HashMap<ObjectFile, ObjectKey>);

impl Chunks {
    /// By rung as in the plan, within a rung by number.
    async fn video(&self, place: &Workplace<'_>, plan: &Plan) -> Result<Vec<Vec<PathBuf>>, RunError> {
        let mut rungs = Vec::new();
        for rung in &plan.rungs {
            let mut chunks = Vec::new();
            for (number, _) in (0..).zip(&plan.chunks) {
                chunks.push(self.fetch(place, ObjectFile::Chunk(rung.name, number)).await?);
            }
            rungs.push(chunks);
        }
        Ok(rungs)
    }

    async fn audio(&self, place: &Workplace<'_>, plan: &Plan) -> Result<Option<PathBuf>, RunError> {
        if !plan.audio {
            return Ok(None);
        }
        self.fetch(place, ObjectFile::ChunkAudio).await.map(Some)
    }

    async fn fetch(&self, place: &Workplace<'_>, file: ObjectFile) -> Result<PathBuf, RunError> {
        let missing = || RunError::failed(format_args!("`{file}` was never encoded"));
        place.fetch(self.0.get(&file).ok_or_else(missing)?).await
    }
}

//! Encode one chunk at every rung of a phase, or the audio that the rungs share.

use std::path::PathBuf;

use domain::ObjectFile;
use domain::task::{Outcome, Part, Task};

use super::unexpected;
use crate::failure::RunError;
use crate::workplace::{Run, Workplace};

/// Of the job that makes a part.
pub fn payload(part: Part) -> String {
    serde_json::to_string(&part).expect("a word and a number are JSON")
}

pub async fn run(run: &Run<'_>) -> Result<(), RunError> {
    let (scheduler, lease) = (run.scheduler, run.lease);
    let part: Part = run.payload()?;
    let plan = scheduler.catalog.plan(lease.job.video).await?;
    let plan = plan.ok_or_else(|| RunError::failed("the video has no plan"))?.of_phase(lease.job.phase);
    let source = run.source().await?;
    let place = run.begin().await?;
    let (input, output) = (place.fetch_source(&source).await?, place.output());
    let facts = fetch_facts(run, &place).await?;
    let task = match part {
        Part::Chunk(chunk) => Task::EncodeVideo { input, facts, output, plan, chunk },
        Part::Audio => Task::EncodeAudio { input, facts, output, plan },
    };
    let files = match place.transcode(task, source.film.as_ref()).await? {
        Outcome::Encode { files } => files,
        other => return Err(unexpected(&other)),
    };
    let objects = place.store(&files.iter().collect::<Vec<_>>()).await?;
    let assemble = scheduler.id();
    scheduler.catalog.finish_encode(lease, place.attempt, &objects, assemble, scheduler.now()).await?;
    Ok(())
}

/// What ingest measured.
pub async fn fetch_facts(run: &Run<'_>, place: &Workplace<'_>) -> Result<Option<PathBuf>, RunError> {
    let stored = run.scheduler.catalog.objects_of(run.lease.job.video, "chunk").await?;
    match stored.iter().find(|object| object.key.file == ObjectFile::Facts) {
        Some(object) => place.fetch(&object.key).await.map(Some),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_round_trip() {
        for (part, text) in [(Part::Chunk(3), r#"{"chunk":3}"#), (Part::Audio, r#""audio""#)] {
            assert_eq!(payload(part), text);
            assert_eq!(serde_json::from_str::<Part>(text).unwrap(), part);
        }
    }
}

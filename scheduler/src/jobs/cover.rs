//! Take a new cover at the place the author chose.

use domain::task::{Outcome, Task};

use super::unexpected;
use crate::failure::RunError;
use crate::workplace::Run;

pub async fn run(run: &Run<'_>) -> Result<(), RunError> {
    let (scheduler, lease) = (run.scheduler, run.lease);
    let source = run.source().await?;
    let place = run.begin().await?;
    let (input, on_demand) = place.source_on_demand(&source).await?;
    let task = Task::Cover {
        input,
        on_demand,
        output: place.output(),
        limits: scheduler.config.media_limits(),
        at_s: source.cover_at_s,
    };
    let covers = match place.transcode(task, source.film.as_ref()).await? {
        Outcome::Cover(covers) => covers,
        other => return Err(unexpected(&other)),
    };
    let objects = place.store(&covers.files.iter().collect::<Vec<_>>()).await?;
    scheduler.catalog.replace_cover(lease, place.attempt, &covers, &objects, scheduler.now()).await?;
    Ok(())
}

//! Choose the factor of the rungs by what a few moments of the film need; then its chunks can be encoded.

use domain::task::{Ingested, Outcome, Plan, Task};
use domain::{Phase, Rung};
use sql::{Film, NewEncode};

use super::encode::fetch_facts;
use super::ingest::encode_jobs;
use super::unexpected;
use crate::Scheduler;
use crate::failure::RunError;
use crate::workplace::{Run, Workplace};

/// Of a film, in seconds: a shorter one is encoded in about the time that the choice takes.
const FILM_S_MIN: f64 = 20.0;

/// What comes before the encodes of a film. `None`: nothing does.
pub fn job(scheduler: &Scheduler, ingested: &Ingested) -> Option<NewEncode> {
    let plan = &ingested.plan;
    // Whoever waits for something to watch waits no longer than necessary.
    let chooses = plan.settings.quality.is_some()
        && !plan.rungs.is_empty()
        && ingested.original.is_some()
        && plan.expected.duration_s >= FILM_S_MIN;
    chooses.then(|| NewEncode {
        id: scheduler.id(),
        phase: Phase::Last,
        payload: sql::RATES.to_owned(),
        estimate_s: 0.0,
    })
}

pub async fn run(run: &Run<'_>) -> Result<(), RunError> {
    let (scheduler, lease) = (run.scheduler, run.lease);
    let plan = scheduler.catalog.plan(lease.job.video).await?;
    let plan = plan.ok_or_else(|| RunError::failed("the video has no plan"))?;
    let source = run.source().await?;
    let film = source.film.ok_or_else(|| RunError::failed("nobody has measured the film"))?;
    let place = run.begin().await?;
    let task = Task::ChooseRate {
        input: place.fetch_source(&source).await?,
        facts: fetch_facts(run, &place).await?,
        quality: plan.settings.quality.ok_or_else(|| RunError::failed("the plan asks for no quality"))?,
        plan: plan.clone(),
    };
    let crf = choose(run, &place, task, &film).await?;
    // Whoever gave a rung a factor of its own wants that one.
    let own = |rung: &Rung| scheduler.config.encode.rungs.fix_crf_of(rung.name);
    let at = |rung: &Rung| crf.filter(|_| !own(rung)).map_or(rung.clone(), |crf| rung.at_chosen(crf));
    let plan = Plan { rungs: plan.rungs.iter().map(at).collect(), ..plan };
    let encodes = encode_jobs(scheduler, &plan, &film);
    scheduler.catalog.choose_rates(lease, place.attempt, &plan, &encodes, scheduler.now()).await?;
    tracing::info!(video.id = %lease.job.video, crf, "rates chosen");
    Ok(())
}

/// A film whose rates cannot be chosen is worth as much as any other: after the last attempt it keeps those of the plan.
async fn choose(
    run: &Run<'_>,
    place: &Workplace<'_>,
    task: Task,
    film: &Film,
) -> Result<Option<f64>, RunError> {
    match place.transcode(task, Some(film)).await {
        Ok(Outcome::Rate { crf }) => Ok(crf),
        Ok(other) => Err(unexpected(&other)),
        Err(RunError::Failed(error)) if run.lease.job.attempt >= run.scheduler.config.jobs.attempts_max => {
            tracing::warn!(job.id = %run.lease.job.id, error = %format_args!("{error:#}"),
                "the rates of the film cannot be chosen, and stay as they were planned");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

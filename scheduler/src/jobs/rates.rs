//! Choose the factor of the rungs by what a few moments of the film need; then its chunks can be encoded. Whoever waits for
//! something to watch does not wait for this: a first phase goes ahead at the factor that was planned.

use domain::task::{Outcome, Plan, Task};
use domain::{Phase, RenditionName, Rung};
use sql::{NewEncode, Source};

use super::encode::fetch_facts;
use super::ingest::encode_jobs;
use super::unexpected;
use crate::Scheduler;
use crate::failure::RunError;
use crate::workplace::{Run, Workplace};

/// Of a film, in seconds: a shorter one is encoded in about the time that the choice takes.
const FILM_S_MIN: f64 = 20.0;

/// What of `encodes` can begin at once: all of them, or the choice in place of those that wait for it.
pub fn first(scheduler: &Scheduler, plan: &Plan, encodes: Vec<NewEncode>) -> Vec<NewEncode> {
    let is_asked = plan.settings.quality.is_some() && plan.expected.duration_s >= FILM_S_MIN;
    if !is_asked || !plan.rungs.iter().any(|rung| is_chosen(plan, rung)) {
        return encodes;
    }
    let (mut first, waiting): (Vec<_>, Vec<_>) =
        encodes.into_iter().partition(|encode| encode.phase == Phase::First);
    first.push(NewEncode {
        id: scheduler.id(),
        phase: Phase::Last,
        payload: sql::RATES.to_owned(),
        estimate_s: waiting.iter().map(|encode| encode.estimate_s).sum(),
    });
    first
}

/// `original` is to be as good as it can, and a first phase is not waited for.
fn is_chosen(plan: &Plan, rung: &Rung) -> bool {
    rung.name != RenditionName::Original && plan.phase_of(rung.name) == Phase::Last
}

pub async fn run(run: &Run<'_>) -> Result<(), RunError> {
    let (scheduler, lease) = (run.scheduler, run.lease);
    let plan = scheduler.catalog.plan(lease.job.video).await?;
    let plan = plan.ok_or_else(|| RunError::failed("the video has no plan"))?;
    let source = run.source().await?;
    let film = source.film.ok_or_else(|| RunError::failed("nobody has measured the film"))?;
    let place = run.begin().await?;
    let crf = choose_or_do_without(run, &place, &source, &plan).await?;
    // Whoever gave a rung a factor of its own wants that one.
    let own = |rung: &Rung| scheduler.config.encode.rungs.fix_crf_of(rung.name);
    let at = |rung: &Rung| {
        let crf = crf.filter(|_| is_chosen(&plan, rung) && !own(rung));
        crf.map_or(rung.clone(), |crf| rung.at_chosen(crf))
    };
    let plan = Plan { rungs: plan.rungs.iter().map(at).collect(), ..plan.clone() };
    let mut encodes = encode_jobs(scheduler, &plan, &film);
    encodes.retain(|encode| encode.phase == Phase::Last);
    scheduler.catalog.choose_rates(lease, place.attempt, &plan, &encodes, scheduler.now()).await?;
    tracing::info!(video.id = %lease.job.video, crf, "rates chosen");
    Ok(())
}

/// A film whose rates cannot be chosen is worth as much as any other, and keeps those that were planned. The last of several
/// attempts does not try again: those before it may have taken their worker with them.
async fn choose_or_do_without(
    run: &Run<'_>,
    place: &Workplace<'_>,
    source: &Source,
    plan: &Plan,
) -> Result<Option<f64>, RunError> {
    let is_last = run.lease.job.attempt >= run.scheduler.config.jobs.attempts_max;
    if is_last && run.lease.job.attempt > 1 {
        return do_without(run, "it was tried often enough");
    }
    match choose(run, place, source, plan).await {
        Err(error @ RunError::Rejected { .. }) => do_without(run, error),
        Err(error @ RunError::Failed(_)) if is_last => do_without(run, error),
        chosen => chosen,
    }
}

fn do_without(run: &Run<'_>, reason: impl std::fmt::Display) -> Result<Option<f64>, RunError> {
    tracing::warn!(job.id = %run.lease.job.id, error = %format_args!("{reason:#}"),
        "the rates of the film cannot be chosen, and stay as they were planned");
    Ok(None)
}

async fn choose(
    run: &Run<'_>,
    place: &Workplace<'_>,
    source: &Source,
    plan: &Plan,
) -> Result<Option<f64>, RunError> {
    let task = Task::ChooseRate {
        input: place.fetch_source(source).await?,
        facts: fetch_facts(run, place).await?,
        plan: plan.clone(),
    };
    match place.transcode(task, source.film.as_ref()).await? {
        Outcome::Rate { crf } => Ok(crf),
        other => Err(unexpected(&other)),
    }
}

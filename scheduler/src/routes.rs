//! `http-api` §5: deletions and jobs, for admins and services.

use std::str::FromStr;

use axum::extract::State;
use chassis::page::{Page, PageParams, PageQuery};
use chassis::{Caller, Json, Path, Policy, Problem, Query, Routes, Tokens};
use domain::{DeletionId, JobId, Timestamp, UnknownWord, VideoId};
use http::StatusCode;
use serde::Deserialize;
use sql::{CancelDeletion, DeleteVideo, NewDeletion, RetryJob};
use utoipa::IntoParams;
use utoipa_axum::routes;

use crate::Scheduler;
use crate::failure::sql;
use crate::view::{DeletionView, JobView};

/// A deletion further ahead is a mistake in the year.
const AHEAD_S_MAX: i64 = 10 * 366 * 86_400;

/// The list of routes.
pub fn routes(scheduler: Scheduler, tokens: Tokens) -> Routes {
    Routes::new(tokens)
        .route(Policy::Admin, routes!(delete_video))
        .route(Policy::Admin, routes!(list_deletions))
        .route(Policy::Admin, routes!(one_deletion, cancel_deletion))
        .route(Policy::Admin, routes!(list_jobs))
        .route(Policy::Admin, routes!(retry_job))
        .with_state(scheduler)
}

/// At most one of the two; neither: at once.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct When {
    /// RFC 3339; an instant that is over means at once.
    at: Option<String>,
    /// Seconds from now.
    #[param(minimum = 0, value_type = Option<f64>)]
    after_s: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DeletionFilter {
    /// `scheduled`, `running`, `done`, `cancelled` or `failed`.
    state: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct JobFilter {
    /// `ingest`, `encode`, `assemble`, `cover` or `purge`.
    kind: Option<String>,
    /// `queued`, `running`, `done`, `dead` or `cancelled`.
    state: Option<String>,
}

/// Delete a video, now or later. A later call sets another time.
#[utoipa::path(delete, path = "/scheduler/videos/{vid}", tag = "deletions",
    params(("vid" = String, Path, description = "The video"), When),
    responses((status = 200, description = "The deletion", body = DeletionView),
        (status = 400, description = "No id, or no time"), (status = 404, description = "No such video")))]
async fn delete_video(
    State(scheduler): State<Scheduler>,
    caller: Caller,
    Path(video): Path<VideoId>,
    Query(when): Query<When>,
) -> Result<Json<DeletionView>, Problem> {
    let now = scheduler.now();
    let new = NewDeletion {
        video,
        requested_by: caller.user().map_or_else(|| "service".to_owned(), |user| user.to_string()),
        due_at: when.due_at(now)?,
        id: scheduler.id(),
        job: scheduler.id(),
    };
    match scheduler.catalog.delete_video(&new, now).await.map_err(sql)? {
        DeleteVideo::Accepted(deletion) => {
            scheduler.catalog.bell().notify_one();
            Ok(Json(deletion.into()))
        }
        DeleteVideo::NotFound => Err(Problem::not_found()),
    }
}

/// Deletions, newest first.
#[utoipa::path(get, path = "/scheduler/deletions", tag = "deletions", params(DeletionFilter, PageParams),
    responses((status = 200, description = "A page of deletions", body = Page<DeletionView>),
        (status = 400, description = "No such state, or a forged cursor")))]
async fn list_deletions(
    State(scheduler): State<Scheduler>,
    Query(filter): Query<DeletionFilter>,
    page: PageQuery,
) -> Result<Json<Page<DeletionView>>, Problem> {
    const LIST: &str = "deletions";
    let state = word("state", filter.state)?;
    let after = page.after(LIST)?;
    let found = scheduler.catalog.deletions(state, after, page.limit + 1).await.map_err(sql)?;
    Ok(Json(Page::of(LIST, found, page.limit, |deletion| deletion.id, DeletionView::from)))
}

/// One deletion, with its receipt once it is done.
#[utoipa::path(get, path = "/scheduler/deletions/{id}", tag = "deletions",
    params(("id" = String, Path, description = "The deletion")),
    responses((status = 200, description = "The deletion", body = DeletionView),
        (status = 400, description = "No id"), (status = 404, description = "No such deletion")))]
async fn one_deletion(
    State(scheduler): State<Scheduler>,
    Path(id): Path<DeletionId>,
) -> Result<Json<DeletionView>, Problem> {
    let deletion = scheduler.catalog.deletion(id).await.map_err(sql)?;
    deletion.map(|deletion| Json(deletion.into())).ok_or_else(Problem::not_found)
}

/// Call a scheduled deletion off.
#[utoipa::path(delete, path = "/scheduler/deletions/{id}", tag = "deletions",
    params(("id" = String, Path, description = "The deletion")),
    responses((status = 204, description = "Called off; the video stays"), (status = 400, description = "No id"),
        (status = 404, description = "No such deletion"), (status = 409, description = "It is no longer scheduled")))]
async fn cancel_deletion(
    State(scheduler): State<Scheduler>,
    Path(id): Path<DeletionId>,
) -> Result<StatusCode, Problem> {
    match scheduler.catalog.cancel_deletion(id, scheduler.now()).await.map_err(sql)? {
        CancelDeletion::Cancelled => Ok(StatusCode::NO_CONTENT),
        CancelDeletion::NotFound => Err(Problem::not_found()),
        CancelDeletion::TooLate => Err(Problem::conflict(
            "/problems/deletion-not-scheduled",
            "The deletion is no longer scheduled",
            "From the time it is due the video is gone for everyone and nothing brings it back; see `state`.",
        )),
    }
}

/// Jobs, newest first.
#[utoipa::path(get, path = "/scheduler/jobs", tag = "jobs", params(JobFilter, PageParams),
    responses((status = 200, description = "A page of jobs", body = Page<JobView>),
        (status = 400, description = "No such kind or state, or a forged cursor")))]
async fn list_jobs(
    State(scheduler): State<Scheduler>,
    Query(filter): Query<JobFilter>,
    page: PageQuery,
) -> Result<Json<Page<JobView>>, Problem> {
    const LIST: &str = "jobs";
    let (kind, state) = (word("kind", filter.kind)?, word("state", filter.state)?);
    let after = page.after(LIST)?;
    let found = scheduler.catalog.jobs(kind, state, after, page.limit + 1).await.map_err(sql)?;
    Ok(Json(Page::of(LIST, found, page.limit, |job| job.id, JobView::from)))
}

/// Call a dead job back, with what stopped because of it.
#[utoipa::path(post, path = "/scheduler/jobs/{id}/retry", tag = "jobs",
    params(("id" = String, Path, description = "The job")),
    responses((status = 200, description = "The job, queued again", body = JobView),
        (status = 400, description = "No id"), (status = 404, description = "No such job"),
        (status = 409, description = "It is not dead")))]
async fn retry_job(
    State(scheduler): State<Scheduler>,
    Path(id): Path<JobId>,
) -> Result<Json<JobView>, Problem> {
    match scheduler.catalog.retry_job(id, scheduler.now()).await.map_err(sql)? {
        RetryJob::Retried => scheduler.catalog.bell().notify_one(),
        RetryJob::NotFound => return Err(Problem::not_found()),
        RetryJob::NotDead => {
            let detail = "Only a job that gave up can be called back; see `state`.";
            return Err(Problem::conflict("/problems/job-not-dead", "The job is not dead", detail));
        }
    }
    let job = scheduler.catalog.job(id).await.map_err(sql)?;
    job.map(|job| Json(job.into())).ok_or_else(Problem::not_found)
}

impl When {
    fn due_at(&self, now: Timestamp) -> Result<Timestamp, Problem> {
        let due_at = match (&self.at, &self.after_s) {
            (None, None) => return Ok(now),
            (Some(_), Some(_)) => {
                return Err(Problem::field("at", "give `at` or `after_s`, not both"));
            }
            (Some(at), None) => {
                // In a query a `+` that nobody encoded is a blank.
                let at = at.replace(' ', "+");
                Timestamp::parse_rfc3339(&at).map_err(|error| Problem::field("at", error.to_string()))?
            }
            (None, Some(after_s)) => now.plus_ms(after_ms(after_s)?),
        };
        if due_at > now.plus_s(AHEAD_S_MAX) {
            let field = if self.at.is_some() { "at" } else { "after_s" };
            return Err(Problem::field(field, "at most ten years ahead"));
        }
        // Over is now: from the tombstone on nothing of the video is served.
        Ok(due_at.max(now))
    }
}

fn after_ms(after_s: &str) -> Result<i64, Problem> {
    let seconds = after_s.parse::<f64>().ok().filter(|s| s.is_finite() && *s >= 0.0);
    let seconds = seconds.ok_or_else(|| Problem::field("after_s", "a number of seconds from 0 on"))?;
    // The conversion saturates, and the bound above catches it.
    Ok((seconds * 1000.0) as i64)
}

fn word<T: FromStr<Err = UnknownWord>>(
    field: &'static str,
    text: Option<String>,
) -> Result<Option<T>, Problem> {
    let parse =
        |text: String| text.parse().map_err(|error: UnknownWord| Problem::field(field, error.to_string()));
    text.map(parse).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_is_now_or_within_ten_years() {
        let now = Timestamp::from_unix_ms(1_790_000_000_000);
        let due = |at: Option<&str>, after_s: Option<&str>| {
            let when = When { at: at.map(str::to_owned), after_s: after_s.map(str::to_owned) };
            when.due_at(now).map_err(|problem| problem.errors()[0].field.clone())
        };
        assert_eq!(due(None, None), Ok(now));
        assert_eq!(due(None, Some("1.5")), Ok(now.plus_ms(1500)));
        let later = now.plus_s(3600);
        assert_eq!(due(Some(&later.to_rfc3339()), None), Ok(later));
        assert_eq!(due(Some("2000-01-01T00:00:00 02:00"), None), Ok(now), "over is now");
        for bad in ["-1", "NaN", "inf", "soon", "", "1e300"] {
            assert_eq!(due(None, Some(bad)), Err("after_s".to_owned()), "{bad}");
        }
        assert_eq!(due(Some("9999-01-01T00:00:00Z"), None), Err("at".to_owned()));
        assert_eq!(due(Some("tomorrow"), None), Err("at".to_owned()));
        assert_eq!(due(Some("2026-11-21T00:00:00Z"), Some("1")), Err("at".to_owned()));
    }
}

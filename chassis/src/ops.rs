//! The ops listener: `/livez`, `/readyz`, `/metrics`. Never on the public port.

use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::{BoxFuture, join_all};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::telemetry::Metrics;
use crate::{App, Limits, serve};

/// Whether something that the process needs answers; the error is one line for the operator.
pub type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// A named [`Check`] of whatever can be asked.
pub fn check<F, E>(name: &'static str, ask: impl Fn() -> F + Send + Sync + 'static) -> (&'static str, Check)
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: std::fmt::Display,
{
    let check: Check = Arc::new(move || {
        let asked = ask();
        Box::pin(async move { asked.await.map_err(|error| error.to_string()) })
    });
    (name, check)
}

const CHECK_MAX: Duration = Duration::from_secs(2);
const UPKEEP: Duration = Duration::from_secs(5);
const CONNECTIONS_MAX: usize = 64;

/// What the ops listener can tell.
#[derive(Clone)]
pub struct Ops {
    pub checks: Vec<(&'static str, Check)>,
    pub metrics: Metrics,
    /// Once cancelled, the process takes no more work and is not ready.
    pub draining: CancellationToken,
}

impl Ops {
    pub fn router(self) -> Router {
        Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            // What older probes ask for.
            .route("/healthz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self)
    }
}

/// Until `shutdown`, which comes after the public listener has drained.
pub async fn serve_ops(
    listener: TcpListener,
    ops: Ops,
    limits: &Limits,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let metrics = ops.metrics.clone();
    let limits = Limits { connections_max: CONNECTIONS_MAX, drain_s_max: 1, ..limits.clone() };
    tokio::select! {
        served = serve(listener, App::bare(ops.router()), &limits, &[], shutdown) => served,
        () = keep_up(metrics) => Ok(()),
    }
}

/// Histograms gather samples until someone reads them; nobody may.
async fn keep_up(metrics: Metrics) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        metrics.upkeep();
    }
}

async fn readyz(State(ops): State<Ops>, RawQuery(query): RawQuery) -> Response {
    let running = ops.checks.iter().map(|(name, check)| async move {
        let answer = tokio::time::timeout(CHECK_MAX, check()).await;
        (*name, answer.unwrap_or_else(|_| Err(format!("no answer in {} s", CHECK_MAX.as_secs()))))
    });
    let mut checks = join_all(running).await;
    if ops.draining.is_cancelled() {
        checks.push(("draining", Err("shutting down".to_owned())));
    }
    let ready = checks.iter().all(|(_, result)| result.is_ok());
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let verbose = query.is_some_and(|query| query.split('&').any(|part| part.starts_with("verbose")));
    let text = if verbose || !ready { listing(&checks, ready) } else { "ok\n".to_owned() };
    (status, [(CACHE_CONTROL, "no-store")], text).into_response()
}

fn listing(checks: &[(&str, Result<(), String>)], ready: bool) -> String {
    let mut text = String::new();
    for (name, result) in checks {
        let _ = match result {
            Ok(()) => writeln!(text, "[+]{name} ok"),
            Err(reason) => writeln!(text, "[-]{name} failed: {reason}"),
        };
    }
    text.push_str(if ready { "ready\n" } else { "not ready\n" });
    text
}

async fn metrics(State(ops): State<Ops>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], ops.metrics.render()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use http::Request;
    use tower::ServiceExt;

    async fn ask(ops: &Ops, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = ops.clone().router().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), 65_536).await.unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    fn ops(store: Result<(), String>) -> Ops {
        let answers = |result: Result<(), String>| -> Check {
            Arc::new(move || {
                let result = result.clone();
                Box::pin(async move { result })
            })
        };
        let checks = vec![("db", answers(Ok(()))), ("store", answers(store))];
        Ops { checks, metrics: Metrics::unrecorded(), draining: CancellationToken::new() }
    }

    #[tokio::test]
    async fn ready_when_everything_answers() {
        let ops = ops(Ok(()));
        assert_eq!(ask(&ops, "/readyz").await, (200, "ok\n".to_owned()));
        assert_eq!(ask(&ops, "/healthz?verbose").await.1, "[+]db ok\n[+]store ok\nready\n");
    }

    #[tokio::test]
    async fn alive_but_not_ready_when_something_does_not() {
        let ops = ops(Err("disk full".to_owned()));
        assert_eq!(ask(&ops, "/livez").await.0, 200);
        let (status, text) = ask(&ops, "/readyz").await;
        assert_eq!((status, text.contains("[-]store failed: disk full")), (503, true));
    }

    #[tokio::test]
    async fn not_ready_while_draining() {
        let ops = ops(Ok(()));
        ops.draining.cancel();
        assert_eq!(ask(&ops, "/readyz").await.0, 503);
    }
}

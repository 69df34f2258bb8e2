//! Logs and metrics.

use std::io::{self, IsTerminal};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::Failure;
use crate::lines::{Lines, Writing};
use crate::settings::{LogFormat, ServiceName};

/// Seconds, as OpenTelemetry advises for requests, and on to minutes for jobs.
const DURATION_BUCKETS_S: [f64; 18] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 300.0,
    1800.0,
];
/// How often real time goes into something: from a slow encode to a copy.
const RATIO_BUCKETS: [f64; 16] =
    [0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 50.0, 100.0, 300.0, 1000.0];
const FILTER_DEFAULT: &str = "info,sqlx=warn,hyper=warn";

/// As long as it lives, lines are written; with it the last of them are.
#[must_use = "without it nothing is logged"]
pub struct Logging {
    _writing: Writing,
}

/// Starts logging on standard error: text on a terminal, JSON lines otherwise. `RUST_LOG` chooses what.
pub fn init(format: LogFormat) -> Result<Logging, Failure> {
    let (lines, writing) =
        Lines::to(io::stderr()).map_err(|error| Failure::software("start the log's thread", error))?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER_DEFAULT));
    let json = match format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let builder =
        tracing_subscriber::fmt().with_writer(lines).with_env_filter(filter).with_span_events(FmtSpan::NONE);
    // A second start in one process, as in tests, keeps the first one's logging.
    let _ = if json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else {
        builder.with_target(false).try_init()
    };
    Ok(Logging { _writing: writing })
}

/// What `/metrics` shows.
#[derive(Clone)]
pub struct Metrics(Option<PrometheusHandle>);

impl Metrics {
    /// Starts recording, once in a process.
    pub fn install(service: ServiceName, version: &'static str) -> Result<Self, BuildError> {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &DURATION_BUCKETS_S)?
            .set_buckets_for_metric(Matcher::Suffix("_ratio".to_owned()), &RATIO_BUCKETS)?
            .install_recorder()?;
        metrics::gauge!("sluice_build_info", "version" => version, "service" => service.as_str()).set(1.0);
        Ok(Metrics(Some(handle)))
    }

    /// Shows nothing, for tests.
    pub fn unrecorded() -> Self {
        Metrics(None)
    }

    pub(crate) fn render(&self) -> String {
        self.0.as_ref().map(PrometheusHandle::render).unwrap_or_default()
    }

    pub(crate) fn upkeep(&self) {
        if let Some(handle) = &self.0 {
            handle.run_upkeep();
        }
    }
}

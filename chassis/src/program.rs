//! The thin `main` of every service: settings, logging, a runtime, and an exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::settings::ServiceName;
use crate::{Failure, Settings, SettingsError, telemetry};

/// A service of Sluice. Settings come from the environment and, where one is named, from a file.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Settings in TOML; the environment wins over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs a service until it ends. Wrong settings and failures are one line on standard error.
pub fn main<F>(service: ServiceName, run: impl FnOnce(Settings) -> F) -> ExitCode
where
    F: Future<Output = Result<(), Failure>>,
{
    let arguments = Arguments::parse();
    let settings = match Settings::from_process(service, arguments.config.as_deref()) {
        Ok(settings) => settings,
        Err(error) => return Failure::from(error).report(),
    };
    let logging = match telemetry::init(settings.log_format) {
        Ok(logging) => logging,
        Err(failure) => return failure.report(),
    };
    let outcome = in_runtime(run(settings));
    drop(logging);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Runs `work` on a runtime of all cores.
pub fn in_runtime<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Failure::software("start the runtime", error))?.block_on(work)
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Failure::settings(error.to_string())
    }
}

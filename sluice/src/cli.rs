//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use chassis::program::in_runtime;
use chassis::settings::{ServiceName, StoreAddress};
use chassis::{Clock, Failure, Settings};
use clap::{Parser, Subcommand};
use domain::DatabasePlace;
use sql::{Carried, CarryError, CarryOutcome, Catalog};
use transcoder::Confinement;

use crate::doctor::Verdict;
use crate::embedded::Embedded;
use crate::moving::{self, Trust};
use crate::put::{self, Put};
use crate::walk::Objects;
use crate::{check, doctor, healthcheck, start};

/// The command by which this program becomes the transcoder child.
pub const CHILD_COMMAND: &str = "transcoder";

/// Upload a video, get an adaptive stream.
#[derive(Parser)]
#[command(name = "sluice", version)]
struct Arguments {
    /// Settings in TOML; the environment wins over it. `sluice settings --sample` prints one with every setting.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Compare rows and objects; print every violation; exit 0 only if there is none.
    Check,
    /// List every object of the store: length in bytes, path.
    Objects,
    /// Bring the database's schema up to date, and end.
    Migrate,
    /// Bring the library to another store or database, beside a server at work. May be stopped and started again.
    #[command(group = clap::ArgGroup::new("to").required(true))]
    Move {
        /// Where objects shall be: `disk:/path` or `s3://bucket/prefix`.
        #[arg(long, value_name = "PLACE", group = "to")]
        to_store: Option<StoreAddress>,
        /// Where rows shall be: `postgres://user:password@host/database`. At the end the old database takes no more
        /// writes; then every service is to be started with the new one.
        #[arg(long, value_name = "URL", group = "to")]
        to_database: Option<String>,
        /// Believe that what is there already is right when it has the right length.
        #[arg(long)]
        quick: bool,
    },
    /// Upload a film, wait until it can be watched, and print where. Broken off, the same command goes on with it.
    Put(Put),
    /// Look at FFmpeg, the sandbox, the store, the disk and the clock.
    Doctor,
    /// Ask a service on this machine whether it is ready; exit 0 only if it is. For containers.
    Healthcheck {
        /// Whose default address to ask where SLUICE_OPS_LISTEN is not set.
        #[arg(long, value_name = "NAME", default_value = "sluice", value_parser = service_named)]
        service: ServiceName,
    },
    /// Print the effective settings with their origin; secrets are hidden.
    Settings {
        /// Print a documented sample instead.
        #[arg(long)]
        sample: bool,
    },
    /// Do one piece of media work, as told on standard input. Started by the scheduler, not by people.
    #[command(hide = true, name = CHILD_COMMAND)]
    Transcoder {
        /// Work on where this machine cannot lock the child in.
        #[arg(long)]
        unsafe_no_sandbox: bool,
    },
}

/// Parses the arguments and does what they say.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    // Before settings, threads and logs: the child must have nothing of ours.
    if let Some(Command::Transcoder { unsafe_no_sandbox }) = arguments.command {
        let confinement = if unsafe_no_sandbox { Confinement::AsFarAsItGoes } else { Confinement::Demanded };
        return transcoder::run_child(confinement);
    }
    // A client has no settings of a server.
    if let Some(Command::Put(put)) = arguments.command {
        return in_runtime(put_film(&put)).unwrap_or_else(|failure| failure.report());
    }
    let service = match arguments.command {
        Some(Command::Healthcheck { service }) => service,
        _ => ServiceName::AllInOne,
    };
    let settings = match Settings::from_process(service, arguments.config.as_deref()) {
        Ok(settings) => settings,
        Err(error) => return Failure::from(error).report(),
    };
    let outcome = match arguments.command {
        Some(Command::Settings { sample }) => {
            print_settings(&settings, sample);
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Healthcheck { .. }) => Ok(healthy(&settings)),
        Some(Command::Check) => in_runtime(check_all(&settings)),
        Some(Command::Objects) => in_runtime(list_objects(&settings)),
        Some(Command::Migrate) => in_runtime(migrate(&settings)),
        Some(Command::Move { to_store: Some(to), quick, .. }) => {
            in_runtime(move_objects(&settings, &to, quick))
        }
        Some(Command::Move { to_database, .. }) => {
            in_runtime(move_rows(&settings, &to_database.unwrap_or_default()))
        }
        Some(Command::Doctor) => in_runtime(examine(&settings)),
        Some(Command::Put(_) | Command::Transcoder { .. }) | None => in_runtime(start::start(settings)),
    };
    outcome.unwrap_or_else(|failure| failure.report())
}

fn service_named(name: &str) -> Result<ServiceName, String> {
    use ServiceName::{AllInOne, Api, Scheduler, Streamserver};
    let services = [AllInOne, Api, Streamserver, Scheduler];
    let names = services.map(ServiceName::as_str).join(", ");
    services.into_iter().find(|service| service.as_str() == name).ok_or(format!("one of {names}"))
}

fn healthy(settings: &Settings) -> ExitCode {
    match healthcheck::ask(settings.ops_listen) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn print_settings(settings: &Settings, sample: bool) {
    if sample {
        print!("{}", Settings::sample());
        return;
    }
    let names = chassis::settings::TABLE.iter().map(chassis::settings::Setting::env);
    for (name, (_, value, origin)) in names.zip(settings.table()) {
        println!("{name:<44} {value:<32} {origin}");
    }
}

async fn put_film(put: &Put) -> Result<ExitCode, Failure> {
    put::put(put).await.map_err(|error| Failure::software("put", error))
}

async fn check_all(settings: &Settings) -> Result<ExitCode, Failure> {
    let embedded = Embedded::open(settings).await?;
    let report = check::check(&embedded.catalog, &*embedded.store, Clock::system().now()).await;
    let report = report.map_err(|error| Failure::software("check", error))?;
    for violation in &report.violations {
        println!("{violation}");
    }
    println!(
        "{} objects, {} bytes, {} rows: {} violations",
        report.objects,
        report.bytes,
        report.rows,
        report.violations.len()
    );
    Ok(if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn list_objects(settings: &Settings) -> Result<ExitCode, Failure> {
    let store = store::open(&settings.store_place()).await?;
    let mut objects = Objects::new(&*store);
    while let Some((path, bytes)) =
        objects.next().await.map_err(|error| Failure::software("list the store", error))?
    {
        println!("{bytes:>15} {path}");
    }
    Ok(ExitCode::SUCCESS)
}

async fn migrate(settings: &Settings) -> Result<ExitCode, Failure> {
    Catalog::migrate(&settings.database_place()).await?;
    println!("The schema is up to date.");
    Ok(ExitCode::SUCCESS)
}

async fn move_objects(settings: &Settings, to: &StoreAddress, quick: bool) -> Result<ExitCode, Failure> {
    // Before the switch the server still writes to the old store; after it, `store` is the new one.
    let from = if settings.store == *to { settings.store_from.as_ref() } else { Some(&settings.store) };
    let from = from.ok_or_else(|| {
        Failure::settings(format!(
            "SLUICE_STORE is {to} already; set SLUICE_STORE_FROM to where objects were."
        ))
    })?;
    let catalog = Catalog::open(&settings.database_place()).await?;
    let from_store = store::open(&settings.store_place_at(from)).await?;
    let to_store = store::open(&settings.store_place_at(to)).await?;
    let trust = if quick { Trust::Lengths } else { Trust::Nothing };
    let moved = moving::move_objects(&catalog, &*from_store, &*to_store, trust).await;
    catalog.close().await;
    println!("{}", moved.map_err(|error| Failure::software("move", error))?);
    if settings.store == *to {
        println!("Everything is in {to}. Start every service without SLUICE_STORE_FROM; then {from} may go.");
    } else {
        println!(
            "Everything that was in {from} is in {to}. Now start every service with SLUICE_STORE={to} and \
             SLUICE_STORE_FROM={from}, then run this again with the same two."
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn move_rows(settings: &Settings, to: &str) -> Result<ExitCode, Failure> {
    let from = settings.database_place();
    let to = DatabasePlace { url: to.to_owned(), origin: "--to-database".to_owned(), ..from.clone() };
    let tell = |table: &str, rows: u64| eprintln!("{table}: {rows} rows");
    let outcome = sql::carry(&from, &to, Clock::system().now(), tell).await.map_err(|error| match error {
        CarryError::Start(error) => error.into(),
        error => Failure::software("move", error),
    })?;
    match outcome {
        CarryOutcome::Carried(Carried { rows, written, removed }) => {
            println!("{rows} rows are there ({written} written, {removed} removed by this run).");
        }
        CarryOutcome::AlreadyAt(place) => println!("The rows are at {place} already."),
    }
    println!(
        "The old database takes no more writes. Now start every service with DATABASE_URL set to the new one."
    );
    Ok(ExitCode::SUCCESS)
}

async fn examine(settings: &Settings) -> Result<ExitCode, Failure> {
    let findings = doctor::examine(settings, &Clock::system()).await;
    for finding in &findings {
        println!("{finding}");
    }
    let bad = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

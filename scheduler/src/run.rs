//! The life of the process.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use chassis::auth::SessionLookup;
use chassis::ops::Check;
use chassis::telemetry::Metrics;
use chassis::{
    Clock, Edge, EdgeConfig, Failure, Host, Ids, KeyError, ServiceName, Settings, Tokens, VerifyingKey,
    program, shutdown,
};
use futures::FutureExt;
use sql::Catalog;
use store::{Disk, Store};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{Config, Deps, Scheduler, Transcoder, routes, work};

/// `api` makes the keys when it first starts; services that start together with it wait this long.
const KEY_WAIT_MAX: Duration = Duration::from_secs(15);
const KEY_POLL: Duration = Duration::from_millis(200);

/// The program `scheduler`.
pub fn main() -> ExitCode {
    program::main(ServiceName::Scheduler, start)
}

async fn start(settings: Settings) -> Result<(), Failure> {
    let shutdown = shutdown::signals().map_err(|error| Failure::software("listen for signals", error))?;
    let deps = open(&settings).await?;
    run(settings, deps, shutdown).await
}

/// Serves and works until `shutdown`, then drains.
pub async fn run(settings: Settings, deps: Deps, shutdown: CancellationToken) -> Result<(), Failure> {
    let metrics = Metrics::install(settings.service, env!("CARGO_PKG_VERSION"))
        .map_err(|error| Failure::software("install the metrics", error))?;
    let host = Host::bind(&settings).await?;
    let tokens = Tokens::new(verifying_key(&settings).await?, deps.clock.clone(), session_lookup(&deps));
    let edge = Edge::new(EdgeConfig::new(&settings, deps.ids.clone()));
    let (catalog, checks) = (deps.catalog.clone(), checks(&deps));
    let scheduler = Scheduler::new(deps, Config::new(&settings));
    let (router, _) = routes(scheduler.clone(), tokens).finish();
    let serving = async {
        let served = host.run(&settings, edge.wrap(router), checks, metrics, shutdown.clone()).await;
        // A listener that failed takes the work along.
        shutdown.cancel();
        served
    };
    let (served, worked) = tokio::join!(serving, work(scheduler, shutdown.clone()));
    catalog.close().await;
    served?;
    worked
}

/// What the settings name.
async fn open(settings: &Settings) -> Result<Deps, Failure> {
    let data_dir = &settings.data_dir;
    std::fs::create_dir_all(data_dir).map_err(|error| {
        Failure::cannot_create(format!("Cannot make {}: {error}. See SLUICE_DATA_DIR.", data_dir.display()))
    })?;
    let url = settings.database_url.clone().unwrap_or_else(|| Catalog::sqlite_url(&settings.database_file()));
    let catalog = Catalog::open(&url).await.map_err(|error| {
        Failure::unavailable(format!(
            "The database cannot be opened: {error}. See SLUICE_DATA_DIR and DATABASE_URL."
        ))
    })?;
    let objects = settings.objects_dir();
    let store = Disk::open(&objects).map_err(|error| {
        Failure::cannot_create(format!(
            "Objects cannot be kept in {}: {error}. See SLUICE_STORE.",
            objects.display()
        ))
    })?;
    let store: Arc<dyn Store> = Arc::new(store);
    let transcoder = match &settings.transcoder {
        Some(program) => Transcoder::new(program),
        None => Transcoder::beside_this_program()
            .map_err(|error| Failure::software("find the transcoder", error))?,
    };
    let (clock, ids, wake) = (Clock::system(), Ids::system(), Arc::new(Notify::new()));
    Ok(Deps { catalog, store, clock, ids, transcoder, wake })
}

async fn verifying_key(settings: &Settings) -> Result<VerifyingKey, Failure> {
    if let Some(pem) = &settings.verifying_key {
        return Ok(VerifyingKey::from_pem(pem)?);
    }
    let folder = settings.keys_dir();
    let appears = async {
        loop {
            match VerifyingKey::load(&folder) {
                Err(KeyError::File { .. }) => tokio::time::sleep(KEY_POLL).await,
                loaded => return loaded,
            }
        }
    };
    match tokio::time::timeout(KEY_WAIT_MAX, appears).await {
        Ok(loaded) => Ok(loaded?),
        Err(_) => Err(Failure::settings(format!(
            "There is no key in {} to verify tokens with. Start api once with the same SLUICE_DATA_DIR, or set \
             SLUICE_VERIFYING_KEY.",
            folder.display()
        ))),
    }
}

fn session_lookup(deps: &Deps) -> SessionLookup {
    let (catalog, clock) = (deps.catalog.clone(), deps.clock.clone());
    Arc::new(move |session| {
        let (catalog, now) = (catalog.clone(), clock.now());
        async move { Ok(catalog.session_alive(session, now).await?) }.boxed()
    })
}

/// Ready: the database and the store answer.
fn checks(deps: &Deps) -> Vec<(&'static str, Check)> {
    let (catalog, store) = (deps.catalog.clone(), deps.store.clone());
    let database: Check = Arc::new(move || {
        let catalog = catalog.clone();
        async move { catalog.ping().await.map_err(|error| error.to_string()) }.boxed()
    });
    let store: Check = Arc::new(move || {
        let store = store.clone();
        async move { store.probe().await.map_err(|error| error.to_string()) }.boxed()
    });
    vec![("database", database), ("store", store)]
}

//! The life of the process.

use std::process::ExitCode;

use chassis::ops::Check;
use chassis::telemetry::Metrics;
use chassis::{
    Clock, Edge, EdgeConfig, Failure, Host, Ids, LinkKeys, ServiceName, Settings, Shared, Tokens,
    VerifyingKey, ops, program, shutdown,
};
use sql::Catalog;
use tokio_util::sync::CancellationToken;

use crate::{Deps, StreamServer, routes};

/// The program `streamserver`.
pub fn main() -> ExitCode {
    program::main(ServiceName::Streamserver, start)
}

async fn start(settings: Settings) -> Result<(), Failure> {
    let shutdown = shutdown::signals().map_err(|error| Failure::software("listen for signals", error))?;
    let deps = open(&settings, &shutdown).await?;
    run(settings, deps, shutdown).await
}

/// Serves until `shutdown`, then drains.
pub async fn run(settings: Settings, deps: Deps, shutdown: CancellationToken) -> Result<(), Failure> {
    let metrics = Metrics::install(settings.service, env!("CARGO_PKG_VERSION"))
        .map_err(|error| Failure::software("install the metrics", error))?;
    let host = Host::bind(&settings).await?;
    let shared = Shared::of(&settings)?;
    let tokens =
        Tokens::new(VerifyingKey::of(&settings).await?, deps.clock.clone(), deps.catalog.session_lookup())
            .sharing(shared.clone(), &shutdown);
    let edge = Edge::new(EdgeConfig::new(&settings, deps.ids.clone()).sharing(&shared));
    let (catalog, checks) = (deps.catalog.clone(), checks(&deps));
    let server = StreamServer::new(deps, settings.urls(host.address()).stream);
    let (router, _) = routes(server.clone(), tokens).finish();
    let serving = async {
        let served = host.run(&settings, edge.wrap(router), checks, metrics, shutdown.clone()).await;
        // A listener that failed takes the work along.
        shutdown.cancel();
        served
    };
    let (served, ()) = tokio::join!(serving, server.work());
    server.drain().await;
    catalog.close().await;
    Ok(served?)
}

/// What the settings name.
async fn open(settings: &Settings, shutdown: &CancellationToken) -> Result<Deps, Failure> {
    settings.make_data_dir()?;
    let catalog = Catalog::open(&settings.database_place()).await?;
    let store = store::open(&settings.store_place()).await?;
    let clock = Clock::kept_by(catalog.clock(), shutdown).await?;
    Ok(Deps {
        catalog,
        store,
        clock,
        ids: Ids::system(),
        link_keys: LinkKeys::of_api(settings).await?,
        limits: settings.limits.clone(),
        views: settings.views,
        cache_tag_header: settings.cache_tag_header,
        shutdown: shutdown.clone(),
    })
}

/// Ready: the database and the store answer.
fn checks(deps: &Deps) -> Vec<(&'static str, Check)> {
    vec![ops::check("database", deps.catalog.pinger()), ops::check("store", store::prober(&deps.store))]
}

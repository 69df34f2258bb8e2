//! The service as a process of its own.

use chassis::ops::Check;
use chassis::telemetry::Metrics;
use chassis::{
    Clock, Edge, EdgeConfig, Failure, Host, Ids, LinkKeys, Problem, Settings, Shared, SigningKey, Tokens,
    ops, password, shutdown,
};
use sql::Catalog;

use crate::{Api, Deps, docs};

/// Until a signal ends it.
pub async fn run(settings: Settings) -> Result<(), Failure> {
    let shutdown = shutdown::signals().map_err(|error| Failure::software("listen for signals", error))?;
    let metrics = Metrics::install(settings.service, env!("CARGO_PKG_VERSION"))
        .map_err(|error| Failure::software("start the metrics", error))?;
    let host = Host::bind(&settings).await?;
    let ids = Ids::system();
    settings.make_data_dir()?;
    let (signing_key, link_keys) = (SigningKey::of(&settings, &ids)?, LinkKeys::of(&settings, &ids)?);
    let catalog = Catalog::open(&settings.database_place()).await?;
    let clock = Clock::kept_by(catalog.clock(), &shutdown).await?;
    let shared = Shared::of(&settings)?;
    let tokens = Tokens::new(signing_key.verifying(), clock.clone(), catalog.session_lookup());
    let deps = Deps {
        tokens: tokens.sharing(shared.clone(), &shutdown),
        catalog: catalog.clone(),
        signing_key,
        link_keys,
        clock,
        ids: ids.clone(),
        urls: settings.urls(host.address()),
        shared: shared.clone(),
        shutdown: shutdown.clone(),
    };
    let api = Api::new(deps, &settings);
    password::warm_up();
    let link = api.prepare_admin(&settings).await.map_err(|problem: Problem| {
        Failure::unavailable(format!("the admin cannot be prepared: {problem:?}"))
    })?;
    if let Some(link) = link {
        eprintln!("First run: open this link to choose the admin: {link}");
    }
    let (router, document) = api.routes().finish();
    let app = Edge::new(EdgeConfig::new(&settings, ids).sharing(&shared)).wrap(router.merge(docs(document)));
    host.run(&settings, app, checks(&catalog), metrics, shutdown).await?;
    catalog.close().await;
    Ok(())
}

/// What has to answer before the service is ready.
pub fn checks(catalog: &Catalog) -> Vec<(&'static str, Check)> {
    vec![ops::check("database", catalog.pinger())]
}

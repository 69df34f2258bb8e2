//! The service as a process of its own.

use std::sync::Arc;

use chassis::ops::Check;
use chassis::telemetry::Metrics;
use chassis::{
    Clock, Edge, EdgeConfig, Failure, Host, Ids, Problem, Settings, SigningKey, Tokens, password, shutdown,
};
use sql::Catalog;

use crate::{Api, Deps, docs};

/// Until a signal ends it.
pub async fn run(settings: Settings) -> Result<(), Failure> {
    let shutdown = shutdown::signals().map_err(|error| Failure::software("listen for signals", error))?;
    let metrics = Metrics::install(settings.service, env!("CARGO_PKG_VERSION"))
        .map_err(|error| Failure::software("start the metrics", error))?;
    let host = Host::bind(&settings).await?;
    let (clock, ids) = (Clock::system(), Ids::system());
    std::fs::create_dir_all(&settings.data_dir).map_err(|error| {
        Failure::cannot_create(format!("{} cannot be made: {error}", settings.data_dir.display()))
    })?;
    let signing_key = SigningKey::of(&settings, &ids)?;
    let catalog = open_catalog(&settings).await?;
    let deps = Deps {
        tokens: tokens(&catalog, &signing_key, &clock),
        catalog: catalog.clone(),
        signing_key,
        clock,
        ids: ids.clone(),
        urls: settings.urls(host.address()),
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
    let app = Edge::new(EdgeConfig::new(&settings, ids)).wrap(router.merge(docs(document)));
    host.run(&settings, app, checks(&catalog), metrics, shutdown).await?;
    catalog.close().await;
    Ok(())
}

/// What has to answer before the service is ready.
pub fn checks(catalog: &Catalog) -> Vec<(&'static str, Check)> {
    let catalog = catalog.clone();
    let ping: Check = Arc::new(move || {
        let catalog = catalog.clone();
        Box::pin(async move { catalog.ping().await.map_err(|error| error.to_string()) })
    });
    vec![("database", ping)]
}

pub fn tokens(catalog: &Catalog, key: &SigningKey, clock: &Clock) -> Tokens {
    let (catalog, now) = (catalog.clone(), clock.clone());
    let alive = move |session| {
        let (catalog, now) = (catalog.clone(), now.clone());
        let looked_up = async move { catalog.session_alive(session, now.now()).await.map_err(Into::into) };
        Box::pin(looked_up) as futures::future::BoxFuture<'static, _>
    };
    Tokens::new(key.verifying(), clock.clone(), Arc::new(alive))
}

async fn open_catalog(settings: &Settings) -> Result<Catalog, Failure> {
    let url = settings.database_url.clone();
    let url = url.unwrap_or_else(|| Catalog::sqlite_url(&settings.database_file()));
    Catalog::open(&url).await.map_err(|error| {
        let origin = settings.origin("database_url");
        Failure::unavailable(format!("the database (from {origin}) cannot be opened: {error}"))
    })
}

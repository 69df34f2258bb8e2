//! All services in one process: the same that run by themselves, composed.

use std::process::ExitCode;

use chassis::telemetry::{self, Metrics};
use chassis::{
    App, Clock, Edge, EdgeConfig, Failure, Host, Ids, LinkKeys, Settings, Shared, SigningKey, Tokens,
    password, shutdown,
};
use scheduler::{Scheduler, Transcoder};
use streamserver::StreamServer;
use tokio_util::sync::CancellationToken;

use crate::banner::Banner;
use crate::cli::CHILD_COMMAND;
use crate::embedded::Embedded;

/// Serves until a signal asks it to stop, and drains.
pub async fn start(settings: Settings) -> Result<ExitCode, Failure> {
    let _logging = telemetry::init(settings.log_format)?;
    let shutdown = shutdown::signals().map_err(|error| Failure::software("listen for signals", error))?;
    let metrics = Metrics::install(settings.service, env!("CARGO_PKG_VERSION"))
        .map_err(|error| Failure::software("start the metrics", error))?;
    let ffmpeg = usable_ffmpeg(&settings)?;
    let transcoder = transcoder(&settings)?;
    transcoder.ready().await?;
    let host = Host::bind(&settings).await?;
    let embedded = Embedded::open(&settings).await?;
    let ids = Ids::system();
    let (signing_key, link_keys) = (SigningKey::of(&settings, &ids)?, LinkKeys::of(&settings, &ids)?);
    let clock = Clock::kept_by(embedded.catalog.clock(), &shutdown).await?;
    let shared = Shared::of(&settings)?;
    let tokens = Tokens::new(signing_key.verifying(), clock.clone(), embedded.catalog.session_lookup())
        .sharing(shared.clone(), &shutdown);
    password::warm_up();

    let api = api::Api::new(
        api::Deps {
            catalog: embedded.catalog.clone(),
            tokens: tokens.clone(),
            signing_key,
            link_keys: link_keys.clone(),
            clock: clock.clone(),
            ids: ids.clone(),
            urls: settings.urls(host.address()),
            shared: shared.clone(),
            shutdown: shutdown.clone(),
        },
        &settings,
    );
    let setup_url = api
        .prepare_admin(&settings)
        .await
        .map_err(|problem| Failure::unavailable(format!("The admin cannot be prepared: {problem:?}")))?;
    let streamserver = StreamServer::new(
        streamserver::Deps {
            catalog: embedded.catalog.clone(),
            store: embedded.store.clone(),
            clock: clock.clone(),
            ids: ids.clone(),
            link_keys,
            limits: settings.limits.clone(),
            views: settings.views,
            cache_tag_header: settings.cache_tag_header,
            shutdown: shutdown.clone(),
        },
        settings.urls(host.address()).stream,
    );
    let scheduler = Scheduler::new(
        scheduler::Deps {
            catalog: embedded.catalog.clone(),
            store: embedded.store.clone(),
            clock,
            ids: ids.clone(),
            transcoder,
        },
        scheduler::Config::new(&settings),
    );

    let routes = api
        .routes()
        .merge(streamserver::routes(streamserver.clone(), tokens.clone()))
        .merge(scheduler::routes(scheduler.clone(), tokens));
    let (router, document) = routes.finish();
    let app =
        Edge::new(EdgeConfig::new(&settings, ids).sharing(&shared)).wrap(router.merge(api::docs(document)));
    Banner {
        settings: &settings,
        public_url: &settings.urls(host.address()).public,
        ops_url: format!("http://{}", host.ops_address()),
        ffmpeg,
        setup_url,
    }
    .print();
    let served = serve(host, &settings, app, embedded.checks(), metrics, shutdown.clone());
    let (served, worked, ()) =
        tokio::join!(served, scheduler::work(scheduler, shutdown), streamserver.work());
    streamserver.drain().await;
    embedded.catalog.close().await;
    served.and(worked).map(|()| ExitCode::SUCCESS)
}

/// A listener that failed takes the work along.
async fn serve(
    host: Host,
    settings: &Settings,
    app: App,
    checks: Vec<(&'static str, chassis::ops::Check)>,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    let served = host.run(settings, app, checks, metrics, shutdown.clone()).await;
    shutdown.cancel();
    Ok(served?)
}

/// The version of the linked FFmpeg, which must have the encoders that we cannot do without.
fn usable_ffmpeg(settings: &Settings) -> Result<String, Failure> {
    let found = transcoder::capabilities::capabilities(&settings.encode.codecs);
    if found.missing_encoders.is_empty() {
        return Ok(found.version);
    }
    let missing = found.missing_encoders.join(", ");
    Err(Failure::settings(format!("This FFmpeg has no {missing}. On Debian: apt install libavcodec59.")))
}

/// This program again, as the child, unless the settings name another.
pub fn transcoder(settings: &Settings) -> Result<Transcoder, Failure> {
    let mut transcoder = match &settings.transcoder {
        Some(program) => Transcoder::new(program),
        None => {
            let program = std::env::current_exe();
            let program = program.map_err(|error| Failure::software("find this program", error))?;
            let mut transcoder = Transcoder::new(program);
            transcoder.arguments.push(CHILD_COMMAND.into());
            transcoder
        }
    };
    transcoder.sandbox_demanded = !settings.unsafe_no_sandbox;
    Ok(transcoder)
}

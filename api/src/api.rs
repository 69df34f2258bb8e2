//! What the service consists of, and the list of its routes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use chassis::settings::Urls;
use chassis::{
    Caller, Clock, FairBucket, Ids, LinkKeys, Policy, Problem, RateLimiter, Routes, Settings, Shared,
    SigningKey, Tokens,
};
use domain::{Quota, Timestamp, VideoId};
use sql::{Catalog, Video};
use tokio_util::sync::CancellationToken;
use utoipa_axum::routes;

use crate::events::Watcher;
use crate::failure::OrProblem;
use crate::{comments, events, page, playback, quotas, sessions, setup, users, videos};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// What the service stands on, given once.
pub struct Deps {
    pub catalog: Catalog,
    pub tokens: Tokens,
    pub signing_key: SigningKey,
    pub link_keys: LinkKeys,
    pub clock: Clock,
    pub ids: Ids,
    pub urls: Urls,
    pub shared: Option<Shared>,
    /// Ends the event streams, which would hold up the drain.
    pub shutdown: CancellationToken,
}

pub struct Api {
    pub(crate) catalog: Catalog,
    pub(crate) tokens: Tokens,
    pub(crate) signing_key: SigningKey,
    pub(crate) link_keys: LinkKeys,
    pub(crate) clock: Clock,
    pub(crate) ids: Ids,
    pub(crate) urls: Urls,
    pub(crate) shutdown: CancellationToken,
    pub(crate) session_s: u64,
    pub(crate) upload_token_s: u64,
    pub(crate) link_s: u64,
    pub(crate) upload_bytes_max: u64,
    /// Of users that have no bounds of their own.
    pub(crate) quota: Quota,
    pub(crate) logins: RateLimiter,
    pub(crate) registrations: RateLimiter,
    pub(crate) event_streams: FairBucket<IpAddr>,
    pub(crate) watcher: Watcher,
}

impl Api {
    pub fn new(deps: Deps, settings: &Settings) -> Arc<Self> {
        let Deps { catalog, tokens, signing_key, link_keys, clock, ids, urls, shared, shutdown } = deps;
        let limits = &settings.limits;
        Arc::new(Api {
            watcher: Watcher::new(catalog.clone(), clock.clone()),
            catalog,
            tokens,
            signing_key,
            link_keys,
            clock,
            ids,
            urls,
            shutdown,
            session_s: settings.session_s,
            upload_token_s: settings.upload_token_s,
            link_s: settings.link_s,
            upload_bytes_max: limits.upload_bytes_max,
            quota: limits.quota(),
            logins: RateLimiter::new("login", limits.logins_per_minute_per_client, MINUTE).sharing(&shared),
            registrations: RateLimiter::new("registration", limits.registrations_per_hour_per_client, HOUR)
                .sharing(&shared),
            event_streams: FairBucket::new("event_streams", limits.event_streams_max),
        })
    }

    /// Every route, with its policy.
    pub fn routes(self: Arc<Self>) -> Routes {
        let routes = Routes::new(self.tokens.clone())
            .route(Policy::Anyone, routes!(users::register))
            .route(Policy::Anyone, routes!(users::profile))
            .route(Policy::SignedIn, routes!(users::update, users::delete))
            .route(Policy::Anyone, routes!(users::videos))
            .route(Policy::SignedIn, routes!(quotas::show))
            .route(Policy::Admin, routes!(quotas::set))
            .route(Policy::Anyone, routes!(sessions::log_in))
            .route(Policy::SignedIn, routes!(sessions::log_out))
            .route(Policy::Anyone, routes!(setup::choose_admin))
            .route(Policy::SignedIn, routes!(videos::create))
            .route(Policy::Anyone, routes!(videos::list))
            .route(Policy::Anyone, routes!(videos::one))
            .route(Policy::SignedIn, routes!(videos::update, videos::delete))
            .route(Policy::Anyone, routes!(playback::playback))
            .route(Policy::Anyone, routes!(events::follow))
            .route(Policy::Anyone, routes!(comments::list))
            .route(Policy::SignedIn, routes!(comments::create))
            .route(Policy::SignedIn, routes!(comments::delete));
        page::add(routes, &self.urls).with_state(self)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The video, if this caller may know of it; else a 404, whatever the reason.
    pub(crate) async fn visible_video(&self, id: VideoId, caller: &Caller) -> Result<Video, Problem> {
        let video = self.catalog.video(id, self.now()).await.or_problem()?;
        video.filter(|video| videos::may_see(caller, video)).ok_or_else(Problem::not_found)
    }
}

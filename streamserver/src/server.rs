//! The service: what it needs, its list of routes, and its life.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::response::Response;
use bytes::Bytes;
use chassis::settings::{CacheTagHeader, Views};
use chassis::{Clock, FairBucket, Ids, Limits, LinkKeys, Policy, Problem, Routes, Tokens};
use domain::{UserId, VideoId};
use futures::StreamExt;
use http::Method;
use ring::hmac;
use sql::Catalog;
use store::Store;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa_axum::routes;

use crate::answer::{self, Asked, Description, FirstByte, Refusal};
use crate::cache_tag::CacheTag;
use crate::layout_body::Files;
use crate::objects::Objects;
use crate::resumable::{self, Holds};
use crate::statistics::Statistics;
use crate::track_file::Sliced;
use crate::viewer::{Viewer, Watching};
use crate::watch::Watch;
use crate::{cover, progressive, publication, storyboard, upload};

/// A body that flows waits this long to hear whether its video is still there.
const ANSWER_WAIT: Duration = Duration::from_millis(250);

/// What the service is given, once.
#[derive(Clone)]
pub struct Deps {
    pub catalog: Catalog,
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    pub ids: Ids,
    pub link_keys: LinkKeys,
    pub limits: Limits,
    pub views: Views,
    pub cache_tag_header: Option<CacheTagHeader>,
    /// The process is to end: uploads that can be gone on with break off, and keep what came.
    pub shutdown: CancellationToken,
}

/// Cheap to clone; every request clones some.
#[derive(Clone)]
pub struct StreamServer(Arc<Inner>);

/// What a [`StreamServer`] has.
pub struct Inner {
    pub(crate) catalog: Catalog,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    pub(crate) ids: Ids,
    pub(crate) link_keys: LinkKeys,
    pub(crate) limits: Limits,
    pub(crate) watch: Watch,
    pub(crate) objects: Objects,
    pub(crate) stream_url: Arc<str>,
    cache_tag_header: Option<CacheTagHeader>,
    /// Places for answers that stream, by address.
    pub(crate) streams: FairBucket<IpAddr>,
    /// Places for uploads, by author.
    pub(crate) uploads: FairBucket<UserId>,
    /// Resumable uploads that are being written to.
    pub(crate) holds: Holds,
    pub(crate) statistics: Statistics,
    /// What viewers are told apart with.
    pub(crate) viewers_key: hmac::Key,
    pub(crate) shutdown: CancellationToken,
    /// Work that must end although its request has: commits, and giving up what was begun.
    pub(crate) tasks: TaskTracker,
}

impl Deref for StreamServer {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl StreamServer {
    /// `stream_url` is where viewers reach it, for players that take no relative address.
    pub fn new(deps: Deps, stream_url: String) -> StreamServer {
        let Deps { catalog, store, clock, ids, link_keys, limits, views, cache_tag_header, shutdown } = deps;
        StreamServer(Arc::new(Inner {
            objects: Objects::new(store.clone(), limits.block_cache_bytes_max),
            watch: Watch::new(catalog.clone(), store.clone(), clock.clone()),
            streams: FairBucket::new("streams", limits.streams_max),
            uploads: FairBucket::new("uploads", limits.uploads_max),
            holds: Holds::default(),
            statistics: Statistics::new(views),
            viewers_key: link_keys.derive("viewers"),
            shutdown,
            tasks: TaskTracker::new(),
            stream_url: stream_url.into(),
            cache_tag_header,
            limits,
            catalog,
            store,
            clock,
            ids,
            link_keys,
        }))
    }

    pub(crate) fn cache_tag(&self, video: VideoId) -> CacheTag {
        CacheTag { header: self.cache_tag_header, video }
    }

    /// What is done without being asked, until the process is to end.
    pub async fn work(&self) {
        let counting = self.statistics.work(&self.catalog, &self.clock);
        let counting = self.shutdown.run_until_cancelled(counting);
        tokio::join!(self.look_for_left_open(), self.objects.close_old(&self.shutdown), counting);
    }

    /// What was watched until now is told to the database, and not at the next time.
    pub async fn tell_statistics(&self) {
        self.statistics.flush(&self.catalog, self.clock.now()).await;
    }

    /// To be awaited when no request is left: what requests have left behind comes to its end.
    pub async fn drain(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tell_statistics().await;
    }

    /// Breaks off a body that still flows when its video is deleted: a slow reader must not keep it alive.
    fn while_there(&self, video: VideoId, viewer: &Viewer, watching: Watching, body: Body) -> Body {
        let guarded = Guarded {
            body: body.into_data_stream(),
            video,
            viewer: viewer.clone(),
            watching,
            watch: self.watch.clone(),
            asking: None,
        };
        Body::from_stream(futures::stream::try_unfold(guarded, |mut guarded| async move {
            let block = guarded.next().await?;
            Ok::<_, axum::BoxError>(block.map(|block| (block, guarded)))
        }))
    }

    /// Answers with a layout; explains a missing object by the video's end where that is the reason.
    pub(crate) async fn answer_layout(
        &self,
        video: VideoId,
        viewer: &Viewer,
        asked: &Asked<'_>,
        description: &Description,
        files: &Files,
        layout: &impl Sliced,
    ) -> Result<Response, Problem> {
        let take_place = || self.streams.acquire(viewer.address());
        match answer::layout(asked, &self.objects, take_place, description, files, layout).await {
            Ok(response) if asked.method == Method::GET && response.status().is_success() => {
                let FirstByte(first) = response.extensions().get().copied().unwrap_or(FirstByte(0));
                let watching = viewer.watch(self, video, first, asked.headers);
                Ok(response.map(|body| self.while_there(video, viewer, watching, body)))
            }
            Ok(response) => Ok(response),
            Err(Refusal::Problem(problem)) => Err(problem),
            Err(Refusal::Store(error)) => {
                Err(self.watch.explain(video, viewer, Arc::new(error.into())).await)
            }
        }
    }
}

/// A body that flows while its video is there.
struct Guarded {
    body: BodyDataStream,
    video: VideoId,
    viewer: Viewer,
    watching: Watching,
    watch: Watch,
    /// A question that was not answered at once.
    asking: Option<JoinHandle<bool>>,
}

impl Guarded {
    async fn next(&mut self) -> Result<Option<Bytes>, axum::BoxError> {
        let Some(block) = self.body.next().await else { return Ok(None) };
        if self.is_gone().await {
            return Err(Gone.into());
        }
        let block = block?;
        self.watching.sent(block.len());
        Ok(Some(block))
    }

    /// Asks the short cache before each block. Where the database is slow to answer, the body flows on meanwhile.
    async fn is_gone(&mut self) -> bool {
        let (mut asking, patience) = match self.asking.take() {
            Some(asking) => (asking, Duration::ZERO),
            None => {
                if let Some(gone) = self.watch.is_known_gone(self.video, &self.viewer).await {
                    return gone;
                }
                let (watch, video, viewer) = (self.watch.clone(), self.video, self.viewer.clone());
                (tokio::spawn(async move { watch.is_gone(video, &viewer).await }), ANSWER_WAIT)
            }
        };
        match tokio::time::timeout(patience, &mut asking).await {
            Ok(answer) => answer.unwrap_or(false),
            Err(_) => {
                self.asking = Some(asking);
                false
            }
        }
    }
}

/// Why an answer that had begun was not finished.
#[derive(Debug, thiserror::Error)]
#[error("the video is gone")]
struct Gone;

/// The list of routes.
pub fn routes(server: StreamServer, tokens: Tokens) -> Routes {
    Routes::new(tokens.clone())
        .route(Policy::Anyone, routes!(progressive::progressive))
        .route(Policy::Upload, routes!(upload::upload))
        .merge(resumable::routes(tokens))
        .route(Policy::Anyone, routes!(publication::master))
        .route(Policy::Anyone, routes!(publication::manifest))
        .route(Policy::Anyone, routes!(cover::jpeg))
        .route(Policy::Anyone, routes!(cover::webp))
        .route(Policy::Anyone, routes!(storyboard::cues))
        .route(Policy::Anyone, routes!(storyboard::tiles))
        .route(Policy::Anyone, routes!(storyboard::pictures))
        .route(Policy::Anyone, routes!(storyboard::sprite))
        .route(Policy::Anyone, routes!(publication::file))
        .with_state(server)
}

//! The service: what it needs, its list of routes, and its life.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use chassis::{Caller, Clock, ConcurrencyBucket, Ids, Limits, Policy, Problem, Routes, Tokens};
use domain::{Layout, VideoId};
use futures::StreamExt;
use http::{Method, StatusCode};
use sql::Catalog;
use store::Store;
use tokio_util::task::TaskTracker;
use utoipa_axum::routes;

use crate::answer::{self, Asked, Description, Refusal};
use crate::layout_body::Files;
use crate::watch::Watch;
use crate::{cover, progressive, publication, upload};

/// What the service is given, once.
#[derive(Clone)]
pub struct Deps {
    pub catalog: Catalog,
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    pub ids: Ids,
    pub limits: Limits,
}

/// Cheap to clone; every handler gets one.
#[derive(Clone)]
pub struct StreamServer {
    pub(crate) catalog: Catalog,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    pub(crate) ids: Ids,
    pub(crate) limits: Arc<Limits>,
    pub(crate) watch: Watch,
    /// Places for answers that stream.
    pub(crate) streams: ConcurrencyBucket,
    /// Places for uploads.
    pub(crate) uploads: ConcurrencyBucket,
    /// Work that must end although its request has: commits, and giving up what was begun.
    pub(crate) tasks: TaskTracker,
}

impl StreamServer {
    pub fn new(deps: Deps) -> StreamServer {
        let Deps { catalog, store, clock, ids, limits } = deps;
        StreamServer {
            watch: Watch::new(catalog.clone(), store.clone(), clock.clone()),
            streams: ConcurrencyBucket::new("streams", limits.streams_max),
            uploads: ConcurrencyBucket::new("uploads", limits.uploads_max),
            tasks: TaskTracker::new(),
            limits: Arc::new(limits),
            catalog,
            store,
            clock,
            ids,
        }
    }

    /// To be awaited when no request is left: what requests have left behind comes to its end.
    pub async fn drain(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Breaks off a body that still flows when its video is deleted: a slow reader must not keep it alive. Asks
    /// the short cache before each block.
    fn while_there(&self, video: VideoId, caller: &Caller, body: Body) -> Body {
        let (watch, caller) = (self.watch.clone(), *caller);
        Body::from_stream(body.into_data_stream().then(move |block| {
            let watch = watch.clone();
            async move {
                match watch.watchable(video, &caller).await {
                    Err(problem) if problem.status() == StatusCode::NOT_FOUND => Err(Gone.into()),
                    _ => block.map_err(axum::BoxError::from),
                }
            }
        }))
    }

    /// Answers with a layout; explains a missing object by the video's end where that is the reason.
    pub(crate) async fn answer_layout(
        &self,
        video: VideoId,
        caller: &Caller,
        asked: &Asked<'_>,
        description: &Description,
        files: &Files,
        layout: &Layout,
    ) -> Result<Response, Problem> {
        let store = self.store.clone();
        match answer::layout(asked, store, &self.streams, description, files, layout).await {
            Ok(response) if asked.method == Method::GET && response.status().is_success() => {
                Ok(response.map(|body| self.while_there(video, caller, body)))
            }
            Ok(response) => Ok(response),
            Err(Refusal::Problem(problem)) => Err(problem),
            Err(Refusal::Store(error)) => {
                Err(self.watch.explain(video, caller, Arc::new(error.into())).await)
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
    Routes::new(tokens)
        .route(Policy::Anyone, routes!(progressive::progressive))
        .route(Policy::Upload, routes!(upload::whole))
        .route(Policy::Anyone, routes!(publication::master))
        .route(Policy::Anyone, routes!(cover::jpeg))
        .route(Policy::Anyone, routes!(cover::webp))
        .route(Policy::Anyone, routes!(publication::file))
        .with_state(server)
}

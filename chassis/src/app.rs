//! A service's routes with the edge around them: what [`crate::serve`] serves.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::Request;
use tower::ServiceExt;

use crate::edge::Edge;

/// Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    router: axum::Router,
    edge: Option<Edge>,
}

pub(crate) enum Answering {
    /// Somebody else's.
    AtOnce(http::Response<Bytes>),
    Made(BoxFuture<'static, Response>),
}

impl App {
    pub(crate) fn new(router: axum::Router, edge: Option<Edge>) -> App {
        App(Arc::new(Inner { router, edge }))
    }

    /// For nobody's eyes but the operator's: without the edge.
    pub(crate) fn bare(router: axum::Router) -> App {
        App::new(router, None)
    }

    /// `body` makes it ready to be read, if anybody is going to.
    pub(crate) fn answer<B>(
        &self,
        request: Request<B>,
        peer: Option<IpAddr>,
        body: impl FnOnce(B) -> Body,
    ) -> Answering {
        let app = self.clone();
        let Some(edge) = &self.0.edge else {
            let request = request.map(body);
            return Answering::Made(Box::pin(async move { route(&app.0.router, request).await }));
        };
        let seen = edge.meet(&request, peer);
        let key = edge.key(&request);
        if let Some(repeated) = key.as_ref().and_then(|key| edge.repeat(&seen, key)) {
            return Answering::AtOnce(repeated);
        }
        let (edge, request) = (edge.clone(), request.map(body));
        Answering::Made(Box::pin(async move { edge.attend(&app.0.router, request, seen, key).await }))
    }

    /// Without a network, as tests ask.
    pub async fn ask(&self, request: Request<Body>) -> Response {
        match self.answer(request, None, |body| body) {
            Answering::AtOnce(response) => response.map(Body::from),
            Answering::Made(making) => making.await,
        }
    }
}

pub(crate) async fn route(router: &axum::Router, request: Request<Body>) -> Response {
    router.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
}

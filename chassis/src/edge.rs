//! What every request of every service passes: id, address, limits, CORS, access log, metrics, panics.

use std::any::Any;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::FutureExt;
use http::header;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use metrics::Histogram;

use crate::app::{self, App};
use crate::extract::JsonBytesMax;
use crate::repeat::{self, Repeats};
use crate::{
    Caller, ClientAddress, Ids, Limits, Network, Problem, RateLimiter, RequestId, Settings, Shared,
    request_id, routes,
};

/// What the edge needs to know.
#[derive(Clone)]
pub struct EdgeConfig {
    pub limits: Limits,
    pub trusted_proxies: Vec<Network>,
    pub ids: Ids,
    /// Counts requests for all instances.
    pub shared: Option<Shared>,
}

impl EdgeConfig {
    pub fn new(settings: &Settings, ids: Ids) -> Self {
        let (limits, trusted_proxies) = (settings.limits.clone(), settings.trusted_proxies.clone());
        EdgeConfig { limits, trusted_proxies, ids, shared: None }
    }

    pub fn sharing(self, shared: &Option<Shared>) -> Self {
        EdgeConfig { shared: shared.clone(), ..self }
    }
}

/// The layers around a service's routes.
#[derive(Clone)]
pub struct Edge(Arc<Inner>);

struct Inner {
    config: EdgeConfig,
    clients: RateLimiter,
    users: RateLimiter,
    cors: Cors,
    repeats: Repeats,
}

impl Edge {
    pub fn new(config: EdgeConfig) -> Self {
        let limits = &config.limits;
        let clients = RateLimiter::per_second(
            "client",
            limits.requests_per_s_per_client,
            limits.requests_burst_per_client,
        )
        .sharing(&config.shared);
        let users =
            RateLimiter::per_second("user", limits.requests_per_s_per_user, limits.requests_burst_per_user)
                .sharing(&config.shared);
        Edge(Arc::new(Inner { config, clients, users, cors: Cors::new(), repeats: Repeats::new() }))
    }

    /// Around the merged routes of the process; whatever they do not answer is a problem from here.
    pub fn wrap(self, router: axum::Router) -> App {
        let router = router
            .fallback(routes::not_found)
            .method_not_allowed_fallback(routes::method_not_allowed)
            .layer(middleware::from_fn_with_state(self.clone(), guard));
        App::new(router, Some(self))
    }

    /// What a request brings and gets before anybody has read more of it than its head.
    pub(crate) fn meet<B>(&self, request: &Request<B>, peer: Option<IpAddr>) -> Seen {
        let config = &self.0.config;
        let trusted = &config.trusted_proxies;
        Seen {
            started: Instant::now(),
            id: RequestId::accept_or_make(request.headers(), &config.ids),
            method: request.method().clone(),
            uri: request.uri().clone(),
            client: peer.map(|peer| ClientAddress::determine(peer, request.headers(), trusted)),
        }
    }

    /// The same for requests that may get the same answer; `None`: nobody else's will do.
    pub(crate) fn key<B>(&self, request: &Request<B>) -> Option<String> {
        check_head(request, &self.0.config.limits).ok().and_then(|()| repeat::key(request))
    }

    /// The answer that somebody else just got, where this request may have it too.
    pub(crate) fn repeat(&self, seen: &Seen, key: &str) -> Option<http::Response<Bytes>> {
        let repeat = self.0.repeats.get(key, seen.started)?;
        let mut response = http::Response::new(repeat.body.clone());
        *response.headers_mut() = repeat.headers.clone();
        seen.answered(&mut response, &repeat.seconds);
        Some(response)
    }

    /// `key`: of those who may get the same answer.
    pub(crate) async fn attend(
        &self,
        router: &axum::Router,
        mut request: Request<Body>,
        seen: Seen,
        key: Option<String>,
    ) -> Response {
        let extensions = request.extensions_mut();
        extensions.insert(seen.id.clone());
        extensions.insert(JsonBytesMax(self.0.config.limits.json_bytes_max));
        if let Some(client) = seen.client {
            extensions.insert(client);
        }
        let large_body = has_large_body(request.headers());
        let mut response = seen.id.clone().scope(self.answer(router, request)).await;
        let route = response.extensions_mut().remove::<MatchedPath>();
        let refused = response.status().is_client_error() || response.status().is_server_error();
        if refused && large_body {
            // The rest of the body is not read, so the connection ends; a client that is not told would send its next
            // request into it.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let seconds = seconds(&seen.method, route.as_ref(), response.status());
        if let Some(key) = key {
            self.0.repeats.keep(key, &mut response, &seconds);
        }
        seen.answered(&mut response, &seconds);
        response
    }

    /// Players and pages of any origin: nothing here rests on cookies, so an origin gains nothing by asking. What a route
    /// itself has to say about OPTIONS stands beside it.
    async fn answer(&self, router: &axum::Router, request: Request<Body>) -> Response {
        let is_options = request.method() == Method::OPTIONS;
        let mut response = app::route(router, request).await;
        if is_options && !response.status().is_success() {
            let extensions = std::mem::take(response.extensions_mut());
            response = StatusCode::OK.into_response();
            *response.extensions_mut() = extensions;
        }
        let Cors { asked, answered } = &self.0.cors;
        let headers = response.headers_mut();
        for (name, value) in if is_options { &asked[..] } else { &answered[..] } {
            headers.insert(name, value.clone());
        }
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }

    /// Heads that are too large, clients and users that ask too often.
    async fn limited(&self, mut request: Request, next: Next) -> Response {
        if let Err(problem) = check_head(&request, &self.0.config.limits) {
            return problem.into_response();
        }
        if !is_metered(&request) {
            return next.run(request).await;
        }
        let limited = match request.extensions().get::<ClientAddress>().map(ClientAddress::limit_key) {
            Some(client) => self.0.clients.check(&client).await,
            None => Ok(HeaderMap::new()),
        };
        let headers = match limited {
            Ok(headers) => headers,
            Err(problem) => return problem.into_response(),
        };
        request.extensions_mut().insert(UserLimit(self.clone()));
        let mut response = next.run(request).await;
        for (name, value) in headers.iter() {
            // A refusal of the user's bucket says its own; both fields are lists and may stand beside each other.
            if response.status() != StatusCode::TOO_MANY_REQUESTS {
                response.headers_mut().append(name, value.clone());
            }
        }
        response
    }
}

/// Around each route: limits, panics, and the name of the route, for those who write down what was answered.
async fn guard(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let answering = AssertUnwindSafe(edge.limited(request, next)).catch_unwind();
    let mut response = answering.await.unwrap_or_else(panicked);
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

/// The limiter of users, for the policy that learns who the user is.
#[derive(Clone)]
pub(crate) struct UserLimit(Edge);

impl UserLimit {
    pub async fn check(&self, caller: &Caller) -> Result<HeaderMap, Problem> {
        match caller.user() {
            Some(user) => self.0.0.users.check(&user).await,
            None => Ok(HeaderMap::new()),
        }
    }
}

/// More than hyper reads away by itself once an answer was given.
fn has_large_body(headers: &HeaderMap) -> bool {
    const SMALL_BYTES: u64 = 8 * 1024;
    let declared =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    declared.map_or(headers.contains_key(header::TRANSFER_ENCODING), |bytes| bytes > SMALL_BYTES)
}

/// What the access log and the metrics say about a request. Never the query: it may hold a signature.
pub(crate) struct Seen {
    started: Instant,
    id: RequestId,
    method: Method,
    uri: Uri,
    client: Option<ClientAddress>,
}

impl Seen {
    fn answered<B>(&self, response: &mut http::Response<B>, seconds: &Histogram) {
        let id = HeaderValue::from_str(self.id.as_str());
        let id = id.expect("request ids are made of letters, digits and . _ -");
        response.headers_mut().insert(request_id::HEADER, id);
        let elapsed = self.started.elapsed();
        tracing::info!(
            request_id = self.id.as_str(),
            method = self.method.as_str(),
            path = self.uri.path(),
            status = response.status().as_u16(),
            duration_ms = elapsed.as_secs_f64() * 1000.0,
            client = self.client.map(|client| tracing::field::display(client.0)),
            "request"
        );
        seconds.record(elapsed.as_secs_f64());
    }
}

/// Where the time is noted that such answers take.
fn seconds(method: &Method, route: Option<&MatchedPath>, status: StatusCode) -> Histogram {
    let labels = [
        ("http_request_method", method_label(method).to_owned()),
        // One label for all strange paths: what clients invent must not become metrics.
        ("http_route", route.map_or("none", MatchedPath::as_str).to_owned()),
        ("http_response_status_code", status.as_str().to_owned()),
    ];
    metrics::histogram!("http_server_request_duration_seconds", &labels)
}

fn method_label(method: &Method) -> &str {
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    if known.contains(method) { method.as_str() } else { "_OTHER" }
}

/// Watching is bounded by places, not by rate: many viewers come through one proxy, and each asks for a segment every
/// few seconds. So are the pieces of an upload: the upload clients in use treat 429 as the end of it.
fn is_metered(request: &Request) -> bool {
    let (method, path) = (request.method(), request.uri().path());
    let streamed = matches!(*method, Method::GET | Method::HEAD) && path.starts_with("/stream/");
    // By POST too, for clients that know no other method.
    let uploaded = path.starts_with("/stream/uploads/");
    !(streamed || uploaded || *method == Method::OPTIONS)
}

fn check_head<B>(request: &http::Request<B>, limits: &Limits) -> Result<(), Problem> {
    let uri_bytes = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if uri_bytes > limits.uri_bytes_max {
        return Err(Problem::new(
            StatusCode::URI_TOO_LONG,
            "/problems/uri-too-long",
            "The address is too long",
            format!("An address may have at most {} bytes.", limits.uri_bytes_max),
        ));
    }
    let head_bytes: usize =
        request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if head_bytes + uri_bytes > limits.header_bytes_max {
        return Err(Problem::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "/problems/headers-too-large",
            "The request's head is too large",
            format!("All header fields together may have at most {} bytes.", limits.header_bytes_max),
        ));
    }
    Ok(())
}

fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    Problem::internal(format!("panic: {}", text.unwrap_or_default())).into_response()
}

/// The headers of a preflight, and those of all other answers.
struct Cors {
    asked: [(HeaderName, HeaderValue); 4],
    answered: [(HeaderName, HeaderValue); 2],
}

impl Cors {
    const MAX_AGE_S: u64 = 7200;

    fn new() -> Cors {
        let list = |names: &[&str]| HeaderValue::try_from(names.join(",")).expect("names are plain ASCII");
        let anyone = (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        let asked = [
            anyone.clone(),
            (header::ACCESS_CONTROL_ALLOW_METHODS, list(&METHODS)),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, list(&ALLOWED)),
            (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(Cors::MAX_AGE_S)),
        ];
        let answered = [anyone, (header::ACCESS_CONTROL_EXPOSE_HEADERS, list(&EXPOSED))];
        Cors { asked, answered }
    }
}

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

const ALLOWED: [&str; 23] = [
    "authorization",
    "content-digest",
    "content-type",
    "idempotency-key",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "last-event-id",
    "range",
    "repr-digest",
    "tus-resumable",
    "upload-checksum",
    "upload-complete",
    "upload-concat",
    "upload-defer-length",
    "upload-draft-interop-version",
    "upload-length",
    "upload-metadata",
    "upload-offset",
    "want-repr-digest",
    "x-http-method-override",
    "x-request-id",
];

const EXPOSED: [&str; 29] = [
    "accept-patch",
    "accept-ranges",
    "cache-status",
    "content-length",
    "content-range",
    "date",
    "etag",
    "location",
    "ratelimit",
    "ratelimit-policy",
    "repr-digest",
    "retry-after",
    "server-timing",
    "tus-checksum-algorithm",
    "tus-extension",
    "tus-max-size",
    "tus-resumable",
    "tus-version",
    "upload-complete",
    "upload-concat",
    "upload-defer-length",
    "upload-draft-interop-version",
    "upload-expires",
    "upload-length",
    "upload-limit",
    "upload-metadata",
    "upload-offset",
    "www-authenticate",
    "x-request-id",
];

//! What every request of every service passes: id, address, limits, CORS, access log, metrics, panics.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::header;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tower_http::catch_panic::CatchPanicLayer;

use crate::extract::JsonBytesMax;
use crate::serve::Peer;
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
        Edge(Arc::new(Inner { config, clients, users, cors: Cors::new() }))
    }

    /// Around the merged routes of the process; whatever they do not answer is a problem from here.
    pub fn wrap(self, router: axum::Router) -> axum::Router {
        router
            .fallback(routes::not_found)
            .method_not_allowed_fallback(routes::method_not_allowed)
            .layer(middleware::from_fn_with_state(self.clone(), limit))
            .layer(CatchPanicLayer::custom(panicked))
            .layer(middleware::from_fn_with_state(self.clone(), share))
            .layer(middleware::from_fn_with_state(self, attend))
    }
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

/// The outermost layer: gives the request its id and writes it down when it is answered.
async fn attend(State(edge): State<Edge>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let config = &edge.0.config;
    let id = RequestId::accept_or_make(request.headers(), &config.ids);
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    let client = peer.map(|peer| ClientAddress::determine(peer, request.headers(), &config.trusted_proxies));
    request.extensions_mut().insert(id.clone());
    request.extensions_mut().insert(JsonBytesMax(config.limits.json_bytes_max));
    if let Some(client) = client {
        request.extensions_mut().insert(client);
    }
    let seen = Seen::of(&request, client);
    let large_body = has_large_body(request.headers());
    let mut response = id.clone().scope(next.run(request)).await;
    let refused = response.status().is_client_error() || response.status().is_server_error();
    let headers = response.headers_mut();
    let value =
        HeaderValue::from_str(id.as_str()).expect("request ids are made of letters, digits and . _ -");
    headers.insert(request_id::HEADER, value);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if refused && large_body {
        // The rest of the body is not read, so the connection ends; a client that is not told would send its next
        // request into it.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    seen.answered(&id, response.status(), started);
    response
}

/// More than hyper reads away by itself once an answer was given.
fn has_large_body(headers: &HeaderMap) -> bool {
    const SMALL_BYTES: u64 = 8 * 1024;
    let declared =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    declared.map_or(headers.contains_key(header::TRANSFER_ENCODING), |bytes| bytes > SMALL_BYTES)
}

/// What the access log and the metrics say about a request. Never the query: it may hold a signature.
struct Seen {
    method: Method,
    route: String,
    path: String,
    client: Option<ClientAddress>,
}

impl Seen {
    fn of(request: &Request, client: Option<ClientAddress>) -> Seen {
        let route = request.extensions().get::<MatchedPath>();
        Seen {
            method: request.method().clone(),
            // One label for all strange paths: what clients invent must not become metrics.
            route: route.map_or("none", MatchedPath::as_str).to_owned(),
            path: request.uri().path().to_owned(),
            client,
        }
    }

    fn answered(self, id: &RequestId, status: StatusCode, started: Instant) {
        let elapsed = started.elapsed();
        tracing::info!(
            request_id = id.as_str(),
            method = %self.method,
            path = self.path,
            status = status.as_u16(),
            duration_ms = elapsed.as_secs_f64() * 1000.0,
            client = self.client.map(|client| client.0.to_string()),
            "request"
        );
        let labels = [
            ("http_request_method", method_label(&self.method).to_owned()),
            ("http_route", self.route),
            ("http_response_status_code", status.as_str().to_owned()),
        ];
        metrics::histogram!("http_server_request_duration_seconds", &labels).record(elapsed.as_secs_f64());
    }
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

/// Heads that are too large, clients that ask too often.
async fn limit(State(edge): State<Edge>, mut request: Request, next: Next) -> Response {
    if let Err(problem) = check_head(&request, &edge.0.config.limits) {
        return problem.into_response();
    }
    if !is_metered(&request) {
        return next.run(request).await;
    }
    let limited = match request.extensions().get::<ClientAddress>().map(ClientAddress::limit_key) {
        Some(client) => edge.0.clients.check(&client).await,
        None => Ok(HeaderMap::new()),
    };
    let headers = match limited {
        Ok(headers) => headers,
        Err(problem) => return problem.into_response(),
    };
    request.extensions_mut().insert(UserLimit(edge));
    let mut response = next.run(request).await;
    for (name, value) in headers.iter() {
        // A refusal of the user's bucket says its own; both fields are lists and may stand beside each other.
        if response.status() != StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().append(name, value.clone());
        }
    }
    response
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

fn check_head(request: &Request, limits: &Limits) -> Result<(), Problem> {
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

/// Players and pages of any origin: nothing here rests on cookies, so an origin gains nothing by asking. What a route
/// itself has to say about OPTIONS stands beside it.
async fn share(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    let is_options = request.method() == Method::OPTIONS;
    let mut response = next.run(request).await;
    if is_options && !response.status().is_success() {
        response = StatusCode::OK.into_response();
    }
    let Cors { asked, answered } = &edge.0.cors;
    for (name, value) in if is_options { &asked[..] } else { &answered[..] } {
        response.headers_mut().insert(name, value.clone());
    }
    response
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

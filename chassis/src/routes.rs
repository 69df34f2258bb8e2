//! The list of routes of a service. Every one has a policy.

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use http::header::CACHE_CONTROL;
use http::{HeaderName, HeaderValue};
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use crate::edge::UserLimit;
use crate::{Policy, Problem, ProblemBody, Tokens};

/// Routes with their policies, and the OpenAPI document that follows from them.
///
/// A route is only added together with its policy:
///
/// ```
/// # use chassis::{Policy, Routes, Tokens};
/// #[utoipa::path(get, path = "/hello", responses((status = 200)))]
/// async fn hello() {}
///
/// fn routes(tokens: Tokens) -> Routes {
///     Routes::new(tokens).route(Policy::Anyone, utoipa_axum::routes!(hello))
/// }
/// ```
///
/// Without one it does not compile:
///
/// ```compile_fail
/// # use chassis::{Policy, Routes, Tokens};
/// #[utoipa::path(get, path = "/hello", responses((status = 200)))]
/// async fn hello() {}
///
/// fn routes(tokens: Tokens) -> Routes {
///     Routes::new(tokens).route(utoipa_axum::routes!(hello))
/// }
/// ```
pub struct Routes<S = ()> {
    router: OpenApiRouter<S>,
    tokens: Tokens,
}

const SCHEME: &str = "token";
const PROBLEM: &str = "Problem";

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    pub fn new(tokens: Tokens) -> Self {
        Routes { router: OpenApiRouter::default(), tokens }
    }

    /// `methods` is `utoipa_axum::routes!(handler, …)`: handlers of one path and one policy.
    pub fn route(mut self, policy: Policy, (schemas, mut paths, methods): UtoipaMethodRouter<S>) -> Self {
        paths.paths.values_mut().flat_map(operations).for_each(|operation| document(policy, operation));
        let methods = self.guarded(policy, methods);
        self.router = self.router.routes((schemas, paths, methods));
        self
    }

    /// A route that the document does not show, as the web page's.
    pub fn unlisted(mut self, policy: Policy, path: &str, methods: MethodRouter<S>) -> Self {
        let methods = self.guarded(policy, methods);
        self.router = self.router.route(path, methods);
        self
    }

    /// A header of every answer of these routes, refusals included.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.router = self.router.layer(SetResponseHeaderLayer::overriding(name, value));
        self
    }

    pub fn merge(mut self, other: Routes<S>) -> Self {
        self.router = self.router.merge(other.router);
        self
    }

    pub fn with_state<S2: Clone + Send + Sync + 'static>(self, state: S) -> Routes<S2> {
        Routes { router: self.router.with_state(state), tokens: self.tokens }
    }

    fn guarded(&self, policy: Policy, methods: MethodRouter<S>) -> MethodRouter<S> {
        if policy == Policy::Public {
            return methods;
        }
        // `route_layer`: a method that the path does not take is 405 for everyone, not 401.
        methods.route_layer(middleware::from_fn_with_state((self.tokens.clone(), policy), admit))
    }
}

impl Routes {
    /// The router, to be wrapped by the edge, and the document.
    pub fn finish(self) -> (axum::Router, OpenApi) {
        let (router, mut document) = self.router.split_for_parts();
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        let components = document.components.get_or_insert_with(Components::new);
        components.add_security_scheme(SCHEME, SecurityScheme::Http(scheme));
        let mut problems = vec![(PROBLEM.to_owned(), ProblemBody::schema())];
        ProblemBody::schemas(&mut problems);
        components.schemas.extend(problems);
        (router, document)
    }
}

async fn admit(
    State((tokens, policy)): State<(Tokens, Policy)>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = match tokens.authenticate(request.headers(), policy).await {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    let limited = match request.extensions().get::<UserLimit>().cloned() {
        Some(limit) => limit.check(&caller).await,
        None => Ok(Default::default()),
    };
    let headers = match policy.admit(&caller).and(limited) {
        Ok(headers) => headers,
        Err(problem) => return problem.into_response(),
    };
    request.extensions_mut().insert(caller);
    let mut response = next.run(request).await;
    response.headers_mut().extend(headers);
    // Answers differ by caller: what is meant for caches says so itself.
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-store"));
    response
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, options, head, patch, .. } = item;
    [get, put, post, delete, options, head, patch].into_iter().flatten()
}

/// What follows from the policy: who may call, and the answers to those who may not.
fn document(policy: Policy, operation: &mut Operation) {
    let token = SecurityRequirement::new::<_, [&str; 0], &str>(SCHEME, []);
    operation.security = Some(match policy {
        Policy::Public => vec![SecurityRequirement::default()],
        Policy::Anyone => vec![SecurityRequirement::default(), token],
        Policy::SignedIn | Policy::Admin | Policy::Upload | Policy::BegunUpload => vec![token],
    });
    if policy == Policy::Public {
        return;
    }
    let mut refusals =
        vec![("401", "No token, or one that is not valid (any more)"), ("429", "Too many requests")];
    if policy == Policy::Admin {
        refusals.push(("403", "Only for admins"));
    }
    for (status, description) in refusals {
        let response = ResponseBuilder::new().description(description).build();
        operation.responses.responses.entry(status.to_owned()).or_insert_with(|| response.into());
    }
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && (status.starts_with('4') || status.starts_with('5'))
        {
            let schema = RefOr::Ref(Ref::from_schema_name(PROBLEM));
            let content = ContentBuilder::new().schema(Some(schema)).build();
            response.content.insert("application/problem+json".to_owned(), RefOr::T(content));
        }
    }
}

/// For the edge: what no route answers.
pub(crate) async fn not_found() -> Problem {
    Problem::not_found()
}

/// axum adds `Allow`.
pub(crate) async fn method_not_allowed() -> Problem {
    Problem::method_not_allowed()
}

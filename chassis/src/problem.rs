//! RFC 9457 problems: the one shape of every error that leaves a service.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use crate::RequestId;

pub type Source = Box<dyn Error + Send + Sync>;

/// An error on its way to a client. What the client may know is in the text; `source` is logged once, when the
/// response is made, and never sent.
pub struct Problem(Box<Inner>);

struct Inner {
    status: StatusCode,
    kind: Cow<'static, str>,
    title: Cow<'static, str>,
    detail: String,
    errors: Vec<FieldError>,
    members: Members,
    headers: HeaderMap,
    source: Option<Source>,
}

/// Extension members (RFC 9457 §3.2).
type Members = BTreeMap<&'static str, serde_json::Value>;

/// What is wrong with one field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    pub field: String,
    pub message: String,
}

/// The wire shape, `application/problem+json`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// Stable; switch on this.
    #[serde(rename = "type")]
    kind: &'a str,
    title: &'a str,
    status: u16,
    /// One sentence for a person, with the next step.
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    /// What else the type says of the problem.
    #[serde(flatten)]
    #[schema(ignore)]
    members: &'a Members,
}

impl Problem {
    /// `kind` is a path, e.g. `/problems/upload-too-large`, or the address of one that is registered elsewhere.
    pub fn new(
        status: StatusCode,
        kind: impl Into<Cow<'static, str>>,
        title: impl Into<Cow<'static, str>>,
        detail: impl Into<String>,
    ) -> Self {
        Problem(Box::new(Inner {
            status,
            kind: kind.into(),
            title: title.into(),
            detail: detail.into(),
            errors: Vec::new(),
            members: Members::new(),
            headers: HeaderMap::new(),
            source: None,
        }))
    }

    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    pub fn kind(&self) -> &str {
        &self.0.kind
    }

    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    pub fn errors(&self) -> &[FieldError] {
        &self.0.errors
    }

    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// A machine reads it; the detail says it to a person.
    pub fn with_member(mut self, name: &'static str, value: impl Into<serde_json::Value>) -> Self {
        self.0.members.insert(name, value.into());
        self
    }

    /// The same problem, for clients to whom another status means what we mean.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// The same answer under a more telling name.
    pub fn with_kind(mut self, kind: &'static str, title: &'static str) -> Self {
        self.0.kind = kind.into();
        self.0.title = title.into();
        self
    }

    /// Logged, never sent.
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub fn with_retry_after_s(self, retry_after_s: u64) -> Self {
        self.with_header(RETRY_AFTER, HeaderValue::from(retry_after_s.max(1)))
    }

    pub fn with_field(mut self, field: impl Into<String>, message: impl Into<String>) -> Self {
        self.0.errors.push(FieldError { field: field.into(), message: message.into() });
        self
    }
}

/// The problems that more than one service has.
impl Problem {
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "/problems/bad-request",
            "The request cannot be understood",
            detail,
        )
    }

    pub fn invalid_id() -> Self {
        let detail =
            "Ids are UUIDv7 in lower-case hyphenated form; copy the id from the answer that named it.";
        Problem::new(StatusCode::BAD_REQUEST, "/problems/invalid-id", "This is not an id", detail)
    }

    /// One bad field; more with [`Problem::with_field`].
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Problem::fields(vec![FieldError { field: field.into(), message: message.into() }])
    }

    /// `errors` is not empty.
    pub fn fields(errors: Vec<FieldError>) -> Self {
        let said: Vec<_> = errors.iter().map(|e| format!("`{}`: {}", e.field, e.message)).collect();
        let mut problem = Problem::new(
            StatusCode::BAD_REQUEST,
            "/problems/invalid-field",
            "A field has a value that is not allowed",
            format!("{}. Correct it and send the request again.", said.join("; ")),
        );
        problem.0.errors = errors;
        problem
    }

    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::UNAUTHORIZED, "/problems/unauthorized", "You are not logged in", detail)
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"sluice\""))
    }

    pub fn forbidden(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::FORBIDDEN, "/problems/forbidden", "You may not do this", detail)
    }

    pub fn quota_exceeded(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::FORBIDDEN, "/problems/quota-exceeded", "Your quota is used up", detail)
    }

    pub fn not_found() -> Self {
        let detail = "There is nothing here that you can see; check the address, or log in as its owner.";
        Problem::new(StatusCode::NOT_FOUND, "/problems/not-found", "Not found", detail)
    }

    pub fn method_not_allowed() -> Self {
        let detail = "This address exists but does not take this method; `Allow` lists those it takes.";
        Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "/problems/method-not-allowed",
            "Method not allowed",
            detail,
        )
    }

    pub fn conflict(kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::CONFLICT, kind, title, detail)
    }

    pub fn too_large(bytes_max: u64) -> Self {
        let detail = format!("The body may have at most {bytes_max} bytes; send a smaller one.");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "/problems/too-large", "The body is too large", detail)
    }

    /// `wanted` names the accepted types, e.g. `application/json`.
    pub fn unsupported_media_type(wanted: &str) -> Self {
        let detail = format!("Send the body as {wanted}, and say so in `Content-Type`.");
        Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "/problems/unsupported-media-type",
            "This type of body is not taken here",
            detail,
        )
    }

    pub fn length_required() -> Self {
        let detail = "Say in `Content-Length` how many bytes follow.";
        Problem::new(StatusCode::LENGTH_REQUIRED, "/problems/length-required", "Length required", detail)
    }

    pub fn request_timeout() -> Self {
        let detail =
            "The body arrived too slowly or stopped arriving; nothing of it was kept. Send it again.";
        Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "/problems/request-timeout",
            "The request took too long",
            detail,
        )
        .with_header(http::header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// 429; the limiter adds `RateLimit` and `RateLimit-Policy`.
    pub fn rate_limited(retry_after_s: u64) -> Self {
        let retry_after_s = retry_after_s.max(1);
        Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "/problems/rate-limited",
            "Too many requests",
            format!("Too many requests; try again in {retry_after_s} s."),
        )
        .with_retry_after_s(retry_after_s)
    }

    /// 503: every place is taken.
    pub fn overloaded(retry_after_s: u64) -> Self {
        let detail = "The server is busy; try again in a moment.";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "/problems/overloaded", "The server is busy", detail)
            .with_retry_after_s(retry_after_s)
    }

    /// 503: something that the service needs does not answer.
    pub fn unavailable(retry_after_s: u64) -> Self {
        let detail =
            "The service cannot reach what it needs right now; nothing was lost. Try again in a moment.";
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "/problems/unavailable",
            "Temporarily unavailable",
            detail,
        )
        .with_retry_after_s(retry_after_s)
    }

    /// 500: a fault of ours. `source` is logged, the client gets the request id to quote.
    pub fn internal(source: impl Into<Source>) -> Self {
        let detail = "Something went wrong here. If it repeats, tell the operator the request id.";
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Problem::new(status, "/problems/internal", "Something went wrong", detail).with_source(source)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Inner { status, kind, title, detail, errors, members, headers, source } = *self.0;
        let request_id = RequestId::current();
        let request_id = request_id.as_ref().map(RequestId::as_str);
        if let Some(source) = source {
            log(status, &kind, request_id, source.as_ref());
        }
        let status_code = status.as_u16();
        let body = ProblemBody {
            kind: &kind,
            title: &title,
            status: status_code,
            detail: &detail,
            request_id,
            errors: &errors,
            members: &members,
        };
        let json = serde_json::to_vec(&body).expect("strings and numbers always serialize");
        let mut response = (status, json).into_response();
        response.headers_mut().extend(headers);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.entry(http::header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        response
    }
}

/// With every cause: what a person needs who looks at the log and not at the code.
fn log(status: StatusCode, kind: &str, request_id: Option<&str>, source: &(dyn Error + 'static)) {
    let causes: Vec<_> =
        std::iter::successors(Some(source), |&e| e.source()).map(ToString::to_string).collect();
    let causes = causes.join(": ");
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(request_id, problem = kind, error = causes, "request failed");
    } else {
        tracing::warn!(
            request_id,
            problem = kind,
            status = status.as_u16(),
            error = causes,
            "request refused"
        );
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { status, kind, detail, source, .. } = &*self.0;
        write!(f, "Problem({status} {kind}: {detail}")?;
        source.as_ref().map_or(Ok(()), |source| write!(f, " because {source}"))?;
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(problem: Problem) -> serde_json::Value {
        let bytes = axum::body::to_bytes(problem.into_response().into_body(), 4096).await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[tokio::test]
    async fn a_problem_says_what_it_is_and_keeps_its_source() {
        let body = body(Problem::internal("SELECT secret FROM users")).await;
        assert_eq!(body["type"], "/problems/internal");
        assert_eq!(body["status"], 500);
        assert!(!body.to_string().contains("secret"));
    }

    #[tokio::test]
    async fn bad_fields_are_listed() {
        let body = body(Problem::field("title", "1 to 128 characters")).await;
        assert_eq!(body["errors"], serde_json::json!([{"field": "title", "message": "1 to 128 characters"}]));
    }

    #[tokio::test]
    async fn members_stand_beside_the_others() {
        let problem = Problem::conflict("/problems/x", "X", "x").with_member("expected-offset", 5);
        let problem = problem.with_status(StatusCode::SERVICE_UNAVAILABLE);
        let body = body(problem).await;
        assert_eq!((body["expected-offset"].as_u64(), body["status"].as_u64()), (Some(5), Some(503)));
        assert_eq!(body["title"], "X");
    }

    #[test]
    fn headers_are_carried() {
        let response = Problem::unavailable(3).into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "3");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert!(Problem::unauthorized("no").into_response().headers().contains_key(WWW_AUTHENTICATE));
    }
}

//! Extractors whose every rejection is a problem.

use std::str::FromStr;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Problem, body};

/// Bytes of a JSON body at most; the edge puts it there from the settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JsonBytesMax(pub u64);

const JSON_BYTES_MAX: JsonBytesMax = JsonBytesMax(64 * 1024);

/// A JSON body, in and out. Types that are read say `deny_unknown_fields`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::unsupported_media_type("`application/json`"));
        }
        let bytes_max = request.extensions().get().copied().unwrap_or(JSON_BYTES_MAX).0;
        let bytes = body::read(request.into_body(), bytes_max).await?;
        parse(&bytes).map(Json)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // serde would also read a struct from a list of its fields' values; nobody means that.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::bad_request("The body is not a JSON object."));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|e| bad_json(&e))?;
    json.end().map_err(|_| Problem::bad_request("There is more in the body than one JSON value."))?;
    Ok(value)
}

fn bad_json(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let inner = error.inner();
    if !inner.is_data() {
        return Problem::bad_request(format!("The body is not JSON: {inner}."));
    }
    // serde says `unknown field `x`, expected …` or `missing field `x``; the path names the field otherwise.
    let message = inner.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    let path = error.path().to_string();
    let quoted = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start));
    let leaf = quoted.and_then(|rest| rest.split('`').next());
    let field = match (path.as_str(), leaf) {
        (".", Some(leaf)) => leaf.to_owned(),
        (".", None) => {
            return Problem::bad_request(format!("The body is not what is expected here: {message}."));
        }
        // For an unknown field the path already ends with it.
        (path, Some(leaf)) if path != leaf && !path.ends_with(&format!(".{leaf}")) => {
            format!("{path}.{leaf}")
        }
        (path, _) => path.to_owned(),
    };
    Problem::field(field, message)
}

/// The placeholders of the route, in order: ids, strings, or a tuple of them. A malformed id is
/// `/problems/invalid-id`.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

/// One placeholder.
pub trait PathPart: Sized {
    fn parse(text: &str) -> Result<Self, Problem>;
}

/// All placeholders of a route.
pub trait PathParts: Sized {
    fn parse(texts: &[&str]) -> Option<Result<Self, Problem>>;
}

macro_rules! path_ids {
    ($($id:ty),+) => {$(
        impl PathPart for $id {
            fn parse(text: &str) -> Result<Self, Problem> {
                Self::from_str(text).map_err(|_| Problem::invalid_id())
            }
        }
    )+};
}

path_ids!(
    domain::UserId,
    domain::SessionId,
    domain::VideoId,
    domain::UploadId,
    domain::AttemptId,
    domain::JobId,
    domain::PublicationId,
    domain::DeletionId,
    domain::CommentId
);

impl PathPart for String {
    fn parse(text: &str) -> Result<Self, Problem> {
        Ok(text.to_owned())
    }
}

impl<A: PathPart> PathParts for A {
    fn parse(texts: &[&str]) -> Option<Result<Self, Problem>> {
        let [a] = texts else { return None };
        Some(A::parse(a))
    }
}

impl<A: PathPart, B: PathPart> PathParts for (A, B) {
    fn parse(texts: &[&str]) -> Option<Result<Self, Problem>> {
        let [a, b] = texts else { return None };
        Some(A::parse(a).and_then(|a| Ok((a, B::parse(b)?))))
    }
}

impl<A: PathPart, B: PathPart, C: PathPart> PathParts for (A, B, C) {
    fn parse(texts: &[&str]) -> Option<Result<Self, Problem>> {
        let [a, b, c] = texts else { return None };
        Some(A::parse(a).and_then(|a| Ok((a, B::parse(b)?, C::parse(c)?))))
    }
}

impl<T: PathParts, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params =
            RawPathParams::from_request_parts(parts, state).await.map_err(|rejection| match rejection {
                RawPathParamsRejection::InvalidUtf8InPathParam(_) => Problem::not_found(),
                other => Problem::internal(other),
            })?;
        let texts: Vec<_> = params.iter().map(|(_, text)| text).collect();
        let parsed = T::parse(&texts);
        parsed
            .unwrap_or_else(|| Err(Problem::internal("the route has another number of placeholders")))
            .map(Path)
    }
}

/// The query, by serde. Unknown names are let through: links carry the strangest things.
#[derive(Debug, Clone, Copy, Default)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        let bad = |rejection: axum::extract::rejection::QueryRejection| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "/problems/bad-request",
                "The query cannot be understood",
                format!("The part of the address after `?` cannot be understood: {}.", rejection.body_text()),
            )
        };
        query.map(|query| Query(query.0)).map_err(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Create {
        title: String,
        tags: Option<Vec<String>>,
    }

    fn fields(json: &str) -> Vec<String> {
        let problem = parse::<Create>(json.as_bytes()).unwrap_err();
        assert_eq!(problem.status(), 400, "{json}");
        problem.errors().iter().map(|e| e.field.clone()).collect()
    }

    #[test]
    fn the_bad_field_is_named() {
        assert_eq!(fields(r#"{"title":"a","nope":1}"#), ["nope"]);
        assert_eq!(fields(r#"{}"#), ["title"]);
        assert_eq!(fields(r#"{"title":7}"#), ["title"]);
        assert_eq!(fields(r#"{"title":"a","tags":["x",1]}"#), ["tags[1]"]);
        assert_eq!(fields(r#"{"title":"a","title":"b"}"#).len(), 1);
    }

    #[test]
    fn what_is_no_json_is_a_bad_request() {
        for bad in ["", "{", "{\"title\":\"a\"} x", "[1", "nul", "7", "[]"] {
            assert_eq!(fields(bad), [""; 0], "{bad}");
        }
    }

    #[test]
    fn json_types_are_recognised() {
        let of = |value: &str| is_json(&HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())]));
        assert!(of("application/json") && of("Application/JSON; charset=utf-8") && of("application/x+json"));
        assert!(!of("text/plain") && !of("text/json+x") && !is_json(&HeaderMap::new()));
    }

    #[test]
    fn paths_are_parsed_into_ids() {
        assert_eq!(
            <(domain::VideoId, String) as PathParts>::parse(&["nope", "x"]).unwrap().unwrap_err().kind(),
            "/problems/invalid-id"
        );
        assert!(<domain::VideoId as PathParts>::parse(&["a", "b"]).is_none());
    }
}

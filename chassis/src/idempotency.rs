//! The `Idempotency-Key` header: a client that hears nothing may ask again without fear.

use axum::extract::FromRequestParts;
use base64::prelude::{BASE64_STANDARD, Engine};
use http::StatusCode;
use http::request::Parts;
use ring::digest::{SHA256, digest};
use serde::Serialize;

use crate::Problem;

const HEADER: &str = "idempotency-key";
const CHARS_MAX: usize = 255;

/// How the client names what it wants once, if it does.
#[derive(Debug, Clone)]
pub struct IdempotencyKey(Option<Named>);

#[derive(Debug, Clone)]
struct Named {
    key: String,
    method_and_path: String,
}

impl IdempotencyKey {
    /// The key, and a digest of the whole request, whose body was read as `body`.
    pub fn of(self, body: &impl Serialize) -> Option<(String, String)> {
        let Named { key, method_and_path } = self.0?;
        let body = serde_json::to_string(body).expect("what was read from JSON can be written as JSON");
        let digest = digest(&SHA256, format!("{method_and_path}\n{body}").as_bytes());
        Some((key, BASE64_STANDARD.encode(digest)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(HEADER) else { return Ok(IdempotencyKey(None)) };
        // A quoted string, as the draft has it, or bare, as everybody sends it: they are different keys.
        let key = value.to_str().unwrap_or_default().trim();
        if key.is_empty() || key.len() > CHARS_MAX {
            return Err(Problem::bad_request(format!(
                "`Idempotency-Key` must have 1 to {CHARS_MAX} printable ASCII characters; a UUID is a good one."
            )));
        }
        let method_and_path = format!("{} {}", parts.method, parts.uri.path());
        Ok(IdempotencyKey(Some(Named { key: key.to_owned(), method_and_path })))
    }
}

impl Problem {
    /// 422: the key stands for another request.
    pub fn idempotency_key_reused() -> Problem {
        Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "/problems/idempotency-key-reused",
            "This key stands for another request",
            "The `Idempotency-Key` was sent before, with another address or body; take a new key for a new request.",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn key(path: &str, value: &str) -> Result<IdempotencyKey, Problem> {
        let request = http::Request::post(path).header(HEADER, value).body(()).unwrap();
        IdempotencyKey::from_request_parts(&mut request.into_parts().0, &()).await
    }

    #[tokio::test]
    async fn a_request_is_its_address_and_its_body() {
        let of = async |path: &str, body: &str| key(path, "k").await.unwrap().of(&body).unwrap();
        assert_eq!(of("/a", "x").await, of("/a", "x").await);
        assert_eq!(of("/a", "x").await.0, "k");
        assert_ne!(of("/a", "x").await.1, of("/a", "y").await.1);
        assert_ne!(of("/a", "x").await.1, of("/b", "x").await.1);
    }

    #[tokio::test]
    async fn keys_are_bounded() {
        assert_eq!(key("/a", "").await.unwrap_err().status(), 400);
        assert_eq!(key("/a", &"k".repeat(256)).await.unwrap_err().status(), 400);
        assert!(key("/a", &"k".repeat(255)).await.is_ok());
    }
}

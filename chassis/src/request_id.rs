//! One id for each request: taken from the client when it is harmless, else made; returned, logged, in every problem.

use std::sync::Arc;

use http::HeaderMap;

use crate::Ids;

pub(crate) const HEADER: http::HeaderName = http::HeaderName::from_static("x-request-id");
const CHARS_MAX: usize = 64;

tokio::task_local! {
    /// Set by the edge around each request, so that a problem made anywhere below carries the id.
    static CURRENT: RequestId;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Of the request this code runs for; `None` outside one.
    pub fn current() -> Option<RequestId> {
        CURRENT.try_with(RequestId::clone).ok()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn accept_or_make(headers: &HeaderMap, ids: &Ids) -> RequestId {
        let offered = headers.get(HEADER).and_then(|value| value.to_str().ok());
        let harmless = offered.filter(|text| is_harmless(text));
        let made = || format!("{:032x}", u128::from_be_bytes(ids.bytes()));
        RequestId(harmless.map_or_else(made, str::to_owned).into())
    }

    pub(crate) async fn scope<F: Future>(self, request: F) -> F::Output {
        CURRENT.scope(self, request).await
    }
}

fn is_harmless(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=CHARS_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_plain_ids_are_taken_over() {
        let ids = Ids::seeded(1);
        let given = |text: &str| {
            let headers = HeaderMap::from_iter([(HEADER, text.parse().unwrap())]);
            RequestId::accept_or_make(&headers, &ids).as_str() == text
        };
        assert!(given("abc.DEF_1-2") && given(&"a".repeat(64)));
        assert!(!given(&"a".repeat(65)) && !given("a b") && !given("a\"b") && !given(""));
        assert_eq!(RequestId::accept_or_make(&HeaderMap::new(), &ids).as_str().len(), 32);
    }
}

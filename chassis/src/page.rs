//! Lists: how far to go and where to go on.

use axum::extract::FromRequestParts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Problem, Query};

pub const LIMIT_DEFAULT: usize = 20;
pub const LIMIT_MAX: usize = 100;
const CURSOR_CHARS_MAX: usize = 512;
const TAG_BYTES: usize = 8;

/// One page of a list.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Give it back as `?cursor=` for the next page; `null`: this was the last one.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// `found` holds one more than `limit` where there is a next page: that is how we know.
    pub fn of<F, P: Serialize>(
        list: &'static str,
        mut found: Vec<F>,
        limit: usize,
        position: impl Fn(&F) -> P,
        view: impl FnMut(F) -> T,
    ) -> Page<T> {
        let more = found.len() > limit;
        found.truncate(limit);
        let next_cursor = found.last().filter(|_| more).map(|last| encode(list, &position(last)));
        Page { items: found.into_iter().map(view).collect(), next_cursor }
    }
}

/// `?limit=` and `?cursor=`; an extractor.
#[derive(Debug, Clone)]
pub struct PageQuery {
    /// 1 to 100.
    pub limit: usize,
    cursor: Option<String>,
}

/// For the OpenAPI document.
#[derive(serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// How many items at most, 1 to 100; 20 when left out.
    #[param(minimum = 1, maximum = 100, value_type = Option<u32>)]
    limit: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl PageQuery {
    /// Where the page before ended; `None` on the first page. A cursor that was not made for `list` is a 400.
    pub fn after<P: DeserializeOwned>(&self, list: &'static str) -> Result<Option<P>, Problem> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let position = decode(list, cursor);
        let forged = || Problem::field("cursor", "take `next_cursor` of the page before, unchanged");
        position.map(Some).ok_or_else(forged)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PageQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(PageParams { limit, cursor }) = Query::from_request_parts(parts, state).await?;
        let limit = limit.map_or(Some(LIMIT_DEFAULT), |text| text.parse().ok());
        let limit = limit.filter(|limit| (1..=LIMIT_MAX).contains(limit));
        let limit =
            limit.ok_or_else(|| Problem::field("limit", format!("a number from 1 to {LIMIT_MAX}")))?;
        Ok(PageQuery { limit, cursor })
    }
}

/// The position with a checksum over it and the list's name. The checksum keeps typing errors and cursors of other
/// lists out; it is no secret and need not be one: a cursor is a position and opens nothing.
fn encode(list: &'static str, position: &impl Serialize) -> String {
    let json = serde_json::to_vec(position).expect("positions are made of numbers and strings");
    let mut bytes = tag(list, &json).to_vec();
    bytes.extend(json);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode<P: DeserializeOwned>(list: &'static str, cursor: &str) -> Option<P> {
    if cursor.len() > CURSOR_CHARS_MAX {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (given, json) = bytes.split_at_checked(TAG_BYTES)?;
    (given == tag(list, json)).then(|| serde_json::from_slice(json).ok())?
}

fn tag(list: &str, json: &[u8]) -> [u8; TAG_BYTES] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(list.as_bytes());
    context.update(&[0]);
    context.update(json);
    let digest = context.finish();
    digest.as_ref()[..TAG_BYTES].try_into().expect("a SHA-256 digest is longer than the tag")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_on_and_a_forged_one_nowhere() {
        let cursor = encode("videos", &(7_i64, "id"));
        assert_eq!(decode("videos", &cursor), Some((7_i64, "id".to_owned())));
        assert_eq!(decode::<(i64, String)>("comments", &cursor), None);
        for position in 0..cursor.len() {
            let mut forged = cursor.clone().into_bytes();
            forged[position] = if forged[position] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            assert_eq!(decode::<(i64, String)>("videos", &forged), None, "{forged}");
        }
        assert_eq!(decode::<(i64, String)>("videos", &"A".repeat(1000)), None);
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        let page = |found: Vec<u32>| Page::of("n", found, 2, |n| *n, |n| n);
        assert_eq!(page(vec![1, 2]).next_cursor, None);
        let first = page(vec![1, 2, 3]);
        assert_eq!(first.items, [1, 2]);
        assert_eq!(decode("n", &first.next_cursor.unwrap()), Some(2_u32));
    }
}

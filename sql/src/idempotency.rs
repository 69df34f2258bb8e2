//! Requests with an `Idempotency-Key`: what was made for the first is what all others get.

use std::fmt::Display;
use std::str::FromStr;

use domain::{Timestamp, UserId};
use sqlx::AssertSqlSafe;

use crate::dialect::Lock;
use crate::row::{parsed, text};
use crate::tx::{Tx, commit};
use crate::{Catalog, SqlError};

/// How a client names what it wants once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    pub key: String,
    /// Stands for all that was asked.
    pub request: String,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq)]
pub enum CreateOnce<T> {
    /// Now, or before.
    Created(T),
    /// It, or what it should belong to.
    Gone,
    /// The key stands for another request.
    KeyReused,
}

impl<Id> CreateOnce<Id> {
    /// What has this id, where it is still there.
    pub(crate) async fn find<T>(
        self,
        find: impl AsyncFnOnce(Id) -> Result<Option<T>, SqlError>,
    ) -> Result<CreateOnce<T>, SqlError> {
        Ok(match self {
            CreateOnce::Created(id) => find(id).await?.map_or(CreateOnce::Gone, CreateOnce::Created),
            CreateOnce::Gone => CreateOnce::Gone,
            CreateOnce::KeyReused => CreateOnce::KeyReused,
        })
    }
}

impl Catalog {
    /// What was asked for under them may be asked for again. Returns how many.
    pub async fn forget_idempotency_keys(&self, made_before: Timestamp) -> Result<u64, SqlError> {
        commit!(self, async |tx| {
            let free = tx.lock(Lock::WriteFree);
            let removed = sqlx::query(AssertSqlSafe(format!(
                "-- idempotency_keys.forget
                 WITH old AS MATERIALIZED (
                   SELECT user_id, key FROM idempotency_keys WHERE created_at < $1 {free})
                 DELETE FROM idempotency_keys WHERE (user_id, key) IN (SELECT user_id, key FROM old)"
            )))
            .bind(made_before.unix_ms())
            .execute(&mut **tx)
            .await?;
            Ok(removed.rows_affected())
        })
    }
}

/// The id of what this request makes: `made`, which is now to be made, or what it made before.
/// Of several at once the others wait here for the first one's end. The user is held.
pub(crate) async fn claim<T: Display + FromStr>(
    tx: &mut Tx,
    user: UserId,
    once: &Once,
    made: T,
    now: Timestamp,
) -> Result<CreateOnce<T>, SqlError> {
    let claimed = sqlx::query(
        "-- idempotency_keys.claim
         INSERT INTO idempotency_keys (user_id, key, request, made_id, created_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (user_id, key) DO NOTHING",
    )
    .bind(user.to_string())
    .bind(&*once.key)
    .bind(&*once.request)
    .bind(made.to_string())
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    if claimed.rows_affected() > 0 {
        return Ok(CreateOnce::Created(made));
    }
    let row = sqlx::query(
        "-- idempotency_keys.find\nSELECT request, made_id FROM idempotency_keys WHERE user_id = $1 AND key = $2",
    )
    .bind(user.to_string())
    .bind(&*once.key)
    .fetch_one(&mut **tx)
    .await?;
    let same = text(&row, "request")? == once.request;
    if same { parsed(&row, "made_id").map(CreateOnce::Created) } else { Ok(CreateOnce::KeyReused) }
}

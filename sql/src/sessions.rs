//! Sessions: a token is alive as long as its row says so.

use domain::{SessionId, Timestamp, UserId};
use sqlx::AssertSqlSafe;

use crate::dialect::Lock;
use crate::tx::{Tx, commit};
use crate::users::hold_user;
use crate::{Catalog, SqlError};

#[derive(Debug, Clone, Copy)]
pub struct NewSession {
    pub id: SessionId,
    pub user: UserId,
    pub expires_at: Timestamp,
}

impl Catalog {
    /// `false`: the user is gone.
    pub async fn create_session(&self, new: &NewSession, now: Timestamp) -> Result<bool, SqlError> {
        commit!(self, async |tx| {
            if !hold_user(tx, new.user, Lock::Keep).await? {
                return Ok(false);
            }
            sqlx::query(
                "-- sessions.create
                 INSERT INTO sessions (id, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (id) DO NOTHING",
            )
            .bind(new.id.to_string())
            .bind(new.user.to_string())
            .bind(now.unix_ms())
            .bind(new.expires_at.unix_ms())
            .execute(&mut **tx)
            .await?;
            Ok(true)
        })
    }

    pub async fn session_alive(&self, id: SessionId, now: Timestamp) -> Result<bool, SqlError> {
        let row = sqlx::query(
            "-- sessions.alive
             SELECT 1 AS found FROM sessions WHERE id = $1 AND revoked_at IS NULL AND expires_at > $2",
        )
        .bind(id.to_string())
        .bind(now.unix_ms())
        .fetch_optional(&self.readers)
        .await?;
        Ok(row.is_some())
    }

    /// `false`: it was not alive.
    pub async fn revoke_session(&self, id: SessionId, now: Timestamp) -> Result<bool, SqlError> {
        let revoked = sqlx::query(
            "-- sessions.revoke
             UPDATE sessions SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL AND expires_at > $2",
        )
        .bind(id.to_string())
        .bind(now.unix_ms())
        .execute(&self.writer)
        .await?;
        Ok(revoked.rows_affected() > 0)
    }

    /// Removes rows that can never be alive again. Returns how many.
    pub async fn forget_expired_sessions(&self, now: Timestamp) -> Result<u64, SqlError> {
        commit!(self, async |tx| {
            let free = tx.lock(Lock::WriteFree);
            let removed = sqlx::query(AssertSqlSafe(format!(
                "-- sessions.forget_expired
                 WITH expired AS MATERIALIZED (SELECT id FROM sessions WHERE expires_at <= $1 {free})
                 DELETE FROM sessions WHERE id IN (SELECT id FROM expired)"
            )))
            .bind(now.unix_ms())
            .execute(&mut **tx)
            .await?;
            Ok(removed.rows_affected())
        })
    }
}

/// Ends every session of the user but one.
pub(crate) async fn revoke_others(
    tx: &mut Tx,
    user: UserId,
    except: Option<SessionId>,
    now: Timestamp,
) -> Result<(), SqlError> {
    sqlx::query(
        "-- sessions.revoke_others
         UPDATE sessions SET revoked_at = $3 WHERE user_id = $1 AND id <> $2 AND revoked_at IS NULL",
    )
    .bind(user.to_string())
    // No id is empty.
    .bind(except.map(|id| id.to_string()).unwrap_or_default())
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

//! Who may write to a resumable upload. At most one does: whoever holds the row under its newest token. Another one asks,
//! is heard, and waits; a holder that does not hear is dead, and the upload is taken from it.

use std::collections::HashMap;
use std::str::FromStr;

use domain::{Timestamp, UploadId, UploadKind, UploadState};
use sqlx::AssertSqlSafe;

use crate::dialect::Lock;
use crate::resumable::find;
use crate::resumable_pieces::pieces;
use crate::row::{int, parsed, placeholders};
use crate::tx::{Tx, commit};
use crate::{Catalog, Resumable, SqlError, UploadPiece};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquire {
    /// Under the token that it has now, with what was written before.
    Held(Resumable, Vec<UploadPiece>),
    /// Its holder was asked to let go. A final one is let go by nobody.
    Busy {
        /// How often the holder has shown that it lives and is about to. Of one that has died it does not rise any more.
        signs: i64,
    },
    /// No such upload, or its video is gone.
    NotFound,
    Ended(UploadState),
}

/// The stored words of `uploads.hold`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    Free,
    Held,
    /// Somebody else wants it.
    Asked,
    /// Its holder knows.
    Heard,
}

impl Hold {
    pub fn as_str(self) -> &'static str {
        match self {
            Hold::Free => "free",
            Hold::Held => "held",
            Hold::Asked => "asked",
            Hold::Heard => "heard",
        }
    }
}

impl FromStr for Hold {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        [Hold::Free, Hold::Held, Hold::Asked, Hold::Heard]
            .into_iter()
            .find(|hold| hold.as_str() == word)
            .ok_or(())
    }
}

impl Catalog {
    /// Takes hold of an upload that is free. Of one that is held this asks for its release; `force` takes it from its
    /// holder, whose commits are refused from then on.
    pub async fn acquire_resumable(
        &self,
        id: UploadId,
        force: bool,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Acquire, SqlError> {
        commit!(self, async |tx| {
            let Some((hold, signs)) = lock(tx, id).await? else { return Ok(Acquire::NotFound) };
            let Some(found) = find(&mut **tx, id, now).await? else { return Ok(Acquire::NotFound) };
            if found.state != UploadState::Open {
                return Ok(Acquire::Ended(found.state));
            }
            if found.kind == UploadKind::Final {
                return Ok(Acquire::Busy { signs });
            }
            if hold != Hold::Free && !force {
                ask(tx, id).await?;
                return Ok(Acquire::Busy { signs });
            }
            take(tx, id, expires_at, now).await?;
            let taken = find(&mut **tx, id, now).await?;
            let Some(taken) = taken else { return Ok(Acquire::NotFound) };
            Ok(Acquire::Held(taken, pieces(tx, id).await?))
        })
    }

    /// The holder lets go. Nothing is being written any more: what it began and did not commit is swept, and a purge
    /// need not wait for it. A stale token takes nothing from whoever holds it now.
    pub async fn release_resumable(&self, id: UploadId, token: i64, now: Timestamp) -> Result<(), SqlError> {
        commit!(self, async |tx| {
            if lock(tx, id).await?.is_none() {
                return Ok(());
            }
            sqlx::query("-- uploads.release\nUPDATE uploads SET hold = 'free' WHERE id = $1 AND token = $2")
                .bind(id.to_string())
                .bind(token)
                .execute(&mut **tx)
                .await?;
            sqlx::query(
                "-- attempts.abandon_pieces
                 UPDATE attempts SET state = 'lost', ended_at = coalesce(ended_at, $3), lease_until = $3
                 WHERE upload_id = $1 AND token = $2 AND state IN ('open', 'lost')",
            )
            .bind(id.to_string())
            .bind(token)
            .bind(now.unix_ms())
            .execute(&mut **tx)
            .await?;
            Ok(())
        })
    }

    /// Which of those that are held here, each under its token, are to be let go: somebody asks, they were taken, or they
    /// ended.
    pub async fn releases_asked(&self, held: &[(UploadId, i64)]) -> Result<Vec<(UploadId, i64)>, SqlError> {
        let mut wanted = Vec::new();
        for held in held.chunks(HELD_AT_ONCE) {
            let holds = self.holds(held).await?;
            wanted.extend(held.iter().filter(|(id, token)| holds.get(id) != Some(&(*token, Hold::Held))));
        }
        Ok(wanted)
    }

    /// Shows whoever asks that the holder lives: to be said again and again until they are let go. What others have
    /// locked is passed over, so that it keeps nobody waiting for a sign of the rest.
    pub async fn hear_releases(&self, asked: &[(UploadId, i64)]) -> Result<(), SqlError> {
        for asked in asked.chunks(HELD_AT_ONCE) {
            commit!(self, async |tx| {
                let pairs: Vec<_> =
                    (0..asked.len()).map(|n| format!("(${}, ${})", 2 * n + 1, 2 * n + 2)).collect();
                let statement = AssertSqlSafe(format!(
                    "-- uploads.hear
                     WITH ours AS MATERIALIZED (
                       SELECT id FROM uploads
                       WHERE hold IN ('asked', 'heard') AND (id, token) IN (VALUES {}) {})
                     UPDATE uploads SET hold = 'heard', signs = signs + 1 WHERE id IN (SELECT id FROM ours)",
                    pairs.join(", "),
                    tx.lock(Lock::WriteFree)
                ));
                let query = asked.iter().fold(sqlx::query(statement), |query, (id, token)| {
                    query.bind(id.to_string()).bind(*token)
                });
                query.execute(&mut **tx).await?;
                Ok::<_, SqlError>(())
            })?;
        }
        Ok(())
    }

    async fn holds(&self, held: &[(UploadId, i64)]) -> Result<HashMap<UploadId, (i64, Hold)>, SqlError> {
        let statement = AssertSqlSafe(format!(
            "-- uploads.holds\nSELECT id, token, hold FROM uploads WHERE id IN ({})",
            placeholders(1, held.len())
        ));
        let query = held.iter().fold(sqlx::query(statement), |query, (id, _)| query.bind(id.to_string()));
        let rows = query.fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok((parsed(row, "id")?, (int(row, "token")?, parsed(row, "hold")?)))).collect()
    }
}

/// Few enough for one statement.
const HELD_AT_ONCE: usize = 400;

/// Takes hold of the row, which the pieces hang on. `None`: there is no such upload.
pub(crate) async fn lock(tx: &mut Tx, id: UploadId) -> Result<Option<(Hold, i64)>, SqlError> {
    let select = tx.locking("-- uploads.lock\nSELECT hold, signs FROM uploads WHERE id = $1", Lock::Write);
    let row = sqlx::query(select).bind(id.to_string()).fetch_optional(&mut **tx).await?;
    row.map(|row| Ok((parsed(&row, "hold")?, int(&row, "signs")?))).transpose()
}

async fn ask(tx: &mut Tx, id: UploadId) -> Result<(), SqlError> {
    sqlx::query("-- uploads.ask\nUPDATE uploads SET hold = 'asked' WHERE id = $1 AND hold = 'held'")
        .bind(id.to_string())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn take(tx: &mut Tx, id: UploadId, expires_at: Timestamp, now: Timestamp) -> Result<(), SqlError> {
    sqlx::query(
        "-- uploads.take
         UPDATE uploads SET hold = 'held', signs = 0, token = token + 1,
           expires_at = CASE WHEN expires_at < $2 THEN $2 ELSE expires_at END
         WHERE id = $1",
    )
    .bind(id.to_string())
    .bind(expires_at.unix_ms())
    .execute(&mut **tx)
    .await?;
    // What a holder before us has open it can no longer commit.
    sqlx::query(
        "-- attempts.lose_pieces
         UPDATE attempts SET state = 'lost', ended_at = $2 WHERE upload_id = $1 AND state = 'open'",
    )
    .bind(id.to_string())
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

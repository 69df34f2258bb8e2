//! People.

use std::sync::{Mutex, PoisonError};

use domain::{IdParts, Role, SessionId, Timestamp, UserId, Username, VideoId};
use sqlx::any::AnyRow;

use crate::deletions::NewDeletion;
use crate::dialect::Lock;
use crate::error::is_unique_violation;
use crate::row::{instant, parsed, storable, text, text_opt};
use crate::tx::{Tx, commit};
use crate::{Catalog, SqlError, sessions};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub username: Username,
    pub email: Option<String>,
    pub role: Role,
    pub display_name: String,
    pub bio: String,
    pub phone: Option<String>,
    /// As it was written: `YYYY-MM-DD`.
    pub date_of_birth: Option<String>,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone)]
pub struct NewUser {
    pub id: UserId,
    pub username: Username,
    /// Case-folded.
    pub email: Option<String>,
    pub password_hash: String,
    pub role: Role,
    pub display_name: String,
}

/// `None` leaves a field; `Some(None)` empties it.
#[derive(Debug, Clone, Default)]
pub struct UserPatch {
    pub display_name: Option<String>,
    pub bio: Option<String>,
    pub email: Option<Option<String>>,
    pub phone: Option<Option<String>>,
    pub date_of_birth: Option<Option<String>>,
    pub password_hash: Option<String>,
    /// With a new password all sessions end but this one: whoever knew the old password is out.
    pub session_kept: Option<SessionId>,
}

/// What a login is checked against.
#[derive(Clone)]
pub struct Credentials {
    pub user: User,
    pub password_hash: String,
}

#[derive(Debug)]
pub enum CreateUser {
    Created(User),
    UsernameTaken,
    EmailTaken,
}

#[derive(Debug)]
pub enum UpdateUser {
    Updated(User),
    EmailTaken,
    NotFound,
}

impl Catalog {
    pub async fn create_user(&self, new: &NewUser, now: Timestamp) -> Result<CreateUser, SqlError> {
        commit!(self, async |tx| {
            if let Some(user) = insert(tx, new, now).await? {
                return Ok(CreateUser::Created(user));
            }
            match user_named(tx, &new.username).await? {
                // Made when this was asked for before.
                Some(user) if user.id == new.id => Ok(CreateUser::Created(user)),
                Some(_) => Ok(CreateUser::UsernameTaken),
                None => Ok(CreateUser::EmailTaken),
            }
        })
    }

    pub async fn user(&self, id: UserId) -> Result<Option<User>, SqlError> {
        let row = sqlx::query(
            "-- users.one
             SELECT id, username, email, role, display_name, bio, phone, date_of_birth, created_at
             FROM users WHERE id = $1",
        )
        .bind(id.to_string())
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(user).transpose()
    }

    /// By user name or e-mail address, both case-folded.
    pub async fn credentials(&self, login: &str) -> Result<Option<Credentials>, SqlError> {
        let row = sqlx::query(
            "-- users.credentials
             SELECT id, username, email, role, display_name, bio, phone, date_of_birth, created_at, password_hash
             FROM users WHERE username = $1 OR email = $1
             ORDER BY CASE WHEN username = $1 THEN 0 ELSE 1 END LIMIT 1",
        )
        .bind(storable(login))
        .fetch_optional(&self.readers)
        .await?;
        row.map(|row| Ok(Credentials { user: user(&row)?, password_hash: text(&row, "password_hash")? }))
            .transpose()
    }

    pub async fn update_user(
        &self,
        id: UserId,
        patch: &UserPatch,
        now: Timestamp,
    ) -> Result<UpdateUser, SqlError> {
        let updated = commit!(self, async |tx| {
            let Some(user) = update(tx, id, patch, now).await? else { return Ok(UpdateUser::NotFound) };
            if patch.password_hash.is_some() {
                sessions::revoke_others(tx, id, patch.session_kept, now).await?;
            }
            Ok(UpdateUser::Updated(user))
        });
        match updated {
            // Nothing else in this row is unique.
            Err(SqlError::Refused(error)) if is_unique_violation(&error) => Ok(UpdateUser::EmailTaken),
            updated => updated,
        }
    }

    /// Removes the account: sessions end, comments go, videos go through deletion. `false`: there was none.
    /// `next_id` gives time and randomness for the ids of the deletions and their jobs.
    pub async fn delete_user(
        &self,
        id: UserId,
        next_id: impl FnMut() -> IdParts + Send,
        now: Timestamp,
    ) -> Result<bool, SqlError> {
        let next_id = &Mutex::new(next_id);
        let deleted = commit!(self, async |tx| {
            if !hold_user(tx, id, Lock::Write).await? {
                return Ok(false);
            }
            hold_videos_around(tx, id).await?;
            for video in videos_of(tx, id, now).await? {
                let next_id = || next_id.lock().unwrap_or_else(PoisonError::into_inner)();
                let deletion = NewDeletion {
                    video,
                    requested_by: id.to_string(),
                    due_at: now,
                    id: next_id().into(),
                    job: next_id().into(),
                };
                crate::deletions::delete_video(tx, &deletion, now).await?;
            }
            crate::comments::delete_all_of(tx, id).await?;
            sqlx::query("-- users.delete\nDELETE FROM users WHERE id = $1")
                .bind(id.to_string())
                .execute(&mut **tx)
                .await?;
            Ok(true)
        });
        self.deletions_bell().notify_waiters();
        deleted
    }

    pub async fn admin_exists(&self) -> Result<bool, SqlError> {
        let row =
            sqlx::query("-- users.admin_exists\nSELECT 1 AS found FROM users WHERE role = 'admin' LIMIT 1")
                .fetch_optional(&self.readers)
                .await?;
        Ok(row.is_some())
    }

    /// Makes `username` an admin with this password, whether there is such a user or not. Returns its id.
    pub async fn upsert_admin(
        &self,
        id: UserId,
        username: &Username,
        password_hash: &str,
        now: Timestamp,
    ) -> Result<UserId, SqlError> {
        let row = sqlx::query(
            "-- users.upsert_admin
             INSERT INTO users (id, username, password_hash, role, display_name, bio, created_at, updated_at)
             VALUES ($1, $2, $3, 'admin', $2, '', $4, $4)
             ON CONFLICT (username) DO UPDATE
               SET password_hash = excluded.password_hash, role = 'admin', updated_at = excluded.updated_at
             RETURNING id",
        )
        .bind(id.to_string())
        .bind(username.as_str())
        .bind(password_hash)
        .bind(now.unix_ms())
        .fetch_one(&self.writer)
        .await?;
        parsed(&row, "id")
    }

    /// For the one-time link. `false`: there is an admin already, or the name is taken.
    pub async fn create_first_admin(&self, new: &NewUser, now: Timestamp) -> Result<bool, SqlError> {
        let admin = &NewUser { role: Role::Admin, ..new.clone() };
        commit!(self, async |tx| {
            // Who is the first is decided among all rows, also those that somebody else is about to insert.
            tx.lock_users().await?;
            let row = sqlx::query("-- users.first_admin\nSELECT id FROM users WHERE role = 'admin' LIMIT 1")
                .fetch_optional(&mut **tx)
                .await?;
            match row {
                // Made when this was asked for before.
                Some(row) => Ok(parsed::<UserId>(&row, "id")? == new.id),
                None => Ok(insert(tx, admin, now).await?.is_some()),
            }
        })
    }
}

/// Takes hold of a user's row. `false`: there is no such user.
pub(crate) async fn hold_user(tx: &mut Tx, id: UserId, lock: Lock) -> Result<bool, SqlError> {
    let select = tx.locking("-- users.hold\nSELECT 1 AS found FROM users WHERE id = $1", lock);
    Ok(sqlx::query(select).bind(id.to_string()).fetch_optional(&mut **tx).await?.is_some())
}

/// `None`: the name or the address is taken.
async fn insert(tx: &mut Tx, new: &NewUser, now: Timestamp) -> Result<Option<User>, SqlError> {
    let row = sqlx::query(
        "-- users.create
         INSERT INTO users (id, username, email, password_hash, role, display_name, bio, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, '', $7, $7)
         ON CONFLICT DO NOTHING
         RETURNING id, username, email, role, display_name, bio, phone, date_of_birth, created_at",
    )
    .bind(new.id.to_string())
    .bind(new.username.as_str())
    .bind(new.email.clone())
    .bind(&*new.password_hash)
    .bind(new.role.as_str())
    .bind(&*new.display_name)
    .bind(now.unix_ms())
    .fetch_optional(&mut **tx)
    .await?;
    row.as_ref().map(user).transpose()
}

async fn user_named(tx: &mut Tx, username: &Username) -> Result<Option<User>, SqlError> {
    let row = sqlx::query(
        "-- users.named
         SELECT id, username, email, role, display_name, bio, phone, date_of_birth, created_at
         FROM users WHERE username = $1",
    )
    .bind(username.as_str())
    .fetch_optional(&mut **tx)
    .await?;
    row.as_ref().map(user).transpose()
}

async fn update(
    tx: &mut Tx,
    id: UserId,
    patch: &UserPatch,
    now: Timestamp,
) -> Result<Option<User>, SqlError> {
    let row = sqlx::query(
        "-- users.update
         UPDATE users SET
           display_name = coalesce($2, display_name),
           bio = coalesce($3, bio),
           email = CASE WHEN $4 = 1 THEN $5 ELSE email END,
           phone = CASE WHEN $6 = 1 THEN $7 ELSE phone END,
           date_of_birth = CASE WHEN $8 = 1 THEN $9 ELSE date_of_birth END,
           password_hash = coalesce($10, password_hash),
           updated_at = $11
         WHERE id = $1
         RETURNING id, username, email, role, display_name, bio, phone, date_of_birth, created_at",
    )
    .bind(id.to_string())
    .bind(patch.display_name.clone())
    .bind(patch.bio.clone())
    .bind(i64::from(patch.email.is_some()))
    .bind(patch.email.clone().flatten())
    .bind(i64::from(patch.phone.is_some()))
    .bind(patch.phone.clone().flatten())
    .bind(i64::from(patch.date_of_birth.is_some()))
    .bind(patch.date_of_birth.clone().flatten())
    .bind(patch.password_hash.clone())
    .bind(now.unix_ms())
    .fetch_optional(&mut **tx)
    .await?;
    row.as_ref().map(user).transpose()
}

/// Every video that is the user's or has a comment of the user's, by id: nobody who holds some of them waits
/// for one that comes before.
async fn hold_videos_around(tx: &mut Tx, user: UserId) -> Result<(), SqlError> {
    let select = tx.locking(
        "-- users.hold_videos
         SELECT id FROM videos WHERE id IN (
           SELECT id FROM videos WHERE author_id = $1 UNION SELECT video_id FROM comments WHERE author_id = $1)
         ORDER BY id",
        Lock::Write,
    );
    sqlx::query(select).bind(user.to_string()).fetch_all(&mut **tx).await?;
    Ok(())
}

async fn videos_of(tx: &mut Tx, author: UserId, now: Timestamp) -> Result<Vec<VideoId>, SqlError> {
    let rows = sqlx::query(
        "-- users.videos
         SELECT id FROM videos WHERE author_id = $1 AND (gone_at IS NULL OR gone_at > $2)",
    )
    .bind(author.to_string())
    .bind(now.unix_ms())
    .fetch_all(&mut **tx)
    .await?;
    rows.iter().map(|row| parsed(row, "id")).collect()
}

fn user(row: &AnyRow) -> Result<User, SqlError> {
    Ok(User {
        id: parsed(row, "id")?,
        username: parsed(row, "username")?,
        email: text_opt(row, "email")?,
        role: parsed(row, "role")?,
        display_name: text(row, "display_name")?,
        bio: text(row, "bio")?,
        phone: text_opt(row, "phone")?,
        date_of_birth: text_opt(row, "date_of_birth")?,
        created_at: instant(row, "created_at")?,
    })
}

//! What users may have, what they have, and what uploads that have begun were promised of the store.

use domain::{Quota, Timestamp, UserId, VideoId};
use sqlx::any::AnyRow;
use sqlx::{Any, Executor};

use crate::dialect::Lock;
use crate::row::{bigint, natural, natural_opt, parsed};
use crate::tx::Tx;
use crate::users::hold_user;
use crate::{Catalog, SqlError};

/// A user's own bounds. `None`: as the settings say; `Some(0)`: any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnQuota {
    pub bytes_max: Option<u64>,
    pub videos_max: Option<u64>,
    pub uploads_max: Option<u64>,
}

impl OwnQuota {
    /// What holds for a user, where the settings say `defaults`.
    pub fn over(&self, defaults: &Quota) -> Quota {
        let one = |own: Option<u64>, default| own.map_or(default, |max| (max > 0).then_some(max));
        Quota {
            bytes_max: one(self.bytes_max, defaults.bytes_max),
            videos_max: one(self.videos_max, defaults.videos_max),
            uploads_max: one(self.uploads_max, defaults.uploads_max),
        }
    }
}

/// What a user has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of files as they were uploaded.
    pub bytes: u64,
    /// Of files on their way: as long as they were said to be, or as far as they have come.
    pub promised_bytes: u64,
    pub videos: u64,
    /// Videos that are being uploaded.
    pub uploads: u64,
}

/// What a new upload may take, besides what others were promised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// Of users that have no bounds of their own.
    pub quota: Quota,
    /// What the store may still take. `None`: as much as there is.
    pub store_bytes: Option<u64>,
}

/// What is left for an upload. `None`: any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoomLeft {
    pub user_bytes: Option<u64>,
    pub store_bytes: Option<u64>,
}

/// A bound that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    #[error("the user has {used_bytes} of {bytes_max} bytes")]
    UserBytes { used_bytes: u64, bytes_max: u64 },
    #[error("the user has {videos_max} videos")]
    UserVideos { videos_max: u64 },
    #[error("the user has {uploads_max} uploads that have not ended")]
    UserUploads { uploads_max: u64 },
    #[error("the store has {free_bytes} bytes left")]
    Store { free_bytes: u64 },
}

impl Catalog {
    /// `None`: no such user.
    pub async fn quota(&self, user: UserId, now: Timestamp) -> Result<Option<(OwnQuota, Usage)>, SqlError> {
        let row = sqlx::query(
            "-- quotas.of_user
             SELECT id, quota_bytes_max, quota_videos_max, quota_uploads_max FROM users WHERE id = $1",
        )
        .bind(user.to_string())
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some((own_quota(&row)?, usage(&self.readers, user, None, now).await?)))
    }

    /// `false`: no such user. What they have already stays.
    pub async fn set_quota(&self, user: UserId, own: &OwnQuota) -> Result<bool, SqlError> {
        let set = sqlx::query(
            "-- quotas.set
             UPDATE users SET quota_bytes_max = $2, quota_videos_max = $3, quota_uploads_max = $4 WHERE id = $1",
        )
        .bind(user.to_string())
        .bind(own.bytes_max.map(bigint))
        .bind(own.videos_max.map(bigint))
        .bind(own.uploads_max.map(bigint))
        .execute(&self.writer)
        .await?;
        Ok(set.rows_affected() > 0)
    }

    /// For an upload of this video of which nobody has said how long it is.
    pub async fn room_left(&self, video: VideoId, room: &Room, now: Timestamp) -> Result<RoomLeft, SqlError> {
        let Some((author, quota)) = quota_around(&self.readers, video, &room.quota).await? else {
            return Ok(RoomLeft::default());
        };
        let user_bytes = match quota.bytes_max {
            Some(bytes_max) => Some(usage(&self.readers, author, Some(video), now).await?.left_of(bytes_max)),
            None => None,
        };
        let store_bytes = match room.store_bytes {
            Some(bytes) => Some(bytes.saturating_sub(promised_bytes(&self.readers, now).await?)),
            None => None,
        };
        Ok(RoomLeft { user_bytes, store_bytes })
    }
}

impl Usage {
    fn left_of(&self, bytes_max: u64) -> u64 {
        bytes_max.saturating_sub(self.bytes).saturating_sub(self.promised_bytes)
    }
}

/// The first thing a transaction does that makes an upload; its row is the promise. Uploads of one user come here one
/// after the other. `bytes`: `None` where nobody has said how many.
pub(crate) async fn admit_upload(
    tx: &mut Tx,
    video: VideoId,
    bytes: Option<u64>,
    room: &Room,
    now: Timestamp,
) -> Result<(), SqlError> {
    let Some((author, quota)) = quota_around(&mut **tx, video, &room.quota).await? else { return Ok(()) };
    let wanted_bytes = bytes.unwrap_or(1);
    if quota.bytes_max.is_some() || quota.uploads_max.is_some() {
        hold_user(tx, author, Lock::Write).await?;
        let usage = usage(&mut **tx, author, Some(video), now).await?;
        if let Some(uploads_max) = quota.uploads_max.filter(|max| usage.uploads >= *max) {
            return Err(NoRoom::UserUploads { uploads_max }.into());
        }
        if let Some(bytes_max) = quota.bytes_max.filter(|max| usage.left_of(*max) < wanted_bytes) {
            let used_bytes = usage.bytes + usage.promised_bytes;
            return Err(NoRoom::UserBytes { used_bytes, bytes_max }.into());
        }
    }
    if let Some(store_bytes) = room.store_bytes {
        let free_bytes = store_bytes.saturating_sub(promised_bytes(&mut **tx, now).await?);
        if free_bytes < wanted_bytes {
            return Err(NoRoom::Store { free_bytes }.into());
        }
    }
    Ok(())
}

/// The first thing a transaction does that makes a video. `false`: no such user.
pub(crate) async fn admit_video(
    tx: &mut Tx,
    author: UserId,
    defaults: &Quota,
    now: Timestamp,
) -> Result<bool, SqlError> {
    let row = sqlx::query(
        "-- quotas.of_author
         SELECT id, quota_bytes_max, quota_videos_max, quota_uploads_max FROM users WHERE id = $1",
    )
    .bind(author.to_string())
    .fetch_optional(&mut **tx)
    .await?;
    let Some(row) = row else { return Ok(false) };
    let Some(videos_max) = own_quota(&row)?.over(defaults).videos_max else {
        return hold_user(tx, author, Lock::Keep).await;
    };
    if !hold_user(tx, author, Lock::Write).await? {
        return Ok(false);
    }
    if usage(&mut **tx, author, None, now).await?.videos >= videos_max {
        return Err(NoRoom::UserVideos { videos_max }.into());
    }
    Ok(true)
}

/// `None`: no such video.
async fn quota_around(
    executor: impl Executor<'_, Database = Any>,
    video: VideoId,
    defaults: &Quota,
) -> Result<Option<(UserId, Quota)>, SqlError> {
    let row = sqlx::query(
        "-- quotas.around_video
         SELECT u.id AS id, u.quota_bytes_max AS quota_bytes_max, u.quota_videos_max AS quota_videos_max,
           u.quota_uploads_max AS quota_uploads_max
         FROM videos v JOIN users u ON u.id = v.author_id WHERE v.id = $1",
    )
    .bind(video.to_string())
    .fetch_optional(executor)
    .await?;
    row.map(|row| Ok((parsed(&row, "id")?, own_quota(&row)?.over(defaults)))).transpose()
}

/// Of one video only one upload becomes its file, so what was begun for `but_for` does not count beside a new one of it;
/// parts of it do.
async fn usage(
    executor: impl Executor<'_, Database = Any>,
    user: UserId,
    but_for: Option<VideoId>,
    now: Timestamp,
) -> Result<Usage, SqlError> {
    let row = sqlx::query(
        "-- quotas.usage
         SELECT
           (SELECT CAST(coalesce(sum(source_bytes), 0) AS BIGINT) FROM videos
              WHERE author_id = $1 AND state NOT IN ('expired', 'deleted') AND (gone_at IS NULL OR gone_at > $2)) AS bytes,
           (SELECT count(*) FROM videos
              WHERE author_id = $1 AND state NOT IN ('expired', 'deleted') AND (gone_at IS NULL OR gone_at > $2)) AS videos,
           (SELECT CAST(coalesce(sum(coalesce(u.length_bytes, u.offset_bytes)), 0) AS BIGINT)
              FROM videos v JOIN uploads u ON u.video_id = v.id
              WHERE v.author_id = $1 AND v.state IN ('awaiting_upload', 'uploading')
                AND u.kind <> 'final' AND u.ended_at IS NULL AND u.expires_at > $2
                AND (v.id <> $3 OR u.kind = 'partial')) AS resumable_bytes,
           (SELECT CAST(coalesce(sum(coalesce(a.length_bytes, a.received_bytes, 0)), 0) AS BIGINT)
              FROM videos v JOIN attempts a ON a.video_id = v.id
              WHERE v.author_id = $1 AND v.state IN ('awaiting_upload', 'uploading') AND v.id <> $3
                AND a.kind = 'upload' AND a.state = 'open' AND a.upload_id IS NULL AND a.lease_until > $2) AS whole_bytes,
           (SELECT count(*) FROM videos v
              WHERE v.author_id = $1 AND v.state IN ('awaiting_upload', 'uploading') AND v.id <> $3
                AND (EXISTS (SELECT 1 FROM uploads u
                       WHERE u.video_id = v.id AND u.ended_at IS NULL AND u.expires_at > $2)
                  OR EXISTS (SELECT 1 FROM attempts a
                       WHERE a.video_id = v.id AND a.kind = 'upload' AND a.state = 'open' AND a.upload_id IS NULL
                         AND a.lease_until > $2))) AS uploads",
    )
    .bind(user.to_string())
    .bind(now.unix_ms())
    .bind(but_for.map(|video| video.to_string()).unwrap_or_default())
    .fetch_one(executor)
    .await?;
    let promised = natural::<u64>(&row, "resumable_bytes")? + natural::<u64>(&row, "whole_bytes")?;
    Ok(Usage {
        bytes: natural(&row, "bytes")?,
        promised_bytes: promised,
        videos: natural(&row, "videos")?,
        uploads: natural(&row, "uploads")?,
    })
}

/// What uploads that have begun are still to bring, of all users.
async fn promised_bytes(
    executor: impl Executor<'_, Database = Any>,
    now: Timestamp,
) -> Result<u64, SqlError> {
    let row = sqlx::query(
        "-- quotas.promised
         SELECT CAST(
           coalesce((SELECT sum(length_bytes - offset_bytes) FROM uploads
             WHERE ended_at IS NULL AND state = 'open' AND kind <> 'final' AND expires_at > $1), 0)
           + coalesce((SELECT sum(length_bytes - coalesce(received_bytes, 0)) FROM attempts
             WHERE state = 'open' AND kind = 'upload' AND upload_id IS NULL AND lease_until > $1), 0)
           AS BIGINT) AS bytes",
    )
    .bind(now.unix_ms())
    .fetch_one(executor)
    .await?;
    natural(&row, "bytes")
}

fn own_quota(row: &AnyRow) -> Result<OwnQuota, SqlError> {
    Ok(OwnQuota {
        bytes_max: natural_opt(row, "quota_bytes_max")?,
        videos_max: natural_opt(row, "quota_videos_max")?,
        uploads_max: natural_opt(row, "quota_uploads_max")?,
    })
}

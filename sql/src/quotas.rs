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

/// What bounds an upload that is to be made: the first thing its transaction asks for. Uploads of one user come here one
/// after the other, where they are counted.
pub(crate) struct Bounds {
    author: UserId,
    quota: Quota,
    store_bytes: Option<u64>,
}

impl Bounds {
    /// `None`: no such video.
    pub async fn hold(tx: &mut Tx, video: VideoId, room: &Room) -> Result<Option<Bounds>, SqlError> {
        let Some((author, quota)) = quota_around(&mut **tx, video, &room.quota).await? else {
            return Ok(None);
        };
        if quota.bytes_max.is_some() || quota.uploads_max.is_some() {
            hold_user(tx, author, Lock::Write).await?;
        }
        Ok(Some(Bounds { author, quota, store_bytes: room.store_bytes }))
    }

    /// Just before its row, which is the promise. `needs`: what it will take; `None` where nobody has said how much.
    pub async fn admit(
        &self,
        tx: &mut Tx,
        video: VideoId,
        needs: Option<Needs>,
        now: Timestamp,
    ) -> Result<(), SqlError> {
        let needs = needs.unwrap_or(Needs { user_bytes: 1, store_bytes: 1 });
        let Quota { bytes_max, uploads_max, .. } = self.quota;
        if bytes_max.is_some() || uploads_max.is_some() {
            let usage = usage(&mut **tx, self.author, Some(video), now).await?;
            if let Some(uploads_max) = uploads_max.filter(|max| usage.uploads >= *max) {
                return Err(NoRoom::UserUploads { uploads_max }.into());
            }
            if let Some(bytes_max) = bytes_max.filter(|max| usage.left_of(*max) < needs.user_bytes) {
                let used_bytes = usage.bytes + usage.promised_bytes;
                return Err(NoRoom::UserBytes { used_bytes, bytes_max }.into());
            }
        }
        if let Some(store_bytes) = self.store_bytes {
            tx.lock_promises().await?;
            let free_bytes = store_bytes.saturating_sub(promised_bytes(&mut **tx, now).await?);
            if free_bytes < needs.store_bytes {
                return Err(NoRoom::Store { free_bytes }.into());
            }
        }
        Ok(())
    }
}

/// What an upload of a known length will take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needs {
    pub user_bytes: u64,
    /// Parts are read into one object at the end, and are there until that is.
    pub store_bytes: u64,
}

impl Needs {
    pub fn whole(bytes: u64) -> Needs {
        Needs { user_bytes: bytes, store_bytes: bytes }
    }

    pub fn part(bytes: u64) -> Needs {
        Needs { user_bytes: bytes, store_bytes: bytes.saturating_mul(2) }
    }
}

/// How many videos a user may have: the first thing a transaction asks for that makes one. They come here one after the
/// other, where they are counted. `None`: no such user.
pub(crate) async fn hold_for_video(
    tx: &mut Tx,
    author: UserId,
    defaults: &Quota,
) -> Result<Option<VideosMax>, SqlError> {
    let row = sqlx::query(
        "-- quotas.of_author
         SELECT id, quota_bytes_max, quota_videos_max, quota_uploads_max FROM users WHERE id = $1",
    )
    .bind(author.to_string())
    .fetch_optional(&mut **tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let max = own_quota(&row)?.over(defaults).videos_max;
    let lock = if max.is_some() { Lock::Write } else { Lock::Keep };
    Ok(hold_user(tx, author, lock).await?.then_some(VideosMax(max)))
}

pub(crate) struct VideosMax(Option<u64>);

impl VideosMax {
    /// Just before the row of `video`; one that is there already is none too many.
    pub async fn admit(
        &self,
        tx: &mut Tx,
        author: UserId,
        video: VideoId,
        now: Timestamp,
    ) -> Result<(), SqlError> {
        let Some(videos_max) = self.0 else { return Ok(()) };
        if usage(&mut **tx, author, Some(video), now).await?.videos >= videos_max {
            return Err(NoRoom::UserVideos { videos_max }.into());
        }
        Ok(())
    }
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

/// Of one video only one upload becomes its file, so of what was begun for `but_for` counts what has come, and not what
/// was said; parts of it count in full.
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
              WHERE author_id = $1 AND state NOT IN ('expired', 'deleted') AND (gone_at IS NULL OR gone_at > $2)
                AND id <> $3) AS videos,
           (SELECT CAST(coalesce(sum(
                CASE WHEN v.id = $3 AND u.kind <> 'partial' THEN u.offset_bytes
                  ELSE coalesce(u.length_bytes, u.offset_bytes) END), 0) AS BIGINT)
              FROM videos v JOIN uploads u ON u.video_id = v.id
              WHERE v.author_id = $1 AND v.state IN ('awaiting_upload', 'uploading')
                AND u.kind <> 'final' AND u.ended_at IS NULL AND u.expires_at > $2) AS resumable_bytes,
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

/// What uploads that have begun will still take, of all users: what is to come, and where there will be several pieces,
/// the one object that they are read into.
async fn promised_bytes(
    executor: impl Executor<'_, Database = Any>,
    now: Timestamp,
) -> Result<u64, SqlError> {
    let row = sqlx::query(
        "-- quotas.promised
         SELECT CAST(
           coalesce((SELECT sum(length_bytes - offset_bytes
               + CASE WHEN kind = 'partial' OR offset_bytes > 0 THEN length_bytes ELSE 0 END) FROM uploads
             WHERE ended_at IS NULL AND state IN ('open', 'complete') AND kind <> 'final' AND expires_at > $1), 0)
           + coalesce((SELECT sum(CASE WHEN received_bytes > length_bytes THEN 0
                 ELSE length_bytes - coalesce(received_bytes, 0) END) FROM attempts
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

//! Objects: what is durable and committed.

use domain::{AttemptId, ObjectKey, Timestamp, VideoId};
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::row::{bigint, natural, parsed};
use crate::tx::Tx;
use crate::{Catalog, SqlError};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewObject {
    pub key: ObjectKey,
    pub bytes: u64,
    pub crc64nvme: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    pub key: ObjectKey,
    pub bytes: u64,
    pub crc64nvme: Option<u64>,
}

/// A column: the attempt that holds the storyboard of the video `v`.
pub(crate) const STORYBOARD_ATTEMPT: &str =
    "(SELECT o.attempt_id FROM objects o WHERE o.video_id = v.id AND o.class = 'storyboard' LIMIT 1)
     AS storyboard_attempt";

impl Catalog {
    /// All of them in the order of their paths, from after `after` on.
    pub async fn objects_after(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<StoredObject>, SqlError> {
        let rows = sqlx::query(
            "-- objects.after
             SELECT path, bytes, crc64nvme FROM objects WHERE path > $1 ORDER BY path LIMIT $2",
        )
        .bind(after.unwrap_or_default())
        .bind(limit as i64)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(object).collect()
    }

    /// What the row says of one object. `None`: no row shows it.
    pub async fn object(&self, key: &ObjectKey) -> Result<Option<StoredObject>, SqlError> {
        let row = sqlx::query("-- objects.one\nSELECT path, bytes, crc64nvme FROM objects WHERE path = $1")
            .bind(key.path())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(object).transpose()
    }

    /// Of one class, as [`domain::ObjectFile::class`] writes it, in attempts that count; by path.
    pub async fn objects_of(&self, video: VideoId, class: &str) -> Result<Vec<StoredObject>, SqlError> {
        let rows = sqlx::query(
            "-- objects.of_class
             SELECT o.path, o.bytes, o.crc64nvme FROM objects o JOIN attempts a ON a.id = o.attempt_id
             WHERE o.video_id = $1 AND o.class = $2 AND a.state = 'committed' ORDER BY o.path",
        )
        .bind(video.to_string())
        .bind(class)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(object).collect()
    }
}

pub(crate) async fn insert(tx: &mut Tx, objects: &[NewObject], now: Timestamp) -> Result<(), SqlError> {
    for object in objects {
        sqlx::query(
            "-- objects.insert
             INSERT INTO objects (path, video_id, attempt_id, class, bytes, crc64nvme, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(object.key.path())
        .bind(object.key.video.to_string())
        .bind(object.key.attempt.to_string())
        .bind(object.key.file.class())
        .bind(bigint(object.bytes))
        // All 64 bits are used: stored as the signed number with the same bits.
        .bind(object.crc64nvme.map(u64::cast_signed))
        .bind(now.unix_ms())
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

/// Attempts of a video whose only objects are of this class did their part.
pub(crate) async fn retire(tx: &mut Tx, video: VideoId, class: &str, now: Timestamp) -> Result<(), SqlError> {
    sqlx::query(
        "-- attempts.retire
         UPDATE attempts SET state = 'retired', ended_at = $3
         WHERE video_id = $1 AND state = 'committed'
           AND EXISTS (SELECT 1 FROM objects WHERE attempt_id = attempts.id AND class = $2)
           AND NOT EXISTS (SELECT 1 FROM objects WHERE attempt_id = attempts.id AND class <> $2)",
    )
    .bind(video.to_string())
    .bind(class)
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Retires one attempt of which nothing is shown any more, such as the cover before this one. An attempt
/// that also holds a rendition stays.
pub(crate) async fn retire_pictures(tx: &mut Tx, attempt: AttemptId, now: Timestamp) -> Result<(), SqlError> {
    sqlx::query(
        "-- attempts.retire_pictures
         UPDATE attempts SET state = 'retired', ended_at = $2
         WHERE id = $1 AND state = 'committed'
           AND NOT EXISTS (SELECT 1 FROM objects WHERE attempt_id = $1 AND class <> 'picture')",
    )
    .bind(attempt.to_string())
    .bind(now.unix_ms())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

fn object(row: &AnyRow) -> Result<StoredObject, SqlError> {
    let crc64nvme: Option<i64> = row.try_get("crc64nvme")?;
    Ok(StoredObject {
        key: parsed(row, "path")?,
        bytes: natural(row, "bytes")?,
        crc64nvme: crc64nvme.map(i64::cast_unsigned),
    })
}

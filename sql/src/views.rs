//! How often videos are watched. Counts come in batches, from processes that each saw a part of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use domain::{Timestamp, VideoId, ViewerHash};
use sqlx::AssertSqlSafe;

use crate::dialect::Lock;
use crate::row::{bigint, parsed, placeholders};
use crate::tx::{Tx, commit};
use crate::{Catalog, SqlError};

/// Rows of one statement: three values each, far from what a statement may have.
const ROWS_MAX: usize = 500;

/// What a process saw of one video since it last told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watched {
    pub viewers: BTreeSet<ViewerHash>,
    pub served_bytes: u64,
}

impl Catalog {
    /// Adds to what was seen before; a viewer counts once from `counted_before` on. Told again after
    /// [`SqlError::Unavailable`], views count once, and bytes perhaps twice. A video that is gone is left out. Answers
    /// with the views that counted.
    pub async fn add_watched(
        &self,
        watched: &BTreeMap<VideoId, Watched>,
        counted_before: Timestamp,
        now: Timestamp,
    ) -> Result<u64, SqlError> {
        if watched.is_empty() {
            return Ok(0);
        }
        commit!(self, async |tx| {
            let there = keep_videos(tx, watched).await?;
            let counted = count_viewers(tx, watched, &there, counted_before, now).await?;
            add(tx, watched, &there, &counted).await?;
            Ok(counted.values().sum())
        })
    }

    /// They may be counted again. At most so many at a time; returns how many.
    pub async fn forget_views(&self, counted_before: Timestamp, limit: u32) -> Result<u64, SqlError> {
        commit!(self, async |tx| {
            let free = tx.lock(Lock::WriteFree);
            let removed = sqlx::query(AssertSqlSafe(format!(
                "-- views.forget
                 WITH old AS MATERIALIZED (
                   SELECT video_id, viewer FROM views WHERE counted_at <= $1 ORDER BY counted_at LIMIT $2 {free})
                 DELETE FROM views WHERE (video_id, viewer) IN (SELECT video_id, viewer FROM old)"
            )))
            .bind(counted_before.unix_ms())
            .bind(i64::from(limit))
            .execute(&mut **tx)
            .await?;
            Ok(removed.rows_affected())
        })
    }
}

/// Those that are still there, and stay until our end; in the order of their ids, as everybody takes them.
async fn keep_videos(
    tx: &mut Tx,
    watched: &BTreeMap<VideoId, Watched>,
) -> Result<BTreeSet<VideoId>, SqlError> {
    let ids = placeholders(1, watched.len());
    let select = format!(
        "-- views.videos\nSELECT id FROM videos WHERE id IN ({ids}) AND state <> 'deleted' ORDER BY id"
    );
    let select = tx.locking(&select, Lock::Keep);
    let query = watched.keys().fold(sqlx::query(select), |query, id| query.bind(id.to_string()));
    query.fetch_all(&mut **tx).await?.iter().map(|row| parsed(row, "id")).collect()
}

/// How many of each video's viewers had not been counted in the window.
async fn count_viewers(
    tx: &mut Tx,
    watched: &BTreeMap<VideoId, Watched>,
    there: &BTreeSet<VideoId>,
    counted_before: Timestamp,
    now: Timestamp,
) -> Result<HashMap<VideoId, u64>, SqlError> {
    let of = |video| watched[video].viewers.iter().map(move |viewer| (video, viewer));
    let views: Vec<(&VideoId, &ViewerHash)> = there.iter().flat_map(of).collect();
    let mut counted = HashMap::new();
    for some in views.chunks(ROWS_MAX) {
        let rows = (0..some.len()).map(|n| format!("(${}, ${}, $1)", 2 * n + 3, 2 * n + 4));
        let statement = format!(
            "-- views.count
             INSERT INTO views (video_id, viewer, counted_at) VALUES {}
             ON CONFLICT (video_id, viewer) DO UPDATE SET counted_at = excluded.counted_at WHERE views.counted_at <= $2
             RETURNING video_id",
            rows.collect::<Vec<_>>().join(", ")
        );
        let query = sqlx::query(AssertSqlSafe(statement)).bind(now.unix_ms()).bind(counted_before.unix_ms());
        let query = some
            .iter()
            .fold(query, |query, (video, viewer)| query.bind(video.to_string()).bind(viewer.to_string()));
        for row in query.fetch_all(&mut **tx).await? {
            *counted.entry(parsed(&row, "video_id")?).or_default() += 1;
        }
    }
    Ok(counted)
}

async fn add(
    tx: &mut Tx,
    watched: &BTreeMap<VideoId, Watched>,
    there: &BTreeSet<VideoId>,
    counted: &HashMap<VideoId, u64>,
) -> Result<(), SqlError> {
    for some in there.iter().collect::<Vec<_>>().chunks(ROWS_MAX) {
        let rows = (0..some.len()).map(|n| format!("({})", placeholders(3 * n + 1, 3)));
        let statement = format!(
            "-- watching.add
             INSERT INTO watching (video_id, views_count, served_bytes) VALUES {}
             ON CONFLICT (video_id) DO UPDATE SET views_count = watching.views_count + excluded.views_count,
               served_bytes = watching.served_bytes + excluded.served_bytes",
            rows.collect::<Vec<_>>().join(", ")
        );
        let query = some.iter().fold(sqlx::query(AssertSqlSafe(statement)), |query, video| {
            let views = counted.get(video).copied().unwrap_or_default();
            query.bind(video.to_string()).bind(bigint(views)).bind(bigint(watched[video].served_bytes))
        });
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

//! What `sluice check` finds wrong among the rows themselves.

use crate::row::text;
use crate::{Catalog, SqlError};

/// A row that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule as one sentence.
    pub rule: &'static str,
    /// The id or path of the row.
    pub row: String,
}

/// Each statement answers with the ids of rows that break its rule.
const RULES: [(&str, &str); 12] = [
    (
        "a watchable video has a publication with `original`, or with another rendition while that is encoded",
        "-- check.publications
         SELECT v.id AS id FROM videos v WHERE v.state IN ('playable', 'ready') AND NOT EXISTS (
           SELECT 1 FROM renditions r JOIN publications p ON p.id = r.publication_id
           WHERE p.id = v.publication_id AND p.video_id = v.id AND (r.name = 'original' OR v.state = 'playable'
             AND EXISTS (SELECT 1 FROM rungs g WHERE g.video_id = v.id AND g.name = 'original')))",
    ),
    (
        "a ready video has every planned rendition",
        "-- check.rungs
         SELECT v.id AS id FROM videos v JOIN rungs g ON g.video_id = v.id
         WHERE v.state = 'ready' AND NOT EXISTS (
           SELECT 1 FROM renditions r WHERE r.publication_id = v.publication_id AND r.name = g.name)",
    ),
    (
        "an uploaded video's source is an object of a committed attempt",
        "-- check.sources
         SELECT v.id AS id FROM videos v WHERE v.source_attempt IS NOT NULL AND v.state <> 'deleted' AND NOT EXISTS (
           SELECT 1 FROM objects o JOIN attempts a ON a.id = o.attempt_id
           WHERE a.id = v.source_attempt AND a.state = 'committed' AND o.class = 'source')",
    ),
    (
        "the pieces of a resumable upload add up to its offset",
        "-- check.offsets
         SELECT u.id AS id FROM uploads u WHERE u.ended_at IS NULL AND u.kind <> 'final' AND u.offset_bytes <> (
           SELECT coalesce(sum(o.bytes), 0) FROM attempts a JOIN objects o ON o.attempt_id = a.id
           WHERE a.upload_id = u.id AND a.state = 'committed')",
    ),
    (
        "a piece of an upload that has ended is on its way out, unless it is the video",
        "-- check.pieces
         SELECT a.id AS id FROM attempts a JOIN videos v ON v.id = a.video_id
         WHERE a.upload_id IS NOT NULL AND a.state = 'committed' AND coalesce(v.source_attempt, '') <> a.id
           AND NOT EXISTS (SELECT 1 FROM uploads u WHERE u.id = a.upload_id AND u.ended_at IS NULL)",
    ),
    (
        "a resumable upload that has not ended has a video that waits for it",
        "-- check.uploads
         SELECT u.id AS id FROM uploads u JOIN videos v ON v.id = u.video_id
         WHERE u.ended_at IS NULL AND v.state NOT IN ('awaiting_upload', 'uploading')",
    ),
    (
        "a published rendition's attempt is committed",
        "-- check.renditions
         SELECT r.publication_id AS id FROM renditions r JOIN attempts a ON a.id = r.attempt_id
         JOIN videos v ON v.id = a.video_id WHERE a.state <> 'committed' AND v.state <> 'deleted'",
    ),
    (
        "a cover's attempt is committed",
        "-- check.covers
         SELECT v.id AS id FROM videos v WHERE v.cover_attempt IS NOT NULL AND v.state <> 'deleted' AND NOT EXISTS (
           SELECT 1 FROM attempts a WHERE a.id = v.cover_attempt AND a.state = 'committed')",
    ),
    (
        "a video on its way to `ready` has a job that takes it there, or can be watched and has one that died",
        "-- check.stuck_videos
         SELECT v.id AS id FROM videos v WHERE v.state IN ('uploaded', 'processing', 'playable') AND NOT EXISTS (
           SELECT 1 FROM jobs j WHERE j.video_id = v.id AND j.kind IN ('ingest', 'encode', 'assemble')
             AND (j.state IN ('queued', 'running')
                  OR (v.state = 'playable' AND j.kind <> 'ingest' AND j.state = 'dead')))",
    ),
    (
        "a video that is gone, or will be, has a deletion under way",
        "-- check.tombstones
         SELECT v.id AS id FROM videos v WHERE (v.gone_at IS NOT NULL OR v.state = 'deleted') AND NOT EXISTS (SELECT 1 FROM deletions d WHERE d.video_id = v.id
           AND d.state IN ('scheduled', 'running', 'failed'))",
    ),
    (
        "a deletion that is under way has a purge job, one that is done has no video",
        "-- check.deletions
         SELECT d.id AS id FROM deletions d WHERE (
           (d.state IN ('scheduled', 'running') AND NOT EXISTS (SELECT 1 FROM jobs j
             WHERE j.video_id = d.video_id AND j.kind = 'purge' AND j.state IN ('queued', 'running')))
           OR (d.state = 'done' AND EXISTS (SELECT 1 FROM videos v WHERE v.id = d.video_id)))",
    ),
    (
        "the count of a video's comments is the number of them",
        "-- check.comments
         SELECT v.id AS id FROM videos v WHERE v.comments_count <> (SELECT count(*) FROM comments c WHERE c.video_id = v.id)",
    ),
];

impl Catalog {
    /// Every row that breaks a rule; empty when all is well.
    pub async fn violations(&self) -> Result<Vec<Violation>, SqlError> {
        let mut violations = Vec::new();
        for (rule, statement) in RULES {
            let rows = sqlx::query(statement).fetch_all(&self.readers).await?;
            for row in rows {
                violations.push(Violation { rule, row: text(&row, "id")? });
            }
        }
        Ok(violations)
    }
}

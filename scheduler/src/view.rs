//! Wire shapes of `http-api` §5.

use domain::Timestamp;
use serde::Serialize;
use sql::{Deletion, JobRow};
use utoipa::ToSchema;

/// A deletion. Until `due_at` the video stays as it was; from then on it is gone for everyone.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Deletion)]
pub struct DeletionView {
    id: String,
    video_id: String,
    /// `scheduled`, `running`, `done`, `cancelled` or `failed`.
    state: &'static str,
    /// A user's id, or `service`.
    requested_by: String,
    due_at: String,
    started_at: Option<String>,
    finished_at: Option<String>,
    attempts: u32,
    /// Once `done`.
    receipt: Option<ReceiptView>,
}

/// What was removed, written after the store was swept again and found empty.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Receipt)]
pub struct ReceiptView {
    objects_deleted: u64,
    bytes_freed: u64,
    swept_at: String,
    checked_empty: bool,
}

/// A row of the queue.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub struct JobView {
    id: String,
    /// `ingest`, `encode`, `assemble`, `cover` or `purge`.
    kind: &'static str,
    /// `queued`, `running`, `done`, `dead` or `cancelled`.
    state: &'static str,
    video_id: String,
    attempts: u32,
    /// 0 to 1.
    progress: f64,
    /// Why the last attempt failed.
    error: Option<String>,
    /// Who runs it.
    worker: Option<String>,
    run_at: String,
    lease_until: Option<String>,
    created_at: String,
    started_at: Option<String>,
    finished_at: Option<String>,
}

impl From<Deletion> for DeletionView {
    fn from(deletion: Deletion) -> Self {
        DeletionView {
            id: deletion.id.to_string(),
            video_id: deletion.video.to_string(),
            state: deletion.state.as_str(),
            requested_by: deletion.requested_by,
            due_at: deletion.due_at.to_rfc3339(),
            started_at: deletion.started_at.map(Timestamp::to_rfc3339),
            finished_at: deletion.finished_at.map(Timestamp::to_rfc3339),
            attempts: deletion.attempts,
            receipt: deletion.receipt.map(|receipt| ReceiptView {
                objects_deleted: receipt.objects_deleted,
                bytes_freed: receipt.bytes_freed,
                swept_at: receipt.swept_at.to_rfc3339(),
                checked_empty: true,
            }),
        }
    }
}

impl From<JobRow> for JobView {
    fn from(job: JobRow) -> Self {
        JobView {
            id: job.id.to_string(),
            kind: job.kind.as_str(),
            state: job.state.as_str(),
            video_id: job.video.to_string(),
            attempts: job.attempts,
            progress: job.progress,
            error: job.error,
            worker: job.worker,
            run_at: job.run_at.to_rfc3339(),
            lease_until: job.lease_until.map(Timestamp::to_rfc3339),
            created_at: job.created_at.to_rfc3339(),
            started_at: job.started_at.map(Timestamp::to_rfc3339),
            finished_at: job.finished_at.map(Timestamp::to_rfc3339),
        }
    }
}

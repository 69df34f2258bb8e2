//! Deletions: asked for, due, done, with a receipt.

use crate::Timestamp;
use crate::closed_enum::closed_enum;

closed_enum!(DeletionState {
    Scheduled = "scheduled",
    Running = "running",
    Done = "done",
    Cancelled = "cancelled",
    Failed = "failed",
});

/// What was removed. Written only after the store was swept again and found empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    pub objects_deleted: u64,
    pub bytes_freed: u64,
    pub swept_at: Timestamp,
}

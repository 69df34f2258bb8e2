//! Resumable uploads: what they are for, and where they stand.

use crate::closed_enum::closed_enum;

closed_enum!(
    /// What becomes of the bytes.
    UploadKind {
        /// They are the video.
        Whole = "whole",
        /// They are a part of it, for a final one to put together.
        Partial = "partial",
        /// Partial ones put together; it takes no bytes of its own.
        Final = "final",
    }
);

closed_enum!(
    UploadState {
        /// It takes bytes.
        Open = "open",
        /// All bytes are there; those of a video are the video's.
        Complete = "complete",
        /// Given up by its client, or in vain: the video was deleted, or uploaded in another way.
        Terminated = "terminated",
        /// Nobody went on with it in time.
        Expired = "expired",
    }
);

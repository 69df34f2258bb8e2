//! What a user may have.

/// `None`: any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Of files as they were uploaded, those on their way included.
    pub bytes_max: Option<u64>,
    /// Whatever became of them, until they are deleted or expire.
    pub videos_max: Option<u64>,
    /// Videos that are being uploaded; those that were broken off and may be gone on with count.
    pub uploads_max: Option<u64>,
}

//! The nouns of Sluice: ids, states with their legal moves, the ladder, object keys, layouts and the
//! contract with the transcoder child.
//!
//! Pure: no I/O, no async, no clock, no randomness. Everything else imports this crate; it imports none of ours.

mod account;
mod closed_enum;
mod deletion;
mod id;
mod index;
mod job;
mod ladder;
mod object_key;
mod place;
mod quota;
pub mod task;
mod timestamp;
mod upload;
mod video;
mod viewer_hash;

pub use account::{InvalidAccount, Role, Username};
pub use closed_enum::UnknownWord;
pub use deletion::{DeletionState, Receipt};
pub use id::{
    AttemptId, CommentId, DeletionId, IdParts, InvalidId, JobId, PublicationId, SessionId, UploadId, UserId,
    VideoId,
};
pub use index::{Fragment, Layout, Piece, RenditionIndex, TrackIndex};
pub use job::{JobKind, JobState, Phase, retry_delay_ms};
pub use ladder::{
    CHOSEN_CRF_MAX, CHOSEN_CRF_MIN, LadderSettings, Rung, RungSetting, RungSettings, Size, ladder,
};
pub use object_key::{CoverFormat, InvalidObjectKey, ObjectFile, ObjectKey, TrackKind};
pub use place::{DatabasePlace, S3Place, StartError, StartFault, StorePlace};
pub use quota::Quota;
pub use timestamp::{InvalidTimestamp, Timestamp};
pub use upload::{UploadKind, UploadState};
pub use video::{MediaProblem, RenditionName, RenditionState, Stage, VideoCodec, VideoState, Visibility};
pub use viewer_hash::ViewerHash;

/// Widths, in pixels, at which covers are made; a width above the source's own is never made.
pub const COVER_WIDTHS_PX: [u32; 4] = [120, 240, 480, 720];

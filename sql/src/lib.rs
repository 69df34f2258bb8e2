//! Every SQL statement and every migration. Other crates see nouns and compound commits, never a row.
//!
//! A statement's first line is its name; it stands inline above the mapping of its rows. Reads go to the
//! readers, writes to the one writer; a compound commit is one function and one transaction.

mod attempts;
mod carry;
mod catalog;
mod check;
mod comments;
mod deletions;
mod dialect;
mod encode_anew;
mod error;
mod idempotency;
mod job_endings;
mod jobs;
mod objects;
mod pool;
mod progress;
mod publications;
mod publishing;
mod queue;
mod quotas;
mod resumable;
mod resumable_final;
mod resumable_hold;
mod resumable_pieces;
mod row;
mod schema;
mod sessions;
mod start;
mod tx;
mod uploads;
mod users;
mod video_edits;
mod video_moves;
mod videos;
mod views;
mod weather;

pub use attempts::{Attempt, AttemptState};
pub use carry::{Carried, CarryError, CarryOutcome, carry};
pub use catalog::Catalog;
pub use check::Violation;
pub use comments::{Comment, NewComment};
pub use deletions::{CancelDeletion, DeleteVideo, Deletion, NewDeletion, Purge};
pub use encode_anew::EncodeAnew;
pub use error::{FencedError, SqlError};
pub use idempotency::{CreateOnce, Once};
pub use job_endings::RetryJob;
pub use jobs::{Claim, Job, Lease};
pub use objects::{NewObject, StoredObject};
pub use publications::{Playable, Publication, PublishedRendition, Watchable};
pub use publishing::{IngestCommit, NewEncode, OriginalPublished, RATES, RenditionsPublished, STORYBOARD};
pub use queue::{JobRow, QueueDepth};
pub use quotas::{NoRoom, OwnQuota, Room, RoomLeft, Usage};
pub use resumable::{CreateResumable, NewResumable, RESUMABLE_PER_VIDEO_MAX, Resumable};
pub use resumable_final::CreateFinal;
pub use resumable_hold::Acquire;
pub use resumable_pieces::{CommitPieces, CompleteResumable, UploadPiece};
pub use sessions::NewSession;
pub use start::Patience;
pub use uploads::{BeginUpload, CompleteUpload, CompletedUpload, Film, NewUpload, Source};
pub use users::{CreateUser, Credentials, NewUser, UpdateUser, User, UserPatch};
pub use video_edits::{NewVideo, VideoPatch};
pub use videos::{Audience, Author, Failure, Progress, Rendition, Video, VideoCursor, VideoFilter};
pub use views::Watched;
pub use weather::{Call, Fault};

//! Jobs and time: dispatcher → bounded channel → executors over leased rows; deletions, media work, sweeps.
//!
//! The channel is only a cache of the rows: whatever dies, the lease ends and someone else claims the job.
//!
//! **Invariant:** a job commits at most once, whoever runs it and however often, because every write of a run
//! carries the token it was claimed under.

mod child;
mod child_limits;
mod dispatcher;
mod estimate;
mod executor;
mod failure;
mod jobs;
mod routes;
mod run;
pub mod run_limits;
mod scheduler;
mod scratch;
mod source_file;
mod sources;
mod spare;
mod sweeper;
mod unfinished;
mod view;
mod work;
mod workplace;

pub use child::{Crashed, Stopped, Told, Transcoder};
pub use failure::RunError;
pub use routes::routes;
pub use run::{main, run};
pub use scheduler::{Config, Deps, Scheduler};
pub use work::work;

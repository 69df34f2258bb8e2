//! What every process of Sluice needs and none is about: time and randomness, settings, the accept loop with its
//! limits, tokens, problems, telemetry, the ops listener and shutdown.
//!
//! Only this crate reads the environment, the clock and the random number generator.

mod app;
pub mod auth;
pub mod body;
mod client;
mod clock;
mod edge;
mod extract;
mod failure;
mod host;
mod idempotency;
mod ids;
mod io;
pub mod limit;
mod lines;
pub mod ops;
pub mod page;
pub mod password;
mod problem;
pub mod program;
mod repeat;
mod request_id;
mod routes;
mod serve;
mod service_manager;
pub mod settings;
mod shared;
pub mod shutdown;
pub mod telemetry;
mod unsent;

pub use app::App;
pub use auth::{Caller, KeyError, Link, LinkKeys, Policy, SigningKey, Tokens, UploadToken, VerifyingKey};
pub use client::{ClientAddress, Network};
pub use clock::Clock;
pub use edge::{Edge, EdgeConfig};
pub use extract::{Json, Path, PathPart, Query};
pub use failure::Failure;
pub use host::{Host, HostError};
pub use idempotency::IdempotencyKey;
pub use ids::Ids;
pub use limit::{ConcurrencyBucket, FairBucket, FairPermit, Permit, RateLimiter};
pub use ops::{Ops, serve_ops};
pub use problem::{FieldError, Problem, ProblemBody};
pub use repeat::Repeatable;
pub use request_id::RequestId;
pub use routes::Routes;
pub use serve::serve;
pub use settings::{Limits, ServiceName, Settings, SettingsError};
pub use shared::Shared;

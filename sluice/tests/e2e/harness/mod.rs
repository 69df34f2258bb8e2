//! Personas and a server of their own: `let alice = app.user("alice").await; let v = alice.upload(&clip).await;`
//!
//! Ending a test with [`App::finish`] fails it when a job is left over or an object is unexplained.

pub mod backends;
pub mod clips;
pub mod cluster;
mod objects;
mod persona;
mod points;
pub mod probe;
mod process;
pub mod proxy;
mod s3s;

pub use backends::Backends;
pub use cluster::{Client, Cluster, Service, Sizes};
pub use objects::Objects;
pub use persona::{Answer, Persona, client_within};
pub use points::Points;
pub use process::{App, Peak, Program, check, is_running, program_command, sluice, sluice_command};
pub use proxy::{Proxy, Weather};

//! Personas and a server of their own: `let alice = app.user("alice").await; let v = alice.upload(&clip).await;`
//!
//! Ending a test with [`App::finish`] fails it when a job is left over or an object is unexplained.

pub mod backends;
pub mod clips;
mod persona;
pub mod probe;
mod process;
mod s3s;

pub use backends::Backends;
pub use persona::{Answer, Persona};
pub use process::{App, Program, check, is_running, resident_kib, sluice, sluice_command};

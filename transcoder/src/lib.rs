//! The only crate that links FFmpeg. It runs as a child process that sees files and nothing else: one
//! [`domain::task::Task`] on standard input, [`domain::task::Event`] lines on standard output.
//!
//! Pictures in: [`sniff`] → [`source`] (open, choose streams, measure) → [`judge`] → [`plan`] → encode.

pub mod capabilities;
pub mod error;
pub mod ffi;
mod ffi_version;
pub mod film_clock;
pub mod judge;
pub mod progress;
pub mod source;

pub use error::TaskError;

//! The only crate that links FFmpeg. It runs as a child process that sees files and nothing else: one
//! [`domain::task::Task`] on standard input, [`domain::task::Event`] lines on standard output.
//!
//! Pictures in: [`sniff`] → [`source`] (open, choose streams, measure) → [`judge`] → [`plan`] → encode.
//! Bytes out: `original` (stream copy) or [`assemble`] (chunks joined) → [`track`] → [`track_index`] →
//! [`rendition`] (with its [`progressive`] head) → [`verify`].

pub mod assemble;
pub mod boxes;
pub mod capabilities;
pub mod error;
pub mod ffi;
mod ffi_mux;
mod ffi_version;
pub mod film_clock;
pub mod judge;
pub mod progress;
pub mod progressive;
pub mod rendition;
pub mod source;
#[cfg(test)]
mod test_clips;
pub mod timing;
pub mod track;
pub mod track_index;
pub mod verify;

pub use error::TaskError;

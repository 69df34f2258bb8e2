//! The only crate that links FFmpeg. It runs as a child process that sees files and nothing else: one
//! [`domain::task::Task`] on standard input, [`domain::task::Event`] lines on standard output.
//!
//! Pictures in: [`sniff`] → [`source`] (open, choose streams, measure) → [`judge`] → [`plan`] → encode.
//! Bytes out: [`reference`] (samples stay in the uploaded file), [`original`] (stream copy) or [`assemble`] (chunks joined) → [`track`] → [`track_index`] →
//! [`rendition`] (with its [`progressive`] head) → [`verify`].
//! Stills: [`stills`] → [`cover`] and [`storyboard`] → [`picture`].

pub mod adm;
pub mod assemble;
pub mod blank_mux;
pub mod boxes;
pub mod capabilities;
mod child;
pub mod chunk_file;
pub mod chunk_reader;
pub mod codecs;
pub mod cover;
pub mod decode;
pub mod demand;
pub mod encode_audio;
#[cfg(test)]
mod encode_tests;
pub mod encode_video;
pub mod encoder;
pub mod engine;
pub mod error;
pub mod facts_file;
pub mod ffi;
mod ffi_mux;
mod ffi_version;
pub mod film_clock;
pub mod filters;
pub mod frame_times;
pub mod judge;
pub mod orientation;
pub mod original;
pub mod original_times;
pub mod picture;
pub mod plan;
pub mod plane;
pub mod privileges;
pub mod probe;
pub mod progress;
pub mod progressive;
mod pulse;
pub mod quality;
pub mod rates;
pub mod reading;
pub mod reference;
pub mod rendition;
pub mod run;
pub mod sample_index;
pub mod sandbox;
pub mod schedule;
pub mod sniff;
pub mod source;
pub mod source_packets;
pub mod source_reader;
#[cfg(test)]
mod still_tests;
pub mod stills;
pub mod storyboard;
mod system_calls;
#[cfg(test)]
mod test_clips;
pub mod timing;
pub mod track;
pub mod track_index;
pub mod verify;
pub mod vif;

pub use child::{Confinement, run_child};
pub use error::TaskError;

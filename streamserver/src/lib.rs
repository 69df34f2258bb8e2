//! Bytes in (uploads) and bytes out (watching).
//!
//! Knows layouts (lists of inline bytes and extents of stored objects), and of media no more than the index of a track.
//!
//! **Invariant:** below a publication there is no SQL; whether a video is there at all is never older than a
//! second.

mod answer;
mod attempt;
mod blocks;
mod cache_tag;
mod cmcd;
mod conditional;
mod cover;
mod dash;
mod digest;
mod disposition;
mod failure;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod hls;
mod layout_body;
mod multipart;
mod objects;
mod pace;
mod package;
mod playlist;
mod progressive;
mod publication;
mod publication_file;
mod range;
mod receive;
mod resumable;
mod room;
mod run;
mod segments;
mod server;
mod sheet;
mod statistics;
mod storyboard;
mod suffix;
mod track_file;
mod upload;
mod upload_request;
mod viewer;
mod watch;

pub use run::{main, run};
pub use server::{Deps, StreamServer, routes};

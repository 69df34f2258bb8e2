//! The accept loop and the edge under clients that behave badly.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bodies;
mod connections;
mod ending;
mod files;
mod heads;
mod redis;
mod repeats;
mod server;

//! The service over HTTP: every row of the contract's §1 and §2 with each status it lists.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod app;
mod comments;
mod events;
mod everywhere;
mod film;
mod playback;
mod sessions;
mod setup;
mod users;
mod videos;

//! The service over HTTP, as its clients meet it: every row of the contract with every status it lists.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod caches;
mod dash;
mod draft;
mod film;
mod hostile;
mod links;
mod nth;
mod raw;
mod resuming;
mod room;
mod statistics;
mod uploading;
mod watching;
mod world;

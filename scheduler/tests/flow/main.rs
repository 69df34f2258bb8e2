//! The service with a real catalog, a real store and a transcoder of words (`examples/fake_transcoder.rs`).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod database;
mod faults;
mod http;
mod metrics;
mod nth;
mod pipeline;
mod purge;
mod queue;
mod rates;
mod stubborn;
mod sweep;
mod world;

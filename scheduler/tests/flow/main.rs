//! The service with a real catalog, a real store and a transcoder of words (`examples/fake_transcoder.rs`).

mod faults;
mod http;
mod pipeline;
mod purge;
mod sweep;
mod world;

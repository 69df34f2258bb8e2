//! One suite for every database the catalog speaks to. PostgreSQL is the cluster that `SLUICE_TEST_POSTGRES`
//! names.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod carry;
mod chance;
mod cluster;
mod crowd;
mod database;
mod deletions;
mod encode_anew;
mod holding;
mod jobs;
mod once;
mod people;
mod pipeline;
mod plans;
mod progress;
mod proxy;
mod queue;
mod quotas;
mod replica;
mod resumable;
mod schema;
mod start;
mod uploads;
mod videos;
mod views;
mod weather;
mod world;

//! One suite for every database the catalog speaks to. A database is a [`world::Database`]; today SQLite.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod deletions;
mod jobs;
mod people;
mod pipeline;
mod plans;
mod schema;
mod uploads;
mod videos;
mod world;

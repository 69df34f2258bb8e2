//! Sluice as its users meet it: real processes, HTTP, real files.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

mod bad_input;
mod bombs;
mod browser;
mod clients;
mod cluster;
mod crashes;
mod cuts;
mod database_away;
mod duplicates;
mod edge;
mod full_disk;
mod health;
mod import_table;
mod kills;
mod life;
mod links;
mod loads;
mod memory;
mod moving;
mod pauses;
mod phases;
mod pipeline;
mod players;
mod put;
mod readme;
mod rungs;
mod sandbox;
mod separate;
mod settings;
mod starts;
mod store_away;
mod storyboard;
mod tus;
mod workers;

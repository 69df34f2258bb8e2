//! The accept loop and the edge under clients that behave badly.

mod bodies;
mod connections;
mod ending;
mod heads;
mod server;

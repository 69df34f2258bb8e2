//! The service over HTTP: every row of the contract's §1 and §2 with each status it lists.

mod app;
mod comments;
mod events;
mod everywhere;
mod film;
mod sessions;
mod setup;
mod users;
mod videos;

//! People, videos as metadata, comments; the OpenAPI document; the web page.
//!
//! Bytes of videos are none of its business: it hands out upload tokens and addresses, the streamserver does the rest.

mod api;
mod comments;
mod docs;
mod events;
mod failure;
mod input;
mod page;
mod playback;
mod quotas;
mod run;
mod sessions;
mod setup;
mod users;
mod videos;
mod view;

pub use api::{Api, Deps};
pub use docs::docs;
pub use run::run;

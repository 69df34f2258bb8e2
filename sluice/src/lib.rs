//! The program people type: all services in one process on the embedded defaults, and the commands around them.

mod banner;
mod check;
mod cli;
mod doctor;
mod embedded;
mod healthcheck;
mod moving;
mod put;
mod start;
mod walk;

pub use cli::run;

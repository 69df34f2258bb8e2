//! The service over HTTP, as its clients meet it: every row of the contract with every status it lists.

mod film;
mod raw;
mod uploading;
mod watching;
mod world;

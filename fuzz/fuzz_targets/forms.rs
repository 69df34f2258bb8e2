//! Of the service only what reads forms: that is built in no time.
#![no_main]
#![allow(dead_code, reason = "the service uses more of it")]

#[path = "../../streamserver/src/fuzzing/forms.rs"]
mod body;
#[path = "../../streamserver/src/multipart.rs"]
mod multipart;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));

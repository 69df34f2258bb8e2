//! Of the service only what reads `Range`: that is built in no time.
#![no_main]

#[path = "../../streamserver/src/fuzzing/ranges.rs"]
mod body;
#[path = "../../streamserver/src/range.rs"]
mod range;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));

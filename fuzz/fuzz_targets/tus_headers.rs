#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| streamserver::fuzzing::headers::run(bytes));

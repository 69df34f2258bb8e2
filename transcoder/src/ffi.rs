//! The FFmpeg calls that its safe wrapper lacks. `unsafe` of this crate lives in files named `ffi*`.
#![allow(unsafe_code)]

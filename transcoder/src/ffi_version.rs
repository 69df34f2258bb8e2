//! The version of the linked FFmpeg.
#![allow(unsafe_code)]

use std::ffi::CStr;

/// As FFmpeg calls itself, e.g. `5.1.9-0+deb12u1`.
pub fn version() -> String {
    // SAFETY: av_version_info takes nothing and answers a static string that ends in NUL.
    let text = unsafe { CStr::from_ptr(ffmpeg_next::ffi::av_version_info()) };
    text.to_string_lossy().into_owned()
}

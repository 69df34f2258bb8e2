//! What the FFmpeg that is linked here can do; asked by `sluice doctor` and at start.

use domain::VideoCodec;
use ffmpeg_next::{decoder, encoder, filter};

use crate::encoder::encoder_name;

/// Encoders without which nothing can be made.
const ENCODERS: [&str; 2] = [encoder_name(VideoCodec::H264), "aac"];
/// Filters without which some sources come out wrong, and what for.
const FILTERS: [(&str, &str); 4] = [
    ("bwdif", "interlaced sources"),
    ("zscale", "HDR sources"),
    ("tonemap", "HDR sources"),
    ("scale", "every rendition"),
];
/// Decoders of what phones send, by codec.
const DECODERS: [&str; 5] = ["h264", "hevc", "vp9", "av1", "aac"];

#[derive(Debug, Clone)]
pub struct Capabilities {
    /// As FFmpeg calls itself, e.g. `5.1.9-0+deb12u1`.
    pub version: String,
    /// What is there, e.g. `libx264`.
    pub encoders: Vec<&'static str>,
    pub missing_encoders: Vec<&'static str>,
    /// Filter, and what is not handled without it.
    pub missing_filters: Vec<(&'static str, &'static str)>,
    pub missing_decoders: Vec<&'static str>,
}

/// Looks at the linked libraries; cheap. `codecs`: those wanted besides H.264.
pub fn capabilities(codecs: &[VideoCodec]) -> Capabilities {
    let encoders = ENCODERS.into_iter().chain(codecs.iter().map(|&codec| encoder_name(codec)));
    let (encoders, missing_encoders) = encoders.partition(|name| encoder::find_by_name(name).is_some());
    Capabilities {
        version: crate::ffi_version::version(),
        encoders,
        missing_encoders,
        missing_filters: FILTERS.into_iter().filter(|(name, _)| filter::find(name).is_none()).collect(),
        missing_decoders: DECODERS.into_iter().filter(|name| decoder::find_by_name(name).is_none()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_ffmpeg_has_what_is_needed() {
        let found = capabilities(&[VideoCodec::Hevc, VideoCodec::Av1]);
        assert!(!found.version.is_empty());
        assert_eq!(found.missing_encoders, [""; 0]);
        assert_eq!(found.missing_filters, []);
    }
}

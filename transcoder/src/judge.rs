//! What is refused, and what browsers can play as it is.

use ffmpeg_next::codec::Id;

use crate::source::SourceFacts;

/// Keyframes of a copied `original` are at most this far apart.
const KEYFRAME_GAP_S_MAX: f64 = 10.0;

/// Browsers play the streams as they are: H.264 8-bit 4:2:0 progressive with square pixels, AAC or no audio, and
/// a clean keyframe at least every 10 s. Frames hidden by an edit list would show in the middle of a stream, so
/// such a source is encoded.
pub fn copyable(source: &SourceFacts) -> bool {
    let video = &source.video;
    video.codec == Id::H264
        && video.bit_depth == 8
        && video.chroma_420
        && !video.interlaced
        && video.sar.numerator() == video.sar.denominator()
        && !video.mirrored
        && !video.ranked
        && video.hidden_frames == 0
        && keyframe_gap_s_max(source) <= KEYFRAME_GAP_S_MAX
        && source.audio.as_ref().is_none_or(|audio| audio.codec == Id::AAC)
}

/// The longest stretch without a clean keyframe, in seconds.
fn keyframe_gap_s_max(source: &SourceFacts) -> f64 {
    let video = &source.video;
    let ends = video.keyframes.iter().skip(1).copied().chain([video.end()]);
    let gap = video.keyframes.iter().zip(ends).map(|(start, end)| end - start).max();
    gap.map_or(f64::INFINITY, |gap| video.clock.seconds(gap))
}

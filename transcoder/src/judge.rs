//! What is refused, and what browsers can play as it is.

use domain::MediaProblem;
use domain::task::MediaLimits;
use ffmpeg_next::codec::Id;
use ffmpeg_next::format::Pixel;

use crate::ffi::StreamHeader;
use crate::source::{Chosen, SourceFacts};
use crate::{TaskError, codecs};

/// Keyframes of a copied `original` are at most this far apart.
const KEYFRAME_GAP_S_MAX: f64 = 10.0;

/// In pixels: more the encoders do not take. A sample aspect ratio can make that of a small picture.
const SIDE_MAX: u32 = 16_384;

/// For tasks that come after ingest: the file was judged then, and it has not changed.
pub const ALREADY_JUDGED: MediaLimits =
    MediaLimits { duration_s_max: f64::INFINITY, pixels_max: i32::MAX as u64, streams_max: u32::MAX };

/// Browsers play the streams as they are: H.264 8-bit 4:2:0 progressive with square pixels, AAC or no audio, and
/// a clean keyframe at least every 10 s. Frames hidden by an edit list would show in the middle of a stream, and HDR
/// has too few steps in 8 bits and would stand among rungs that are SDR, so such a source is encoded.
pub fn copyable(source: &SourceFacts) -> bool {
    let video = &source.video;
    video.codec == Id::H264
        && matches!(video.pixel, Pixel::YUV420P | Pixel::YUVJ420P)
        && !video.hdr
        && !video.interlaced
        && video.sar.numerator() == video.sar.denominator()
        && !video.orientation.mirrored
        && !video.ranked
        && video.hidden_frames == 0
        && video.doubled_frames == 0
        && keyframe_gap_s_max(source) <= KEYFRAME_GAP_S_MAX
        && source.audio.as_ref().is_none_or(|audio| audio.codec == Id::AAC)
}

/// More streams than any camera makes.
pub fn streams(streams: u32, limits: &MediaLimits) -> Result<(), TaskError> {
    if streams <= limits.streams_max {
        return Ok(());
    }
    let detail = format!("The file has {streams} tracks; at most {} are accepted.", limits.streams_max);
    Err(TaskError::rejected(MediaProblem::TooLarge, detail))
}

/// Width and height in coded pixels, before anything is decoded.
pub fn pixels(width: u32, height: u32, pixels_max: u64) -> Result<(), TaskError> {
    let detail = if u64::from(width) * u64::from(height) > pixels_max {
        format!("The picture is {width}×{height} pixels; at most {pixels_max} pixels in all are accepted.")
    } else if width.max(height) > SIDE_MAX {
        format!("The picture is {width}×{height} pixels as shown; a side of at most {SIDE_MAX} is accepted.")
    } else {
        return Ok(());
    };
    Err(TaskError::rejected(MediaProblem::TooManyPixels, detail))
}

/// What the headers of the chosen streams say.
pub fn chosen(chosen: &Chosen, limits: &MediaLimits) -> Result<(), TaskError> {
    let (_, video) = &chosen.video;
    encrypted(video, "video")?;
    if !codecs::is_accepted_video(video.codec) {
        return Err(unsupported("video", video, codecs::VIDEO_ACCEPTED));
    }
    if let Some((_, audio)) = &chosen.audio {
        encrypted(audio, "sound")?;
        if !codecs::is_accepted_audio(audio.codec) {
            return Err(unsupported("sound", audio, codecs::AUDIO_ACCEPTED));
        }
    }
    pixels(video.width, video.height, limits.pixels_max)
}

/// `duration_s` as measured, not as declared.
pub fn duration(duration_s: f64, limits: &MediaLimits) -> Result<(), TaskError> {
    if duration_s <= limits.duration_s_max {
        return Ok(());
    }
    let detail = format!(
        "The video is {} long; at most {} are accepted.",
        minutes(duration_s),
        minutes(limits.duration_s_max)
    );
    Err(TaskError::rejected(MediaProblem::TooLong, detail))
}

fn encrypted(header: &StreamHeader, what: &str) -> Result<(), TaskError> {
    if !header.encrypted {
        return Ok(());
    }
    let detail = format!("The {what} is encrypted; only files without copy protection are accepted.");
    Err(TaskError::rejected(MediaProblem::UnsupportedCodec, detail))
}

fn unsupported(what: &str, header: &StreamHeader, accepted: &str) -> TaskError {
    let name = match (header.codec, header.tag.as_str()) {
        (Id::None, "") => "an unknown codec".to_owned(),
        (Id::None, tag) => format!("an unknown codec ({tag})"),
        (codec, _) => codec.name().to_owned(),
    };
    let detail = format!("The {what} is coded as {name}, which is not supported. Accepted are {accepted}.");
    TaskError::rejected(MediaProblem::UnsupportedCodec, detail)
}

/// The longest stretch without a clean keyframe, in seconds.
fn keyframe_gap_s_max(source: &SourceFacts) -> f64 {
    let video = &source.video;
    let ends = video.keyframes.iter().skip(1).copied().chain([video.end()]);
    let gap = video.keyframes.iter().zip(ends).map(|(start, end)| end - start).max();
    gap.map_or(f64::INFINITY, |gap| video.clock.seconds(gap))
}

fn minutes(duration_s: f64) -> String {
    let whole_s = duration_s.round() as u64;
    match (whole_s / 3600, whole_s / 60 % 60, whole_s % 60) {
        (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
        (hours, minutes, 0) => format!("{hours} h {minutes:02} min"),
        (hours, minutes, seconds) => format!("{hours} h {minutes:02} min {seconds:02} s"),
    }
}

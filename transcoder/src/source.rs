//! The uploader's file: opened with one pinned demuxer, streams chosen, timeline measured.

use domain::Size;
use ffmpeg_next::Rational;
use ffmpeg_next::codec::Id;
use ffmpeg_next::format::context::Input;

use crate::film_clock::{FilmClock, SourceTime};

/// An open source and what was measured of it. The input stands at its first packet.
pub struct Opened {
    pub input: Input,
    pub facts: SourceFacts,
}

/// What was measured by reading every packet once.
#[derive(Debug, Clone)]
pub struct SourceFacts {
    /// As FFmpeg names the demuxer, e.g. `mov,mp4,m4a,3gp,3g2,mj2`.
    pub container: String,
    pub video: VideoFacts,
    pub audio: Option<AudioFacts>,
    /// t = 0 of the film: the earlier of the first picture and the first sound.
    pub film_start: SourceTime,
    /// From `film_start` to the end of the longer track, of what is whole.
    pub duration_s: f64,
    /// One sentence each, for the uploader.
    pub warnings: Vec<String>,
    /// Set where the file was cut off: film time in seconds up to which both tracks are whole. Packets that
    /// start later are left out.
    pub whole_until_s: Option<f64>,
}

#[derive(Debug, Clone)]
pub struct VideoFacts {
    pub stream_index: usize,
    pub codec: Id,
    /// Film time of this stream; its timescale is that of `Boundaries` and of the chunk files.
    pub clock: FilmClock,
    pub coded_size: Size,
    /// As shown: rotation and sample aspect ratio applied.
    pub size: Size,
    /// Clockwise turn that shows the picture upright: 0, 90, 180 or 270.
    pub rotation_degrees: u32,
    /// Mirrored left to right before it is turned.
    pub mirrored: bool,
    /// 1/1 where the file says nothing.
    pub sar: Rational,
    /// Frames a second, on average over the timestamps.
    pub frame_rate: f64,
    pub constant_rate: bool,
    /// Presentation times of the frames that can be shown, in film ticks, ascending and without doubles.
    pub frame_times: Vec<i64>,
    /// Film ticks that the last frame is shown.
    pub last_frame_duration: i64,
    /// Presentation times of keyframes at which decoding can start with nothing lost, ascending, in film ticks;
    /// keyframes with leading pictures (open GOPs) are not among them but for the first.
    pub keyframes: Vec<i64>,
    /// Some packets carry no presentation time (AVI): frame n of the decoder is shown at `frame_times[n]`.
    pub ranked: bool,
    /// Frames before the first one shown, or cut by an edit list, are in the stream but not in `frame_times`.
    pub hidden_frames: u64,
    pub interlaced: bool,
    pub bit_depth: u32,
    pub chroma_420: bool,
    /// The average of the packets, in bit/s.
    pub bitrate_bps: u64,
}

#[derive(Debug, Clone)]
pub struct AudioFacts {
    pub stream_index: usize,
    pub codec: Id,
    /// Film time of this stream in samples: its timescale is the sample rate.
    pub clock: FilmClock,
    /// First sample that is heard (priming excluded), in film ticks of `clock`.
    pub start: i64,
    /// End of the last packet, in film ticks of `clock`.
    pub end: i64,
    pub channels: u32,
    pub sample_rate: u32,
    pub bitrate_bps: u64,
    /// AAC-LC, at most stereo, 44.1 or 48 kHz, of modest bit rate: copied into the rungs, not encoded again.
    pub fits_as_is: bool,
}

impl VideoFacts {
    /// Frames that can be shown.
    pub fn frames(&self) -> u64 {
        self.frame_times.len() as u64
    }

    /// Film time at which the last frame ends, in ticks.
    pub fn end(&self) -> i64 {
        self.frame_times.last().map_or(0, |last| last + self.last_frame_duration)
    }
}

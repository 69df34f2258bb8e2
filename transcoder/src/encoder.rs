//! One encoder and the chunk file it fills. H.264, HEVC and AV1 come out alike: closed groups that begin where they are
//! asked to, and the same headers in every chunk, so that chunks can be joined without re-encoding.

use std::path::Path;

use domain::task::{EncodeSettingsPlanned, Plan};
use domain::{Rung, VideoCodec};
use ffmpeg_next::codec::packet::Packet;
use ffmpeg_next::codec::{self, Flags};
use ffmpeg_next::color::{Primaries, Range, Space, TransferCharacteristic};
use ffmpeg_next::format::Pixel;
use ffmpeg_next::frame::Video;
use ffmpeg_next::util::error::EAGAIN;
use ffmpeg_next::{Dictionary, Error, Rational, picture};

use crate::TaskError;
use crate::chunk_file::{ChunkNote, ChunkWriter};
use crate::filters::frame_rate_rational;
use crate::pulse;
use crate::schedule::Schedule;

/// Keyframes come where they are asked for and nowhere else; no encoder adds one by itself.
const GOP_FRAMES: u32 = 1 << 20;
/// Seconds of the ceiling that the VBV buffer holds.
const BUFFER_S: u64 = 2;

pub struct VideoEncoder {
    recipe: Recipe,
    encoder: codec::encoder::video::Encoder,
    writer: ChunkWriter,
    /// Index into [`Schedule::keys`] of the next keyframe.
    next_key: usize,
    frames: u64,
}

/// What an encoder is made by.
pub struct Recipe {
    rung: Rung,
    settings: EncodeSettingsPlanned,
    timescale: u32,
    frame_rate: f64,
    threads: usize,
}

impl VideoEncoder {
    pub fn open(rung: &Rung, path: &Path, plan: &Plan, frame_rate: f64) -> Result<Self, TaskError> {
        let recipe = Recipe::new(rung, plan, frame_rate);
        let encoder = recipe.open()?;
        let writer = ChunkWriter::create(path, codec::Parameters::from(&encoder), recipe.timescale)?;
        Ok(VideoEncoder { recipe, encoder, writer, next_key: 0, frames: 0 })
    }

    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// `frame` carries its film time; it becomes a keyframe if it is the first at or after one that is due.
    pub fn encode(&mut self, mut frame: Video, schedule: &Schedule) -> Result<(), TaskError> {
        let time = frame.pts().ok_or(Error::InvalidData)?;
        let mut due = false;
        while schedule.keys.get(self.next_key).is_some_and(|&key| key <= time) {
            due = true;
            self.next_key += 1;
        }
        if due && self.frames > 0 && !self.recipe.takes_keyframes() {
            self.drain(schedule)?;
            self.encoder = self.recipe.open()?;
        }
        // The picture types of the source must not steer the encoder.
        frame.set_kind(if due { picture::Type::I } else { picture::Type::None });
        self.encoder.send_frame(&frame)?;
        self.frames += 1;
        self.write_ready(schedule)
    }

    pub fn drain(&mut self, schedule: &Schedule) -> Result<(), TaskError> {
        self.encoder.send_eof()?;
        self.write_ready(schedule)
    }

    pub fn finish(self, note: ChunkNote) -> Result<(), TaskError> {
        self.writer.finish(Some(note))
    }

    fn write_ready(&mut self, schedule: &Schedule) -> Result<(), TaskError> {
        loop {
            let mut packet = Packet::empty();
            match self.encoder.receive_packet(&mut packet) {
                Ok(()) => {
                    pulse::beat();
                    let time = packet.pts().ok_or(Error::InvalidData)?;
                    packet.set_duration(schedule.duration_of(time));
                    self.writer.write(packet)?;
                }
                Err(Error::Eof | Error::Other { errno: EAGAIN }) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Recipe {
    pub fn new(rung: &Rung, plan: &Plan, frame_rate: f64) -> Recipe {
        Recipe {
            rung: rung.clone(),
            settings: plan.settings.clone(),
            timescale: plan.boundaries.timescale,
            frame_rate,
            threads: plan.threads(),
        }
    }

    pub fn open(&self) -> Result<codec::encoder::video::Encoder, TaskError> {
        let codec = codec::encoder::find_by_name(encoder_name(self.codec())).ok_or(Error::EncoderNotFound)?;
        let mut video = codec::Context::new_with_codec(codec).encoder().video()?;
        video.set_width(self.rung.size.width);
        video.set_height(self.rung.size.height);
        video.set_format(Pixel::YUV420P);
        video.set_aspect_ratio(Rational::new(1, 1));
        video.set_time_base(Rational::new(1, i32::try_from(self.timescale).unwrap_or(i32::MAX)));
        video.set_frame_rate(Some(frame_rate_rational(self.frame_rate)));
        video.set_colorspace(Space::BT709);
        video.set_color_range(Range::MPEG);
        video.set_color_primaries(Primaries::BT709);
        video.set_color_transfer_characteristic(TransferCharacteristic::BT709);
        video.set_gop(GOP_FRAMES);
        // Setting flags replaces the default that closes GOPs.
        video.set_flags(Flags::GLOBAL_HEADER | Flags::CLOSED_GOP);
        Ok(video.open_as_with(codec, self.options())?)
    }

    fn codec(&self) -> VideoCodec {
        self.rung.name.codec()
    }

    /// FFmpeg 5.1 has no way to ask SVT-AV1 for a keyframe but to begin anew.
    fn takes_keyframes(&self) -> bool {
        self.codec() != VideoCodec::Av1
    }

    fn options(&self) -> Dictionary<'static> {
        let rung = &self.rung;
        let mut options = Dictionary::new();
        options.set("crf", &rung.crf.to_string());
        options.set("maxrate", &rung.bitrate_bps_max.to_string());
        options.set("bufsize", &(rung.bitrate_bps_max * BUFFER_S).to_string());
        match self.codec() {
            VideoCodec::H264 => {
                options.set("preset", &self.settings.x264_preset);
                options.set("profile", "high");
                options.set("sc_threshold", "0");
                options.set("forced-idr", "1");
                options.set("threads", &self.threads.to_string());
                // Every chunk gets the same headers.
                options.set("x264-params", "stitchable=1");
            }
            VideoCodec::Hevc => {
                options.set("preset", &self.settings.x265_preset);
                options.set("forced-idr", "1");
                // Pools of threads would show in the headers, and look around in a machine that the sandbox hides.
                let params = "open-gop=0:scenecut=0:info=0:log-level=error:pools=none:wpp=0:frame-threads=1";
                options.set("x265-params", params);
            }
            VideoCodec::Av1 => {
                options.set("preset", &self.settings.svtav1_preset.to_string());
                // More would take gigabytes of address space for every encoder.
                options.set("svtav1-params", "scd=0:lp=1");
            }
        }
        options
    }
}

/// As FFmpeg names it.
pub const fn encoder_name(codec: VideoCodec) -> &'static str {
    match codec {
        VideoCodec::H264 => "libx264",
        VideoCodec::Hevc => "libx265",
        VideoCodec::Av1 => "libsvtav1",
    }
}

//! One H.264 encoder and the chunk file it fills.

use std::path::Path;

use domain::Rung;
use domain::task::Plan;
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

/// Keyframes come where they are asked for and nowhere else; x264 itself never adds one.
const GOP_FRAMES: u32 = 1 << 20;
/// Seconds of the ceiling that the VBV buffer holds.
const BUFFER_S: u64 = 2;

pub struct VideoEncoder {
    encoder: codec::encoder::video::Encoder,
    writer: ChunkWriter,
    /// Index into [`Schedule::keys`] of the next keyframe.
    next_key: usize,
    frames: u64,
}

impl VideoEncoder {
    pub fn open(rung: &Rung, path: &Path, plan: &Plan, frame_rate: f64) -> Result<Self, TaskError> {
        let timescale = plan.boundaries.timescale;
        let x264 = codec::encoder::find_by_name("libx264").ok_or(Error::EncoderNotFound)?;
        let mut video = codec::Context::new_with_codec(x264).encoder().video()?;
        video.set_width(rung.size.width);
        video.set_height(rung.size.height);
        video.set_format(Pixel::YUV420P);
        video.set_aspect_ratio(Rational::new(1, 1));
        video.set_time_base(Rational::new(1, i32::try_from(timescale).unwrap_or(i32::MAX)));
        video.set_frame_rate(Some(frame_rate_rational(frame_rate)));
        video.set_colorspace(Space::BT709);
        video.set_color_range(Range::MPEG);
        video.set_color_primaries(Primaries::BT709);
        video.set_color_transfer_characteristic(TransferCharacteristic::BT709);
        video.set_gop(GOP_FRAMES);
        // Setting flags replaces the default that closes GOPs.
        video.set_flags(Flags::GLOBAL_HEADER | Flags::CLOSED_GOP);
        let encoder = video.open_as_with(x264, options(rung, plan))?;
        let writer = ChunkWriter::create(path, codec::Parameters::from(&encoder), timescale)?;
        Ok(VideoEncoder { encoder, writer, next_key: 0, frames: 0 })
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

fn options(rung: &Rung, plan: &Plan) -> Dictionary<'static> {
    let (max, buffer) = (rung.bitrate_bps_max, rung.bitrate_bps_max * BUFFER_S);
    [
        ("preset", plan.settings.x264_preset.as_str()),
        ("profile", "high"),
        ("crf", rung.crf.to_string().as_str()),
        ("maxrate", max.to_string().as_str()),
        ("bufsize", buffer.to_string().as_str()),
        ("sc_threshold", "0"),
        ("forced-idr", "1"),
        ("threads", plan.threads().to_string().as_str()),
        // Every chunk gets the same headers, so that chunks can be joined without re-encoding.
        ("x264-params", "stitchable=1"),
    ]
    .into_iter()
    .collect()
}

//! The files that pass from encoding to assembling: plain MP4, one track, times exact.
//!
//! An edit list carries the start (a delay, or the priming cut off), in the track's own timescale, so that reading
//! the file through libavformat gives back every presentation time in film ticks.

use std::path::Path;

use domain::task::OutputFile;
use ffmpeg_next::codec::packet::Packet;
use ffmpeg_next::format::context::{Input, Output};
use ffmpeg_next::{Dictionary, Rational, codec};
use serde::{Deserialize, Serialize};

use crate::TaskError;
use crate::{engine, ffi, ffi_mux, pulse};

/// What assembling should know of a chunk; the container's `comment`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkNote {
    pub frames: u64,
    /// Frames of the source that were lost or came out damaged.
    pub damaged: u64,
    /// Film time in ticks at which the last frame ends; a demuxer shortens the last sample of a delayed track.
    pub end: i64,
}

impl ChunkNote {
    /// `None` where the file carries none (audio).
    pub fn read(input: &Input) -> Option<Self> {
        serde_json::from_str(input.metadata().get("comment")?).ok()
    }
}

/// Beside the note, in the same comment.
#[derive(Debug, Serialize, Deserialize)]
struct Signed {
    #[serde(flatten)]
    note: Option<ChunkNote>,
    /// What made it ([`crate::engine`]).
    engine: String,
}

/// What made a chunk, as the file says. `None`: it does not.
pub fn engine(input: &Input) -> Option<String> {
    let signed: Signed = serde_json::from_str(input.metadata().get("comment")?).ok()?;
    Some(signed.engine)
}

pub struct ChunkWriter {
    output: Output,
    time_base: Rational,
    /// The muxer's own, once the header is written.
    track_time_base: Rational,
    headers: Vec<u8>,
    engine: Option<String>,
}

impl ChunkWriter {
    /// `timescale` of the track; packets are given in ticks of it.
    pub fn create(path: &Path, parameters: codec::Parameters, timescale: u32) -> Result<Self, TaskError> {
        let headers = ffi_mux::extradata(&parameters).to_vec();
        let mut output = ffi::create_mp4(path)?;
        let time_base = Rational::new(1, i32::try_from(timescale).unwrap_or(i32::MAX));
        let mut stream = output.add_stream(codec::encoder::find(codec::Id::None))?;
        stream.set_parameters(parameters);
        stream.set_time_base(time_base);
        ffi::clear_codec_tag(&mut stream);
        let timescale = timescale.to_string();
        let options: Dictionary = [
            ("movie_timescale", timescale.as_str()),
            ("video_track_timescale", timescale.as_str()),
            ("use_editlist", "1"),
        ]
        .into_iter()
        .collect();
        output.write_header_with(options)?;
        let track_time_base = output.stream(0).map_or(time_base, |stream| stream.time_base());
        Ok(ChunkWriter { output, time_base, track_time_base, headers, engine: None })
    }

    pub fn write(&mut self, mut packet: Packet) -> Result<(), TaskError> {
        pulse::beat();
        self.engine
            .get_or_insert_with(|| engine::of_chunk([&*self.headers, packet.data().unwrap_or_default()]));
        packet.set_stream(0);
        packet.set_position(-1);
        packet.rescale_ts(self.time_base, self.track_time_base);
        Ok(packet.write_interleaved(&mut self.output)?)
    }

    pub fn finish(mut self, note: Option<ChunkNote>) -> Result<(), TaskError> {
        let engine = self.engine.unwrap_or_else(|| engine::of_chunk([&*self.headers]));
        let comment = serde_json::to_string(&Signed { note, engine }).map_err(anyhow::Error::new)?;
        self.output.set_metadata([("comment", comment.as_str())].into_iter().collect());
        Ok(pulse::during(|| self.output.write_trailer())?)
    }
}

/// A finished file, with its size.
pub fn output_file(folder: &Path, name: impl ToString) -> Result<OutputFile, TaskError> {
    let name = name.to_string();
    let bytes = std::fs::metadata(folder.join(&name))?.len();
    Ok(OutputFile { name, bytes })
}

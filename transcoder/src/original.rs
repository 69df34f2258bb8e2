//! Makes `original`: the uploader's pictures and sound, untouched. Where they can stand where they are in the uploaded file
//! ([`reference`]) nothing is copied; else they are copied into track files of our own.
//! Nothing else of the source goes along, so no place, device or name leaves it.

use std::path::Path;

use anyhow::Context;
use domain::task::{Expected, Plan, RenditionOutput};
use domain::{ObjectFile, RenditionName, TrackKind};
use ffmpeg_next::format::context::Input;
use ffmpeg_next::packet::Packet;

use crate::error::TaskError;
use crate::ffi_mux::{self, BitstreamFilter};
use crate::original_times::{PictureTimes, SoundTimes};
use crate::progress::Progress;
use crate::rendition::{self, RenditionParts};
use crate::source::{self, AudioFacts, SourceFacts, VideoFacts};
use crate::source_reader::SourceReader;
use crate::track::{TrackSpec, TrackWriter};
use crate::verify::{self, Pictures};
use crate::{original_times, progressive};

const VIDEO: ObjectFile = ObjectFile::Track(RenditionName::Original, TrackKind::Video);
const AUDIO: ObjectFile = ObjectFile::Track(RenditionName::Original, TrackKind::Audio);

/// Fraction of the work at which the tracks are written.
const COPIED: f64 = 0.8;

/// Copies the chosen streams of `input` into `output`, packages and verifies them.
pub fn copy(
    facts: &SourceFacts,
    input: &Path,
    output: &Path,
    plan: &Plan,
    progress: &Progress,
) -> Result<RenditionOutput, TaskError> {
    SourceReader::open(input)?.wait_for_all()?;
    let times = picture_times(&mut source::reopen(input, facts)?, facts);
    copy_tracks(facts, source::reopen(input, facts)?, output, plan, &times, progress)?;
    progress.report(COPIED);
    let parts = RenditionParts {
        name: RenditionName::Original,
        size: facts.video.size,
        made_by: "stream copy".to_owned(),
    };
    let rendition = rendition::package(&parts, VIDEO, facts.audio.as_ref().map(|_| AUDIO), output)?;
    verify::rendition(&rendition, &plan.boundaries, &expected(facts, plan), Pictures::Copied)?;
    Ok(rendition.output)
}

/// Rungs of fast sources have fewer frames; `original` has them all.
pub fn expected(facts: &SourceFacts, plan: &Plan) -> Expected {
    Expected { frames: Some(facts.video.frames()), ..plan.expected.clone() }
}

fn picture_times(source: &mut Input, facts: &SourceFacts) -> Vec<(i64, i64)> {
    let of_pictures = |packet: &Packet| packet.stream() == facts.video.stream_index && facts.wanted(packet);
    let pictures = source.packets().filter(|(_, packet)| of_pictures(packet));
    original_times::of_pictures(pictures.map(|(_, packet)| (packet.dts(), packet.pts())), facts.video.clock)
}

fn copy_tracks(
    facts: &SourceFacts,
    mut source: Input,
    output: &Path,
    plan: &Plan,
    times: &[(i64, i64)],
    progress: &Progress,
) -> anyhow::Result<()> {
    let mut video = VideoCopy::new(&facts.video, &source, output, plan, times)?;
    let mut audio = match &facts.audio {
        Some(audio) => Some(AudioCopy::new(audio, &source, output, plan)?),
        None => None,
    };
    for (_, packet) in source.packets().filter(|(_, packet)| facts.wanted(packet)) {
        progress.report(COPIED * video.times.fraction());
        match &mut audio {
            _ if packet.stream() == facts.video.stream_index => video.write(packet)?,
            Some(audio) => audio.write(packet)?,
            None => {}
        }
    }
    video.finish()?;
    audio.map_or(Ok(()), AudioCopy::finish)
}

struct VideoCopy<'a> {
    facts: &'a VideoFacts,
    writer: TrackWriter,
    times: PictureTimes<'a>,
}

impl<'a> VideoCopy<'a> {
    fn new(
        facts: &'a VideoFacts,
        source: &Input,
        output: &Path,
        plan: &Plan,
        times: &'a [(i64, i64)],
    ) -> anyhow::Result<Self> {
        let times = PictureTimes::new(facts.clock, times, plan);
        let spec = video_spec(facts, source, times.first_pts()?)?;
        let writer = TrackWriter::create(&output.join(VIDEO.to_string()), &spec)?;
        Ok(VideoCopy { facts, writer, times })
    }

    fn write(&mut self, mut packet: Packet) -> anyhow::Result<()> {
        let Some(shown_at) = packet.pts() else { return Ok(()) };
        let placed = self.times.place(shown_at, packet.is_key())?;
        packet.set_pts(Some(placed.pts));
        packet.set_dts(Some(placed.dts));
        self.writer.write(packet, placed.starts_fragment)
    }

    fn finish(self) -> anyhow::Result<()> {
        self.times.finish()?;
        self.writer.finish(self.facts.last_frame_duration.max(1))
    }
}

/// The track that holds the pictures of `source`.
pub fn video_spec(facts: &VideoFacts, source: &Input, first_pts: i64) -> anyhow::Result<TrackSpec> {
    let stream = source.stream(facts.stream_index).context("the video stream is gone")?;
    Ok(TrackSpec {
        parameters: stream.parameters(),
        timescale: facts.clock.timescale,
        display_matrix: progressive::display_matrix(&stream),
        first_pts,
    })
}

/// The track that holds the sound of `source`.
pub fn audio_spec(facts: &AudioFacts, source: &Input, first_pts: i64) -> anyhow::Result<TrackSpec> {
    let stream = source.stream(facts.stream_index).context("the audio stream is gone")?;
    let parameters = stream.parameters();
    Ok(TrackSpec { parameters, timescale: facts.clock.timescale, display_matrix: None, first_pts })
}

struct AudioCopy<'a> {
    spec: TrackSpec,
    path: std::path::PathBuf,
    /// Made with the first packet, whose time decides how the track begins.
    writer: Option<TrackWriter>,
    times: SoundTimes<'a>,
    /// For sound that comes with a header on each packet.
    unframe: Option<BitstreamFilter>,
}

impl<'a> AudioCopy<'a> {
    fn new(facts: &'a AudioFacts, source: &Input, output: &Path, plan: &Plan) -> anyhow::Result<Self> {
        let spec = audio_spec(facts, source, 0)?;
        let is_configured = !ffi_mux::extradata(&spec.parameters).is_empty();
        let unframe =
            if is_configured { None } else { Some(BitstreamFilter::adts_to_asc(&spec.parameters)?) };
        Ok(AudioCopy {
            times: SoundTimes::new(facts, ffi_mux::frame_samples(&spec.parameters), plan),
            spec,
            path: output.join(AUDIO.to_string()),
            writer: None,
            unframe,
        })
    }

    fn write(&mut self, mut packet: Packet) -> anyhow::Result<()> {
        let Some(heard_at) = packet.pts() else { return Ok(()) };
        if let Some(unframe) = &mut self.unframe {
            unframe.apply(&mut packet).context("unwrap a packet of sound")?;
        }
        let placed = self.times.place(heard_at, packet.duration());
        packet.set_pts(Some(placed.pts));
        packet.set_dts(Some(placed.dts));
        self.writer(placed.pts)?.write(packet, placed.starts_fragment)
    }

    fn writer(&mut self, first_pts: i64) -> anyhow::Result<&mut TrackWriter> {
        if self.writer.is_none() {
            self.spec.first_pts = first_pts;
            self.writer = Some(TrackWriter::create(&self.path, &self.spec)?);
        }
        self.writer.as_mut().context("a writer that was just made")
    }

    fn finish(self) -> anyhow::Result<()> {
        self.writer.context("the audio stream has no packets")?.finish(self.times.last_duration)
    }
}

#[cfg(test)]
#[path = "original_tests.rs"]
mod tests;

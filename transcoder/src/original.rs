//! Makes `original` by stream copy: the uploader's pictures and sound, untouched, in track files of our own.
//! Nothing else of the source goes along, so no place, device or name leaves it.

use std::path::Path;

use anyhow::{Context, ensure};
use domain::task::{Expected, Plan, RenditionOutput};
use domain::{ObjectFile, RenditionName, TrackKind};
use ffmpeg_next::format::context::Input;
use ffmpeg_next::packet::Packet;

use crate::error::TaskError;
use crate::ffi_mux::{self, BitstreamFilter};
use crate::film_clock::FilmClock;
use crate::progress::Progress;
use crate::rendition::{self, RenditionParts};
use crate::source::{self, AudioFacts, SourceFacts, VideoFacts};
use crate::track::{self, Cuts, TrackSpec, TrackWriter};
use crate::verify::{self, Pictures};
use crate::{progressive, timing};

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
    let times = picture_times(&mut source::reopen(input, facts)?, facts);
    copy_tracks(facts, source::reopen(input, facts)?, output, plan, &times, progress)?;
    progress.report(COPIED);
    let parts = RenditionParts {
        name: RenditionName::Original,
        size: facts.video.size,
        video: VIDEO,
        audio: facts.audio.as_ref().map(|_| AUDIO),
        made_by: "stream copy".to_owned(),
    };
    let rendition = rendition::package(&parts, output)?;
    // Rungs of fast sources have fewer frames; a copy has them all.
    let expected = Expected { frames: Some(facts.video.frames()), ..plan.expected.clone() };
    verify::rendition(&rendition, &plan.boundaries, &expected, Pictures::Copied)?;
    Ok(rendition.output)
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
        progress.report(COPIED * video.fraction());
        match &mut audio {
            _ if packet.stream() == facts.video.stream_index => video.write(packet)?,
            Some(audio) => audio.write(packet)?,
            None => {}
        }
    }
    video.finish()?;
    audio.map_or(Ok(()), AudioCopy::finish)
}

/// The (decoding, presentation) times of the shown pictures in decoding order, in film ticks: those of the
/// source where they are sound, else decoding times made from the order.
fn picture_times(source: &mut Input, facts: &SourceFacts) -> Vec<(i64, i64)> {
    let VideoFacts { clock, stream_index, .. } = facts.video;
    let (mut dts, mut pts) = (Vec::new(), Vec::new());
    for (_, packet) in source.packets().filter(|(_, packet)| facts.wanted(packet)) {
        if packet.stream() == stream_index
            && let Some(shown_at) = packet.pts()
        {
            dts.push(packet.dts().map(|dts| clock.ticks(dts)));
            pts.push(clock.ticks(shown_at));
        }
    }
    let own: Option<Vec<i64>> = dts.into_iter().collect();
    own.map(|dts| zip(dts, &pts))
        .filter(|times| timing::are_sound(times))
        .unwrap_or_else(|| zip(timing::decode_times(&pts), &pts))
}

fn zip(dts: Vec<i64>, pts: &[i64]) -> Vec<(i64, i64)> {
    dts.into_iter().zip(pts.iter().copied()).collect()
}

struct VideoCopy<'a> {
    facts: &'a VideoFacts,
    writer: TrackWriter,
    cuts: Cuts,
    times: std::slice::Iter<'a, (i64, i64)>,
    count: usize,
}

impl<'a> VideoCopy<'a> {
    fn new(
        facts: &'a VideoFacts,
        source: &Input,
        output: &Path,
        plan: &Plan,
        times: &'a [(i64, i64)],
    ) -> anyhow::Result<Self> {
        let stream = source.stream(facts.stream_index).context("the video stream is gone")?;
        let spec = TrackSpec {
            parameters: stream.parameters(),
            timescale: facts.clock.timescale,
            display_matrix: progressive::display_matrix(&stream),
            first_pts: times.first().context("no pictures")?.1,
        };
        let writer = TrackWriter::create(&output.join(VIDEO.to_string()), &spec)?;
        let cuts = Cuts::of_pictures(track::starts_in(&plan.boundaries, facts.clock.timescale));
        Ok(VideoCopy { facts, writer, cuts, times: times.iter(), count: times.len() })
    }

    fn write(&mut self, mut packet: Packet) -> anyhow::Result<()> {
        let Some(shown_at) = packet.pts() else { return Ok(()) };
        let (dts, pts) = *self.times.next().context("more pictures than at the first reading")?;
        ensure!(pts == self.facts.clock.ticks(shown_at), "another picture than at the first reading");
        packet.set_pts(Some(pts));
        packet.set_dts(Some(dts));
        let starts_fragment = self.cuts.at_keyframe(pts, packet.is_key());
        self.writer.write(packet, starts_fragment)
    }

    fn fraction(&self) -> f64 {
        1.0 - self.times.len() as f64 / self.count as f64
    }

    fn finish(self) -> anyhow::Result<()> {
        let missed = self.cuts.missed().map(|ticks| self.facts.clock.seconds(ticks));
        ensure!(missed.is_none(), "no keyframe at {missed:?} s, where a fragment starts");
        self.writer.finish(self.facts.last_frame_duration.max(1))
    }
}

struct AudioCopy<'a> {
    facts: &'a AudioFacts,
    spec: TrackSpec,
    path: std::path::PathBuf,
    /// Made with the first packet, whose time decides how the track begins.
    writer: Option<TrackWriter>,
    cuts: Cuts,
    clock: timing::AudioClock,
    /// For sound that comes with a header on each packet.
    unframe: Option<BitstreamFilter>,
    /// Samples in a packet, where its own duration is rounded.
    frame_samples: i64,
    is_exact: bool,
    last_duration: i64,
}

impl<'a> AudioCopy<'a> {
    fn new(facts: &'a AudioFacts, source: &Input, output: &Path, plan: &Plan) -> anyhow::Result<Self> {
        let parameters = source.stream(facts.stream_index).context("the audio stream is gone")?.parameters();
        let FilmClock { time_base, timescale, .. } = facts.clock;
        let is_exact = f64::from(time_base.invert()) == f64::from(timescale);
        let rounding = if is_exact { 0 } else { facts.clock.length(1) + 2 };
        let frame_samples = match ffi_mux::frame_samples(&parameters) {
            0 => AAC_FRAME_SAMPLES,
            samples => samples,
        };
        let is_configured = !ffi_mux::extradata(&parameters).is_empty();
        let unframe = if is_configured { None } else { Some(BitstreamFilter::adts_to_asc(&parameters)?) };
        let starts = track::starts_in(&plan.boundaries, timescale);
        Ok(AudioCopy {
            facts,
            spec: TrackSpec { parameters, timescale, display_matrix: None, first_pts: 0 },
            path: output.join(AUDIO.to_string()),
            writer: None,
            cuts: Cuts::of_sound(&starts, facts.start, facts.end, timescale),
            clock: timing::AudioClock::new(rounding),
            unframe,
            frame_samples,
            is_exact,
            last_duration: 0,
        })
    }

    fn write(&mut self, mut packet: Packet) -> anyhow::Result<()> {
        let Some(pts) = packet.pts().map(|pts| self.facts.clock.ticks(pts)) else { return Ok(()) };
        if let Some(unframe) = &mut self.unframe {
            unframe.apply(&mut packet).context("unwrap a packet of sound")?;
        }
        let duration = self.facts.clock.length(packet.duration());
        let duration = if self.is_exact && duration > 0 { duration } else { self.frame_samples };
        let pts = self.clock.place(pts, duration);
        packet.set_pts(Some(pts));
        packet.set_dts(Some(pts));
        self.last_duration = duration;
        let starts_fragment = self.cuts.at_nearest(pts, duration);
        self.writer(pts)?.write(packet, starts_fragment)
    }

    fn writer(&mut self, first_pts: i64) -> anyhow::Result<&mut TrackWriter> {
        if self.writer.is_none() {
            self.spec.first_pts = first_pts;
            self.writer = Some(TrackWriter::create(&self.path, &self.spec)?);
        }
        self.writer.as_mut().context("a writer that was just made")
    }

    fn finish(self) -> anyhow::Result<()> {
        self.writer.context("the audio stream has no packets")?.finish(self.last_duration)
    }
}

/// Samples in a frame of AAC-LC.
const AAC_FRAME_SAMPLES: i64 = 1024;

#[cfg(test)]
#[path = "original_tests.rs"]
mod tests;

//! Joins the encoded chunks of each rung by stream copy, puts the shared sound beside them, packages and
//! verifies.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use domain::task::{Expected, Plan, RenditionOutput};
use domain::{ObjectFile, Rung, TrackKind, VideoCodec};
use ffmpeg_next::codec::Parameters;
use ffmpeg_next::format::context::Input;
use ffmpeg_next::packet::Packet;
use ffmpeg_next::{Rational, format};

use crate::chunk_file::ChunkNote;
use crate::error::TaskError;
use crate::progress::Progress;
use crate::rendition::{self, RenditionParts};
use crate::track::{Cuts, TrackSpec, TrackWriter, starts_in};
use crate::verify::{self, Pictures};
use crate::{encoder, ffi_mux, film_clock, timing};

/// Fractions of the work on one rung at which its chunks are joined and its files are written.
const JOINED: f64 = 0.6;
const PACKAGED: f64 = 0.7;

/// Makes every rung of the plan from its chunks: `chunks[rung][chunk]`. `progress` hears how far it is.
pub fn assemble(
    chunks: &[Vec<PathBuf>],
    audio: Option<&Path>,
    output: &Path,
    plan: &Plan,
    progress: &Progress,
) -> Result<Vec<RenditionOutput>, TaskError> {
    check_inputs(chunks, audio, plan)?;
    if let Some(audio) = audio {
        package_audio(audio, output, plan).context("package the shared sound")?;
    }
    let mut renditions = Vec::with_capacity(plan.rungs.len());
    for (number, (rung, chunks)) in plan.rungs.iter().zip(chunks).enumerate() {
        let share = 1.0 / plan.rungs.len() as f64;
        let report = |fraction: f64| progress.report((number as f64 + fraction) * share);
        let joined = join(chunks, rung, output, plan, &report)
            .with_context(|| format!("join the chunks of {}", rung.name))?;
        report(PACKAGED);
        let video = ObjectFile::Track(rung.name, TrackKind::Video);
        let sound = audio.is_some().then_some(ObjectFile::SharedAudio);
        let rendition = rendition::package(&parts(rung, plan), video, sound, output)?;
        let expected = Expected { frames: Some(joined.frames), ..plan.expected.clone() };
        verify::rendition(&rendition, &plan.boundaries, &expected, Pictures::Encoded)?;
        renditions.push(rendition);
    }
    verify::aligned(&renditions)?;
    progress.report(1.0);
    Ok(renditions.into_iter().map(|rendition| rendition.output).collect())
}

fn check_inputs(chunks: &[Vec<PathBuf>], audio: Option<&Path>, plan: &Plan) -> anyhow::Result<()> {
    let (rungs, given) = (plan.rungs.len(), chunks.len());
    ensure!(given == rungs, "chunks of {given} rungs for a plan of {rungs}");
    for (rung, chunks) in plan.rungs.iter().zip(chunks) {
        let (planned, given) = (plan.chunks.len(), chunks.len());
        ensure!(given == planned, "{given} chunks of {} for a plan of {planned}", rung.name);
    }
    ensure!(audio.is_some() == plan.audio, "sound is planned: {}, given: {}", plan.audio, audio.is_some());
    Ok(())
}

fn parts(rung: &Rung, plan: &Plan) -> RenditionParts {
    let settings = &plan.settings;
    let preset = match rung.name.codec() {
        VideoCodec::H264 => settings.x264_preset.clone(),
        VideoCodec::Hevc => settings.x265_preset.clone(),
        VideoCodec::Av1 => settings.svtav1_preset.to_string(),
    };
    RenditionParts {
        name: rung.name,
        size: rung.size,
        made_by: format!(
            "{} {preset} crf {} at most {} bit/s, a keyframe every {} s, {} chunks",
            encoder::encoder_name(rung.name.codec()),
            rung.crf,
            rung.bitrate_bps_max,
            settings.gop_s_max,
            plan.chunks.len()
        ),
    }
}

/// What the chunks of one rung say together.
struct Joined {
    parameters: Parameters,
    /// Presentation times in film ticks, in decoding order.
    pts: Vec<i64>,
    frames: u64,
    /// Where the last frame ends, in film ticks.
    end: i64,
}

/// Joins the chunks of one rung. Their pictures keep their presentation times; decoding times are made anew
/// from the order, for the delay of one chunk need not be that of the next.
fn join(
    chunks: &[PathBuf],
    rung: &Rung,
    output: &Path,
    plan: &Plan,
    report: &dyn Fn(f64),
) -> anyhow::Result<Joined> {
    let timescale = plan.boundaries.timescale;
    let joined = read_chunks(chunks, plan)?;
    let spec = TrackSpec {
        parameters: joined.parameters.clone(),
        timescale,
        display_matrix: None,
        first_pts: *joined.pts.first().context("no pictures")?,
    };
    let mut dts = timing::decode_times(&joined.pts).into_iter();
    let mut cuts = Cuts::of_pictures(starts_in(&plan.boundaries, timescale));
    let file = ObjectFile::Track(rung.name, TrackKind::Video);
    let mut writer = TrackWriter::create(&output.join(file.to_string()), &spec)?;
    for chunk in chunks {
        for packet in packets(&mut open(chunk)?, timescale) {
            let mut packet = packet?;
            let pts = packet.pts().context("a picture without a presentation time")?;
            report(JOINED * (1.0 - dts.len() as f64 / joined.frames as f64));
            packet.set_dts(dts.next());
            let starts_fragment = cuts.at_keyframe(pts, packet.is_key());
            writer.write(packet, starts_fragment)?;
        }
    }
    let missed = cuts.missed().map(|ticks| ticks as f64 / f64::from(timescale));
    ensure!(missed.is_none(), "no keyframe at {missed:?} s, where a fragment starts");
    let last_shown = joined.pts.iter().max().context("no pictures")?;
    writer.finish(joined.end - last_shown)?;
    Ok(joined)
}

/// Reads the times of all pictures, and holds the count against what encoding said of each chunk.
fn read_chunks(chunks: &[PathBuf], plan: &Plan) -> anyhow::Result<Joined> {
    let mut pts = Vec::new();
    let mut parameters: Option<Parameters> = None;
    let mut noted = ChunkNote::default();
    for chunk in chunks {
        let mut input = open(chunk)?;
        let note = ChunkNote::read(&input).with_context(|| format!("no note in {}", chunk.display()))?;
        let own = input.stream(0).context("a chunk without a stream")?.parameters();
        if let Some(first) = &parameters {
            let same = ffi_mux::extradata(first) == ffi_mux::extradata(&own);
            ensure!(same, "{} was encoded otherwise than the first chunk", chunk.display());
        }
        parameters.get_or_insert(own);
        for packet in packets(&mut input, plan.boundaries.timescale) {
            pts.push(packet?.pts().context("a picture without a presentation time")?);
        }
        noted.frames += note.frames;
        noted.damaged += note.damaged;
        noted.end = note.end;
    }
    let found = pts.len() as u64;
    ensure!(found == noted.frames, "{found} frames in the chunks, {} were encoded", noted.frames);
    if let Some(expected) = plan.expected.frames {
        let missing = expected.abs_diff(found);
        let damaged = noted.damaged;
        ensure!(missing <= damaged, "{found} frames, expected {expected}, of which {damaged} were damaged");
    }
    Ok(Joined { parameters: parameters.context("no chunks")?, pts, frames: found, end: noted.end })
}

/// Cuts the encoded sound into fragments beside those of the pictures.
fn package_audio(audio: &Path, output: &Path, plan: &Plan) -> anyhow::Result<()> {
    let mut input = open(audio)?;
    let parameters = input.stream(0).context("a sound file without a stream")?.parameters();
    let timescale = ffi_mux::sample_rate(&parameters);
    ensure!(timescale > 0, "sound without a sample rate");
    let mut spec = TrackSpec { parameters, timescale, display_matrix: None, first_pts: 0 };
    let end = (plan.expected.duration_s * f64::from(timescale)) as i64;
    let mut track: Option<(TrackWriter, Cuts)> = None;
    let mut duration = 0;
    for packet in packets(&mut input, timescale) {
        let packet = packet?;
        let pts = packet.pts().context("sound without a presentation time")?;
        if track.is_none() {
            spec.first_pts = pts;
            let writer = TrackWriter::create(&output.join(ObjectFile::SharedAudio.to_string()), &spec)?;
            track =
                Some((writer, Cuts::of_sound(&starts_in(&plan.boundaries, timescale), pts, end, timescale)));
        }
        let (writer, cuts) = track.as_mut().context("a writer that was just made")?;
        // A demuxer shortens the last packet of a delayed track, to nothing or less.
        duration = if packet.duration() > 0 { packet.duration() } else { duration };
        let starts_fragment = cuts.at_nearest(pts, duration);
        writer.write(packet, starts_fragment)?;
    }
    track.context("no sound in the sound file")?.0.finish(duration)
}

fn open(path: &Path) -> anyhow::Result<Input> {
    format::input(path).with_context(|| format!("open {}", path.display()))
}

/// The packets of a file with one stream, their times in ticks of `1/timescale`.
fn packets(input: &mut Input, timescale: u32) -> impl Iterator<Item = anyhow::Result<Packet>> {
    let time_base = input.stream(0).map_or(Rational::new(1, 1), |stream| stream.time_base());
    let ticks = move |time: i64| film_clock::rescale(time, time_base, timescale);
    std::iter::from_fn(move || {
        let mut packet = Packet::empty();
        match packet.read(input) {
            Ok(()) => {
                packet.set_pts(packet.pts().map(ticks));
                packet.set_dts(packet.dts().map(ticks));
                packet.set_duration(ticks(packet.duration()));
                Some(Ok(packet))
            }
            Err(ffmpeg_next::Error::Eof) => None,
            Err(error) => Some(Err(anyhow::Error::new(error).context("read a packet"))),
        }
    })
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
pub mod tests;

//! Joins the encoded chunks of each rung by stream copy, puts the shared sound beside them, packages and
//! verifies.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use domain::task::{Expected, Part, Plan, RenditionOutput};
use domain::{ObjectFile, Rung, TrackKind};
use ffmpeg_next::codec::Parameters;
use ffmpeg_next::format::context::Input;
use ffmpeg_next::packet::Packet;
use ffmpeg_next::{Rational, format};

use crate::chunk_file::{self, ChunkNote};
use crate::error::{TaskError, Unsound};
use crate::progress::Progress;
use crate::rendition::{self, RenditionParts};
use crate::track::{Cuts, TrackSpec, TrackWriter, starts_in};
use crate::verify::{self, Pictures, Spot};
use crate::{engine, ffi_mux, film_clock, timing};

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
    let sound_by = audio.map(|audio| package_audio(audio, output, plan)).transpose();
    let sound_by = sound_by.context("package the shared sound").context(Unsound(vec![Part::Audio]))?;
    let mut renditions = Vec::with_capacity(plan.rungs.len());
    for (number, (rung, chunks)) in plan.rungs.iter().zip(chunks).enumerate() {
        let share = 1.0 / plan.rungs.len() as f64;
        let report = |fraction: f64| progress.report((number as f64 + fraction) * share);
        let joined = join(chunks, rung, output, plan, &report)
            .with_context(|| format!("join the chunks of {}", rung.name))?;
        report(PACKAGED);
        let video = ObjectFile::Track(rung.name, TrackKind::Video);
        let sound = audio.is_some().then_some(ObjectFile::SharedAudio);
        let made_by = engine::of_rung(rung, plan, &joined.engines, sound_by.as_deref());
        let rendition = rendition::package(&parts(rung, made_by), video, sound, output)?;
        let expected = Expected { frames: Some(joined.frames), ..plan.expected.clone() };
        verify::rendition(&rendition, &plan.boundaries, &expected, Pictures::Encoded)
            .map_err(|error| blame(error, plan))?;
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

/// Names the parts of the encode that a failed check points at.
fn blame(error: anyhow::Error, plan: &Plan) -> anyhow::Error {
    let last = plan.chunks.len().saturating_sub(1) as u32;
    let parts = match error.downcast_ref() {
        Some(Spot::Fragment(number)) => {
            let start = plan.boundaries.starts.get(*number);
            vec![start.map_or(Part::Chunk(last), |&start| chunk_at(plan, start))]
        }
        Some(Spot::End) => [Part::Chunk(last)].into_iter().chain(plan.audio.then_some(Part::Audio)).collect(),
        Some(Spot::Sound) => vec![Part::Audio],
        // Made by the packaging, which can be repeated.
        None => return error,
    };
    error.context(Unsound(parts))
}

fn chunk_at(plan: &Plan, ticks: i64) -> Part {
    let later = plan.chunks.iter().take_while(|span| span.start <= ticks).count();
    Part::Chunk(later.saturating_sub(1) as u32)
}

fn parts(rung: &Rung, made_by: String) -> RenditionParts {
    RenditionParts { name: rung.name, size: rung.size, made_by }
}

/// What the chunks of one rung say together.
struct Joined {
    parameters: Parameters,
    /// Presentation times in film ticks, in decoding order.
    pts: Vec<i64>,
    frames: u64,
    /// Where the last frame ends, in film ticks.
    end: i64,
    /// What made each chunk.
    engines: Vec<String>,
}

/// What one chunk holds and says.
struct Chunk {
    parameters: Parameters,
    pts: Vec<i64>,
    note: ChunkNote,
    engine: String,
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
    if let Some(ticks) = cuts.missed() {
        let missed_s = ticks as f64 / f64::from(timescale);
        let error = anyhow::anyhow!("no keyframe at {missed_s} s, where a fragment starts");
        return Err(error.context(Unsound(vec![chunk_at(plan, ticks)])));
    }
    let last_shown = joined.pts.iter().max().context("no pictures")?;
    writer.finish(joined.end - last_shown)?;
    Ok(joined)
}

/// Reads the times of all pictures, and holds the count against what encoding said of each chunk.
fn read_chunks(paths: &[PathBuf], plan: &Plan) -> anyhow::Result<Joined> {
    let mut chunks = Vec::with_capacity(paths.len());
    for (number, path) in (0..).zip(paths) {
        let chunk = read_chunk(path, plan.boundaries.timescale);
        chunks.push(chunk.with_context(|| Unsound(vec![Part::Chunk(number)]))?);
    }
    one_header(&chunks)?;
    let found: u64 = chunks.iter().map(|chunk| chunk.pts.len() as u64).sum();
    if let Some(expected) = plan.expected.frames {
        let missing = expected.abs_diff(found);
        let damaged: u64 = chunks.iter().map(|chunk| chunk.note.damaged).sum();
        // Each chunk keeps its word, so it may be any of them.
        ensure_sound(missing <= damaged, (0..chunks.len()).collect(), || {
            format!("{found} frames, expected {expected}, of which {damaged} were damaged")
        })?;
    }
    let (first, last) = (chunks.first().context("no chunks")?, chunks.last().context("no chunks")?);
    Ok(Joined {
        parameters: first.parameters.clone(),
        end: last.note.end,
        frames: found,
        engines: chunks.iter().map(|chunk| chunk.engine.clone()).collect(),
        pts: chunks.into_iter().flat_map(|chunk| chunk.pts).collect(),
    })
}

fn read_chunk(path: &Path, timescale: u32) -> anyhow::Result<Chunk> {
    let mut input = open(path)?;
    let note = ChunkNote::read(&input).with_context(|| format!("no note in {}", path.display()))?;
    let engine = chunk_file::engine(&input).unwrap_or_else(|| "an engine that did not say".to_owned());
    let parameters = input.stream(0).context("a chunk without a stream")?.parameters();
    let mut pts = Vec::new();
    for packet in packets(&mut input, timescale) {
        pts.push(packet?.pts().context("a picture without a presentation time")?);
    }
    let found = pts.len() as u64;
    ensure!(found == note.frames, "{found} frames in the chunk, {} were encoded", note.frames);
    Ok(Chunk { parameters, pts, note, engine })
}

/// All chunks of a track are decoded by one header. Those with another than most were made by another encoder, or
/// damaged.
fn one_header(chunks: &[Chunk]) -> anyhow::Result<()> {
    let header = |chunk: &Chunk| ffi_mux::extradata(&chunk.parameters).to_vec();
    let mut counts: HashMap<Vec<u8>, usize> = HashMap::new();
    for chunk in chunks {
        *counts.entry(header(chunk)).or_default() += 1;
    }
    let most = counts.values().max().copied().unwrap_or(0);
    let Some(usual) = chunks.iter().find(|chunk| counts[&header(chunk)] == most) else { return Ok(()) };
    let odd = (0..chunks.len()).filter(|&number| header(&chunks[number]) != header(usual));
    let odd: Vec<usize> = odd.collect();
    let Some(&first) = odd.first() else { return Ok(()) };
    ensure_sound(false, odd, || {
        let (engine, usually) = (&chunks[first].engine, &usual.engine);
        format!("it was encoded otherwise than most chunks: by {engine}, they by {usually}")
    })
}

/// `chunks`: what is at fault if this does not hold.
fn ensure_sound(holds: bool, chunks: Vec<usize>, otherwise: impl Fn() -> String) -> anyhow::Result<()> {
    if holds {
        return Ok(());
    }
    let parts = chunks.into_iter().map(|number| Part::Chunk(number as u32)).collect();
    Err(anyhow::anyhow!(otherwise()).context(Unsound(parts)))
}

/// Cuts the encoded sound into fragments beside those of the pictures; answers with what made it.
fn package_audio(audio: &Path, output: &Path, plan: &Plan) -> anyhow::Result<String> {
    let mut input = open(audio)?;
    let made_by = chunk_file::engine(&input).unwrap_or_default();
    let parameters = input.stream(0).context("a sound file without a stream")?.parameters();
    let timescale = ffi_mux::sample_rate(&parameters);
    ensure!(timescale > 0, "sound without a sample rate");
    let end = (plan.expected.duration_s * f64::from(timescale)) as i64;
    let mut track: Option<(TrackWriter, Cuts)> = None;
    // Of a track with one packet nothing else tells.
    let mut duration = ffi_mux::frame_samples(&parameters);
    let mut spec = TrackSpec { parameters, timescale, display_matrix: None, first_pts: 0 };
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
    track.context("no sound in the sound file")?.0.finish(duration)?;
    Ok(made_by)
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

//! The last look before a rendition is reported (`media.md`, "Exactness"): it is read again from its files and
//! held against the plan. A rendition that fails is never published.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context, ensure};
use domain::task::{Boundaries, Expected};
use domain::{Layout, Piece, TrackIndex};
use ffmpeg_next::format::context::StreamIo;
use ffmpeg_next::{codec, codec::discard::Discard, format, frame};

use crate::rendition::Rendition;
use crate::source_reader::SourceReader;
use crate::track::starts_in;
use crate::track_index::TrackFile;

/// How far sound may move against the pictures, in seconds.
const AUDIO_SHIFT_S_MAX: f64 = 0.020;
/// More than the boxes before the first packet have to be, so that a fragment is known for what it is.
const HEADER_PROBE_BYTES: &str = "2048";
/// Rounding of sums of ticks, in seconds.
const ROUNDING_S: f64 = 0.001;

/// Where the pictures come from decides how much can be asked of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pictures {
    /// The uploader's: damage in them is not ours.
    Copied,
    Encoded,
}

/// A context: where in the film a check failed, and with that what may have to be encoded again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spot {
    /// By its number.
    Fragment(usize),
    End,
    Sound,
}

impl std::fmt::Display for Spot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Spot::Fragment(number) => write!(f, "fragment {number}"),
            Spot::End => f.write_str("the end"),
            Spot::Sound => f.write_str("the sound"),
        }
    }
}

/// Holds one rendition against what was planned. The error says what was found and what was expected.
pub fn rendition(
    rendition: &Rendition,
    boundaries: &Boundaries,
    expected: &Expected,
    pictures: Pictures,
) -> anyhow::Result<()> {
    let check = || -> anyhow::Result<()> {
        let Rendition { video, audio, .. } = rendition;
        frames(video, expected)?;
        fragments(video, boundaries)?;
        let paths = &rendition.paths;
        segment_index(video, paths).context("the segment index of the pictures")?;
        if let Some(audio) = audio {
            segment_index(audio, paths).context("the segment index of the sound")?;
        }
        duration(rendition, expected).context(Spot::End)?;
        audio_offset(video, audio.as_ref(), expected).context(Spot::Sound)?;
        progressive(rendition)?;
        for number in [Some(0), video.index.fragments.len().checked_sub(1)].into_iter().flatten() {
            decodes(rendition, number, pictures).context("decode").context(Spot::Fragment(number))?;
        }
        Ok(())
    };
    check().with_context(|| format!("verify {}", rendition.output.name))
}

/// Renditions of one video cut their pictures at the same instants, so that a player can change between them.
pub fn aligned(renditions: &[Rendition]) -> anyhow::Result<()> {
    let starts = |rendition: &Rendition| -> Vec<f64> {
        let video = &rendition.video;
        video.index.fragments.iter().map(|fragment| video.seconds(fragment.start)).collect()
    };
    let Some((first, others)) = renditions.split_first() else { return Ok(()) };
    let expected = starts(first);
    for other in others {
        ensure!(starts(other) == expected, "{} and {} are cut apart", first.output.name, other.output.name);
    }
    Ok(())
}

fn frames(video: &TrackFile, expected: &Expected) -> anyhow::Result<()> {
    let found = video.samples.len() as u64;
    ensure!(found > 0, "no frames");
    if let Some(expected) = expected.frames {
        ensure!(found == expected, "{found} frames, expected {expected}");
    }
    Ok(())
}

/// One fragment for each boundary, at its instant, beginning with a keyframe.
fn fragments(video: &TrackFile, boundaries: &Boundaries) -> anyhow::Result<()> {
    let expected = starts_in(boundaries, video.index.timescale);
    let found: Vec<i64> = video.index.fragments.iter().map(|fragment| fragment.start).collect();
    let same = found.iter().zip(&expected).take_while(|(found, expected)| found == expected).count();
    if found != expected {
        return Err(anyhow::anyhow!(
            "fragment {same} of {} starts at {:?} ticks, expected {:?} of {}",
            found.len(),
            found.get(same),
            expected.get(same),
            expected.len()
        )
        .context(Spot::Fragment(same)));
    }
    for number in 0..found.len() {
        let is_key = video.samples_of(number).first().is_some_and(|sample| sample.is_key);
        if !is_key {
            return Err(anyhow::anyhow!("it does not start with a keyframe").context(Spot::Fragment(number)));
        }
    }
    Ok(())
}

/// `sidx` says of every fragment what the index says, byte for byte.
fn segment_index(track: &TrackFile, paths: &[PathBuf]) -> anyhow::Result<()> {
    let Some(sidx) = &track.sidx else { return Ok(()) };
    let fragments = &track.index.fragments;
    let (found, expected) = (sidx.references.len(), fragments.len());
    ensure!(found == expected, "{found} references for {expected} fragments");
    ensure!(sidx.first_offset == 0, "the first fragment is not right behind the index");
    let mut end = None;
    for (number, (reference, fragment)) in sidx.references.iter().zip(fragments).enumerate() {
        let [Piece::Extent(_, offset, bytes)] = fragment.layout.pieces.as_slice() else {
            anyhow::bail!("fragment {number} is not one extent");
        };
        let referenced = u64::from(reference.referenced_size);
        ensure!(referenced == *bytes, "fragment {number} has {bytes} bytes, referenced {referenced}");
        ensure!(end.is_none_or(|end| end == *offset), "a hole before fragment {number}");
        ensure!(reference.starts_with_sap && reference.sap_type == 1, "fragment {number} is no access point");
        end = Some(offset + bytes);
    }
    let file_bytes = std::fs::metadata(&paths[usize::from(track.file)])?.len();
    ensure!(end == Some(file_bytes), "fragments end at {end:?} in a file of {file_bytes} bytes");
    Ok(())
}

fn duration(rendition: &Rendition, expected: &Expected) -> anyhow::Result<()> {
    let audio_frame_s = rendition.audio.as_ref().map_or(0.0, longest_sample_s);
    let tolerance_s = expected.frame_duration_s.max(audio_frame_s) + ROUNDING_S;
    let (found_s, expected_s) = (rendition.end_s(), expected.duration_s);
    let is_near = (found_s - expected_s).abs() <= tolerance_s;
    ensure!(is_near, "{found_s:.3} s long, expected {expected_s:.3} s within {tolerance_s:.3} s");
    Ok(())
}

fn longest_sample_s(track: &TrackFile) -> f64 {
    let longest = track.samples.iter().map(|sample| sample.duration).max().unwrap_or(0);
    track.seconds(i64::from(longest))
}

/// The instant at which the sound of the source began lies in the first frame of sound that is heard, or
/// within the tolerance of it.
fn audio_offset(video: &TrackFile, audio: Option<&TrackFile>, expected: &Expected) -> anyhow::Result<()> {
    let Some(offset_s) = expected.audio_offset_s else {
        return ensure_that(audio.is_none(), "sound, where none was expected");
    };
    let audio = audio.context("no sound, where some was expected")?;
    let first = audio.samples.first().context("no sound, where some was expected")?;
    let expected_s = video.seconds(video.start()) + offset_s;
    // What lies before 0 is cut.
    let heard_s = audio.seconds(first.pts.max(0));
    let heard_end_s = audio.seconds((first.pts + i64::from(first.duration)).max(0));
    let shift_s = (heard_s - expected_s).max(expected_s - heard_end_s).max(0.0);
    ensure_that(
        shift_s <= AUDIO_SHIFT_S_MAX,
        &format!("sound begins at {heard_s:.3} s, expected {expected_s:.3} s"),
    )
}

fn ensure_that(holds: bool, otherwise: &str) -> anyhow::Result<()> {
    ensure!(holds, "{otherwise}");
    Ok(())
}

/// The progressive file holds each sample once and a head, and lies within its files.
fn progressive(rendition: &Rendition) -> anyhow::Result<()> {
    let Rendition { video, audio, progressive, paths, .. } = rendition;
    let tracks = [Some(video), audio.as_ref()].into_iter().flatten();
    let samples: u64 = tracks.clone().map(TrackFile::sample_bytes).sum();
    let files: BTreeSet<u16> = tracks.map(|track| track.file).collect();
    let in_tracks: u64 = files.into_iter().map(|file| bytes_of(progressive, file)).sum();
    ensure!(in_tracks == samples, "{in_tracks} bytes of samples are laid out, {samples} are there");
    for piece in &progressive.pieces {
        let Piece::Extent(file, offset, bytes) = piece else { continue };
        let path = paths.get(usize::from(*file)).context("a piece of a file that is not named")?;
        let end = std::fs::metadata(path)?.len();
        ensure!(offset + bytes <= end, "a piece ends at {} in a file of {end} bytes", offset + bytes);
    }
    Ok(())
}

fn bytes_of(layout: &Layout, wanted: u16) -> u64 {
    let pieces = layout.pieces.iter();
    pieces.filter(|piece| matches!(piece, Piece::Extent(file, ..) if *file == wanted)).map(Piece::bytes).sum()
}

/// Init and one fragment alone are a decodable film, as a player of fragments sees them.
fn decodes(rendition: &Rendition, number: usize, pictures: Pictures) -> anyhow::Result<()> {
    let frames = rendition.video.samples_of(number).len();
    let expected = match pictures {
        Pictures::Encoded => frames,
        // Nobody waits for more: the rest of the group is as good or bad as it was sent.
        Pictures::Copied => 1,
    };
    let found = decoded_frames(&rendition.paths, &rendition.video.index, number, expected)?;
    ensure!(found == expected, "{found} frames came out of {frames}");
    Ok(())
}

/// How many frames come out of a fragment; it is not decoded past `enough`.
fn decoded_frames(
    paths: &[PathBuf],
    index: &TrackIndex,
    number: usize,
    enough: usize,
) -> anyhow::Result<usize> {
    let film = LayoutReader::new([&index.init, &index.fragments[number].layout], paths);
    let io = StreamIo::from_read(film).context("read a fragment")?;
    // The header says what there is; without a bound and a ban, pictures would be decoded once more to guess at it.
    let options = [("probesize", HEADER_PROBE_BYTES), ("codec_whitelist", "none")].into_iter().collect();
    let mut input = format::input_from_stream(io, None, Some(options)).context("open a fragment")?;
    let stream = input.stream(0).context("a fragment without a stream")?;
    let context = codec::Context::from_parameters(stream.parameters()).context("make a decoder")?;
    let mut decoder = context.decoder().video().context("make a decoder")?;
    // Whatever is damaged shows before.
    decoder.skip_loop_filter(Discard::All);
    let mut picture = frame::Video::empty();
    let mut found = 0;
    let mut packets = input.packets();
    while found < enough {
        let Some((_, packet)) = packets.next() else { break };
        // Damage shows in the count.
        let _ = decoder.send_packet(&packet);
        while found < enough && decoder.receive_frame(&mut picture).is_ok() {
            found += 1;
        }
    }
    if found < enough {
        decoder.send_eof().context("drain the decoder")?;
        while found < enough && decoder.receive_frame(&mut picture).is_ok() {
            found += 1;
        }
    }
    Ok(found)
}

/// The bytes that layouts stand for, one after the other.
struct LayoutReader {
    pieces: VecDeque<Piece>,
    paths: Vec<PathBuf>,
    current: Box<dyn Read + Send>,
}

impl LayoutReader {
    fn new<'a>(layouts: impl IntoIterator<Item = &'a Layout>, paths: &[PathBuf]) -> Self {
        let pieces = Layout::join(layouts).pieces.into();
        LayoutReader { pieces, paths: paths.to_vec(), current: Box::new(io::empty()) }
    }

    fn open(&self, piece: Piece) -> io::Result<Box<dyn Read + Send>> {
        match piece {
            Piece::Inline(bytes) => Ok(Box::new(io::Cursor::new(bytes))),
            Piece::Extent(file, offset, bytes) => {
                let path = self.paths.get(usize::from(file)).ok_or(io::ErrorKind::NotFound)?;
                // It may be the upload itself, which is not all here.
                let mut file = SourceReader::open(path)?;
                file.seek(SeekFrom::Start(offset))?;
                Ok(Box::new(file.take(bytes)))
            }
        }
    }
}

impl Read for LayoutReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.current.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(piece) = self.pieces.pop_front() else { return Ok(0) };
            self.current = self.open(piece)?;
        }
    }
}

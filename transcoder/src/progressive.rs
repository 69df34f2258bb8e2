//! The progressive file: a plain MP4, `ftyp moov mdat`, that exists only as a head and a layout over the samples
//! in the track files. libavformat writes the head: it is shown every sample by size and times, and what
//! it writes as media data is thrown away.

use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};
use domain::{Layout, Piece};
use ffmpeg_next::format::context::{Output, StreamIo};
use ffmpeg_next::packet::Flags;
use ffmpeg_next::{format, packet};

use crate::ffi_mux::{self, BlankPacket};
use crate::pulse;
use crate::track::{self, TrackSpec};
use crate::track_index::{Sample, TrackFile};

/// Video and audio take turns at least this often, so that a player need not read far ahead.
const TURN_S: f64 = 1.0;
/// At most this many bytes of sample tables for a sample: `stsz` 4, `stts` 8, `ctts` 8, `stss` 4, `stsc` 12, `co64` 8.
const TABLE_BYTES_PER_SAMPLE_MAX: usize = 44;
/// At most this many bytes of `ftyp` and of `moov` besides the tables.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// The `free` box behind `moov`, which the muxer cannot do without.
const FREE_BYTES: usize = 8;
/// Of the buffer between the muxer and the head, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// Writes the head to `path` and lays the whole file out. `head_file` is the position of the head, and
/// `tracks[n].file` that of the tracks, in [`domain::RenditionIndex::files`].
pub fn write_head(tracks: &[&TrackFile], path: &Path, head_file: u16) -> anyhow::Result<Layout> {
    let specs = tracks.iter().map(|track| spec(track)).collect::<anyhow::Result<Vec<_>>>()?;
    let turns = turns(tracks);
    let samples: usize = tracks.iter().map(|track| track.samples.len()).sum();
    // The first pass learns how large the tables come out, the second leaves exactly that much room.
    let roomy = HEADER_BYTES_MAX + samples * TABLE_BYTES_PER_SAMPLE_MAX;
    let learned = mux(tracks, &specs, &turns, roomy)?;
    let head = mux(tracks, &specs, &turns, moov_bytes(&learned)? + FREE_BYTES)?;
    std::fs::write(path, &head).context("write the head")?;

    let mut layout = Layout { pieces: vec![Piece::Extent(head_file, 0, head.len() as u64)] };
    for turn in &turns {
        for sample in turn.samples(tracks) {
            layout.push(Piece::Extent(tracks[turn.track].file, sample.offset, u64::from(sample.bytes)));
        }
    }
    Ok(layout)
}

/// Samples of one track that lie together in the file.
struct Turn {
    track: usize,
    first: usize,
    end: usize,
}

impl Turn {
    fn samples<'a>(&self, tracks: &'a [&TrackFile]) -> &'a [Sample] {
        &tracks[self.track].samples[self.first..self.end]
    }
}

/// Splits the tracks into turns by decoding time.
fn turns(tracks: &[&TrackFile]) -> Vec<Turn> {
    let mut turns = Vec::new();
    let mut next = vec![0; tracks.len()];
    let mut turn_end_s = TURN_S;
    while next.iter().zip(tracks).any(|(next, track)| *next < track.samples.len()) {
        for (number, track) in tracks.iter().enumerate() {
            let end_ticks = (turn_end_s * f64::from(track.index.timescale)) as i64;
            let rest = &track.samples[next[number]..];
            let taken = rest.partition_point(|sample| sample.dts < end_ticks);
            if taken > 0 {
                let first = next[number];
                next[number] += taken;
                turns.push(Turn { track: number, first, end: next[number] });
            }
        }
        turn_end_s += TURN_S;
    }
    turns
}

fn spec(track: &TrackFile) -> anyhow::Result<TrackSpec> {
    let input = format::input(&track.path).context("open a track file")?;
    let stream = input.stream(0).context("a track file without a stream")?;
    let display_matrix = display_matrix(&stream);
    Ok(TrackSpec {
        parameters: stream.parameters(),
        timescale: track.index.timescale,
        display_matrix,
        first_pts: track.samples.first().map_or(0, |sample| sample.pts),
    })
}

/// The turn that shows the picture upright, where a stream has one.
pub fn display_matrix(stream: &format::stream::Stream) -> Option<[u8; ffi_mux::DISPLAY_MATRIX_BYTES]> {
    stream
        .side_data()
        .find(|data| data.kind() == packet::side_data::Type::DisplayMatrix)
        .and_then(|data| data.data().try_into().ok())
}

/// The file up to its first sample, with `moov_room` bytes for `moov` and the `free` box behind it.
fn mux(
    tracks: &[&TrackFile],
    specs: &[TrackSpec],
    turns: &[Turn],
    moov_room: usize,
) -> anyhow::Result<Vec<u8>> {
    let payload: u64 = tracks.iter().map(|track| track.sample_bytes()).sum();
    let head =
        Arc::new(Mutex::new(Head { bytes: Vec::new(), bytes_max: moov_room + HEADER_BYTES_MAX, end: 0 }));
    let sink = HeadSink { head: head.clone(), position: 0 };
    let io = StreamIo::from_write_seek_with_capacity(sink, BUFFER_BYTES).context("make a sink")?;
    let mut output = format::output_to_stream(io, None, Some("mp4")).context("begin the head")?;
    for spec in specs {
        track::add_stream(&mut output, spec)?;
    }
    let first = specs.first().context("no tracks")?;
    // The empty edit of a track that starts late is counted in the movie's ticks; at most one track does.
    let late = specs.iter().find(|spec| spec.first_pts > 0).unwrap_or(first);
    let mut options = track::common_options(first.timescale);
    options.set("moov_size", &moov_room.to_string());
    options.set("movie_timescale", &late.timescale.to_string());
    options.set("use_editlist", "1");
    track::write_header(&mut output, options)?;
    for (number, spec) in specs.iter().enumerate() {
        track::ensure_timescale(&output, number, spec.timescale)?;
    }
    write_samples(&mut output, tracks, turns)?;
    pulse::during(|| output.write_trailer()).context("finish the head")?;
    drop(output);

    let mut head = head.lock().unwrap_or_else(PoisonError::into_inner);
    let head_bytes = usize::try_from(head.end - payload).context("a head of absurd size")?;
    ensure!(
        head_bytes <= head.bytes.len(),
        "a head of {head_bytes} bytes where {} were kept",
        head.bytes.len()
    );
    head.bytes.truncate(head_bytes);
    Ok(std::mem::take(&mut head.bytes))
}

fn write_samples(output: &mut Output, tracks: &[&TrackFile], turns: &[Turn]) -> anyhow::Result<()> {
    let sizes = tracks.iter().flat_map(|track| &track.samples).map(|sample| sample.bytes);
    let mut blank = BlankPacket::new(sizes.max().unwrap_or(0) as usize);
    for turn in turns {
        for sample in turn.samples(tracks) {
            let packet = blank.sized(sample.bytes as usize);
            packet.set_stream(turn.track);
            packet.set_pts(Some(sample.pts));
            packet.set_dts(Some(sample.dts));
            packet.set_duration(i64::from(sample.duration));
            packet.set_flags(if sample.is_key { Flags::KEY } else { Flags::empty() });
            packet.write(output).context("show the muxer a sample")?;
        }
    }
    Ok(())
}

/// Size of `moov` in a head that begins with `ftyp` and `moov`.
fn moov_bytes(head: &[u8]) -> anyhow::Result<usize> {
    let size_at = |offset: usize| -> Option<(usize, &[u8])> {
        let header = head.get(offset..offset + 8)?;
        let (size, kind) = header.split_at(4);
        Some((u32::from_be_bytes(size.try_into().ok()?) as usize, kind))
    };
    let (ftyp_bytes, ftyp) = size_at(0).context("an empty head")?;
    let (moov_bytes, moov) = size_at(ftyp_bytes).context("a head without moov")?;
    ensure!([ftyp, moov] == [b"ftyp", b"moov"], "a head that is not ftyp and moov");
    Ok(moov_bytes)
}

/// What the muxer has written, without the media data.
struct Head {
    bytes: Vec<u8>,
    /// Bytes from here on are counted, not kept.
    bytes_max: usize,
    /// Length of the whole file so far.
    end: u64,
}

/// A file of which only the beginning is kept. Shared, for the muxer owns its end of it.
struct HeadSink {
    head: Arc<Mutex<Head>>,
    position: u64,
}

impl Write for HeadSink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(self.position).unwrap_or(usize::MAX);
        let kept = data.len().min(head.bytes_max.saturating_sub(start));
        if kept > 0 {
            let end = start + kept;
            if head.bytes.len() < end {
                head.bytes.resize(end, 0);
            }
            head.bytes[start..end].copy_from_slice(&data[..kept]);
        }
        self.position += data.len() as u64;
        head.end = head.end.max(self.position);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for HeadSink {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let end = self.head.lock().unwrap_or_else(PoisonError::into_inner).end;
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => end.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

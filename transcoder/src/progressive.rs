//! The progressive file: a plain MP4, `ftyp moov mdat`, that exists only as a head and a layout over the samples
//! in the track files. libavformat writes the head: it is shown every sample by size and times, and what
//! it writes as media data is thrown away.

use std::path::Path;

use anyhow::{Context, ensure};
use domain::{Layout, Piece};
use ffmpeg_next::{format, packet};

use crate::blank_mux::BlankMux;
use crate::track::{self, TrackSpec};
use crate::track_index::{Sample, TrackFile};
use crate::{ffi_mux, pulse};

/// Video and audio take turns at least this often, so that a player need not read far ahead.
const TURN_S: f64 = 1.0;
/// At most this many bytes of sample tables for a sample: `stsz` 4, `stts` 8, `ctts` 8, `stss` 4, `stsc` 12, `co64` 8.
const TABLE_BYTES_PER_SAMPLE_MAX: usize = 44;
/// At most this many bytes of `ftyp` and of `moov` besides the tables.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// The `free` box behind `moov`, which the muxer cannot do without.
const FREE_BYTES: usize = 8;

/// Writes the head to `path` and lays the whole file out: the samples of each turn, one turn after the other.
/// `head_file` is the position of the head, and that of the tracks is `file`, in [`domain::RenditionIndex::files`].
pub fn write_head(
    tracks: &[&TrackFile],
    specs: &[TrackSpec],
    turns: &[Turn],
    path: &Path,
    head_file: u16,
) -> anyhow::Result<Layout> {
    let samples: usize = tracks.iter().map(|track| track.samples.len()).sum();
    // The first pass learns how large the tables come out, the second leaves exactly that much room.
    let roomy = HEADER_BYTES_MAX + samples * TABLE_BYTES_PER_SAMPLE_MAX;
    let learned = mux(tracks, specs, turns, roomy)?;
    let head = mux(tracks, specs, turns, moov_bytes(&learned)? + FREE_BYTES)?;
    std::fs::write(path, &head).context("write the head")?;

    let mut layout = Layout { pieces: vec![Piece::Extent(head_file, 0, head.len() as u64)] };
    for turn in turns {
        for sample in turn.samples(tracks) {
            layout.push(Piece::Extent(tracks[turn.track].file, sample.offset, u64::from(sample.bytes)));
        }
    }
    Ok(layout)
}

/// Samples of one track that lie together in the file.
pub struct Turn {
    /// Position among the tracks.
    pub track: usize,
    pub first: usize,
    pub end: usize,
}

impl Turn {
    fn samples<'a>(&self, tracks: &'a [&TrackFile]) -> &'a [Sample] {
        &tracks[self.track].samples[self.first..self.end]
    }
}

/// Splits the tracks into turns by decoding time.
pub fn turns(tracks: &[&TrackFile]) -> Vec<Turn> {
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
    let sizes = tracks.iter().flat_map(|track| &track.samples).map(|sample| sample.bytes);
    let mut mux = BlankMux::new(moov_room + HEADER_BYTES_MAX, sizes.max().unwrap_or(0))?;
    for spec in specs {
        track::add_stream(&mut mux.output, spec)?;
    }
    let first = specs.first().context("no tracks")?;
    // The empty edit of a track that starts late is counted in the movie's ticks; at most one track does.
    let late = specs.iter().find(|spec| spec.first_pts > 0).unwrap_or(first);
    let mut options = track::common_options(first.timescale);
    options.set("moov_size", &moov_room.to_string());
    options.set("movie_timescale", &late.timescale.to_string());
    options.set("use_editlist", "1");
    track::write_header(&mut mux.output, options)?;
    for (number, spec) in specs.iter().enumerate() {
        track::ensure_timescale(&mux.output, number, spec.timescale)?;
    }
    for turn in turns {
        for sample in turn.samples(tracks) {
            mux.show(turn.track, sample)?;
        }
        pulse::beat();
    }
    pulse::during(|| mux.output.write_trailer()).context("finish the head")?;
    mux.into_head(payload)
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

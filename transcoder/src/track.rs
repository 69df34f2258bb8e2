//! Writes one track as a CMAF file: `ftyp moov sidx (moof mdat)*`, by libavformat.
//!
//! Presentation times are film time. A track that starts at or before 0 carries an edit list that cuts what
//! lies before 0 (priming of sound, the delay of reordered pictures); one that starts later begins with a
//! `tfdt` of that instant. Never an empty edit: players that feed fragments to a browser ignore those.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use domain::task::Boundaries;
use ffmpeg_next as ffmpeg;
use ffmpeg_next::codec::{Id, Parameters};
use ffmpeg_next::format::context::Output;
use ffmpeg_next::packet::Packet;
use ffmpeg_next::{Dictionary, Rational, format};

use crate::blank_mux::BlankMux;
use crate::track_index::{Sample, TrackFile};
use crate::{boxes, ffi_mux, progressive, pulse, timing};

/// Of the header of one track, in bytes.
const INIT_BYTES_MAX: usize = 1 << 20;

/// What a track is, before its first packet.
#[derive(Clone)]
pub struct TrackSpec {
    pub parameters: Parameters,
    /// Ticks a second of the packets' times; of sound, the sample rate.
    pub timescale: u32,
    /// The turn that shows the picture upright.
    pub display_matrix: Option<[u8; ffi_mux::DISPLAY_MATRIX_BYTES]>,
    /// Presentation time of the first packet, in ticks.
    pub first_pts: i64,
}

impl TrackSpec {
    /// Of a finished track file.
    pub fn read(path: &Path, track: &TrackFile) -> anyhow::Result<TrackSpec> {
        let input = format::input(path).context("open a track file")?;
        let stream = input.stream(0).context("a track file without a stream")?;
        Ok(TrackSpec {
            parameters: stream.parameters(),
            timescale: track.index.timescale,
            display_matrix: progressive::display_matrix(&stream),
            first_pts: track.samples.first().map_or(0, |sample| sample.pts),
        })
    }
}

/// A track file on its way. Packets come in decoding order with both times in ticks of the track.
pub struct TrackWriter {
    output: Output,
    path: PathBuf,
    /// The last packet, whose duration is known once the next one comes.
    held: Option<Packet>,
    moov_is_written: bool,
}

impl TrackWriter {
    pub fn create(path: &Path, spec: &TrackSpec) -> anyhow::Result<Self> {
        let mut output = format::output_as(path, "mp4").context("create a track file")?;
        begin(&mut output, spec, "+global_sidx")?;
        Ok(TrackWriter { output, path: path.to_owned(), held: None, moov_is_written: false })
    }

    /// Takes the next packet; with `starts_fragment` it becomes the first of a new fragment.
    pub fn write(&mut self, packet: Packet, starts_fragment: bool) -> anyhow::Result<()> {
        pulse::beat();
        if let Some(mut held) = self.held.take() {
            let (Some(dts), Some(next)) = (held.dts(), packet.dts()) else {
                anyhow::bail!("a packet without a decoding time");
            };
            held.set_duration(next - dts);
            self.emit(&mut held)?;
            if starts_fragment {
                self.end_fragment()?;
            }
        }
        self.held = Some(packet);
        Ok(())
    }

    /// `last_duration` in ticks: how long the last packet lasts, which no next one tells.
    pub fn finish(mut self, last_duration: i64) -> anyhow::Result<()> {
        ensure!(last_duration > 0, "the last packet lasts {last_duration} ticks");
        let mut held = self.held.take().context("a track without packets")?;
        held.set_duration(last_duration);
        self.emit(&mut held)?;
        pulse::during(|| self.output.write_trailer()).context("finish a track file")?;
        // The file is closed before it is opened again.
        drop(self.output);
        boxes::mark_access_points(&self.path).context("mark access points")
    }

    fn emit(&mut self, packet: &mut Packet) -> anyhow::Result<()> {
        packet.set_stream(0);
        packet.set_position(-1);
        packet.write(&mut self.output).with_context(|| {
            format!("write the packet shown at {:?} and decoded at {:?}", packet.pts(), packet.dts())
        })?;
        Ok(())
    }

    /// With `delay_moov` the first flush writes `moov` alone and keeps the samples for the second.
    fn end_fragment(&mut self) -> anyhow::Result<()> {
        if !self.moov_is_written {
            ffi_mux::flush(&mut self.output).context("write the header of a track")?;
            self.moov_is_written = true;
        }
        ffi_mux::flush(&mut self.output).context("write a fragment")
    }
}

/// `ftyp moov` of a track whose fragments are made elsewhere. `first` are samples at its start: how it starts decides what
/// its header says.
pub fn init(spec: &TrackSpec, first: &[Sample]) -> anyhow::Result<Vec<u8>> {
    let sample_bytes_max =
        first.iter().map(|sample| sample.bytes).max().context("a track without samples")?;
    let mut mux = BlankMux::new(INIT_BYTES_MAX, sample_bytes_max)?;
    begin(&mut mux.output, spec, "")?;
    for sample in first {
        mux.show(0, sample)?;
    }
    // The samples themselves would be written by the next one.
    ffi_mux::flush(&mut mux.output).context("write the header of a track")?;
    mux.into_head(0)
}

fn begin(output: &mut Output, spec: &TrackSpec, movflags: &str) -> anyhow::Result<()> {
    add_stream(output, spec)?;
    let discontinuous = if spec.first_pts > 0 { "+frag_discont" } else { "" };
    let movflags = format!("+cmaf+frag_custom+delay_moov+skip_trailer{discontinuous}{movflags}");
    let mut options = common_options(spec.timescale);
    options.set("movflags", &movflags);
    options.set("use_editlist", "1");
    write_header(output, options)?;
    ensure_timescale(output, 0, spec.timescale)
}

/// Adds a stream that carries `spec` and nothing else: no name, no language, no date.
pub fn add_stream(output: &mut Output, spec: &TrackSpec) -> anyhow::Result<usize> {
    let mut parameters = spec.parameters.clone();
    ffi_mux::choose_codec_tag(&mut parameters);
    let mut stream = output.add_stream(ffmpeg::encoder::find(Id::None)).context("add a stream")?;
    stream.set_parameters(parameters);
    stream.set_time_base(Rational::new(1, spec.timescale as i32));
    let index = stream.index();
    if let Some(matrix) = &spec.display_matrix {
        ffi_mux::set_display_matrix(output, index, matrix).context("keep the rotation")?;
    }
    Ok(index)
}

/// Times as they are given; nothing in the file that names the software or the day.
pub fn common_options(video_timescale: u32) -> Dictionary<'static> {
    let mut options = Dictionary::new();
    options.set("fflags", "+bitexact");
    options.set("avoid_negative_ts", "disabled");
    options.set("video_track_timescale", &video_timescale.to_string());
    options
}

/// An option the muxer does not know is an error, not a silent difference.
pub fn write_header(output: &mut Output, options: Dictionary) -> anyhow::Result<()> {
    let unknown = output.write_header_with(options).context("begin a file")?;
    let names: Vec<String> = unknown.iter().map(|(name, _)| name.to_owned()).collect();
    ensure!(names.is_empty(), "options the muxer does not know: {names:?}");
    Ok(())
}

/// The muxer decides on the timescale in the end; times are only right in the one it was asked for.
pub fn ensure_timescale(output: &Output, index: usize, timescale: u32) -> anyhow::Result<()> {
    let chosen = output.stream(index).context("a stream that was added")?.time_base();
    ensure!(chosen == Rational::new(1, timescale as i32), "the muxer chose {chosen}, not 1/{timescale}");
    Ok(())
}

/// Decides which packets start a fragment.
pub struct Cuts {
    /// In ticks of the track, ascending.
    starts: Vec<i64>,
    next: usize,
}

/// Sound that begins this much before the pictures, or less, shares their first fragment.
const SOUND_LEAD_S_MAX: f64 = 0.5;
/// Where no picture says where to cut, fragments of sound are at most this long.
const SOUND_FRAGMENT_S_MAX: f64 = 10.0;

impl Cuts {
    /// `starts` in ticks of the track, ascending.
    pub fn of_pictures(starts: Vec<i64>) -> Self {
        Cuts { starts, next: 0 }
    }

    /// The starts of the pictures that cut sound from `first` to `end`, and more where they leave it uncut for
    /// long; all in ticks of the sound.
    pub fn of_sound(starts: &[i64], first: i64, end: i64, timescale: u32) -> Self {
        let ticks = |seconds: f64| (seconds * f64::from(timescale)) as i64;
        let lead = first.saturating_add(ticks(SOUND_LEAD_S_MAX));
        let stride = ticks(SOUND_FRAGMENT_S_MAX).max(1);
        let mut cuts = Vec::with_capacity(starts.len());
        let mut last = first;
        for start in starts.iter().copied().filter(|start| (lead..end).contains(start)).chain([end]) {
            while start - last > stride + stride / 2 {
                last += stride;
                cuts.push(last);
            }
            cuts.push(start);
            last = start;
        }
        // The end closes the last stretch and cuts nothing.
        cuts.pop();
        Cuts { starts: cuts, next: 0 }
    }

    /// Pictures: the keyframe at a start, to the tick.
    pub fn at_keyframe(&mut self, pts: i64, is_key: bool) -> bool {
        let cut = is_key && self.starts.get(self.next) == Some(&pts);
        self.next += usize::from(cut);
        cut
    }

    /// Sound: the frame that begins nearest to a start.
    pub fn at_nearest(&mut self, pts: i64, duration: i64) -> bool {
        let mut cut = false;
        while self.starts.get(self.next).is_some_and(|start| 2 * pts + duration > 2 * start) {
            self.next += 1;
            cut = true;
        }
        cut
    }

    /// The start that no keyframe has met, in ticks.
    pub fn missed(&self) -> Option<i64> {
        self.starts.get(self.next).copied()
    }
}

/// The instants at which fragments start, in ticks of `1/timescale`.
pub fn starts_in(boundaries: &Boundaries, timescale: u32) -> Vec<i64> {
    let starts = boundaries.starts.iter();
    starts.map(|start| timing::rescale(*start, boundaries.timescale, timescale)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_cut_at_keyframes_on_the_tick() {
        let mut cuts = Cuts::of_pictures(vec![0, 100, 300]);
        let cut: Vec<bool> = [(0, true), (50, true), (100, true), (200, true), (299, true), (300, false)]
            .map(|(pts, is_key)| cuts.at_keyframe(pts, is_key))
            .to_vec();
        assert_eq!(cut, [true, false, true, false, false, false]);
        assert_eq!(cuts.missed(), Some(300));
    }

    #[test]
    fn sound_is_cut_at_the_nearest_frame() {
        let mut cuts = Cuts::of_sound(&[0, 96, 149, 205, 210], -5, 250, 100);
        let cut: Vec<i64> = (-1..50).map(|i| i * 5).filter(|pts| cuts.at_nearest(*pts, 5)).collect();
        assert_eq!(cut, [95, 150, 205, 210]);
    }

    #[test]
    fn sound_alone_is_cut_too() {
        let cuts = Cuts::of_sound(&[0, 2000], 0, 4500, 100);
        assert_eq!(cuts.starts, [1000, 2000, 3000]);
        assert_eq!(Cuts::of_sound(&[3000], 0, 4600, 100).starts, [1000, 2000, 3000, 4000]);
    }
}

//! `original` by reference: the samples stay where they lie in the uploaded file. Only headers are made, from sizes and
//! times, so that a gigabyte is playable as soon as a megabyte.

use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use domain::task::{Plan, RenditionOutput};
use domain::{Layout, ObjectFile, Piece, RenditionName, TrackIndex};
use ffmpeg_next::format::context::Input;
use mp4_atom::{Encode, Mfhd, Moof, Tfdt, Tfhd, Traf, Trun, TrunEntry};

use crate::original::{audio_spec, expected, video_spec};
use crate::original_times::{PictureTimes, Placed, SoundTimes, of_pictures};
use crate::progressive::Turn;
use crate::rendition::{self, RenditionParts, Tracks};
use crate::source::{AudioFacts, SourceFacts};
use crate::source_packets::SourcePacket;
use crate::track::{self, TrackSpec};
use crate::track_index::{NON_SYNC, Sample, TrackFile, TrackHeader};
use crate::verify::{self, Pictures};
use crate::{boxes, ffi_mux};

/// A film in more pieces is copied instead: its index would weigh more than the copy costs.
const EXTENTS_MAX: usize = 1 << 17;
/// Of the first samples, which decide what the header of a track says, so much is shown to the muxer.
const SHOWN_BYTES_MAX: u64 = 4 << 20;
/// Position of the uploaded file in [`domain::RenditionIndex::files`].
const SOURCE_FILE: u16 = 0;

/// `sample_depends_on` (ISO/IEC 14496-12 §8.6.4): others, or none.
const DEPENDS: u32 = 1 << 24;
const STANDS_ALONE: u32 = 2 << 24;
const MDAT_HEADER_BYTES: u64 = 8;

/// Lays `original` out over the packets of `source`, the file at `input`; writes its head and index into `output` and
/// verifies it. The error says why the samples cannot stay where they are.
pub fn make(
    facts: &SourceFacts,
    packets: &[SourcePacket],
    source: &Input,
    input: &Path,
    output: &Path,
    plan: &Plan,
) -> anyhow::Result<RenditionOutput> {
    let pictures = Samples::of_pictures(facts, packets, source, plan)?;
    let sound = facts.audio.as_ref().map(|audio| Samples::of_sound(facts, audio, packets, source, plan));
    let tracks: Vec<Samples> = [pictures].into_iter().chain(sound.transpose()?).collect();
    let turns = turns_in_file(&tracks, std::fs::metadata(input)?.len())?;
    let specs = tracks.iter().map(|track| track.spec.clone()).collect();
    let mut referenced = tracks.into_iter().map(Samples::into_track);
    let video = referenced.next().context("no pictures")??;
    let audio = referenced.next().transpose()?;
    let both = [Some(&video), audio.as_ref()].into_iter().flatten();
    let extents: usize = both.flat_map(|t| &t.index.fragments).map(|f| f.layout.pieces.len()).sum();
    ensure!(extents <= EXTENTS_MAX, "it lies in {extents} pieces, and at most {EXTENTS_MAX} are worth it");

    let parts = RenditionParts {
        name: RenditionName::Original,
        size: facts.video.size,
        made_by: "by reference".to_owned(),
    };
    let files = vec![(ObjectFile::Source, input.to_owned())];
    let rendition = rendition::finish(&parts, Tracks { video, audio, specs, turns, files }, output)?;
    verify::rendition(&rendition, &plan.boundaries, &expected(facts, plan), Pictures::Copied)?;
    Ok(rendition.output)
}

/// The samples of one track, where they lie in the uploaded file.
struct Samples {
    spec: TrackSpec,
    samples: Vec<Sample>,
    fragment_samples: Vec<usize>,
}

impl Samples {
    fn of_pictures(
        facts: &SourceFacts,
        packets: &[SourcePacket],
        source: &Input,
        plan: &Plan,
    ) -> anyhow::Result<Samples> {
        let video = &facts.video;
        let of_pictures = packets.iter().filter(|packet| packet.stream == video.stream_index);
        let shown: Vec<(i64, &SourcePacket)> = of_pictures
            .filter_map(|packet| Some((packet.pts.filter(|&pts| facts.shows(pts))?, packet)))
            .collect();
        let times = of_pictures_times(&shown, facts);
        let mut times = PictureTimes::new(video.clock, &times, plan);
        let spec = video_spec(video, source, times.first_pts()?)?;
        // Else the muxer would change the samples: no length in front of each NAL unit.
        ensure!(
            ffi_mux::extradata(&spec.parameters).first() == Some(&1),
            "its pictures are not as MP4 has them"
        );
        let mut samples = Samples { spec, samples: Vec::new(), fragment_samples: Vec::new() };
        for (shown_at, packet) in shown {
            samples.push(packet, times.place(shown_at, packet.is_key)?)?;
        }
        times.finish()?;
        samples.ends_after(video.last_frame_duration.max(1))
    }

    fn of_sound(
        facts: &SourceFacts,
        audio: &AudioFacts,
        packets: &[SourcePacket],
        source: &Input,
        plan: &Plan,
    ) -> anyhow::Result<Samples> {
        let spec = audio_spec(audio, source, 0)?;
        ensure!(!ffi_mux::extradata(&spec.parameters).is_empty(), "its sound is not as MP4 has it");
        let mut times = SoundTimes::new(audio, ffi_mux::frame_samples(&spec.parameters), plan);
        let mut samples = Samples { spec, samples: Vec::new(), fragment_samples: Vec::new() };
        for packet in packets.iter().filter(|packet| packet.stream == audio.stream_index) {
            let Some(heard_at) = packet.pts.filter(|&pts| facts.sounds(pts, packet.duration)) else {
                continue;
            };
            samples.push(packet, times.place(heard_at, packet.duration))?;
        }
        samples.spec.first_pts = samples.samples.first().context("the audio stream has no packets")?.pts;
        samples.ends_after(times.last_duration)
    }

    fn push(&mut self, packet: &SourcePacket, placed: Placed) -> anyhow::Result<()> {
        if let Some(last) = self.samples.last_mut() {
            last.lasts_until(placed.dts)?;
        }
        if self.samples.is_empty() || placed.starts_fragment {
            self.fragment_samples.push(self.samples.len());
        }
        self.samples.push(Sample {
            pts: placed.pts,
            dts: placed.dts,
            duration: 0,
            offset: packet.offset,
            bytes: packet.bytes,
            is_key: packet.is_key,
        });
        Ok(())
    }

    fn ends_after(mut self, last_duration: i64) -> anyhow::Result<Samples> {
        let last = self.samples.last_mut().context("a track without samples")?;
        last.lasts_until(last.dts + last_duration)?;
        Ok(self)
    }

    fn into_track(self) -> anyhow::Result<TrackFile> {
        let Samples { spec, samples, fragment_samples } = self;
        let init = track::init(&spec, first_samples(&samples, &fragment_samples))?;
        let header = header(&init)?;
        ensure!(header.timescale == spec.timescale, "the muxer counts {} ticks a second", header.timescale);
        let mut track = TrackFile {
            file: SOURCE_FILE,
            index: TrackIndex {
                codec: header.codec,
                timescale: header.timescale,
                channels: header.channels,
                init: Layout { pieces: vec![Piece::Inline(init)] },
                fragments: Vec::new(),
            },
            samples,
            fragment_samples,
            sidx: None,
        };
        let numbers = 0..track.fragment_samples.len();
        let layouts = numbers.map(|number| fragment(&track, number, header.media_time));
        track.index.fragments = track.timed(layouts.collect::<anyhow::Result<_>>()?)?;
        Ok(track)
    }
}

impl Sample {
    fn lasts_until(&mut self, end: i64) -> anyhow::Result<()> {
        self.duration =
            u32::try_from(end - self.dts).context("its samples do not follow each other in time")?;
        Ok(())
    }
}

fn of_pictures_times(shown: &[(i64, &SourcePacket)], facts: &SourceFacts) -> Vec<(i64, i64)> {
    of_pictures(shown.iter().map(|(pts, packet)| (packet.dts, Some(*pts))), facts.video.clock)
}

/// Those of the first fragment, as many as the muxer may keep in memory; at least one.
fn first_samples<'a>(samples: &'a [Sample], fragment_samples: &[usize]) -> &'a [Sample] {
    let end = fragment_samples.get(1).copied().unwrap_or(samples.len());
    let mut bytes = 0;
    let few = samples[..end].iter().take_while(|sample| {
        bytes += u64::from(sample.bytes);
        bytes <= SHOWN_BYTES_MAX
    });
    &samples[..few.count().max(1)]
}

fn header(init: &[u8]) -> anyhow::Result<TrackHeader> {
    let mut init = Cursor::new(init);
    let spans = boxes::top_level(&mut init)?;
    let [ftyp, moov] = spans.as_slice() else { bail!("a header of {} boxes", spans.len()) };
    ensure!([ftyp.kind, moov.kind] == [*b"ftyp", *b"moov"], "a header that is not ftyp and moov");
    TrackHeader::parse(&init.into_inner()[moov.offset as usize..])
}

/// `moof` and the header of `mdat`, then the samples where they lie.
fn fragment(track: &TrackFile, number: usize, media_time: i64) -> anyhow::Result<Layout> {
    let samples = track.samples_of(number);
    let mut head = moof(number, samples, media_time)?;
    let payload: u64 = samples.iter().map(|sample| u64::from(sample.bytes)).sum();
    let mdat_bytes = u32::try_from(MDAT_HEADER_BYTES + payload).context("a fragment of 4 GiB")?;
    head.extend(mdat_bytes.to_be_bytes());
    head.extend(b"mdat");
    let mut layout = Layout { pieces: vec![Piece::Inline(head)] };
    for sample in samples {
        layout.push(Piece::Extent(track.file, sample.offset, u64::from(sample.bytes)));
    }
    Ok(layout)
}

fn moof(number: usize, samples: &[Sample], media_time: i64) -> anyhow::Result<Vec<u8>> {
    let first = samples.first().context("a fragment without samples")?;
    let begins_at = u64::try_from(first.dts + media_time).context("it is decoded before its track begins")?;
    let (duration, flags) = (common(samples, |sample| sample.duration), common(samples, sample_flags));
    let reordered = samples.iter().any(|sample| sample.pts != sample.dts);
    let entries = samples.iter().map(|sample| TrunEntry {
        duration: duration.is_none().then_some(sample.duration),
        size: Some(sample.bytes),
        flags: flags.is_none().then_some(sample_flags(sample)),
        cts: reordered.then_some(sample.pts - sample.dts),
    });
    let mut moof = Moof {
        mfhd: Mfhd { sequence_number: u32::try_from(number + 1).context("too many fragments")? },
        traf: vec![Traf {
            tfhd: Tfhd {
                track_id: 1,
                default_sample_duration: duration,
                default_sample_flags: flags,
                default_base_is_moof: true,
                ..Tfhd::default()
            },
            tfdt: Some(Tfdt { base_media_decode_time: begins_at }),
            trun: vec![Trun { data_offset: Some(0), samples: entries.collect::<Vec<_>>().into() }],
            ..Traf::default()
        }],
    };
    let mut bytes = Vec::new();
    moof.encode(&mut bytes).context("write moof")?;
    let data_offset = i32::try_from(bytes.len() as u64 + MDAT_HEADER_BYTES).context("a moof of 2 GiB")?;
    moof.traf[0].trun[0].data_offset = Some(data_offset);
    bytes.clear();
    moof.encode(&mut bytes).context("write moof")?;
    Ok(bytes)
}

/// What all samples share.
fn common<T: PartialEq>(samples: &[Sample], value: impl Fn(&Sample) -> T) -> Option<T> {
    let first = value(samples.first()?);
    samples.iter().all(|sample| value(sample) == first).then_some(first)
}

fn sample_flags(sample: &Sample) -> u32 {
    if sample.is_key { STANDS_ALONE } else { DEPENDS | NON_SYNC }
}

/// The samples as they follow each other in the file. What lies between them, perhaps a track that tells where the film
/// was taken, belongs to none of them.
fn turns_in_file(tracks: &[Samples], file_bytes: u64) -> anyhow::Result<Vec<Turn>> {
    let mut turns: Vec<Turn> = Vec::new();
    let mut next = vec![0; tracks.len()];
    let mut end = 0;
    loop {
        let heads = tracks.iter().zip(&next).enumerate();
        let heads = heads.filter_map(|(n, (track, next))| Some((n, track.samples.get(*next)?)));
        let Some((track, sample)) = heads.min_by_key(|(_, sample)| sample.offset) else { break };
        ensure!(sample.offset >= end, "its samples lie over each other, or not in the order of decoding");
        end = sample.offset + u64::from(sample.bytes);
        let first = next[track];
        next[track] += 1;
        match turns.last_mut() {
            Some(turn) if turn.track == track => turn.end = next[track],
            _ => turns.push(Turn { track, first, end: next[track] }),
        }
    }
    ensure!(end <= file_bytes, "it names samples beyond the end of the file");
    Ok(turns)
}

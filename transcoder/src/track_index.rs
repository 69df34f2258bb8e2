//! Reads a finished track file back: where its header, its fragments and its samples lie, and when they play.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use domain::{Fragment, Layout, Piece, TrackIndex};
use mp4_atom::{Av1c, Codec, Decode, Hvcc, Moof, Moov, Sidx, Traf, Trak};

use crate::boxes::{self, BoxSpan};

/// A track: a finished file, as its own boxes describe it, or samples that stay in the uploaded file.
pub struct TrackFile {
    /// Of what the samples lie in: position in [`domain::RenditionIndex::files`].
    pub file: u16,
    pub index: TrackIndex,
    /// In decoding order.
    pub samples: Vec<Sample>,
    /// Of each fragment, the position of its first sample.
    pub fragment_samples: Vec<usize>,
    /// As the file carries it, for checking. `None`: the samples lie in the uploaded file.
    pub sidx: Option<Sidx>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Film time in ticks.
    pub pts: i64,
    pub dts: i64,
    pub duration: u32,
    /// In the file.
    pub offset: u64,
    pub bytes: u32,
    pub is_key: bool,
}

/// The audio object type of a stereo sound that is coded as one channel (ISO/IEC 14496-3 table 1.17).
const PARAMETRIC_STEREO: u8 = 29;
/// `sample_is_non_sync_sample` (ISO/IEC 14496-12 §8.8.3.1).
pub const NON_SYNC: u32 = 1 << 16;

impl TrackFile {
    /// `file` is the position the file will have in [`domain::RenditionIndex::files`].
    pub fn read(path: &Path, file: u16) -> anyhow::Result<TrackFile> {
        read(path, file).with_context(|| format!("index {}", path.display()))
    }

    /// The samples of fragment `number`.
    pub fn samples_of(&self, number: usize) -> &[Sample] {
        let start = self.fragment_samples[number];
        let end = self.fragment_samples.get(number + 1).copied().unwrap_or(self.samples.len());
        &self.samples[start..end]
    }

    /// Film time in ticks at which the last sample ends: when decoding ends, and the delay that reordering brings.
    pub fn end(&self) -> i64 {
        let (Some(first), Some(last)) = (self.samples.first(), self.samples.last()) else { return 0 };
        last.dts + i64::from(last.duration) + first.pts - first.dts
    }

    /// Film time in ticks of the first sample that is shown.
    pub fn start(&self) -> i64 {
        self.samples.iter().map(|sample| sample.pts).min().unwrap_or(0)
    }

    pub fn seconds(&self, ticks: i64) -> f64 {
        ticks as f64 / f64::from(self.index.timescale)
    }

    /// Fragments of these layouts. Each lasts until the next one starts, so that together they leave no gap.
    pub fn timed(&self, layouts: Vec<Layout>) -> anyhow::Result<Vec<Fragment>> {
        let mut starts = Vec::with_capacity(layouts.len() + 1);
        for number in 0..layouts.len() {
            let first = self.samples_of(number).first().context("a fragment without samples")?;
            starts.push(first.pts);
        }
        starts.push(self.end());
        let between = starts.windows(2).zip(layouts).enumerate();
        between
            .map(|(number, (pair, layout))| {
                let duration = u64::try_from(pair[1] - pair[0]).context("fragments go back in time")?;
                Ok(Fragment {
                    start: pair[0],
                    duration,
                    lead_bytes: self.lead_bytes(number, &layout),
                    layout,
                })
            })
            .collect()
    }

    /// Boxes come first in a fragment, then its samples without a gap.
    fn lead_bytes(&self, number: usize, fragment: &Layout) -> Option<u64> {
        let (first, others) = self.samples_of(number).split_first()?;
        let behind: u64 = others.iter().map(|sample| u64::from(sample.bytes)).sum();
        fragment.bytes().checked_sub(behind).filter(|&lead| lead > u64::from(first.bytes))
    }

    /// Of all samples, without boxes.
    pub fn sample_bytes(&self) -> u64 {
        self.samples.iter().map(|sample| u64::from(sample.bytes)).sum()
    }
}

fn read(path: &Path, file: u16) -> anyhow::Result<TrackFile> {
    let mut source = File::open(path)?;
    let spans = boxes::top_level(&mut source)?;
    let kinds = |span: &BoxSpan| span.kind;
    let [ftyp, moov, sidx, fragments @ ..] = spans.as_slice() else { bail!("too few boxes") };
    ensure!([ftyp, moov, sidx].map(kinds) == [*b"ftyp", *b"moov", *b"sidx"], "not a CMAF track file");
    let trak = header(&boxes::read(&mut source, *moov)?)?;
    let sidx = Sidx::decode(&mut boxes::read(&mut source, *sidx)?.as_slice()).context("read sidx")?;
    let TrackHeader { codec, timescale, channels, media_time } = TrackHeader::of(&trak)?;

    let mut samples = Vec::new();
    let mut fragment_samples = Vec::new();
    let mut layouts = Vec::new();
    ensure!(fragments.len().is_multiple_of(2) && !fragments.is_empty(), "fragments are pairs of boxes");
    for pair in fragments.chunks_exact(2) {
        let (moof, mdat) = (pair[0], pair[1]);
        ensure!([kinds(&moof), kinds(&mdat)] == [*b"moof", *b"mdat"], "fragments are moof and mdat");
        fragment_samples.push(samples.len());
        let extent = Piece::Extent(file, moof.offset, moof.bytes + mdat.bytes);
        layouts.push(Layout { pieces: vec![extent] });
        let traf = fragment(&boxes::read(&mut source, moof)?)?;
        samples.extend(samples_in(&traf, moof, mdat, media_time)?);
    }
    let mut track = TrackFile {
        file,
        index: TrackIndex {
            codec,
            timescale,
            channels,
            init: Layout { pieces: vec![Piece::Extent(file, 0, moov.offset + moov.bytes)] },
            fragments: Vec::new(),
        },
        samples,
        fragment_samples,
        sidx: Some(sidx),
    };
    track.index.fragments = track.timed(layouts)?;
    Ok(track)
}

/// What the header of a track says.
pub struct TrackHeader {
    /// RFC 6381.
    pub codec: String,
    pub timescale: u32,
    /// Of sound; `None` where its configuration does not simply say.
    pub channels: Option<u32>,
    /// What the edit list cuts from the start of the media, in ticks.
    pub media_time: i64,
}

impl TrackHeader {
    /// `moov`: the whole box, of a track file.
    pub fn parse(moov: &[u8]) -> anyhow::Result<TrackHeader> {
        Self::of(&header(moov)?)
    }

    fn of(trak: &Trak) -> anyhow::Result<TrackHeader> {
        Ok(TrackHeader {
            codec: codec_string(trak)?,
            timescale: trak.mdia.mdhd.timescale,
            channels: channels(trak),
            media_time: media_time(trak)?,
        })
    }
}

fn header(moov: &[u8]) -> anyhow::Result<Trak> {
    let mut moov = Moov::decode(&mut &moov[..]).context("read moov")?;
    ensure!(moov.trak.len() == 1, "{} tracks in one track file", moov.trak.len());
    Ok(moov.trak.remove(0))
}

fn fragment(moof: &[u8]) -> anyhow::Result<Traf> {
    let mut moof = Moof::decode(&mut &moof[..]).context("read moof")?;
    ensure!(moof.traf.len() == 1, "{} tracks in one fragment", moof.traf.len());
    Ok(moof.traf.remove(0))
}

fn media_time(trak: &Trak) -> anyhow::Result<i64> {
    let entries = trak.edts.as_ref().and_then(|edts| edts.elst.as_ref()).map(|elst| elst.entries.as_slice());
    match entries {
        None | Some([]) => Ok(0),
        Some([edit]) => Ok(i64::try_from(edit.media_time.context("an empty edit")?)?),
        Some(edits) => bail!("{} edits, where players take one", edits.len()),
    }
}

fn samples_in(traf: &Traf, moof: BoxSpan, mdat: BoxSpan, media_time: i64) -> anyhow::Result<Vec<Sample>> {
    ensure!(traf.tfhd.default_base_is_moof, "offsets are not counted from the moof");
    let mut dts = i64::try_from(traf.tfdt.as_ref().context("no tfdt")?.base_media_decode_time)? - media_time;
    let mut samples = Vec::new();
    for trun in &traf.trun {
        let data_offset = u64::try_from(trun.data_offset.context("no data offset")?)?;
        let mut offset = moof.offset + data_offset;
        for entry in &trun.samples {
            let missing = "a sample without size, duration or flags";
            let bytes = entry.size.or(traf.tfhd.default_sample_size).context(missing)?;
            let duration = entry.duration.or(traf.tfhd.default_sample_duration).context(missing)?;
            let flags = entry.flags.or(traf.tfhd.default_sample_flags).context(missing)?;
            let pts = dts + entry.cts.unwrap_or(0);
            samples.push(Sample { pts, dts, duration, offset, bytes, is_key: flags & NON_SYNC == 0 });
            offset += u64::from(bytes);
            dts += i64::from(duration);
        }
        ensure!(offset <= mdat.offset + mdat.bytes, "samples beyond their mdat");
    }
    Ok(samples)
}

/// RFC 6381 §3.3, ISO/IEC 14496-15 annex E.
fn codec_string(trak: &Trak) -> anyhow::Result<String> {
    match trak.mdia.minf.stbl.stsd.codecs.as_slice() {
        [Codec::Avc1(avc1)] => {
            let avcc = &avc1.avcc;
            let [profile, compatibility, level] =
                [avcc.avc_profile_indication, avcc.profile_compatibility, avcc.avc_level_indication];
            Ok(format!("avc1.{profile:02x}{compatibility:02x}{level:02x}"))
        }
        [Codec::Hvc1(hvc1)] => Ok(hevc_string(&hvc1.hvcc)),
        [Codec::Av01(av01)] => {
            let Av1c { seq_profile, seq_level_idx_0, seq_tier_0, high_bitdepth, .. } = av01.av1c;
            let tier = if seq_tier_0 { 'H' } else { 'M' };
            let depth = if high_bitdepth { 10 } else { 8 };
            // What would follow is the default: 4:2:0 in BT.709, limited range (AV1 in ISOBMFF §5).
            Ok(format!("av01.{seq_profile}.{seq_level_idx_0:02}{tier}.{depth:02}"))
        }
        [Codec::Mp4a(mp4a)] => {
            let config = &mp4a.esds.es_desc.dec_config;
            let specific = config.dec_specific.as_ref();
            let object_type = specific.context("sound without a decoder configuration")?.profile;
            Ok(format!("mp4a.{:02x}.{object_type}", config.object_type_indication))
        }
        other => bail!("{} sample entries, or of a codec that is never written", other.len()),
    }
}

/// As the decoder is configured (ISO/IEC 14496-3 table 1.19): a sample entry says two of every AAC.
fn channels(trak: &Trak) -> Option<u32> {
    let [Codec::Mp4a(mp4a)] = trak.mdia.minf.stbl.stsd.codecs.as_slice() else { return None };
    let specific = mp4a.esds.es_desc.dec_config.dec_specific.as_ref()?;
    match (specific.profile, specific.chan_conf) {
        (PARAMETRIC_STEREO, 1) => Some(2),
        (_, channels @ 1..=6) => Some(u32::from(channels)),
        _ => None,
    }
}

/// `hvc1.1.6.L93.90`: profile, compatibility with its bits turned round, tier and level, constraints without the zeros
/// at their end (ISO/IEC 14496-15 §E.3).
fn hevc_string(hvcc: &Hvcc) -> String {
    let space = match hvcc.general_profile_space {
        0 => String::new(),
        space => char::from(b'A' + space - 1).to_string(),
    };
    let compatibility = u32::from_be_bytes(hvcc.general_profile_compatibility_flags).reverse_bits();
    let tier = if hvcc.general_tier_flag { 'H' } else { 'L' };
    let constraints = &hvcc.general_constraint_indicator_flags;
    let used = constraints.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let constraints: String = constraints[..used].iter().map(|byte| format!(".{byte:X}")).collect();
    let (profile, level) = (hvcc.general_profile_idc, hvcc.general_level_idc);
    format!("hvc1.{space}{profile}.{compatibility:X}.{tier}{level}{constraints}")
}

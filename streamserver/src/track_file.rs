//! A track as one file: `ftyp moov sidx (moof mdat)*`. Only the `sidx` is made (ISO/IEC 14496-12 §8.16.3); the rest is what
//! the init segment and the segments are, so that a byte range of it and a segment are the same bytes.

use std::ops::Range;

use domain::{Fragment, Layout, Piece, TrackIndex};
use mp4_atom::{Encode, SegmentReference, Sidx};

use crate::segments::{self, Segment};

/// A virtual file that is answered whole or in parts.
pub trait Sliced {
    fn bytes(&self) -> u64;

    /// Bytes `offset .. offset + bytes`, clipped to what there is.
    fn slice(&self, offset: u64, bytes: u64) -> Layout;
}

impl Sliced for Layout {
    fn bytes(&self) -> u64 {
        Layout::bytes(self)
    }

    fn slice(&self, offset: u64, bytes: u64) -> Layout {
        Layout::slice(self, offset, bytes)
    }
}

/// A picture that needs no other.
#[derive(Debug, Clone, PartialEq)]
pub struct Keyframe {
    /// Where it lies in the file, from the boxes in front of it. The box it lies in goes on behind it.
    pub bytes: Range<u64>,
    /// Until the next one.
    pub duration_s: f64,
}

pub struct TrackFile<'a> {
    track: &'a TrackIndex,
    segments: &'a [Segment],
    sidx: &'a Layout,
}

/// Every file has one track, and that is its number.
const TRACK_ID: u32 = 1;
/// Every segment begins with a picture that needs none before it, and none after that is shown earlier does either
/// (ISO/IEC 14496-12 annex I).
const SAP_TYPE: u8 = 1;

/// The `sidx` of a track, which every answer has a part in. `None`: no `sidx` can describe it, for it has more than
/// 65,535 segments or one of 2 GiB.
pub fn sidx(track: &TrackIndex, segments: &[Segment]) -> Option<Layout> {
    let mut sidx = Vec::new();
    index(track, segments)?.encode(&mut sidx).ok()?;
    Some(Layout { pieces: vec![Piece::Inline(sidx)] })
}

impl<'a> TrackFile<'a> {
    /// `sidx` is that of the same track and segments.
    pub fn new(track: &'a TrackIndex, segments: &'a [Segment], sidx: &'a Layout) -> TrackFile<'a> {
        TrackFile { track, segments, sidx }
    }

    /// Where the init segment lies.
    pub fn init(&self) -> Range<u64> {
        0..self.track.init.bytes()
    }

    /// Where the `sidx` lies.
    pub fn index(&self) -> Range<u64> {
        let start = self.init().end;
        start..start + self.sidx.bytes()
    }

    /// `None` where the index of the track does not tell how long its keyframes are.
    pub fn keyframes(&self) -> Option<Vec<Keyframe>> {
        let mut start = self.index().end;
        let keyframe = |fragment: &Fragment| {
            let bytes = start..start + fragment.lead_bytes?;
            start += fragment.layout.bytes();
            Some(Keyframe { bytes, duration_s: fragment.duration as f64 / f64::from(self.track.timescale) })
        };
        self.track.fragments.iter().map(keyframe).collect()
    }
}

impl Sliced for TrackFile<'_> {
    fn bytes(&self) -> u64 {
        self.index().end + self.segments.iter().map(|segment| segment.bytes).sum::<u64>()
    }

    fn slice(&self, offset: u64, bytes: u64) -> Layout {
        let mut slice = Slice { wanted: offset..offset.saturating_add(bytes), at: 0, cut: Layout::default() };
        slice.add(&self.track.init);
        slice.add(self.sidx);
        for segment in self.segments {
            if slice.wants(segment.bytes) {
                let fragments = &self.track.fragments[segment.fragments.clone()];
                fragments.iter().for_each(|fragment| slice.add(&fragment.layout));
            } else {
                slice.at += segment.bytes;
            }
        }
        slice.cut
    }
}

/// Takes what is wanted of layouts that come one after the other.
struct Slice {
    wanted: Range<u64>,
    at: u64,
    cut: Layout,
}

impl Slice {
    /// Anything of the next `bytes`.
    fn wants(&self, bytes: u64) -> bool {
        self.wanted.start < self.at + bytes && self.at < self.wanted.end
    }

    fn add(&mut self, next: &Layout) {
        let end = self.at + next.bytes();
        let (from, to) = (self.wanted.start.max(self.at), self.wanted.end.min(end));
        if from < to {
            let pieces = next.slice(from - self.at, to - from).pieces;
            pieces.into_iter().for_each(|piece| self.cut.push(piece));
        }
        self.at = end;
    }
}

fn index(track: &TrackIndex, segments: &[Segment]) -> Option<Sidx> {
    let spans = segments::spans(track, segments);
    let reference = |(segment, span): (&Segment, &Range<u64>)| {
        Some(SegmentReference {
            reference_type: false,
            referenced_size: u32::try_from(segment.bytes).ok()?,
            subsegment_duration: u32::try_from(span.end - span.start).ok()?,
            starts_with_sap: true,
            sap_type: SAP_TYPE,
            sap_delta_time: 0,
        })
    };
    Some(Sidx {
        reference_id: TRACK_ID,
        timescale: track.timescale,
        earliest_presentation_time: spans.first()?.start,
        first_offset: 0,
        references: segments.iter().zip(&spans).map(reference).collect::<Option<Vec<_>>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mp4_atom::Decode;
    use proptest::prelude::*;

    /// Fragments of 2 s and so many bytes, each a head of our own and an extent.
    fn track(fragments: &[u64]) -> TrackIndex {
        let fragment = |(number, bytes): (usize, &u64)| Fragment {
            start: number as i64 * 2000 - 21,
            duration: 2000,
            lead_bytes: Some(3 + bytes / 2),
            layout: Layout {
                pieces: vec![
                    Piece::Inline(vec![number as u8; 3]),
                    Piece::Extent(0, number as u64 * 1000, *bytes),
                ],
            },
        };
        TrackIndex {
            codec: "mp4a.40.2".to_owned(),
            timescale: 1000,
            channels: Some(2),
            init: Layout { pieces: vec![Piece::Inline(b"ftyp moov".to_vec())] },
            fragments: fragments.iter().enumerate().map(fragment).collect(),
        }
    }

    #[test]
    fn the_index_leads_to_every_segment() {
        let track = track(&[100, 200, 300, 400]);
        let segments = segments::segments(&track, &[0, 2_000_000, 6_000_000]);
        let sidx = sidx(&track, &segments).unwrap();
        let file = TrackFile::new(&track, &segments, &sidx);
        let [Piece::Inline(head), Piece::Inline(sidx)] = &file.slice(0, file.index().end).pieces[..] else {
            panic!("init and sidx are ours")
        };
        assert_eq!(head.len() as u64, file.init().end);
        let sidx = Sidx::decode(&mut &sidx[..]).unwrap();
        assert_eq!((sidx.timescale, sidx.earliest_presentation_time, sidx.first_offset), (1000, 0, 0));
        let found: Vec<_> =
            sidx.references.iter().map(|r| (r.referenced_size, r.subsegment_duration)).collect();
        assert_eq!(found, [(103, 1979), (506, 4000), (403, 2000)], "what is before the film is not counted");
        assert!(sidx.references.iter().all(|r| !r.reference_type && r.starts_with_sap && r.sap_type == 1));
        assert_eq!(file.index().end + 103 + 506 + 403, file.bytes());
    }

    #[test]
    fn keyframes_lie_at_the_start_of_their_fragments() {
        let mut track = track(&[100, 200, 300]);
        let segments = segments::segments(&track, &[0]);
        let sidx = sidx(&track, &segments).unwrap();
        let file = TrackFile::new(&track, &segments, &sidx);
        let (start, found) = (file.index().end, file.keyframes().unwrap());
        let places: Vec<_> = found.iter().map(|one| one.bytes.start - start..one.bytes.end - start).collect();
        assert_eq!(places, [0..53, 103..206, 306..459]);
        assert!(found.iter().all(|one| one.duration_s == 2.0));
        track.fragments[1].lead_bytes = None;
        assert_eq!(TrackFile::new(&track, &segments, &sidx).keyframes(), None);
    }

    #[test]
    fn what_no_index_can_describe_is_no_file() {
        let track = track(&[u64::from(u32::MAX)]);
        let segments = segments::segments(&track, &[0]);
        assert!(sidx(&track, &segments).is_none());
    }

    proptest! {
        #[test]
        fn a_slice_is_that_part_of_the_whole(
            fragments in proptest::collection::vec(0u64..40, 1..20),
            offset in 0u64..900,
            bytes in 0u64..900,
        ) {
            let track = track(&fragments);
            let cuts: Vec<i64> = (0..fragments.len() as i64).step_by(3).map(|n| n * 2_000_000).collect();
            let segments = segments::segments(&track, &cuts);
            let sidx = sidx(&track, &segments).unwrap();
            let file = TrackFile::new(&track, &segments, &sidx);
            let whole = Layout::join(
                [&track.init, &sidx].into_iter().chain(track.fragments.iter().map(|f| &f.layout)),
            );
            prop_assert_eq!(file.bytes(), whole.bytes());
            let joined = |layout: &Layout| Layout::join([layout]);
            prop_assert_eq!(joined(&file.slice(offset, bytes)), joined(&whole.slice(offset, bytes)));
        }
    }
}

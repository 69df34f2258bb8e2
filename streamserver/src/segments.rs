//! Where segments start: at the same instants in every rendition, and in the audio as near as its frames allow.

use std::ops::Range;

use domain::TrackIndex;

/// Later segments are about this long; the first is one GOP, so that playing starts soon.
const SEGMENT_US: i64 = 6_000_000;
/// A segment may exceed that a little before it is cut one GOP earlier.
const SEGMENT_SLACK_US: i64 = 250_000;
/// Two tracks mean the same instant when their time scales put it this near: less than half a frame at 60 a
/// second, more than any rounding.
const SAME_INSTANT_US: i64 = 5_000;

/// Consecutive fragments of one track.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    pub fragments: Range<usize>,
    pub duration_s: f64,
    pub bytes: u64,
}

/// Instants in microseconds at which segments start, ascending; the first stands for the start of the film,
/// wherever a track's first fragment lies.
pub fn cuts(videos: &[&TrackIndex]) -> Vec<i64> {
    let starts: Vec<Vec<i64>> = videos.iter().map(|track| starts_us(track)).collect();
    let Some((first, others)) = starts.split_first() else { return Vec::new() };
    let in_all = |start: &i64| others.iter().all(|starts| (nearest(starts, *start).1) <= SAME_INSTANT_US);
    // The first fragments belong together even if their timestamps differ.
    let common: Vec<i64> =
        first.iter().take(1).copied().chain(first.iter().skip(1).copied().filter(in_all)).collect();
    let end = videos.iter().map(|track| end_us(track)).max().unwrap_or(0);
    group(&common, end)
}

/// The segments of one track, cut as near to `cuts` as its fragments allow. Never empty ones: a track that ends
/// early has fewer.
pub fn segments(track: &TrackIndex, cuts: &[i64]) -> Vec<Segment> {
    let starts = starts_us(track);
    let mut bounds: Vec<usize> = cuts.iter().skip(1).map(|cut| nearest(&starts, *cut).0).collect();
    // Past the last fragment there is nothing near.
    bounds.retain(|bound| *bound > 0);
    bounds.insert(0, 0);
    bounds.push(track.fragments.len());
    bounds.dedup();
    bounds.windows(2).map(|pair| segment(track, pair[0]..pair[1])).collect()
}

/// When each segment plays, in ticks of its track. Sound may begin a little before the film; that is not counted.
pub fn spans(track: &TrackIndex, segments: &[Segment]) -> Vec<Range<u64>> {
    let instant = |ticks: i64| u64::try_from(ticks).unwrap_or(0);
    let span = |segment: &Segment| {
        let within = &track.fragments[segment.fragments.clone()];
        let start = within.first().map_or(0, |first| first.start);
        let end = within.last().map_or(start, |last| last.start.saturating_add_unsigned(last.duration));
        instant(start)..instant(end)
    };
    segments.iter().map(span).collect()
}

/// Whether the segments of two tracks start at the same instants, as far as both go.
pub fn are_aligned(
    (a, a_segments): (&TrackIndex, &[Segment]),
    (b, b_segments): (&TrackIndex, &[Segment]),
) -> bool {
    let start_us = |track: &TrackIndex, segment: &Segment| {
        let first = track.fragments.get(segment.fragments.start);
        first.map_or(0, |first| microseconds(first.start, track.timescale))
    };
    let pairs = a_segments.iter().zip(b_segments).skip(1);
    pairs
        .into_iter()
        .all(|(one, other)| start_us(a, one).abs_diff(start_us(b, other)) <= SAME_INSTANT_US as u64)
}

fn segment(track: &TrackIndex, fragments: Range<usize>) -> Segment {
    let within = &track.fragments[fragments.clone()];
    let ticks: u64 = within.iter().map(|fragment| fragment.duration).sum();
    Segment {
        fragments,
        duration_s: ticks as f64 / f64::from(track.timescale),
        bytes: within.iter().map(|fragment| fragment.layout.bytes()).sum(),
    }
}

/// Keeps those starts that make the first segment one GOP and the others as long as they may be.
fn group(starts: &[i64], end: i64) -> Vec<i64> {
    let mut cuts: Vec<i64> = starts.iter().take(2).copied().collect();
    for (position, start) in starts.iter().enumerate().skip(2) {
        let next = starts.get(position + 1).copied().unwrap_or(end);
        let since = cuts.last().copied().unwrap_or(0);
        if next - since > SEGMENT_US + SEGMENT_SLACK_US {
            cuts.push(*start);
        }
    }
    cuts
}

fn starts_us(track: &TrackIndex) -> Vec<i64> {
    track.fragments.iter().map(|fragment| microseconds(fragment.start, track.timescale)).collect()
}

fn end_us(track: &TrackIndex) -> i64 {
    let end = track.fragments.last().map_or(0, |last| last.start.saturating_add_unsigned(last.duration));
    microseconds(end, track.timescale)
}

fn microseconds(ticks: i64, timescale: u32) -> i64 {
    let exact = i128::from(ticks) * 1_000_000 / i128::from(timescale.max(1));
    i64::try_from(exact).unwrap_or(i64::MAX)
}

/// Position of the start nearest to `instant`, and how far off it is. `starts` ascend; none: infinitely far.
fn nearest(starts: &[i64], instant: i64) -> (usize, i64) {
    let after = starts.partition_point(|start| *start < instant);
    let candidates = [after.saturating_sub(1), after];
    candidates
        .into_iter()
        .filter_map(|position| starts.get(position).map(|start| (position, start.abs_diff(instant))))
        .min_by_key(|(_, distance)| *distance)
        .map_or((0, i64::MAX), |(position, distance)| (position, i64::try_from(distance).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Fragment, Layout, Piece};
    use proptest::prelude::*;

    /// Fragments that start at these ticks, the last one `last` long, each of 100 bytes.
    fn track(timescale: u32, starts: &[i64], end: i64) -> TrackIndex {
        let ends = starts.iter().skip(1).chain([&end]);
        let fragment = |(start, end): (&i64, &i64)| Fragment {
            start: *start,
            duration: (end - start) as u64,
            lead_bytes: None,
            layout: Layout { pieces: vec![Piece::Extent(0, 0, 100)] },
        };
        TrackIndex {
            codec: String::new(),
            timescale,
            channels: None,
            init: Layout::default(),
            fragments: starts.iter().zip(ends).map(fragment).collect(),
        }
    }

    fn every(timescale: u32, step: i64, count: i64) -> TrackIndex {
        track(timescale, &(0..count).map(|i| i * step).collect::<Vec<_>>(), count * step)
    }

    fn durations(track: &TrackIndex, cuts: &[i64]) -> Vec<f64> {
        segments(track, cuts).iter().map(|segment| segment.duration_s).collect()
    }

    #[test]
    fn first_one_gop_then_about_six_seconds() {
        let video = every(30_000, 60_000, 10);
        let cuts = cuts(&[&video]);
        assert_eq!(durations(&video, &cuts), [2.0, 6.0, 6.0, 6.0]);
        assert_eq!(segments(&video, &cuts)[1].fragments, 1..4);
        assert_eq!(segments(&video, &cuts)[1].bytes, 300);
    }

    #[test]
    fn long_gops_stay_whole_and_short_films_have_one_segment() {
        let long = every(1000, 10_000, 3);
        assert_eq!(durations(&long, &cuts(&[&long])), [10.0, 10.0, 10.0]);
        let one = every(1000, 33, 1);
        assert_eq!(durations(&one, &cuts(&[&one])), [0.033]);
        assert!(cuts(&[]).is_empty());
    }

    #[test]
    fn renditions_are_cut_where_all_of_them_can_be() {
        // The original has keyframes every 5.005 s, the rung also every 2 s in between, in another time scale.
        let original = every(30_000, 150_150, 4);
        let rung = track(
            90_000,
            &[0, 180_000, 450_450, 630_450, 900_900, 1_080_900, 1_351_350, 1_531_350],
            1_801_800,
        );
        let cuts = cuts(&[&original, &rung]);
        assert_eq!(durations(&original, &cuts), [5.005; 4]);
        assert_eq!(durations(&rung, &cuts), [5.005; 4]);
    }

    #[test]
    fn audio_follows_within_its_frames_and_may_end_early() {
        let video = every(30_000, 60_000, 10);
        // 2 s in frames of 1024 at 48 kHz: 93.75 frames.
        let audio =
            track(48_000, &(0..8).map(|i| (i * 96_000 / 1024) * 1024).collect::<Vec<_>>(), 8 * 96_000);
        let cuts = cuts(&[&video]);
        let found = segments(&audio, &cuts);
        assert_eq!(found.iter().map(|s| s.fragments.clone()).collect::<Vec<_>>(), [0..1, 1..4, 4..7, 7..8]);
        let silent_end = track(48_000, &[0, 95_232], 96_000);
        assert_eq!(durations(&silent_end, &cuts).len(), 2);
    }

    proptest! {
        #[test]
        fn every_fragment_is_in_exactly_one_segment(
            steps in proptest::collection::vec(1i64..12_000, 1..40),
            other_steps in proptest::collection::vec(1i64..12_000, 1..40),
        ) {
            let starts = |steps: &[i64]| {
                let mut at = 0;
                steps.iter().map(|step| { let start = at; at += step; start }).collect::<Vec<_>>()
            };
            let video = track(1000, &starts(&steps), steps.iter().sum());
            let other = track(1000, &starts(&other_steps), other_steps.iter().sum());
            let cuts = cuts(&[&video, &other]);
            for track in [&video, &other] {
                let mut next = 0;
                for segment in segments(track, &cuts) {
                    prop_assert_eq!(segment.fragments.start, next);
                    prop_assert!(!segment.fragments.is_empty());
                    next = segment.fragments.end;
                }
                prop_assert_eq!(next, track.fragments.len());
            }
        }
    }
}

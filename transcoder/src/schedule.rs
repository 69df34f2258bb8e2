//! Which frames of the source the rungs show, and which of them become keyframes. Pure arithmetic on film ticks.

use domain::task::{ChunkSpan, Plan};

use crate::source::VideoFacts;

/// Sources above this rate, in frames a second, are halved; the slack lets 60 with rough timestamps pass.
pub const FRAME_RATE_MAX: f64 = 60.5;

/// What one chunk encodes.
#[derive(Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Presentation times of the frames to encode, ascending.
    pub kept: Vec<i64>,
    /// Those that become keyframes; the first frame is one.
    pub keys: Vec<i64>,
    /// Where the last frame ends.
    pub end: i64,
}

impl Schedule {
    pub fn new(video: &VideoFacts, plan: &Plan, span: ChunkSpan) -> Self {
        let gop = gop_ticks(video, plan.settings.gop_s_max);
        let times = within(&video.frame_times, span.start, span.end);
        let mut starts = within(&plan.boundaries.starts, span.start, span.end).to_vec();
        if starts.first() != Some(&span.start) {
            starts.insert(0, span.start);
        }
        let (mut kept, mut keys) = (Vec::with_capacity(times.len()), Vec::new());
        for (n, &start) in starts.iter().enumerate() {
            let end = starts.get(n + 1).copied().or(span.end);
            let group = thinned(video, within(times, start, end));
            keys.extend(at_most_apart(&group, end.unwrap_or_else(|| video.end()), gop));
            kept.extend(group);
        }
        Schedule { kept, keys, end: span.end.unwrap_or_else(|| video.end()) }
    }

    /// How long the frame at `time` is shown.
    pub fn duration_of(&self, time: i64) -> i64 {
        let next = self.kept.partition_point(|&other| other <= time);
        (self.kept.get(next).copied().unwrap_or(self.end) - time).max(1)
    }
}

/// Frames that rungs keep between two boundaries: all, or every second one.
pub fn thinned(video: &VideoFacts, times: &[i64]) -> Vec<i64> {
    let step = if video.frame_rate > FRAME_RATE_MAX { 2 } else { 1 };
    times.iter().copied().step_by(step).collect()
}

/// The fewest of `times` so that the first is among them, and no two neighbours, nor the last and `end`, are more
/// than `apart` ticks from each other, where the times allow it.
pub fn at_most_apart(times: &[i64], end: i64, apart: i64) -> Vec<i64> {
    let mut picked: Vec<i64> = times.first().copied().into_iter().collect();
    for (n, &time) in times.iter().enumerate() {
        let next = times.get(n + 1).copied().unwrap_or(end);
        let last = picked[picked.len() - 1];
        if time > last && next - last > apart {
            picked.push(time);
        }
    }
    picked
}

/// Times in `start .. end`; ascending input.
pub fn within(times: &[i64], start: i64, end: Option<i64>) -> &[i64] {
    let from = times.partition_point(|&time| time < start);
    let to = end.map_or(times.len(), |end| times.partition_point(|&time| time < end));
    &times[from..to.max(from)]
}

pub fn gop_ticks(video: &VideoFacts, gop_s_max: f64) -> i64 {
    ((gop_s_max * f64::from(video.clock.timescale)).round() as i64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyframes_are_as_few_as_the_gap_allows() {
        let times: Vec<i64> = (0..10).map(|n| n * 10).collect();
        assert_eq!(at_most_apart(&times, 100, 30), [0, 30, 60, 90]);
        assert_eq!(at_most_apart(&times, 100, 40), [0, 40, 80]);
        assert_eq!(at_most_apart(&times, 100, 1000), [0]);
        assert_eq!(at_most_apart(&times, 100, 1), times);
        assert_eq!(at_most_apart(&[0, 100, 110, 300], 310, 50), [0, 100, 110, 300]);
        assert!(at_most_apart(&[], 0, 5).is_empty());
    }

    #[test]
    fn windows_of_times() {
        assert_eq!(within(&[0, 10, 20, 30], 10, Some(30)), [10, 20]);
        assert_eq!(within(&[0, 10, 20, 30], 15, None), [20, 30]);
        assert!(within(&[0, 10], 20, Some(5)).is_empty());
    }
}

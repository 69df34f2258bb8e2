//! Arithmetic on timestamps: decoding times for pictures, exact places for frames of sound.

/// Decoding times for pictures whose presentation times are given in decoding order. They rise strictly, none
/// is later than its picture's presentation time where presentation times differ from each other, and the
/// delay is the least that the order allows.
pub fn decode_times(pts: &[i64]) -> Vec<i64> {
    let mut times = pts.to_vec();
    times.sort_unstable();
    for i in 1..times.len() {
        times[i] = times[i].max(times[i - 1] + 1);
    }
    let delay = times.iter().zip(pts).map(|(time, pts)| time - pts).max().unwrap_or(0);
    times.iter().map(|time| time - delay).collect()
}

/// Whether a muxer can take these (decoding, presentation) times as they are.
pub fn are_sound(times: &[(i64, i64)]) -> bool {
    times.iter().all(|(dts, pts)| dts <= pts) && times.windows(2).all(|pair| pair[0].0 < pair[1].0)
}

/// Puts frames of sound one exactly after the other where the source's clock is coarser than a sample
/// (milliseconds in Matroska and FLV), so that rounding becomes neither a gap nor an overlap.
/// A real gap stays; a frame is never put before the end of the last one.
pub struct AudioClock {
    tolerance: i64,
    next: Option<i64>,
}

impl AudioClock {
    /// `tolerance` in samples: how far the source's rounding can move a frame.
    pub fn new(tolerance: i64) -> Self {
        AudioClock { tolerance, next: None }
    }

    /// Where the frame at `pts` lies that is `duration` long, all in samples.
    pub fn place(&mut self, pts: i64, duration: i64) -> i64 {
        let placed = match self.next {
            Some(next) if pts <= next + self.tolerance => next,
            _ => pts,
        };
        self.next = Some(placed + duration);
        placed
    }
}

/// Orders `a` ticks of `1/a_timescale` against `b` ticks of `1/b_timescale`.
pub fn compare(a: i64, a_timescale: u32, b: i64, b_timescale: u32) -> std::cmp::Ordering {
    (i128::from(a) * i128::from(b_timescale)).cmp(&(i128::from(b) * i128::from(a_timescale)))
}

/// `ticks` of `1/from` in ticks of `1/to`, rounded to the nearest.
pub fn rescale(ticks: i64, from: u32, to: u32) -> i64 {
    let (from, to) = (i128::from(from), i128::from(to));
    let rounded = (2 * i128::from(ticks) * to + from).div_euclid(2 * from);
    i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decoding_comes_before_showing_with_the_least_delay() {
        // I B B P in display order, decoded as I P B B.
        assert_eq!(decode_times(&[0, 3, 1, 2]), [-1, 0, 1, 2]);
        assert_eq!(decode_times(&[0, 10, 25]), [0, 10, 25]);
        assert_eq!(decode_times(&[]), [] as [i64; 0]);
    }

    proptest! {
        #[test]
        fn decode_times_are_sound_for_any_order(pts in proptest::collection::hash_set(-1000_i64..1000, 0..60)) {
            let pts: Vec<i64> = pts.into_iter().collect();
            let times: Vec<(i64, i64)> = decode_times(&pts).into_iter().zip(pts.iter().copied()).collect();
            prop_assert!(are_sound(&times));
            let unreordered = pts.is_empty() || times.iter().any(|(dts, pts)| dts == pts);
            prop_assert!(unreordered, "some picture is shown the moment it is decoded: {times:?}");
        }

        #[test]
        fn millisecond_rounding_becomes_no_gap(frames in 1_i64..2000, start in -5000_i64..5000) {
            let mut clock = AudioClock::new(45);
            for frame in 0..frames {
                let exact = start + frame * 1024;
                let rounded = rescale(rescale(exact, 44_100, 1000), 1000, 44_100);
                let origin = rescale(rescale(start, 44_100, 1000), 1000, 44_100);
                prop_assert_eq!(clock.place(rounded, 1024), origin + frame * 1024);
            }
        }
    }

    #[test]
    fn doubled_times_still_rise() {
        let times = decode_times(&[5, 5, 5, 8]);
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
    }

    #[test]
    fn unsound_times_are_seen() {
        assert!(are_sound(&[(0, 2), (1, 1)]));
        assert!(!are_sound(&[(0, 2), (0, 1)]));
        assert!(!are_sound(&[(0, 0), (2, 1)]));
    }

    #[test]
    fn real_gaps_stay_and_overlaps_do_not() {
        let mut clock = AudioClock::new(10);
        assert_eq!(clock.place(0, 1024), 0);
        assert_eq!(clock.place(1030, 1024), 1024);
        assert_eq!(clock.place(5000, 1024), 5000);
        assert_eq!(clock.place(5500, 1024), 6024);
    }

    #[test]
    fn instants_compare_across_timescales() {
        use std::cmp::Ordering::*;
        assert_eq!(compare(1, 3, 100, 300), Equal);
        assert_eq!(compare(i64::MAX / 2, 90_000, 1, 1), Greater);
        assert_eq!(rescale(-1, 2, 1), 0);
        assert_eq!(rescale(3, 2, 1), 2);
    }
}

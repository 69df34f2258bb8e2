//! When the pictures and sounds of `original` play, and where its fragments start, whether its bytes are copied or not.

use anyhow::{Context, ensure};
use domain::task::Plan;

use crate::film_clock::FilmClock;
use crate::source::AudioFacts;
use crate::timing::{self, AudioClock};
use crate::track::{self, Cuts};

/// Samples in a frame of AAC-LC.
const AAC_FRAME_SAMPLES: i64 = 1024;

/// Where a packet stands in its track, in film ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub pts: i64,
    pub dts: i64,
    pub starts_fragment: bool,
}

/// The (decoding, presentation) times of the shown pictures in decoding order, in film ticks: those of the
/// source where they are sound, else decoding times made from the order. `packets` are (decoding, presentation)
/// timestamps of the stream.
pub fn of_pictures(
    packets: impl Iterator<Item = (Option<i64>, Option<i64>)>,
    clock: FilmClock,
) -> Vec<(i64, i64)> {
    let (mut dts, mut pts) = (Vec::new(), Vec::new());
    for (decoded_at, shown_at) in packets {
        if let Some(shown_at) = shown_at {
            dts.push(decoded_at.map(|dts| clock.ticks(dts)));
            pts.push(clock.ticks(shown_at));
        }
    }
    let own: Option<Vec<i64>> = dts.into_iter().collect();
    own.map(|dts| zip(dts, &pts))
        .filter(|times| timing::are_sound(times))
        .unwrap_or_else(|| zip(timing::decode_times(&pts), &pts))
}

fn zip(dts: Vec<i64>, pts: &[i64]) -> Vec<(i64, i64)> {
    dts.into_iter().zip(pts.iter().copied()).collect()
}

/// Places pictures, one after the other in decoding order.
pub struct PictureTimes<'a> {
    clock: FilmClock,
    cuts: Cuts,
    times: std::slice::Iter<'a, (i64, i64)>,
    count: usize,
}

impl<'a> PictureTimes<'a> {
    /// `times` as [`of_pictures`] gives them.
    pub fn new(clock: FilmClock, times: &'a [(i64, i64)], plan: &Plan) -> Self {
        let cuts = Cuts::of_pictures(track::starts_in(&plan.boundaries, clock.timescale));
        PictureTimes { clock, cuts, times: times.iter(), count: times.len() }
    }

    /// Before any picture is placed.
    pub fn first_pts(&self) -> anyhow::Result<i64> {
        Ok(self.times.as_slice().first().context("no pictures")?.1)
    }

    /// `shown_at`: timestamp of the stream.
    pub fn place(&mut self, shown_at: i64, is_key: bool) -> anyhow::Result<Placed> {
        let (dts, pts) = *self.times.next().context("more pictures than at the first reading")?;
        ensure!(pts == self.clock.ticks(shown_at), "another picture than at the first reading");
        Ok(Placed { pts, dts, starts_fragment: self.cuts.at_keyframe(pts, is_key) })
    }

    /// How much was placed, 0 to 1.
    pub fn fraction(&self) -> f64 {
        1.0 - self.times.len() as f64 / self.count as f64
    }

    pub fn finish(self) -> anyhow::Result<()> {
        let missed = self.cuts.missed().map(|ticks| self.clock.seconds(ticks));
        ensure!(missed.is_none(), "no keyframe at {missed:?} s, where a fragment starts");
        Ok(())
    }
}

/// Places packets of sound, one after the other.
pub struct SoundTimes<'a> {
    facts: &'a AudioFacts,
    cuts: Cuts,
    clock: AudioClock,
    /// Samples in a packet, where its own duration is rounded.
    frame_samples: i64,
    is_exact: bool,
    /// Of the packet that was placed last, in ticks.
    pub last_duration: i64,
}

impl<'a> SoundTimes<'a> {
    /// `frame_samples`: as the stream's parameters say it, 0 where they say nothing.
    pub fn new(facts: &'a AudioFacts, frame_samples: i64, plan: &Plan) -> Self {
        let FilmClock { time_base, timescale, .. } = facts.clock;
        let is_exact = f64::from(time_base.invert()) == f64::from(timescale);
        let rounding = if is_exact { 0 } else { facts.clock.length(1) + 2 };
        let starts = track::starts_in(&plan.boundaries, timescale);
        SoundTimes {
            facts,
            cuts: Cuts::of_sound(&starts, facts.start, facts.end, timescale),
            clock: AudioClock::new(rounding),
            frame_samples: if frame_samples == 0 { AAC_FRAME_SAMPLES } else { frame_samples },
            is_exact,
            last_duration: 0,
        }
    }

    /// `heard_at` and `duration` as the stream counts them.
    pub fn place(&mut self, heard_at: i64, duration: i64) -> Placed {
        let duration = self.facts.clock.length(duration);
        let duration = if self.is_exact && duration > 0 { duration } else { self.frame_samples };
        let pts = self.clock.place(self.facts.clock.ticks(heard_at), duration);
        self.last_duration = duration;
        Placed { pts, dts: pts, starts_fragment: self.cuts.at_nearest(pts, duration) }
    }
}

//! The timeline: t = 0 of the film is the earliest start of the chosen video and audio. Every presentation
//! time outside the demuxer is counted from there, in ticks of the film's timescale.

use ffmpeg_next::Rational;
use serde::{Deserialize, Serialize};

use crate::facts_file::rational;

/// Ticks a second below which MP4 players lose precision; smaller timescales are multiplied up.
const TIMESCALE_MIN: i64 = 10_000;
const TIMESCALE_MAX: i64 = 1_000_000;
/// For time bases that no timescale can express exactly.
const TIMESCALE_FALLBACK: i64 = 90_000;

/// An instant of the source, exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceTime {
    pub ticks: i64,
    #[serde(with = "rational")]
    pub time_base: Rational,
}

/// Turns the timestamps of one stream into film time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilmClock {
    /// Of the stream's timestamps.
    #[serde(with = "rational")]
    pub time_base: Rational,
    /// Ticks a second of film time.
    pub timescale: u32,
    /// Film ticks between zero of the stream's timestamps and the start of the film.
    start: i64,
}

impl SourceTime {
    pub fn seconds(self) -> f64 {
        self.ticks as f64 * f64::from(self.time_base)
    }
}

impl FilmClock {
    pub fn new(time_base: Rational, timescale: u32, film_start: SourceTime) -> Self {
        let start = rescale(film_start.ticks, film_start.time_base, timescale);
        FilmClock { time_base, timescale, start }
    }

    /// Film time in ticks; exact where [`timescale_of`] found an exact timescale.
    pub fn ticks(&self, timestamp: i64) -> i64 {
        rescale(timestamp, self.time_base, self.timescale) - self.start
    }

    /// A length in the stream's time base as film ticks.
    pub fn length(&self, length: i64) -> i64 {
        rescale(length, self.time_base, self.timescale)
    }

    /// The stream's timestamp at a film time, for seeking.
    pub fn timestamp(&self, film_ticks: i64) -> i64 {
        let (num, den) = positive(self.time_base);
        let wide = i128::from(film_ticks + self.start) * i128::from(den);
        div_round(wide, i128::from(self.timescale) * i128::from(num))
    }

    pub fn seconds(&self, film_ticks: i64) -> f64 {
        film_ticks as f64 / f64::from(self.timescale)
    }
}

/// A timescale in which every timestamp of `time_base` is a whole number, where there is one of sane size.
pub fn timescale_of(time_base: Rational) -> u32 {
    let (_, den) = positive(time_base);
    let factor = (TIMESCALE_MIN + den - 1) / den;
    let timescale = den * factor;
    if timescale <= TIMESCALE_MAX { timescale as u32 } else { TIMESCALE_FALLBACK as u32 }
}

/// `value` ticks of `time_base` in ticks of `1/timescale`, rounded to the nearest.
pub fn rescale(value: i64, time_base: Rational, timescale: u32) -> i64 {
    let (num, den) = positive(time_base);
    div_round(i128::from(value) * i128::from(num) * i128::from(timescale), i128::from(den))
}

/// Broken files carry zero and negative time bases; a tick of one second keeps arithmetic total.
fn positive(time_base: Rational) -> (i64, i64) {
    match (time_base.numerator(), time_base.denominator()) {
        (num, den) if num > 0 && den > 0 => (i64::from(num), i64::from(den)),
        _ => (1, 1),
    }
}

fn div_round(value: i128, by: i128) -> i64 {
    let rounded = (2 * value + by).div_euclid(2 * by);
    i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN / 4 } else { i64::MAX / 4 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timescales_are_exact_and_fine() {
        for (num, den, expected) in
            [(1, 90_000, 90_000), (1, 1000, 10_000), (1, 25, 10_000), (1001, 30_000, 30_000), (0, 0, 10_000)]
        {
            assert_eq!(timescale_of(Rational::new(num, den)), expected, "{num}/{den}");
        }
        assert_eq!(timescale_of(Rational::new(1, 10_000_000)), 90_000);
    }

    #[test]
    fn the_earlier_stream_starts_the_film() {
        let audio_start = SourceTime { ticks: -480, time_base: Rational::new(1, 48_000) };
        let clock = FilmClock::new(Rational::new(1, 25), 10_000, audio_start);
        assert_eq!(clock.ticks(0), 100);
        assert_eq!(clock.ticks(25), 10_100);
        assert_eq!(clock.timestamp(10_100), 25);
        assert_eq!(clock.length(1), 400);
    }
}

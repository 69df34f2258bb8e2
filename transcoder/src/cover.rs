//! The cover: the frame the user asked for, else the best of a dozen spread over the film.

use std::ops::Range;
use std::path::Path;
use std::thread;

use domain::task::Covers;
use ffmpeg_next::frame::Video;

use crate::TaskError;
use crate::error::joined;
use crate::picture::{self, Score};
use crate::source::SourceFacts;
use crate::stills::Stills;

/// Looked at first, and then, where all of them were black or blank, as many times more.
const CANDIDATES: [i64; 2] = [12, 60];
/// Pixels decoded at most between keyframes in search of candidates: about two seconds of 720p.
const PIXELS_MAX: u64 = 64_000_000;
/// Parts of the film that are looked through at once.
const HALVES: u64 = 2;

/// What was made, and whether damaged pictures were met on the way.
pub struct CoversTaken {
    pub covers: Covers,
    pub damaged: bool,
}

/// `at_s` in film time.
pub fn take(
    input: &Path,
    source: &SourceFacts,
    output: &Path,
    at_s: Option<f64>,
) -> Result<CoversTaken, TaskError> {
    let open = || Stills::open(input, source, picture::cover_size(source.video.size), PIXELS_MAX / HALVES);
    let mut stills = open()?;
    let (found, damaged) = match at_s {
        Some(at_s) => (stills.at((at_s.max(0.0) * f64::from(source.video.clock.timescale)) as i64)?, 0),
        None => {
            let mut later = open()?;
            (best(&mut stills, &mut later, source)?, later.damaged())
        }
    };
    let picture = found.map_or_else(|| stills.first(), Ok)?;
    let covers = picture::write_covers(&picture, source.video.size, output)?;
    Ok(CoversTaken { covers, damaged: stills.damaged() + damaged > 0 })
}

/// The halves of the film are looked through at once: whoever waits for the film waits for its cover.
fn best(earlier: &mut Stills, later: &mut Stills, source: &SourceFacts) -> Result<Option<Video>, TaskError> {
    let mut best = None;
    for candidates in CANDIDATES {
        let middle = candidates / 2;
        let (first, second) = thread::scope(|scope| {
            let second = scope.spawn(|| best_of(later, source, middle..candidates, candidates));
            let first = best_of(earlier, source, 0..middle, candidates);
            (first, joined(second, "looking for a cover"))
        });
        for candidate in [first?, second?] {
            better(&mut best, candidate);
        }
        if best.as_ref().is_some_and(|(score, _)| score.usable) {
            break;
        }
    }
    Ok(best.map(|(_, picture)| picture))
}

type Candidate = Option<(Score, Video)>;

/// Of `candidates` places spread over the film, those with the given numbers.
fn best_of(
    stills: &mut Stills,
    source: &SourceFacts,
    numbers: Range<i64>,
    candidates: i64,
) -> Result<Candidate, TaskError> {
    let first = source.video.frame_times[0];
    let length = source.video.end() - first;
    let mut best = None;
    for n in numbers.clone() {
        let target = first + length * (2 * n + 1) / (2 * candidates);
        let left = (numbers.end - n).unsigned_abs();
        let Some(picture) = stills.near(target, length / (2 * candidates), left)? else { continue };
        better(&mut best, Some((picture::score(&picture)?, picture)));
    }
    Ok(best)
}

fn better(best: &mut Candidate, other: Candidate) {
    let is_better = |(score, _): &(Score, Video)| best.as_ref().is_none_or(|(before, _)| score > before);
    if other.as_ref().is_some_and(is_better) {
        *best = other;
    }
}

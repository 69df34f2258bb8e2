//! The cover: the frame the user asked for, else the best of a dozen spread over the film.

use std::path::Path;
use std::thread;

use domain::task::Covers;
use ffmpeg_next::frame::Video;

use crate::TaskError;
use crate::error::joined;
use crate::picture::{self, Score};
use crate::source::SourceFacts;
use crate::stills::{Renderer, Stills};

/// Looked at first, and then, where all of them were black or blank, as many times more.
const CANDIDATES: [i64; 2] = [12, 60];
/// Pixels decoded at most between keyframes in search of candidates: about two seconds of 720p.
const PIXELS_MAX: u64 = 64_000_000;
/// Candidates that are looked at at once.
const LOOKERS: u64 = 2;

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
    let open = || Stills::open(input, source, PIXELS_MAX / LOOKERS);
    let mut stills = open()?;
    let (found, damaged) = match at_s {
        Some(at_s) => (stills.at((at_s.max(0.0) * f64::from(source.video.clock.timescale)) as i64)?, 0),
        None => {
            let mut others = open()?;
            (best(&mut stills, &mut others, source)?, others.damaged())
        }
    };
    let frame = found.map_or_else(|| stills.first(), Ok)?;
    let picture = Renderer::new(source, picture::cover_size(source.video.size)).render(frame)?;
    let covers = picture::write_covers(&picture, source.video.size, output)?;
    Ok(CoversTaken { covers, damaged: stills.damaged() + damaged > 0 })
}

/// Every second candidate is looked at beside the others: whoever waits for the film waits for its cover.
fn best(even: &mut Stills, odd: &mut Stills, source: &SourceFacts) -> Result<Option<Video>, TaskError> {
    let mut best = None;
    for candidates in CANDIDATES {
        let (of_even, of_odd) = thread::scope(|scope| {
            let of_odd = scope.spawn(|| best_of(odd, source, 1, candidates));
            let of_even = best_of(even, source, 0, candidates);
            (of_even, joined(of_odd, "looking for a cover"))
        });
        for candidate in [of_even?, of_odd?] {
            better(&mut best, candidate);
        }
        if best.as_ref().is_some_and(|(score, _)| score.usable) {
            break;
        }
    }
    Ok(best.map(|(_, frame)| frame))
}

type Candidate = Option<(Score, Video)>;

/// Of `candidates` places spread over the film, those from number `start` on that one looker looks at.
fn best_of(
    stills: &mut Stills,
    source: &SourceFacts,
    start: i64,
    candidates: i64,
) -> Result<Candidate, TaskError> {
    let first = source.video.frame_times[0];
    let length = source.video.end() - first;
    let mut best = None;
    for n in (start..candidates).step_by(LOOKERS as usize) {
        let target = first + length * (2 * n + 1) / (2 * candidates);
        let left = (candidates - n).unsigned_abs().div_ceil(LOOKERS);
        let Some(frame) = stills.near(target, length / (2 * candidates), left)? else { continue };
        better(&mut best, Some((picture::score(&frame)?, frame)));
    }
    Ok(best)
}

fn better(best: &mut Candidate, other: Candidate) {
    let is_better = |(score, _): &(Score, Video)| best.as_ref().is_none_or(|(before, _)| score > before);
    if other.as_ref().is_some_and(is_better) {
        *best = other;
    }
}

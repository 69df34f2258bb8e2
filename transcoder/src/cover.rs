//! The cover: the frame the user asked for, else the best of a dozen spread over the film.

use std::path::Path;

use domain::task::Covers;
use ffmpeg_next::frame::Video;

use crate::TaskError;
use crate::picture::{self, Score};
use crate::source::SourceFacts;
use crate::stills::Stills;

/// Looked at first, and then, where all of them were black or blank, as many times more.
const CANDIDATES: [i64; 2] = [12, 60];
/// Pixels decoded at most between keyframes in search of candidates: about two seconds of 720p.
const PIXELS_MAX: u64 = 64_000_000;

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
    let mut stills = Stills::open(input, source, picture::cover_size(source.video.size), PIXELS_MAX)?;
    let found = match at_s {
        Some(at_s) => stills.at((at_s.max(0.0) * f64::from(source.video.clock.timescale)) as i64)?,
        None => best(&mut stills, source)?,
    };
    let picture = found.map_or_else(|| stills.first(), Ok)?;
    let covers = picture::write_covers(&picture, source.video.size, output)?;
    Ok(CoversTaken { covers, damaged: stills.damaged() > 0 })
}

fn best(stills: &mut Stills, source: &SourceFacts) -> Result<Option<Video>, TaskError> {
    let first = source.video.frame_times[0];
    let length = source.video.end() - first;
    let mut best: Option<(Score, Video)> = None;
    for candidates in CANDIDATES {
        for n in 0..candidates {
            let target = first + length * (2 * n + 1) / (2 * candidates);
            let left = (candidates - n).unsigned_abs();
            let Some(picture) = stills.near(target, length / (2 * candidates), left)? else { continue };
            let score = picture::score(&picture)?;
            if best.as_ref().is_none_or(|(other, _)| score > *other) {
                best = Some((score, picture));
            }
        }
        if best.as_ref().is_some_and(|(score, _)| score.usable) {
            break;
        }
    }
    Ok(best.map(|(_, picture)| picture))
}

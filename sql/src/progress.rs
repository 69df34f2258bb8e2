//! How far the work on a film is: what its jobs say, each weighed by the time it takes. That was guessed when they
//! were queued, and is corrected by the time that those before them took.

use std::collections::HashMap;

use domain::{JobKind, Phase, Stage, Timestamp, VideoId};
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use crate::SqlError;
use crate::pool::Pool;
use crate::publishing::RATES;
use crate::row::{float, natural, parsed, placeholders};
use crate::tx::Tx;

/// Of the whole, while nobody knows yet how much there is to encode.
const CHECKING_SHARE: f64 = 0.05;
/// The time that joining takes, measured by that of all encodes.
const ASSEMBLING_SHARE: f64 = 0.02;
/// Only what is published is done.
const PROGRESS_MAX: f64 = 0.99;
/// A guess counts as much as so many seconds of measuring.
const GUESS_S: f64 = 2.0;
/// Of measuring, before anybody is told how long it will take.
const MEASURED_S_MIN: f64 = 3.0;

/// Jobs of one kind of one film. Times are seconds of one worker.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Tally {
    queued: u64,
    running: u64,
    /// All of them, as guessed.
    guessed_s: f64,
    done_guessed_s: f64,
    done_took_s: f64,
    /// The done part of those that run, as guessed.
    running_guessed_s: f64,
    running_took_s: f64,
    /// Since the first of them began.
    wall_s: f64,
}

/// What is done for the rungs of one phase.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Rungs {
    encode: Tally,
    assemble: Tally,
}

/// What is done for one film.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Work {
    ingest: Tally,
    first: Rungs,
    last: Rungs,
}

impl Work {
    /// `None`: nothing is done for it any more.
    pub fn stage(&self) -> Option<Stage> {
        let Rungs { encode, assemble } = self.both();
        if self.ingest.running > 0 {
            Some(Stage::Checking)
        } else if encode.running > 0 {
            Some(Stage::Encoding)
        } else if assemble.running > 0 {
            Some(Stage::Assembling)
        } else if self.ingest.queued + encode.queued + assemble.queued > 0 {
            Some(Stage::Waiting)
        } else {
            None
        }
    }

    /// Of the whole film, 0 to 1.
    fn film(&self) -> f64 {
        // The last assembly is what remains when all is encoded.
        let rungs = Rungs { assemble: self.last.assemble, ..self.both() };
        let rungs_s = rungs.encodes_s() * (1.0 + ASSEMBLING_SHARE);
        let checked_s = self.ingest.done_took_s;
        if rungs_s <= 0.0 {
            return CHECKING_SHARE * self.ingest.fraction_running();
        }
        ((checked_s + rungs.fraction() * rungs_s) / (checked_s + rungs_s)).clamp(0.0, PROGRESS_MAX)
    }

    /// Seconds until the film is ready, if as many work on it as until now. `None`: nobody can tell.
    pub fn eta_s(&self) -> Option<f64> {
        let rungs = self.both();
        let Rungs { encode, assemble } = &rungs;
        let measured_s = encode.done_took_s + encode.running_took_s;
        if encode.running + assemble.running == 0 || measured_s < MEASURED_S_MIN {
            return None;
        }
        let encodes_left_s = rungs.encodes_left_s() / encode.workers();
        let assemble_s = rungs.encodes_s() * ASSEMBLING_SHARE * (1.0 - self.last.assemble.fraction_running());
        Some((encodes_left_s + assemble_s).ceil())
    }

    fn both(&self) -> Rungs {
        Rungs {
            encode: self.first.encode.and(&self.last.encode),
            assemble: self.first.assemble.and(&self.last.assemble),
        }
    }
}

impl Rungs {
    /// They are made all at once: 0 to 1.
    fn fraction(&self) -> f64 {
        let encodes_s = self.encodes_s();
        if encodes_s <= 0.0 {
            return 0.0;
        }
        let done_s = encodes_s - self.encodes_left_s();
        let assembled = ASSEMBLING_SHARE * self.assemble.fraction_running();
        ((done_s / encodes_s + assembled) / (1.0 + ASSEMBLING_SHARE)).clamp(0.0, PROGRESS_MAX)
    }

    /// What all encodes take together.
    fn encodes_s(&self) -> f64 {
        let encode = &self.encode;
        encode.done_took_s + (encode.guessed_s - encode.done_guessed_s) * encode.pace()
    }

    fn encodes_left_s(&self) -> f64 {
        let encode = &self.encode;
        let left_guessed_s = encode.guessed_s - encode.done_guessed_s - encode.running_guessed_s;
        left_guessed_s.max(0.0) * encode.pace()
    }
}

impl Tally {
    fn and(&self, other: &Tally) -> Tally {
        Tally {
            queued: self.queued + other.queued,
            running: self.running + other.running,
            guessed_s: self.guessed_s + other.guessed_s,
            done_guessed_s: self.done_guessed_s + other.done_guessed_s,
            done_took_s: self.done_took_s + other.done_took_s,
            running_guessed_s: self.running_guessed_s + other.running_guessed_s,
            running_took_s: self.running_took_s + other.running_took_s,
            wall_s: self.wall_s.max(other.wall_s),
        }
    }

    /// By how much they take longer than was guessed.
    fn pace(&self) -> f64 {
        let guessed_s = self.done_guessed_s + self.running_guessed_s;
        // A job that has not said anything yet measures nothing.
        let running_s = if self.running_guessed_s > 0.0 { self.running_took_s } else { 0.0 };
        (self.done_took_s + running_s + GUESS_S) / (guessed_s + GUESS_S)
    }

    /// How many work on them at a time: now or, as there is a moment between two jobs of one, on average.
    fn workers(&self) -> f64 {
        let average = (self.done_took_s + self.running_took_s) / self.wall_s.max(1.0);
        let wanted = (self.queued + self.running).max(1) as f64;
        average.max(self.running as f64).clamp(1.0, wanted)
    }

    /// Of those that run.
    fn fraction_running(&self) -> f64 {
        if self.running == 0 || self.guessed_s <= 0.0 {
            return 0.0;
        }
        (self.running_guessed_s / (self.guessed_s - self.done_guessed_s)).clamp(0.0, 1.0)
    }
}

/// Raises what is shown of a film that is held, and of its renditions. Neither ever falls.
pub(crate) async fn refresh_progress(tx: &mut Tx, video: VideoId, now: Timestamp) -> Result<(), SqlError> {
    let rows = tally(1).bind(now.unix_ms()).bind(video.to_string()).fetch_all(&mut **tx).await?;
    let work = by_film(&rows)?.remove(&video).unwrap_or_default();
    sqlx::query("-- videos.raise_progress\nUPDATE videos SET progress = $2 WHERE id = $1 AND progress < $2")
        .bind(video.to_string())
        .bind(work.film())
        .execute(&mut **tx)
        .await?;
    for (phase, rungs) in [(Phase::First, work.first), (Phase::Last, work.last)] {
        sqlx::query(
            "-- rungs.raise_progress
             UPDATE rungs SET progress = $2 WHERE video_id = $1 AND phase = $3 AND progress < $2",
        )
        .bind(video.to_string())
        .bind(rungs.fraction())
        .bind(phase.as_str())
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

/// One statement for all of them.
pub(crate) async fn work_on(
    readers: &Pool,
    videos: &[VideoId],
    now: Timestamp,
) -> Result<HashMap<VideoId, Work>, SqlError> {
    if videos.is_empty() {
        return Ok(HashMap::new());
    }
    let mut query = tally(videos.len()).bind(now.unix_ms());
    for video in videos {
        query = query.bind(video.to_string());
    }
    by_film(&query.fetch_all(readers).await?)
}

fn tally<'q>(videos: usize) -> sqlx::query::Query<'q, sqlx::Any, sqlx::any::AnyArguments> {
    // An assembly that is done published what it made, or found chunks that had to be encoded anew. The choice of rates
    // stands for the encodes that wait for it, until they are there: what it takes itself says nothing about them.
    sqlx::query(AssertSqlSafe(format!(
        "-- jobs.tally
         SELECT video_id, kind, phase,
           sum(CASE WHEN state = 'queued' THEN 1 ELSE 0 END) AS queued,
           sum(CASE WHEN state = 'running' THEN 1 ELSE 0 END) AS running,
           sum(CASE WHEN state = 'done' AND payload = '{RATES}' THEN 0.0 ELSE estimate_s END) AS guessed_s,
           sum(CASE WHEN state = 'done' AND payload <> '{RATES}' THEN estimate_s ELSE 0.0 END) AS done_guessed_s,
           CAST(sum(CASE WHEN state = 'done' AND payload <> '{RATES}' THEN finished_at - started_at ELSE 0 END) AS BIGINT)
             AS done_took_ms,
           sum(CASE WHEN state = 'running' AND payload <> '{RATES}' THEN estimate_s * progress ELSE 0.0 END)
             AS running_guessed_s,
           CAST(sum(CASE WHEN state = 'running' AND payload <> '{RATES}' THEN $1 - started_at ELSE 0 END) AS BIGINT)
             AS running_took_ms,
           coalesce(max(CASE WHEN payload <> '{RATES}' THEN $1 - started_at END), 0) AS wall_ms
         FROM jobs WHERE video_id IN ({}) AND kind IN ('ingest', 'encode', 'assemble') AND state <> 'cancelled'
           AND NOT (kind = 'assemble' AND state = 'done')
         GROUP BY video_id, kind, phase",
        placeholders(2, videos)
    )))
}

fn by_film(rows: &[AnyRow]) -> Result<HashMap<VideoId, Work>, SqlError> {
    let mut films: HashMap<VideoId, Work> = HashMap::new();
    for row in rows {
        let work = films.entry(parsed(row, "video_id")?).or_default();
        let rungs = match parsed(row, "phase")? {
            Phase::First => &mut work.first,
            Phase::Last => &mut work.last,
        };
        let tally = match parsed(row, "kind")? {
            JobKind::Ingest => &mut work.ingest,
            JobKind::Encode => &mut rungs.encode,
            _ => &mut rungs.assemble,
        };
        *tally = Tally {
            queued: natural(row, "queued")?,
            running: natural(row, "running")?,
            guessed_s: float(row, "guessed_s")?,
            done_guessed_s: float(row, "done_guessed_s")?,
            done_took_s: seconds(row, "done_took_ms")?,
            running_guessed_s: float(row, "running_guessed_s")?,
            running_took_s: seconds(row, "running_took_ms")?,
            wall_s: seconds(row, "wall_ms")?,
        };
    }
    Ok(films)
}

/// Clocks of several machines may differ by a little.
fn seconds(row: &AnyRow, column: &'static str) -> Result<f64, SqlError> {
    Ok(crate::row::int(row, column)?.max(0) as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten chunks of 4 s by the guess, each of which takes 8 s; two at once.
    fn film(done: u64, running: u64, fraction: f64) -> Work {
        let ingest = Tally { guessed_s: 1.0, done_guessed_s: 1.0, done_took_s: 1.0, ..Tally::default() };
        let (done_s, running_s) = (done as f64, running as f64 * fraction);
        let encode = Tally {
            queued: 10 - done - running,
            running,
            guessed_s: 40.0,
            done_guessed_s: 4.0 * done_s,
            done_took_s: 8.0 * done_s,
            running_guessed_s: 4.0 * running_s,
            running_took_s: 8.0 * running_s,
            wall_s: 8.0 * (done_s + running_s) / 2.0,
        };
        Work { ingest, last: rungs(encode, Tally::default()), ..Work::default() }
    }

    fn rungs(encode: Tally, assemble: Tally) -> Rungs {
        Rungs { encode, assemble }
    }

    #[test]
    fn the_whole_rises_from_the_check_to_the_last_join() {
        let checking = Tally { running: 1, guessed_s: 1.0, running_guessed_s: 0.5, ..Tally::default() };
        let mut steps = vec![Work { ingest: checking, ..Work::default() }.film()];
        for done in (0..10).step_by(2) {
            for fraction in [0.1, 0.5, 0.9] {
                steps.push(film(done, 2, fraction).film());
            }
        }
        let assembling = Tally { running: 1, guessed_s: 1.0, running_guessed_s: 0.7, ..Tally::default() };
        steps.push(film(10, 0, 0.0).film());
        steps.push(Work { last: rungs(film(10, 0, 0.0).last.encode, assembling), ..film(10, 0, 0.0) }.film());
        assert!(steps.is_sorted(), "{steps:?}");
        assert!(steps[0] > 0.0 && steps.last().is_some_and(|last| (0.96..1.0).contains(last)), "{steps:?}");
    }

    #[test]
    fn half_of_the_chunks_are_half_of_the_work() {
        let half = film(5, 0, 0.0);
        assert!((half.last.fraction() - 0.5).abs() < 0.02, "{}", half.last.fraction());
        assert!((half.film() - half.last.fraction()).abs() < 0.02);
    }

    #[test]
    fn chunks_are_weighed_by_what_they_cost() {
        // A large one and a small one: when the large one is done, most is.
        let encode =
            Tally { queued: 1, guessed_s: 10.0, done_guessed_s: 9.0, done_took_s: 9.0, ..Tally::default() };
        let fraction = rungs(encode, Tally::default()).fraction();
        assert!((fraction - 0.9 / 1.02).abs() < 0.001, "{fraction}");
    }

    #[test]
    fn a_first_phase_is_a_part_of_the_whole() {
        // A tenth of the work is done, and its rung is being joined.
        let done =
            Tally { guessed_s: 4.0, done_guessed_s: 4.0, done_took_s: 4.0, wall_s: 4.0, ..Tally::default() };
        let waiting = Tally { queued: 4, guessed_s: 36.0, ..Tally::default() };
        let assembling = Tally { running: 1, guessed_s: 1.0, running_guessed_s: 0.5, ..Tally::default() };
        let (first, last) = (rungs(done, assembling), rungs(waiting, Tally::default()));
        let work = Work { first, last, ..Work::default() };
        assert!((work.first.fraction() - 0.99).abs() < 0.001 && work.last.fraction() == 0.0);
        assert!((work.film() - 0.1 / 1.02).abs() < 0.001, "{}", work.film());
        assert_eq!(work.stage(), Some(Stage::Assembling));
        assert!(work.eta_s().is_some_and(|eta_s| (36.0..=37.0).contains(&eta_s)), "{:?}", work.eta_s());
    }

    #[test]
    fn the_time_left_is_learnt_from_the_chunks_before() {
        assert_eq!(film(0, 2, 0.0).eta_s(), None, "nothing is measured yet");
        assert_eq!(film(5, 0, 0.0).eta_s(), None, "nobody is at work");
        // Four chunks of 8 s for two workers are 16 s, and joining them takes 2 s more.
        let eta_s = film(6, 2, 0.0).eta_s().unwrap();
        assert!((16.0..=19.0).contains(&eta_s), "{eta_s}");
        let later_s = film(8, 2, 0.5).eta_s().unwrap();
        assert!((5.0..=7.0).contains(&later_s), "{later_s}");
        let between_s = film(6, 1, 0.0).eta_s().unwrap();
        assert_eq!(between_s, eta_s, "the other worker is about to begin its next chunk");
        let last_s = film(9, 1, 0.0).eta_s().unwrap();
        assert!((9.0..=11.0).contains(&last_s), "one chunk is for one worker: {last_s}");
    }

    #[test]
    fn the_stage_is_what_runs() {
        let running = Tally { running: 1, ..Tally::default() };
        let queued = Tally { queued: 1, ..Tally::default() };
        let stage = |ingest, encode, assemble| {
            let last = rungs(encode, assemble);
            Work { ingest, last, ..Work::default() }.stage()
        };
        let none = Tally::default();
        assert_eq!(stage(queued, none, none), Some(Stage::Waiting));
        assert_eq!(stage(running, none, none), Some(Stage::Checking));
        assert_eq!(stage(none, queued, none), Some(Stage::Waiting));
        assert_eq!(stage(none, running, none), Some(Stage::Encoding));
        assert_eq!(stage(none, none, running), Some(Stage::Assembling));
        assert_eq!(stage(none, none, none), None);
    }
}

//! How long encoding will take, guessed from pixels. The first finished chunks correct it, so what counts is that a
//! chunk of twice the pixels weighs twice as much; and how long a run took for the film it made.

use std::time::Duration;

use domain::task::{Outcome, Part, Plan, Task};
use sql::Film;

use crate::run_limits::chunk_s;

/// On one core of a small server.
const DECODED_PIXELS_PER_S: f64 = 300e6;
const ENCODED_PIXELS_PER_S: f64 = 60e6;
const SOUND_S_PER_S: f64 = 50.0;
/// To fetch, to start, to store.
const RUN_S: f64 = 0.2;

/// Of one worker, in seconds.
pub fn encode_s(part: Part, plan: &Plan, film: &Film) -> f64 {
    let work_s = match part {
        Part::Chunk(number) => {
            let frames = chunk_s(plan, number) * film.frame_rate.max(0.0);
            let encoded: u64 = plan.rungs.iter().map(|rung| rung.size.pixels()).sum();
            frames * (film.pixels as f64 / DECODED_PIXELS_PER_S + encoded as f64 / ENCODED_PIXELS_PER_S)
        }
        Part::Audio => plan.expected.duration_s.max(0.0) / SOUND_S_PER_S,
    };
    RUN_S + work_s
}

/// Shows how many seconds of film a second made, by kind of work and the best rendition that came of it.
pub fn show_speed(task: &Task, outcome: &Outcome, took: Duration) {
    let Some(Made { kind, rendition, film_s }) = made(task, outcome) else { return };
    let labels = [("kind", kind), ("rendition", rendition)];
    let ratio = film_s / took.as_secs_f64().max(0.001);
    metrics::histogram!("scheduler_transcode_speed_ratio", &labels).record(ratio);
}

/// How much film came of a run.
#[derive(Debug, PartialEq)]
struct Made {
    kind: &'static str,
    rendition: &'static str,
    film_s: f64,
}

/// Pictures of a film are not made by its length.
fn made(task: &Task, outcome: &Outcome) -> Option<Made> {
    let best = |plan: &Plan| plan.rungs.first().map_or("none", |rung| rung.name.as_str());
    let made = match (task, outcome) {
        (Task::Ingest { .. }, Outcome::Ingest(ingested)) => {
            let rendition = ingested.original.as_ref().map_or("none", |original| original.name.as_str());
            Made { kind: "ingest", rendition, film_s: ingested.source.duration_s }
        }
        (Task::EncodeVideo { plan, chunk, .. }, _) => {
            Made { kind: "encode", rendition: best(plan), film_s: chunk_s(plan, *chunk) }
        }
        (Task::EncodeAudio { plan, .. }, _) => {
            Made { kind: "encode", rendition: "audio", film_s: plan.expected.duration_s }
        }
        (Task::Assemble { plan, .. }, _) => {
            Made { kind: "assemble", rendition: best(plan), film_s: plan.expected.duration_s }
        }
        _ => return None,
    };
    (made.film_s > 0.0).then_some(made)
}

#[cfg(test)]
mod tests {
    use domain::task::{Boundaries, ChunkSpan, EncodeSettingsPlanned, Expected};
    use domain::{Size, ladder};

    use super::*;

    fn film(size: Size) -> (Plan, Film) {
        let film = Film { pixels: size.pixels(), frame_rate: 30.0, duration_s: 15.0 };
        let plan = Plan {
            rungs: ladder(size, 23.0),
            first: None,
            audio: true,
            settings: EncodeSettingsPlanned { gop_s_max: 2.0, ..Default::default() },
            boundaries: Boundaries { timescale: 1000, starts: vec![0] },
            chunks: vec![ChunkSpan { start: 0, end: Some(10_000) }, ChunkSpan { start: 10_000, end: None }],
            expected: Expected {
                frames: None,
                duration_s: 15.0,
                frame_duration_s: 0.03,
                audio_offset_s: None,
            },
        };
        (plan, film)
    }

    #[test]
    fn chunks_weigh_by_their_pixels() {
        let (plan, film_720) = film(Size { width: 1280, height: 720 });
        let of = |part| encode_s(part, &plan, &film_720);
        let (whole, half) = (of(Part::Chunk(0)), of(Part::Chunk(1)));
        assert!((3.0..6.0).contains(&whole), "{whole}");
        assert!((half - RUN_S) * 2.0 - (whole - RUN_S) < 0.001, "{half} of {whole}");
        assert!(of(Part::Audio) < half);
        let (plan, film_1080) = film(Size { width: 1920, height: 1080 });
        assert!(encode_s(Part::Chunk(0), &plan, &film_1080) > 1.5 * whole);
    }

    #[test]
    fn a_run_has_made_what_its_task_names() {
        let (plan, _) = film(Size { width: 1280, height: 720 });
        let (input, output) = (std::path::PathBuf::new(), std::path::PathBuf::new());
        let task = Task::EncodeVideo { input, facts: None, output, plan, chunk: 1 };
        let made = made(&task, &Outcome::Encode { files: Vec::new() });
        assert_eq!(made, Some(Made { kind: "encode", rendition: "medium", film_s: 5.0 }));
    }
}

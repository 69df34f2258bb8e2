//! What one run of the transcoder may take, by what it is about; and which of it was taken up.

use std::time::Duration;

use chassis::settings::{Jobs, Media};
use domain::VideoCodec;
use domain::task::{Plan, Task};
use sql::Film;

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

/// A child that works says so every few seconds, also where it reads what nobody vouches for.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Address space of the program, its libraries, encoders and heaps, without any picture.
const MEMORY_BYTES_BASE: u64 = GIB;
/// Stacks and pictures in the hands of the threads that one more core brings.
const MEMORY_BYTES_PER_CORE: u64 = 64 * MIB;
/// Forty pictures of the source at 10 bits in 4:2:0 or 8 in 4:4:4: references, threads, filters.
const DECODED_BYTES_PER_PIXEL: u64 = 120;
/// As many of a rung in x264, which keeps each with three interpolated copies.
const ENCODED_BYTES_PER_PIXEL: u64 = 240;
/// Stacks and heaps of the threads that SVT-AV1 starts for every encoder, however small the picture.
const AV1_ENCODER_BYTES: u64 = 512 * MIB;
/// To judge a source and take pictures of it, one thread decodes.
const JUDGED_BYTES_PER_PIXEL: u64 = 72;

/// Processor time of anything, in seconds.
const CPU_S_BASE: u64 = 60;
/// For every second of film up to 4K at 30 frames a second; in proportion above.
const CPU_S_PER_FILM_S: f64 = 20.0;
const PIXELS_PER_S_FREE: f64 = 3840.0 * 2160.0 * 30.0;
/// Reading a source: a second for so many bytes.
const READ_BYTES_PER_CPU_S: u64 = 4 * MIB;

/// Of what nobody waits for: whoever uploads, watches or is being judged goes first, and encodes take what is left.
const NICENESS_OF_ENCODES: i32 = 10;
/// Of what makes a film playable, before what only makes it better.
const NICENESS_OF_FIRST_PHASES: i32 = 5;

const OUTPUT_BYTES_BASE: u64 = GIB;
const OUTPUT_BYTES_PER_INPUT_BYTE: u64 = 4;

/// What one run may take.
#[derive(Debug, Clone, Copy)]
pub struct RunLimits {
    pub duration_max: Duration,
    /// Between two things that the child says.
    pub silence_max: Duration,
    /// Of address space.
    pub memory_bytes_max: u64,
    /// Of processor time, all threads together.
    pub cpu_s_max: u64,
    /// Of all files that it makes.
    pub output_bytes_max: u64,
    /// Added to that of the scheduler, as `nice` does.
    pub niceness: i32,
}

/// A bound that a run came to; the text is for whoever runs the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    #[error("the transcoder was stopped after {} s, the longest that one run may take (SLUICE_TASK_S_MAX)", .0.as_secs())]
    Duration(Duration),
    #[error("the transcoder was silent for {0:?}, the longest that it may say nothing")]
    Silence(Duration),
    #[error(
        "the transcoder asked for more memory than the {} MiB of this task (at most SLUICE_TASK_MEMORY_BYTES_MAX), or than the machine has",
        .0 / MIB
    )]
    Memory(u64),
    #[error("the transcoder was stopped after {0} s of processor time, the most for this task")]
    Cpu(u64),
    #[error("the transcoder was stopped for writing more than {} MiB, the most for this task", .0 / MIB)]
    Output(u64),
}

/// `film`: what ingest found, where it has been.
pub fn of(
    task: &Task,
    film: Option<&Film>,
    input_bytes: u64,
    cores: u64,
    jobs: &Jobs,
    media: &Media,
) -> RunLimits {
    RunLimits {
        duration_max: Duration::from_secs(jobs.task_s_max),
        silence_max: SILENCE_MAX,
        memory_bytes_max: memory_bytes(task, film, cores, media).min(jobs.task_memory_bytes_max),
        cpu_s_max: cpu_s(task, film, input_bytes),
        output_bytes_max: input_bytes
            .saturating_mul(OUTPUT_BYTES_PER_INPUT_BYTE)
            .saturating_add(OUTPUT_BYTES_BASE),
        niceness: niceness(task),
    }
}

fn niceness(task: &Task) -> i32 {
    match task {
        Task::EncodeVideo { plan, .. } | Task::EncodeAudio { plan, .. } if plan.is_first_phase() => {
            NICENESS_OF_FIRST_PHASES
        }
        Task::ChooseRate { .. }
        | Task::EncodeVideo { .. }
        | Task::EncodeAudio { .. }
        | Task::Storyboard { .. } => NICENESS_OF_ENCODES,
        Task::Sandbox | Task::Ingest { .. } | Task::Assemble { .. } | Task::Cover { .. } => 0,
    }
}

/// For a child that only tells how it is locked in.
pub const OF_A_PROBE: RunLimits = RunLimits {
    duration_max: Duration::from_secs(10),
    silence_max: Duration::from_secs(10),
    memory_bytes_max: GIB,
    cpu_s_max: 10,
    output_bytes_max: 0,
    niceness: 0,
};

fn memory_bytes(task: &Task, film: Option<&Film>, cores: u64, media: &Media) -> u64 {
    // Before anybody looked, it may be the largest there can be.
    let source_pixels = film.map_or(media.pixels_max, |film| film.pixels);
    let pictures = match task {
        Task::Sandbox => 0,
        // At most: it is only the smallest rung.
        Task::ChooseRate { plan, .. } => {
            source_pixels * DECODED_BYTES_PER_PIXEL
                + rung_pixels(plan) * (ENCODED_BYTES_PER_PIXEL + DECODED_BYTES_PER_PIXEL)
        }
        Task::EncodeVideo { plan, .. } => {
            let av1 = plan.rungs.iter().filter(|rung| rung.name.codec() == VideoCodec::Av1).count() as u64;
            source_pixels * DECODED_BYTES_PER_PIXEL
                + rung_pixels(plan) * ENCODED_BYTES_PER_PIXEL
                + av1 * AV1_ENCODER_BYTES
        }
        Task::Assemble { plan, .. } => rung_pixels(plan) * DECODED_BYTES_PER_PIXEL,
        Task::Ingest { .. } | Task::EncodeAudio { .. } | Task::Cover { .. } | Task::Storyboard { .. } => {
            source_pixels * JUDGED_BYTES_PER_PIXEL
        }
    };
    MEMORY_BYTES_BASE + cores * MEMORY_BYTES_PER_CORE + pictures
}

fn rung_pixels(plan: &Plan) -> u64 {
    plan.rungs.iter().map(|rung| rung.size.pixels()).sum()
}

fn cpu_s(task: &Task, film: Option<&Film>, input_bytes: u64) -> u64 {
    let film_s = match task {
        // The bytes are all that is known of it.
        Task::Sandbox | Task::Ingest { .. } => 0.0,
        Task::EncodeVideo { plan, chunk, .. } => chunk_s(plan, *chunk) * patience(plan),
        // A small part of it is encoded, several times.
        Task::ChooseRate { plan, .. } => plan.expected.duration_s * patience(plan),
        Task::EncodeAudio { plan, .. } | Task::Assemble { plan, .. } => plan.expected.duration_s,
        Task::Storyboard { duration_s, .. } => *duration_s,
        Task::Cover { .. } => film.map_or(0.0, |film| film.duration_s),
    };
    let size = film.map_or(1.0, |film| film.pixels as f64 * film.frame_rate / PIXELS_PER_S_FREE);
    let film_cpu_s = film_s * CPU_S_PER_FILM_S * size.max(1.0);
    CPU_S_BASE + film_cpu_s.ceil() as u64 + input_bytes / READ_BYTES_PER_CPU_S
}

/// How long a chunk is, in seconds of film.
pub(crate) fn chunk_s(plan: &Plan, chunk: u32) -> f64 {
    let Some(span) = plan.chunks.get(chunk as usize) else { return 0.0 };
    let seconds = |ticks: i64| ticks as f64 / f64::from(plan.boundaries.timescale.max(1));
    let end_s = span.end.map_or(plan.expected.duration_s, seconds);
    (end_s - seconds(span.start)).clamp(0.0, plan.expected.duration_s.max(0.0))
}

/// Presets beyond `medium`, and other codecs, take longer by choice of whoever runs the machine.
fn patience(plan: &Plan) -> f64 {
    let of_preset = |preset: &str| match preset {
        "slow" => 2.0,
        "slower" => 4.0,
        "veryslow" => 8.0,
        _ => 1.0,
    };
    let of_codec = |codec: VideoCodec| match codec {
        VideoCodec::H264 => of_preset(&plan.settings.x264_preset),
        VideoCodec::Hevc => 3.0 * of_preset(&plan.settings.x265_preset),
        VideoCodec::Av1 if plan.settings.svtav1_preset >= 8 => 2.0,
        VideoCodec::Av1 if plan.settings.svtav1_preset >= 4 => 8.0,
        VideoCodec::Av1 => 60.0,
    };
    let used = |codec: &&VideoCodec| plan.rungs.iter().any(|rung| rung.name.codec() == **codec);
    VideoCodec::ALL.iter().filter(used).map(|&codec| of_codec(codec)).sum()
}

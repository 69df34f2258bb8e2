//! A transcoder for tests: what it does stands in the source, as words. Speaks the true contract.
//!
//! `chunks=2` plans two chunks, `long` is long enough for its rates to be chosen, `audio` a shared audio track, `no-original` cannot be played as it is, `one-rung` has no
//! ladder, and `ms=50`
//! makes reading the source take so long, `bad` and `bad-once=<file>` make chunks that do not pass the check,
//! `bad-original-once=<file>` of those with `original`; `reject`, `fail`, `crash`, `hang`, `link` and `lie` misbehave,
//! with `-encode` only when encoding, with `-original` when encoding that, with `-rates` when choosing rates;
//! `crash-rates-once=<file>` the first time.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::task::{
    Boundaries, ChunkSpan, Covers, EncodeSettingsPlanned, Event, Expected, Ingested, Outcome, OutputFile,
    Part, Plan, RenditionOutput, SandboxReport, SourceInfo, Task,
};
use domain::{MediaProblem, RenditionName, Rung, Size, ladder};

/// What a bad chunk holds.
const BAD: &str = "bad";

const SIZE: Size = Size { width: 1280, height: 720 };

fn main() {
    let mut json = String::new();
    std::io::stdin().read_line(&mut json).expect("the task is text");
    let task: Task = serde_json::from_str(&json).expect("the task is JSON");
    assert_eq!(std::env::vars_os().count(), 0, "no environment reaches the child");
    say(&Event::Progress { fraction: 0.5 });
    if task.is_on_demand() {
        let to = std::fs::metadata(task.inputs()[0]).expect("a file that is still empty").len();
        say(&Event::Want { from: 0, to });
        std::io::stdin().read_exact(&mut [0]).expect("an answer");
    }
    let outcome = match task {
        Task::Ingest { input, output, .. } => ingest(&words(&input, ""), &output),
        Task::ChooseRate { input, .. } => {
            let words = words(&input, "-rates");
            if is_first(&words, "crash-rates-once=") {
                std::process::abort();
            }
            Outcome::Rate { crf: Some(27.5) }
        }
        Task::EncodeVideo { input, output, plan, chunk, .. } => {
            let mut bad = is_bad(&words(&input, "-encode"), "bad-once=");
            if plan.rungs.iter().any(|rung| rung.name == RenditionName::Original) {
                bad |= is_bad(&words(&input, "-original"), "bad-original-once=");
            }
            let file = |rung: &Rung| {
                let file = write(&output, &format!("{}.chunk-{chunk:05}.mp4", rung.name));
                if bad { write_over(&output, file, BAD) } else { file }
            };
            Outcome::Encode { files: plan.rungs.iter().map(file).collect() }
        }
        Task::EncodeAudio { output, .. } => {
            Outcome::Encode { files: vec![write(&output, "chunk.audio.mp4")] }
        }
        Task::Assemble { chunks, audio, output, plan } => {
            assert!(chunks.iter().flatten().chain(&audio).all(|path| path.exists()), "all chunks are there");
            assert_eq!(chunks.len(), plan.rungs.len());
            check(&chunks);
            let renditions = plan.rungs.iter().map(|rung| rendition(&output, rung.name, rung.size)).collect();
            Outcome::Assemble { renditions }
        }
        Task::Sandbox => Outcome::Sandbox(SandboxReport::default()),
        Task::Cover { output, .. } => Outcome::Cover(covers(&output)),
        Task::Storyboard { output, .. } => Outcome::Storyboard {
            files: vec![write(&output, "storyboard.vtt"), write(&output, "storyboard.jpg")],
        },
    };
    say(&Event::Done { outcome });
}

/// What the source asks for; misbehaves where it says so.
fn words(input: &Path, suffix: &str) -> String {
    let words = std::fs::read_to_string(input).expect("the source is words");
    let asked = |word: &str| words.split_whitespace().any(|w| w == format!("{word}{suffix}"));
    if asked("reject") {
        say(&Event::Rejected { problem: MediaProblem::NotMedia, detail: "It is words.".to_owned() });
        std::process::exit(0);
    }
    if asked("fail") {
        say(&Event::Failed { detail: "bad luck".to_owned(), out_of_memory: false, unsound: Vec::new() });
        std::process::exit(0);
    }
    if asked("crash") {
        eprintln!("about to crash");
        std::process::abort();
    }
    while asked("hang") {
        std::thread::park();
    }
    std::thread::sleep(Duration::from_millis(number(&words, "ms=").unwrap_or(0)));
    words
}

/// Whether this chunk comes out wrong: with `bad` always, with `once` and a file where that is not there yet.
fn is_bad(words: &str, once: &str) -> bool {
    is_first(words, once) || words.split_whitespace().any(|word| word == "bad")
}

/// Whether nobody has been here: the word goes on with the path of a file that is then made.
fn is_first(words: &str, word: &str) -> bool {
    let marker = words.split_whitespace().find_map(|w| w.strip_prefix(word));
    marker.is_some_and(|marker| std::fs::File::create_new(marker).is_ok())
}

/// As the last look at a rendition: what is bad has to be encoded again.
fn check(chunks: &[Vec<PathBuf>]) {
    let is_bad = |path: &PathBuf| std::fs::read(path).is_ok_and(|chunk| chunk == BAD.as_bytes());
    let bad = |number: usize| chunks.iter().any(|rung| is_bad(&rung[number]));
    let numbers = (0..chunks.first().map_or(0, Vec::len)).filter(|&number| bad(number));
    let unsound: Vec<Part> = numbers.map(|number| Part::Chunk(number as u32)).collect();
    if !unsound.is_empty() {
        say(&Event::Failed { detail: "a chunk is bad".to_owned(), out_of_memory: false, unsound });
        std::process::exit(0);
    }
}

fn number(words: &str, word: &str) -> Option<u64> {
    words.split_whitespace().find_map(|w| w.strip_prefix(word)?.parse().ok())
}

fn ingest(words: &str, output: &Path) -> Outcome {
    let chunks = number(words, "chunks=").unwrap_or(0) as usize;
    let original = (!words.contains("no-original")).then(|| rendition(output, RenditionName::Original, SIZE));
    if words.contains("link") {
        std::fs::remove_file(output.join("original.index.json")).expect("it was just written");
        std::os::unix::fs::symlink("/etc/hostname", output.join("original.index.json")).expect("a link");
    }
    let mut covers = covers(output);
    if words.contains("lie") {
        covers.files[0].bytes += 1;
    }
    let facts = (chunks > 0 || original.is_none()).then(|| write(output, "facts.json"));
    let no_ladder = chunks == 0 || words.contains("one-rung");
    let mut rungs = if no_ladder { Vec::new() } else { ladder(SIZE, 23.0) };
    if original.is_none() {
        rungs.insert(0, Rung::original(SIZE));
    }
    let first = Plan::first_of(&rungs).filter(|_| original.is_none());
    let plan = Plan { first, ..plan(rungs, chunks, words) };
    Outcome::Ingest(Ingested { source: source(), original, covers, plan, facts })
}

fn source() -> SourceInfo {
    SourceInfo {
        container: "words".to_owned(),
        video_codec: "h264".to_owned(),
        audio_codec: None,
        size: SIZE,
        frame_rate: 30.0,
        duration_s: 10.0,
        warnings: Vec::new(),
    }
}

fn plan(rungs: Vec<Rung>, chunks: usize, words: &str) -> Plan {
    Plan {
        rungs,
        first: None,
        audio: words.contains("audio"),
        settings: EncodeSettingsPlanned {
            x264_preset: "veryfast".to_owned(),
            gop_s_max: 2.0,
            quality: words.contains("long").then_some(85.0),
            ..Default::default()
        },
        boundaries: Boundaries { timescale: 1000, starts: vec![0] },
        chunks: vec![ChunkSpan { start: 0, end: None }; chunks],
        expected: Expected {
            frames: Some(300),
            duration_s: if words.contains("long") { 60.0 } else { 10.0 },
            frame_duration_s: 0.03,
            audio_offset_s: None,
        },
    }
}

fn rendition(output: &Path, name: RenditionName, size: Size) -> RenditionOutput {
    RenditionOutput {
        name,
        size,
        frame_rate: 30.0,
        frames: 300,
        duration_s: 10.0,
        size_bytes: 1000,
        bitrate_bps: 800,
        codecs: "avc1.64001f".to_owned(),
        files: vec![
            write(output, &format!("{name}.index.json")),
            write(output, &format!("{name}.video.mp4")),
            write(output, "shared.audio.mp4"),
        ],
        engine: "words".to_owned(),
    }
}

fn covers(output: &Path) -> Covers {
    let files = vec![write(output, "cover-720.jpg"), write(output, "cover-720.webp")];
    Covers { files, width_max: 720, thumbhash: "aGFzaA==".to_owned() }
}

fn write(output: &Path, name: &str) -> OutputFile {
    std::fs::write(output.join(name), name).expect("the output folder can be written");
    OutputFile { name: name.to_owned(), bytes: name.len() as u64 }
}

fn write_over(output: &Path, file: OutputFile, text: &str) -> OutputFile {
    std::fs::write(output.join(&file.name), text).expect("the output folder can be written");
    OutputFile { bytes: text.len() as u64, ..file }
}

fn say(event: &Event) {
    let mut line = serde_json::to_vec(event).expect("events are JSON");
    line.push(b'\n');
    std::io::stdout().write_all(&line).expect("somebody listens");
}

//! Damaged films of every container, by seed, each through the real child in its sandbox, under the limits that a job
//! would have: ingest, and in every eighth round what there is to encode. Whatever comes, its end has a name.
//!
//! `make campaign-mutations` takes 20,000 of them; `SLUICE_TEST_FIRST=n SLUICE_TEST_MUTATIONS=1` takes one again and
//! leaves its file in the folder that it names.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod damage;
mod ends;
mod films;
mod parts;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chassis::settings::{ServiceName, Settings};
use domain::task::{EncodeSettings, EncodeSettingsPlanned, Ingested, MediaLimits, Outcome, Task};
use domain::{LadderSettings, ObjectFile};
use futures::StreamExt;
use scheduler::{RunError, Told, Transcoder, run_limits};
use sql::Film;
use tokio::sync::watch;

use crate::ends::{End, Ends};

/// The promise for the worst of files.
const WALL_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Encoding takes the most of the time: one round in so many goes all the way.
const ENCODED_ONE_IN: u64 = 8;

#[allow(clippy::disallowed_methods, reason = "the campaign sets its size and seed from outside")]
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

#[tokio::test]
async fn damaged_films_end_as_something() {
    let (count, first) = (setting("SLUICE_TEST_MUTATIONS", 100), setting("SLUICE_TEST_FIRST", 0));
    let seed = setting("SLUICE_TEST_SEED", 1);
    let folder = tempfile::tempdir().unwrap();
    let films = films::make(folder.path());
    let lab = Lab::new(folder.path());
    let goes_all_the_way = |number: u64| (number / films.len() as u64).is_multiple_of(ENCODED_ONE_IN);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let began = Instant::now();

    let peak = Peak::watch();
    let tried = futures::stream::iter(first..first + count).map(|number| {
        let (film, bytes) = damage::damaged(&films, seed, number);
        let (lab, name, all_the_way) = (&lab, film.name, goes_all_the_way(number));
        async move { (name, number, lab.run(number, &bytes, all_the_way).await) }
    });
    let ends: Ends = tried.buffer_unordered(cores).collect().await;
    let highest_bytes = peak.end();

    println!("{ends}");
    println!(
        "{count} damaged films from number {first}, seed {seed}, {cores} at once: {:.0?}, the slowest {:.1?}; resident \
         memory of a child at most {} MiB of address space {} MiB",
        began.elapsed(),
        ends.slowest(),
        highest_bytes >> 20,
        lab.memory_bytes_max() >> 20,
    );
    assert!(ends.slowest() < WALL_MAX, "{:?}", ends.slowest());
    assert!(highest_bytes < lab.memory_bytes_max(), "{highest_bytes}");
    assert_eq!(ends.panics(), [""; 0], "of our own code");
    let mut there = names_in(folder.path());
    there.retain(|name| !films.iter().any(|film| film.name == name));
    assert_eq!(there, ["jobs"], "something was written beside the jobs");
    if count == 1 {
        println!("its film: {}", folder.keep().join("jobs/0/in/source").display());
    }
}

/// Films of seed 1 by which something was found: an index that runs into the end of the file and one that counts more
/// than there can be, which looked like a sick machine; sound that cannot be copied though its codec fits; sound whose
/// first and whose last frames are lost; sound of three samples; a packet larger than there can be; sound that begins
/// where a film was cut off; pixels that are wide beyond all sense.
const FOUND: [u64; 9] = [8, 361, 52, 483, 654, 10_097, 11_363, 14_002, 19_698];

#[tokio::test]
async fn what_was_found_stays_mended() {
    let folder = tempfile::tempdir().unwrap();
    let films = films::make(folder.path());
    let lab = Lab::new(folder.path());
    for number in FOUND {
        let (film, bytes) = damage::damaged(&films, 1, number);
        let end = lab.run(number, &bytes, true).await;
        println!("{number} {}: {end:?}", film.name);
        assert!(end.is_a_judgement(), "{number} {}: {end:?}", film.name);
    }
}

/// Where jobs are run as a scheduler runs them.
struct Lab {
    folder: PathBuf,
    transcoder: Transcoder,
    settings: Settings,
    cores: u64,
    keep: bool,
}

impl Lab {
    fn new(folder: &Path) -> Lab {
        let test = std::env::current_exe().unwrap();
        let program = test.parent().and_then(Path::parent).unwrap().join("transcoder");
        assert!(program.exists(), "{} is there after `cargo build --workspace --bins`", program.display());
        fs::create_dir(folder.join("jobs")).unwrap();
        Lab {
            folder: folder.join("jobs"),
            transcoder: Transcoder::new(program),
            settings: Settings::defaults(ServiceName::Scheduler),
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
            keep: setting("SLUICE_TEST_MUTATIONS", 0) == 1,
        }
    }

    /// The most that any of the runs may have.
    fn memory_bytes_max(&self) -> u64 {
        let task = self.ingest(Path::new("/"), Path::new("/"));
        run_limits::of(&task, None, 0, self.cores, &self.settings.jobs, &self.settings.media).memory_bytes_max
    }

    async fn run(&self, number: u64, bytes: &[u8], all_the_way: bool) -> End {
        let job = self.folder.join(if self.keep { "0".to_owned() } else { number.to_string() });
        let (input, output) = (job.join("in"), job.join("out"));
        fs::create_dir_all(&input).unwrap();
        fs::create_dir(&output).unwrap();
        let source = input.join("source");
        fs::write(&source, bytes).unwrap();
        let began = Instant::now();
        let result = self.tasks(&source, &output, all_the_way).await;
        let end = End::of(result, began.elapsed());
        assert_eq!(fs::read(&source).unwrap(), bytes, "film {number} was written to");
        assert_eq!(
            (names_in(&job), names_in(&input)),
            (vec!["in".to_owned(), "out".to_owned()], vec!["source".to_owned()])
        );
        for name in names_in(&output) {
            assert!(name.parse::<ObjectFile>().is_ok(), "film {number} made {name}");
        }
        if !self.keep {
            fs::remove_dir_all(&job).unwrap();
        }
        end
    }

    async fn tasks(&self, source: &Path, output: &Path, all_the_way: bool) -> Result<Ingested, RunError> {
        let Outcome::Ingest(ingested) = self.child(&self.ingest(source, output), None).await? else {
            return Err(RunError::failed("another task's outcome"));
        };
        let (film, plan) = (film(&ingested), &ingested.plan);
        if plan.rungs.is_empty() || !all_the_way {
            return Ok(ingested);
        }
        let facts = ingested.facts.as_ref().map(|facts| output.join(&facts.name));
        let (input, output) = (source.to_owned(), output.to_owned());
        let parts = (input, facts, output.clone(), plan.clone());
        for chunk in 0..plan.chunks.len() as u32 {
            let (input, facts, output, plan) = parts.clone();
            self.child(&Task::EncodeVideo { input, facts, output, plan, chunk }, Some(&film)).await?;
        }
        if plan.audio {
            let (input, facts, output, plan) = parts;
            self.child(&Task::EncodeAudio { input, facts, output, plan }, Some(&film)).await?;
        }
        let path = |file: ObjectFile| output.join(file.to_string());
        let chunks = 0..plan.chunks.len() as u32;
        let assemble = Task::Assemble {
            chunks: plan
                .rungs
                .iter()
                .map(|rung| chunks.clone().map(|chunk| path(ObjectFile::Chunk(rung.name, chunk))).collect())
                .collect(),
            audio: plan.audio.then(|| path(ObjectFile::ChunkAudio)),
            output: output.clone(),
            plan: plan.clone(),
        };
        self.child(&assemble, Some(&film)).await?;
        Ok(ingested)
    }

    async fn child(&self, task: &Task, film: Option<&Film>) -> Result<Outcome, RunError> {
        let input_bytes = task.inputs().iter().map(|input| fs::metadata(input).unwrap().len()).sum();
        let (jobs, media) = (&self.settings.jobs, &self.settings.media);
        let limits = run_limits::of(task, film, input_bytes, self.cores, jobs, media);
        let (progress, _seen) = watch::channel(0.0);
        let told = Told { progress: &progress, source: None };
        self.transcoder.run(task, task.output().unwrap(), limits, told).await
    }

    fn ingest(&self, source: &Path, output: &Path) -> Task {
        let (media, encode) = (&self.settings.media, &self.settings.encode);
        Task::Ingest {
            input: source.to_owned(),
            on_demand: false,
            output: output.to_owned(),
            limits: MediaLimits {
                duration_s_max: media.duration_s_max,
                pixels_max: media.pixels_max,
                streams_max: media.streams_max,
            },
            settings: EncodeSettings {
                ladder: LadderSettings { crf: encode.crf, ..Default::default() },
                planned: EncodeSettingsPlanned {
                    x264_preset: encode.x264_preset.clone(),
                    gop_s_max: encode.gop_s_max,
                    ..Default::default()
                },
                chunk_s: Some(encode.chunk_s),
            },
            cover_at_s: None,
        }
    }
}

fn film(ingested: &Ingested) -> Film {
    let source = &ingested.source;
    Film { pixels: source.size.pixels(), frame_rate: source.frame_rate, duration_s: source.duration_s }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The highest resident memory of any process that was started here.
struct Peak {
    ended: Arc<AtomicBool>,
    highest_bytes: Arc<AtomicU64>,
    watcher: std::thread::JoinHandle<()>,
}

impl Peak {
    fn watch() -> Peak {
        let (ended, highest_bytes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let watcher = std::thread::spawn({
            let (ended, highest_bytes) = (ended.clone(), highest_bytes.clone());
            move || {
                while !ended.load(Ordering::SeqCst) {
                    for child in children() {
                        highest_bytes.fetch_max(peak_bytes(&child), Ordering::SeqCst);
                    }
                    std::thread::sleep(LOOK_EVERY);
                }
            }
        });
        Peak { ended, highest_bytes, watcher }
    }

    fn end(self) -> u64 {
        self.ended.store(true, Ordering::SeqCst);
        self.watcher.join().unwrap();
        self.highest_bytes.load(Ordering::SeqCst)
    }
}

fn children() -> Vec<String> {
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    let lists = threads.flat_map(|thread| fs::read_to_string(thread.path().join("children")));
    lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// As the kernel remembers it; 0 when it has ended.
fn peak_bytes(pid: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    kib.map_or(0, |kib| kib.parse::<u64>().unwrap() << 10)
}

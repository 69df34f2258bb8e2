//! `kill -9` of random workers, schedulers and their children, while films are encoded in chunks: each film comes out as
//! one that nobody disturbed, and a kill costs one chunk at most.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cluster::{MORTAL, size};
use crate::harness::{Client, Cluster, Persona, Points, Service, Sizes, clips, probe};

const SIZES: Sizes = Sizes { apis: 1, streamservers: 1, schedulers: 3 };
/// Films that are not ready yet, at most: work for every scheduler, and none that waits long.
const WAITING_MAX: u64 = 6;
/// Nothing queued or running, after the last film is ready.
const SETTLED_MAX: Duration = Duration::from_secs(60);

/// A chunk a second, and one at a time in each scheduler: what a kill may cost is then one chunk.
const SETTINGS: [(&str, &str); 2] = [("SLUICE_ENCODE_CHUNK_S", "1"), ("SLUICE_ENCODE_SLOTS", "1")];

/// What a viewer gets of a rendition.
#[derive(Debug, Clone, PartialEq)]
struct Rendition {
    frames: u64,
    video_s: String,
    audio_s: String,
    crc64nvme: String,
}

/// Three films and six kills in every run; `make campaign-workers` asks for a hundred and five hundred.
#[tokio::test(flavor = "multi_thread")]
async fn films_come_out_whole_while_workers_die() {
    let (films, kills) = (size("SLUICE_TEST_WORKERS_FILMS", 3), size("SLUICE_TEST_WORKERS_KILLS", 6));
    let (seed, every_ms) = (size("SLUICE_TEST_SEED", 1), size("SLUICE_TEST_KILL_EVERY_MS", 400));
    let settings = [&MORTAL[..], &SETTINGS].concat();
    let cluster = Arc::new(Cluster::start(SIZES, &settings).await);
    let alice = cluster.client("alice").await;
    let clips: Vec<Vec<u8>> = (3..6)
        .map(|seconds| std::fs::read(clip(&cluster, &format!("{seconds}.mp4"), seconds)).unwrap())
        .collect();
    let mut undisturbed = Vec::new();
    for clip in &clips {
        let id = alice.upload(clip).await.id;
        alice.until(&id, "ready").await;
        undisturbed.push(renditions(&cluster, &alice, &id).await);
    }

    let began = Instant::now();
    let all = Arc::new(Work { wanted: films, uploaded: AtomicU64::new(0), killed: AtomicBool::new(false) });
    let killer = tokio::spawn(kill(cluster.clone(), all.clone(), kills, every_ms, Points::new(seed)));
    let uploaders: Vec<_> =
        (0..WAITING_MAX).map(|_| tokio::spawn(upload(alice.clone(), all.clone(), clips.clone()))).collect();
    let mut uploaded = Vec::new();
    for uploader in uploaders {
        uploaded.extend(uploader.await.unwrap());
    }
    let killed = killer.await.unwrap();
    let took = began.elapsed();

    let mut same_bytes = 0;
    for (number, id) in &uploaded {
        let expected = &undisturbed[*number % clips.len()];
        let found = renditions(&cluster, &alice, id).await;
        same_bytes += usize::from(found == *expected);
        assert_eq!(without_bytes(&found), without_bytes(expected), "film {number}, {id}");
    }
    let runs = runs(&cluster, "encode").await;
    let again = runs.again();
    println!(
        "{} films while {} schedulers and {} transcoders were killed, seed {seed}: all ready with frames and durations as \
         undisturbed, {same_bytes} byte for byte; {} chunks and soundtracks took {} runs, {again} more than one each. \
         {took:.0?}",
        uploaded.len(),
        killed.schedulers,
        killed.children,
        runs.jobs,
        runs.runs,
    );
    assert!(uploaded.len() as u64 >= films && killed.schedulers + killed.children >= kills);
    assert!(again <= killed.schedulers + killed.children, "more than one chunk a kill was done again");
    drop(alice);
    Arc::into_inner(cluster).expect("nobody else has it").finish();
}

/// Keyframes every second, so that it has as many chunks as seconds.
fn clip(cluster: &Cluster, name: &str, seconds: u32) -> std::path::PathBuf {
    let path = cluster.folder.path().join(name);
    let picture = format!("testsrc2=size=640x360:rate=25:duration={seconds}");
    let tone = format!("sine=frequency=440:sample_rate=48000:duration={seconds}");
    let sources = ["-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &tone];
    let coding = "-c:v libx264 -preset veryfast -pix_fmt yuv420p -g 25 -bf 2 -c:a aac -b:a 192k -ac 2";
    clips::ffmpeg(&[&sources[..], &coding.split(' ').collect::<Vec<_>>()].concat(), &path);
    path
}

struct Work {
    wanted: u64,
    uploaded: AtomicU64,
    /// As many as were asked for.
    killed: AtomicBool,
}

impl Work {
    /// There are films as long as somebody kills: nobody dies idle.
    fn is_over(&self) -> bool {
        self.uploaded.load(Ordering::SeqCst) >= self.wanted && self.killed.load(Ordering::SeqCst)
    }
}

/// One film after the other, each until it is ready; the numbers say which clip it is.
async fn upload(alice: Client, all: Arc<Work>, clips: Vec<Vec<u8>>) -> Vec<(usize, String)> {
    let mut mine = Vec::new();
    while !all.is_over() {
        let number = all.uploaded.fetch_add(1, Ordering::SeqCst) as usize;
        let id = alice.upload(&clips[number % clips.len()]).await.id;
        alice.until(&id, "ready").await;
        mine.push((number, id));
    }
    mine
}

#[derive(Default)]
struct Killed {
    schedulers: u64,
    children: u64,
}

/// At random moments, a scheduler or a child of one, as often the one as the other.
async fn kill(
    cluster: Arc<Cluster>,
    all: Arc<Work>,
    kills: u64,
    every_ms: u64,
    mut points: Points,
) -> Killed {
    let mut killed = Killed::default();
    let schedulers = cluster.of(Service::Scheduler);
    while killed.schedulers + killed.children < kills {
        tokio::time::sleep(Duration::from_millis(points.next_below(2 * every_ms))).await;
        let children: Vec<Pid> = schedulers.iter().flat_map(|&number| cluster.children(number)).collect();
        if children.is_empty() {
            continue;
        }
        if points.next_below(2) == 0 {
            let scheduler = schedulers[points.next_below(schedulers.len() as u64) as usize];
            cluster.kill_and_restart(scheduler).await;
            killed.schedulers += 1;
        } else {
            let child = children[points.next_below(children.len() as u64) as usize];
            // It may have ended just now.
            killed.children += u64::from(kill_process(child, Signal::KILL).is_ok());
        }
    }
    all.killed.store(true, Ordering::SeqCst);
    killed
}

async fn renditions(cluster: &Arc<Cluster>, alice: &Client, id: &str) -> HashMap<String, Rendition> {
    let video = alice.get(Service::Api, &format!("/api/videos/{id}")).await.answer.expect(200).json();
    let names: Vec<&str> =
        video["renditions"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 2, "{video:#}");
    let base = cluster.base(cluster.of(Service::Streamserver)[0]);
    let mut renditions = HashMap::new();
    for name in names {
        let path = format!("/stream/videos/{id}?rendition={name}");
        let bytes = Persona::anonymous(&base).get(&path).await.expect(200).body;
        let url = format!("{base}{path}");
        let probed = tokio::task::spawn_blocking(move || probe::ffprobe(&url)).await.unwrap();
        let seconds =
            |kind: &str| probed.stream(kind).map_or(String::new(), |stream| stream["duration"].to_string());
        let (video_s, audio_s) = (seconds("video"), seconds("audio"));
        let crc64nvme = clips::crc64nvme(&bytes);
        renditions
            .insert(name.to_owned(), Rendition { frames: probed.frames(), video_s, audio_s, crc64nvme });
    }
    renditions
}

fn without_bytes(renditions: &HashMap<String, Rendition>) -> HashMap<String, Rendition> {
    let without = |rendition: &Rendition| Rendition { crc64nvme: String::new(), ..rendition.clone() };
    renditions.iter().map(|(name, rendition)| (name.clone(), without(rendition))).collect()
}

/// Jobs of a kind and how often they were begun.
struct Runs {
    jobs: u64,
    runs: u64,
}

impl Runs {
    fn again(&self) -> u64 {
        self.runs - self.jobs
    }
}

/// Once nothing is left to do.
async fn runs(cluster: &Arc<Cluster>, kind: &str) -> Runs {
    let root = cluster.admin().await;
    let waited = Instant::now();
    loop {
        let jobs = jobs(&root).await;
        let unfinished =
            jobs.iter().filter(|job| job["state"] == "queued" || job["state"] == "running").count();
        if unfinished == 0 {
            let of_kind: Vec<&Value> = jobs.iter().filter(|job| job["kind"] == kind).collect();
            assert!(jobs.iter().all(|job| job["state"] == "done"), "{jobs:#?}");
            let runs = of_kind.iter().map(|job| job["attempts"].as_u64().unwrap()).sum();
            return Runs { jobs: of_kind.len() as u64, runs };
        }
        assert!(waited.elapsed() < SETTLED_MAX, "{unfinished} jobs are left");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn jobs(root: &Client) -> Vec<Value> {
    let mut jobs = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/scheduler/jobs?limit=100{cursor}");
        let page = root.get(Service::Scheduler, &path).await.answer.expect(200).json();
        jobs.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return jobs,
        }
    }
}

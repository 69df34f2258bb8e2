//! Schedulers are stopped (SIGSTOP) for longer than their lease and go on, at random phases of their jobs: others
//! have taken what they held, and they commit nothing of it. (`reliability` F23, Q5, Q7)

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::backends::variable;
use crate::harness::{Answer, Backends, Persona, Points, Program, check, is_running, sluice};

const LEASE_MS: u64 = 2000;
/// So long after the end of a lease somebody else has taken the job.
const TAKEN_MS: u64 = 800;
/// A stop lasts up to this much longer: by then others have finished the job, and swept what was begun.
const LONGER_MS: u64 = 5000;
/// Of a scheduler between two stops.
const FREE_MS_MAX: u64 = 700;
const IN_FLIGHT: usize = 8;
const PATIENCE: Duration = Duration::from_secs(120);

/// What the fake transcoder makes of it: two chunks and an audio track, all of it soon.
const WORDS: &str = "chunks=2 audio ms=100";

/// Six stops in every run; `make campaign-pauses` asks for two hundred.
fn size(name: &str, default: u64) -> u64 {
    variable(name).map_or(default, |value| value.parse().unwrap())
}

#[tokio::test]
async fn a_scheduler_that_was_stopped_past_its_lease_commits_nothing() {
    let (pauses, seed) = (size("SLUICE_TEST_PAUSES", 6), size("SLUICE_TEST_SEED", 1));
    let cluster = Cluster::start(4);
    let root = Persona::log_in(&cluster.api.base, "root").await.at(&cluster.schedulers[0].base);
    let alice = Persona::register(&cluster.api.base, "alice").await;
    let undisturbed = upload(&cluster, &alice).await;
    alice.until(&undisturbed, &["ready"], 60).await;

    let left = AtomicI64::new(pauses.cast_signed());
    let disturbers = (1..cluster.schedulers.len())
        .map(|number| disturb(&cluster, number, &root, &left, Points::new(seed * 100 + number as u64)));
    let feeder = feed(&cluster, &alice, &left, Points::new(seed));
    let (pauses, mut videos) = tokio::join!(join_all(disturbers), feeder);
    let pauses: Vec<Pause> = pauses.into_iter().flatten().collect();
    until_purged(&root).await;
    videos.kept.insert(undisturbed.clone());
    until_only_what_counts_is_stored(&cluster, &videos, &undisturbed).await;

    let endings: Vec<_> = cluster.schedulers.iter().map(|scheduler| endings(&scheduler.log())).collect();
    let commits = commits(&endings);
    let on_its_way = check_pauses(&pauses, &cluster, &commits);
    let taken: usize = pauses.iter().map(|pause| pause.taken.len()).sum();
    let kept: usize = pauses.iter().map(|pause| pause.kept).sum();
    println!(
        "{} stops of {} schedulers, seed {seed}: {taken} runs were taken from them and committed nothing, but \
         {on_its_way} whose commit was on its way; {kept} could not be taken. {} jobs committed once each, {} videos \
         ready, {} deleted",
        pauses.iter().filter(|pause| !pause.taken.is_empty()).count(),
        cluster.schedulers.len() - 1,
        commits.len(),
        videos.kept.len(),
        videos.deleted.len(),
    );
    cluster.stop();
}

/// Q7: the only scheduler dies by `kill -9`, and its child with it; whoever comes next has its job once the lease is
/// over, and runs it once.
#[tokio::test]
async fn the_job_of_a_scheduler_that_was_killed_is_the_next_ones_after_a_lease() {
    let mut cluster = Cluster::start(1);
    let alice = Persona::register(&cluster.api.base, "alice").await;
    let root = Persona::log_in(&cluster.api.base, "root").await;
    let id = upload_words(&cluster, &alice, "ms=3000").await;
    let since = Instant::now();
    let (scheduler, its) = (&cluster.schedulers[0], root.at(&cluster.schedulers[0].base));
    while held_by(scheduler, &its).await.is_empty() {
        assert!(since.elapsed() < PATIENCE, "nobody works on it");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let children = scheduler.children();
    assert!(!children.is_empty(), "one was waiting for this");

    let killed = Instant::now();
    cluster.schedulers[0].kill();
    cluster.schedulers[0] = cluster.start_another("log-scheduler-next");
    let next = &cluster.schedulers[0];
    while held_by(next, &root.at(&next.base)).await.is_empty() {
        assert!(killed.elapsed() < Duration::from_millis(LEASE_MS + 5000), "it was not taken over in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!children.iter().any(|child| is_running(*child)), "the child outlived its parent");
    alice.until(&id, &["ready"], 60).await;
    let jobs = root.at(&next.base).get("/scheduler/jobs").await.expect(200).json();
    let items = jobs["items"].as_array().unwrap().iter().filter(|job| job["kind"] == "ingest");
    assert_eq!(items.map(|job| job["attempts"].as_u64()).collect::<Vec<_>>(), [Some(2)], "{jobs:#}");
    cluster.stop();
}

/// The services as processes of their own, with several schedulers, the first of which is never stopped.
struct Cluster {
    api: Program,
    streamserver: Program,
    schedulers: Vec<Program>,
    settings: Vec<(String, String)>,
    // After the processes that stand on them: fields are dropped in this order.
    _backends: Backends,
    folder: TempDir,
}

impl Cluster {
    fn start(schedulers: usize) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let backends = Backends::fresh(folder.path());
        let fake = Path::new(env!("CARGO_BIN_EXE_sluice")).with_file_name("examples").join("fake_transcoder");
        assert!(fake.exists(), "{} is there after `cargo build --workspace --examples`", fake.display());
        let mut settings = backends.settings().to_vec();
        let mut set = |name: &str, value: &str| settings.push((name.to_owned(), value.to_owned()));
        set("SLUICE_ADMIN_USERNAME", "root");
        set("SLUICE_ADMIN_PASSWORD", Persona::PASSWORD);
        set("SLUICE_TRANSCODER", fake.to_str().unwrap());
        set("SLUICE_LEASE_S", &(LEASE_MS / 1000).to_string());
        set("SLUICE_HEARTBEAT_S", "1");
        set("SLUICE_SWEEP_S", "1");
        set("SLUICE_POLL_MS", "50");
        set("SLUICE_INGEST_SLOTS", "3");
        set("SLUICE_ENCODE_SLOTS", "3");
        set("RUST_LOG", "info,chassis::edge=warn");
        // Losing a lease is not the job's fault, and here it happens more often than anywhere.
        set("SLUICE_ATTEMPTS_MAX", "1000");
        // What somebody locked who stopped in the middle of a transaction is free again this soon.
        set("DATABASE_IDLE_IN_TRANSACTION_S_MAX", "1");
        let start = |name: &str, log: &str| Program::start(name, folder.path(), log, &settings);
        let api = start("api", "log-api");
        let streamserver = start("streamserver", "log-streamserver");
        let schedulers =
            (0..schedulers).map(|number| start("scheduler", &format!("log-scheduler-{number}"))).collect();
        Cluster { api, streamserver, schedulers, settings, _backends: backends, folder }
    }

    fn start_another(&self, log: &str) -> Program {
        Program::start("scheduler", self.folder.path(), log, &self.settings)
    }

    /// File names of what is stored, by video.
    fn stored(&self) -> BTreeMap<String, Vec<String>> {
        let listed = sluice(self.folder.path(), &self.settings, "objects");
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        let mut stored = BTreeMap::<String, Vec<String>>::new();
        for line in String::from_utf8(listed.stdout).unwrap().lines() {
            let (_, path) = line.split_once(' ').unwrap();
            let [_, video, _, file] = path.split('/').collect::<Vec<_>>()[..] else { panic!("{path}") };
            stored.entry(video.to_owned()).or_default().push(file.to_owned());
        }
        stored.values_mut().for_each(|files| files.sort());
        stored
    }

    fn stop(mut self) {
        for program in self.schedulers.iter_mut().chain([&mut self.api, &mut self.streamserver]) {
            assert!(program.terminate().success());
        }
        check(self.folder.path(), &self.settings);
    }
}

/// A leased job as its row shows it: which run of which job.
type Held = (String, u64);

/// A scheduler that stood still.
struct Pause {
    scheduler: usize,
    /// Where its log ended.
    log_bytes: usize,
    /// What it had in hand and somebody else had taken before it went on.
    taken: Vec<Held>,
    /// What nobody could take: somebody stood still in the middle of a transaction, and that locked others out.
    kept: usize,
}

/// The leases of one scheduler.
async fn held_by(scheduler: &Program, root: &Persona) -> BTreeSet<Held> {
    let running = root.get("/scheduler/jobs?state=running&limit=100").await.expect(200).json();
    let its = format!("-{}-", scheduler.pid());
    let of_it = |job: &&Value| job["worker"].as_str().is_some_and(|worker| worker.contains(&its));
    let held = |job: &Value| (job["id"].as_str().unwrap().to_owned(), job["attempts"].as_u64().unwrap());
    running["items"].as_array().unwrap().iter().filter(of_it).map(held).collect()
}

/// Stops a scheduler again and again, until none of the stops that are `left` is left.
async fn disturb(
    cluster: &Cluster,
    number: usize,
    root: &Persona,
    left: &AtomicI64,
    mut points: Points,
) -> Vec<Pause> {
    let scheduler = &cluster.schedulers[number];
    let mut pauses = Vec::new();
    while left.load(Ordering::SeqCst) > 0 {
        tokio::time::sleep(Duration::from_millis(points.next_below(FREE_MS_MAX))).await;
        scheduler.pause(points.next_below(2) == 0);
        let log = scheduler.log();
        // A row goes on showing a run that ended because its lease was lost, until somebody takes the job.
        let ended: BTreeSet<Held> = endings(&log).into_iter().map(|(run, _)| run).collect();
        let held: BTreeSet<Held> = held_by(scheduler, root).await.difference(&ended).cloned().collect();
        if held.is_empty() {
            scheduler.resume();
            continue;
        }
        tokio::time::sleep(Duration::from_millis(LEASE_MS + TAKEN_MS)).await;
        let kept = held_by(scheduler, root).await;
        let taken: Vec<_> = held.difference(&kept).cloned().collect();
        if !taken.is_empty() {
            left.fetch_sub(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(points.next_below(LONGER_MS))).await;
        }
        scheduler.resume();
        pauses.push(Pause { scheduler: number, log_bytes: log.len(), kept: held.len() - taken.len(), taken });
    }
    pauses
}

/// What became of the videos: those that were kept, and those that were deleted.
#[derive(Default)]
struct Videos {
    kept: BTreeSet<String>,
    deleted: BTreeSet<String>,
}

/// A video on its way.
struct Way {
    id: String,
    /// Not every video is given the time to become ready.
    delete_at: Option<Instant>,
}

/// Somebody who always has some videos on their way, and deletes some: at once, or once they are ready.
async fn feed(cluster: &Cluster, alice: &Persona, left: &AtomicI64, mut points: Points) -> Videos {
    let (mut ways, mut videos) = (Vec::<Way>::new(), Videos::default());
    let give_up =
        |since: &mut Instant| assert!(since.elapsed() < PATIENCE, "no video becomes ready any more");
    let mut moved = Instant::now();
    loop {
        let enough = left.load(Ordering::SeqCst) <= 0;
        if enough && ways.is_empty() {
            return videos;
        }
        if ways.len() < IN_FLIGHT && !enough {
            let delete_ms = (points.next_below(5) == 0).then(|| points.next_below(3000));
            let delete_at = delete_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
            ways.push(Way { id: upload(cluster, alice).await, delete_at });
            moved = Instant::now();
        }
        for Way { id, delete_at } in std::mem::take(&mut ways) {
            let due = delete_at.is_some_and(|at| at <= Instant::now());
            let ready = alice.video(&id).await["state"] == "ready";
            if due || ready && points.next_below(4) == 0 {
                delete(alice, &id).await;
                videos.deleted.insert(id);
            } else if ready {
                videos.kept.insert(id);
            } else {
                ways.push(Way { id, delete_at });
            }
        }
        give_up(&mut moved);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

async fn upload(cluster: &Cluster, alice: &Persona) -> String {
    upload_words(cluster, alice, WORDS).await
}

async fn upload_words(cluster: &Cluster, alice: &Persona, words: &'static str) -> String {
    let title = serde_json::json!({"title": "words"});
    let video = patiently(|| alice.post("/api/videos", &title), &[201]).await;
    let id = video.json()["id"].as_str().unwrap().to_owned();
    let uploader = alice.at(&cluster.streamserver.base);
    // 409: it was stored, and only the answer was 503.
    patiently(|| uploader.send_bytes(&id, words), &[201, 409]).await;
    id
}

async fn delete(alice: &Persona, id: &str) {
    // 404: it was deleted, and only the answer was 503.
    let path = format!("/api/videos/{id}");
    patiently(|| alice.delete(&path), &[204, 404]).await;
}

/// Until it is not 503 any more: who stands still in the middle of a transaction keeps everybody from writing to a
/// SQLite file.
async fn patiently<F: Future<Output = Answer>>(ask: impl Fn() -> F, wanted: &[u16]) -> Answer {
    let since = Instant::now();
    loop {
        let answer = ask().await;
        if wanted.contains(&answer.status) {
            return answer;
        }
        assert!(answer.status == 503 && since.elapsed() < PATIENCE, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn until_purged(root: &Persona) {
    let since = Instant::now();
    for state in ["scheduled", "running"] {
        let path = format!("/scheduler/deletions?state={state}");
        while let Some(left) = root.get(&path).await.expect(200).json()["items"].as_array().unwrap().first() {
            assert!(since.elapsed() < PATIENCE, "not purged: {left:#}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Of every video that is kept there are the same files as of the one that nobody disturbed, each once; of the others
/// there is nothing.
async fn until_only_what_counts_is_stored(cluster: &Cluster, videos: &Videos, undisturbed: &str) {
    let since = Instant::now();
    loop {
        let stored = cluster.stored();
        let odd: Vec<_> = stored.iter().filter(|(_, files)| **files != stored[undisturbed]).collect();
        let all_there = stored.keys().eq(videos.kept.iter());
        let chunks_left = stored[undisturbed].iter().any(|file| file.contains("chunk"));
        if odd.is_empty() && all_there && !chunks_left {
            return;
        }
        let gone: Vec<_> = videos.kept.iter().filter(|id| !stored.contains_key(*id)).collect();
        let there: Vec<_> = videos.deleted.iter().filter(|id| stored.contains_key(*id)).collect();
        assert!(
            since.elapsed() < PATIENCE,
            "as it should be: {:?}; odd: {odd:#?}; gone: {gone:?}; deleted and there: {there:?}",
            stored[undisturbed]
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The endings of runs that a scheduler tells of, in their order.
fn endings(log: &str) -> Vec<(Held, String)> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ended = lines.filter(|line| line["message"] == "job ended");
    ended
        .map(|line| {
            let job = line["job.id"].as_str().unwrap().to_owned();
            let attempt = line["attempt"].as_u64().unwrap();
            ((job, attempt), line["ending"].as_str().unwrap().to_owned())
        })
        .collect()
}

/// Which scheduler committed a job; no two did. What they say themselves is another witness than the rows.
fn commits(endings: &[Vec<(Held, String)>]) -> BTreeMap<String, usize> {
    let mut commits = BTreeMap::new();
    for (number, endings) in endings.iter().enumerate() {
        for ((job, _), ending) in endings {
            if ending == "done" {
                let before = commits.insert(job.clone(), number);
                assert_eq!(before, None, "{job} was committed twice, at last by scheduler {number}");
            }
        }
    }
    commits
}

/// Each run that was taken away stopped, and wrote no ending of any kind. How many had been committed all the same,
/// before anybody could take them: the commit had left the scheduler when it was stopped.
fn check_pauses(pauses: &[Pause], cluster: &Cluster, commits: &BTreeMap<String, usize>) -> usize {
    let mut on_its_way = 0;
    for pause in pauses {
        let log = cluster.schedulers[pause.scheduler].log();
        let after = endings(&log[pause.log_bytes..]);
        for run in &pause.taken {
            let ending = after.iter().find(|(ended, _)| ended == run).map(|(_, ending)| ending.as_str());
            match ending {
                Some("lease_lost" | "unwritten") => {}
                Some("done") if commits[&run.0] == pause.scheduler => on_its_way += 1,
                other => {
                    panic!("scheduler {} was stopped in {run:?}, which ended as {other:?}", pause.scheduler)
                }
            }
        }
    }
    on_its_way
}

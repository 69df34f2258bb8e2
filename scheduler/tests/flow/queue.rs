//! Many schedulers on one queue: every job is claimed under a token of its own and committed once, whoever dies.
//! (`reliability` F22, F24, Q1, Q4, Q9)

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{JobState, VideoState};
use store::Memory;
use tokio::runtime::Runtime;

use crate::database::Database;
use crate::world::{AtWork, World, eventually};

const SCHEDULERS: usize = 8;
/// A row that shows a run this long after the end of its lease has been forgotten.
const OVERDUE_MS_MAX: i64 = 10_000;

/// Three hundred jobs and deletions in every run; `make campaign-queue` asks for ten thousand.
fn size() -> usize {
    setting("SLUICE_TEST_JOBS", 300) as usize
}

#[allow(clippy::disallowed_methods, reason = "the campaign sets its size and seed from outside")]
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_schedulers_commit_every_job_once_on_sqlite() {
    commit_every_job_once(World::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_schedulers_commit_every_job_once_on_postgres() {
    if let Some(database) = Database::postgres().await {
        commit_every_job_once(World::on(database).await).await;
    }
}

/// As many `ingest` jobs as were asked for, then a deletion of each video. In the middle of both one scheduler
/// dies and one is restarted.
async fn commit_every_job_once(mut world: World) {
    let size = size();
    world.config.jobs.lease_s = 3;
    world.config.jobs.sweep_s = 1;
    world.config.jobs.poll_ms = 20;
    world.store = Arc::new(Memory::new());
    world.database.take_notes().await;
    let author = world.user().await;
    let began = Instant::now();
    let mut schedulers = Vec::new();
    for _ in 0..SCHEDULERS {
        schedulers.push(Process::start(&world).await);
    }

    let mut videos = Vec::new();
    for number in 0..size {
        videos.push(world.upload_by(author, "").await);
        if number == size / 2 {
            disturb(&mut schedulers, &world).await;
        }
    }
    until_noted(&world, "ingest done", size).await;
    let ingested_s = began.elapsed().as_secs_f64();
    for (number, &video) in videos.iter().enumerate() {
        assert_eq!(world.seen(video).await.state, VideoState::Ready);
        world.delete(video).await;
        if number == size / 2 {
            disturb(&mut schedulers, &world).await;
        }
    }
    until_noted(&world, "deletion done", size).await;
    for scheduler in schedulers {
        scheduler.stop().await;
    }

    let mut times = BTreeMap::<(String, String, i64), usize>::new();
    for note in world.database.notes().await {
        *times.entry((note.what, note.subject, note.token)).or_default() += 1;
    }
    // A token is given out once, and of the runs under them one commits.
    assert!(times.values().all(|&times| times == 1), "{:?}", times.iter().find(|&(_, &times)| times > 1));
    let noted = |what: &str| times.keys().filter(|(noted, _, _)| noted == what).collect::<Vec<_>>();
    for what in ["ingest done", "publication", "purge done", "deletion done"] {
        let mut subjects: Vec<_> = noted(what).into_iter().map(|(_, subject, _)| subject).collect();
        subjects.dedup();
        assert_eq!((what, noted(what).len(), subjects.len()), (what, size, size));
    }
    let again = noted("ingest running").len() + noted("purge running").len() - 2 * size;
    assert_eq!(world.catalog.jobs(None, None, None, 10).await.unwrap(), [], "none is stuck, none is left");
    world.check().await;
    assert!(world.stored().await.is_empty());
    println!(
        "{size} jobs and {size} deletions by {SCHEDULERS} schedulers, two killed and two restarted: one commit \
         each; {again} runs more than jobs; {ingested_s:.0} s and {:.0} s",
        began.elapsed().as_secs_f64() - ingested_s
    );
    world.database.remove().await;
}

/// One scheduler dies with all it has in hand, and one is restarted.
async fn disturb(schedulers: &mut Vec<Process>, world: &World) {
    schedulers.remove(0).kill().await;
    schedulers.remove(0).stop().await;
    for _ in 0..2 {
        schedulers.push(Process::start(world).await);
    }
}

/// While it waits it looks for runs that nobody takes back.
async fn until_noted(world: &World, what: &'static str, wanted: usize) {
    let mut before = (0, Instant::now());
    loop {
        let noted = world.database.noted(what).await;
        if noted >= wanted {
            return;
        }
        if noted > before.0 {
            before = (noted, Instant::now());
        }
        assert!(before.1.elapsed() < Duration::from_secs(60), "{what}: {noted} of {wanted}, and no more");
        let now = world.clock.now();
        for job in world.catalog.jobs(None, Some(JobState::Running), None, 100).await.unwrap() {
            let overdue_ms = now.ms_since(job.lease_until.unwrap());
            assert!(overdue_ms < OVERDUE_MS_MAX, "{overdue_ms} ms after its lease: {job:?}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A scheduler with connections, an identity and threads of its own: it can be dropped as it stands.
struct Process {
    runtime: Runtime,
    at_work: AtWork,
}

impl Process {
    async fn start(world: &World) -> Process {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let world = world.clone();
        let at_work = runtime.spawn(async move { world.connected_anew().await.start() }).await.unwrap();
        Process { runtime, at_work }
    }

    /// Everything in hand is dropped where it is.
    async fn kill(self) {
        tokio::task::spawn_blocking(move || drop(self.runtime)).await.unwrap();
    }

    async fn stop(self) {
        self.at_work.stop().await;
        self.runtime.shutdown_background();
    }
}

/// Ten times as long as its lease, and claimed once: heartbeats keep it. Then its worker dies, and somebody else has
/// it within a lease.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_job_runs_once_and_is_taken_over_within_a_lease() {
    let mut world = World::new().await;
    (world.config.jobs.lease_s, world.config.jobs.heartbeat_s) = (2, 1);
    world.database.take_notes().await;
    let schedulers = [Process::start(&world).await, Process::start(&world).await];
    let video = world.upload("ms=20000").await;
    world.until(video, VideoState::Ready).await;
    let claims = async || world.database.noted("ingest running").await;
    assert_eq!((claims().await, world.database.noted("ingest done").await), (1, 1));

    let [first, second] = schedulers;
    first.stop().await;
    world.upload("hang").await;
    let running = async || (claims().await == 2).then_some(());
    eventually(running, || "the second one has it".to_owned()).await;
    let third = Process::start(&world).await;
    let killed = Instant::now();
    second.kill().await;
    let taken = async || (claims().await == 3).then_some(());
    eventually(taken, || "somebody else has it".to_owned()).await;
    assert!(killed.elapsed() < Duration::from_secs(2 + 1), "taken over after {:?}", killed.elapsed());
    third.stop().await;
    world.check().await;
    world.database.remove().await;
}

/// Ten seconds in every run, ten minutes in `make campaign-queue`: jobs of all kinds and fates come and do not come,
/// and none of them waits although it is due.
#[tokio::test(flavor = "multi_thread")]
async fn no_due_job_is_overlooked_for_long() {
    const FATES: [&str; 7] = [
        "",
        "chunks=2 audio",
        "chunks=1 ms=1500",
        "fail",
        "crash-encode chunks=1",
        "reject",
        "no-original chunks=1",
    ];
    let (soak_s, seed) = (setting("SLUICE_TEST_SOAK_S", 10), setting("SLUICE_TEST_SEED", 1));
    let mut world = World::new().await;
    world.config.jobs.sweep_s = 1;
    world.config.jobs.encode_slots = Some(2);
    let mut schedulers = vec![Process::start(&world).await, Process::start(&world).await];
    let (mut chance, mut oldest_ms, mut uploads) = (Chance(seed), 0, 0);
    let began = Instant::now();
    let mut next = began;
    let mut restart = began + Duration::from_secs(soak_s / 2);
    while began.elapsed() < Duration::from_secs(soak_s) {
        if next <= Instant::now() {
            let video = world.upload(FATES[chance.below(FATES.len() as u64) as usize]).await;
            uploads += 1;
            if chance.below(3) == 0 {
                world.delete(video).await;
            }
            // In bursts, and now and then long enough that everybody sleeps.
            let pause_ms = if chance.below(20) == 0 { 3000 } else { chance.below(200) };
            next = Instant::now() + Duration::from_millis(pause_ms);
        }
        if restart <= Instant::now() {
            schedulers.remove(0).kill().await;
            schedulers.push(Process::start(&world).await);
            restart = Instant::now() + Duration::from_secs(60);
        }
        let now = world.clock.now();
        for depth in world.catalog.queue_depths(now).await.unwrap() {
            let waited_ms = depth.oldest_ready_since.map_or(0, |since| now.ms_since(since));
            oldest_ms = oldest_ms.max(waited_ms);
            assert!(waited_ms < OVERDUE_MS_MAX, "a {} has been due for {waited_ms} ms", depth.kind);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let quiet = |jobs: &[sql::JobRow]| {
        jobs.iter().all(|job| !matches!(job.state, JobState::Queued | JobState::Running))
    };
    world.until_jobs("everything has ended", quiet).await;
    for scheduler in schedulers {
        scheduler.stop().await;
    }
    world.check().await;
    println!(
        "{uploads} uploads in {soak_s} s, seed {seed}: the longest that a due job waited were {oldest_ms} ms"
    );
}

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

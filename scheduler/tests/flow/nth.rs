//! A whole life of a video, again and again: in each something happens at the Nth call of a kind, N = 1, 2, 3 …, until
//! a life is over before its Nth call. The call fails, or the process dies with it, or the video is deleted just then:
//! what was acknowledged is there, what was deleted is gone, and nothing is left.
//! (`reliability` F2, F10, F13, F15, F17, F25, F26, F27, F28)

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use domain::{AttemptId, DeletionState, ObjectFile, ObjectKey, Receipt, RenditionName, VideoId, VideoState};
use futures::TryStreamExt;
use futures::future::join_all;
use sql::{BeginUpload, CompleteUpload, CompletedUpload, DeleteVideo, NewDeletion, NewUpload};
use store::{Faulty, Memory, Store};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SetOnce};
use tokio::task::block_in_place;

use crate::database::Database;
use crate::queue::setting;
use crate::world::{AtWork, World, eventually};

/// By turns one that plays as it is, and one that is encoded in two phases.
const FILMS: [&str; 2] = ["chunks=2 audio long", "chunks=1 audio no-original"];
/// A fault that stays befalls every call to the same server for so long.
const STAYS: Duration = Duration::from_millis(300);
const LIVES_AT_ONCE: usize = 10;
const TRIES_MAX: u32 = 20;
/// Objects of one purge.
const PURGED: u32 = 1000;
/// A purge waits for an upload that nobody could abandon.
const UPLOAD_LEASE_S: i64 = 3;

/// Every tenth N in every run, and every one in `make campaign-nth`.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_goes_wrong_a_video_lives_and_goes_on_sqlite() {
    every_series(false).await;
}

/// Databases are made for each life here, so only the campaign does it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "make campaign-nth"]
async fn whatever_call_goes_wrong_a_video_lives_and_goes_on_postgres() {
    every_series(true).await;
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    StoreRead,
    StoreWrite,
    Database(sql::Call),
}

#[derive(Debug, Clone, Copy)]
struct Series {
    /// Of the call at which it happens.
    kind: Kind,
    event: Event,
    /// The call takes effect, and only its answer is lost.
    after: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// The call fails.
    Fails,
    /// Calls to the same server that follow fail as well, for a while.
    Stays,
    /// It is the last thing that this process does; another takes its place.
    Dies,
    /// Nothing fails, but the video is deleted before the call goes on.
    Deleted,
}

/// A process dies with the removal of the Nth object, or just before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_purge_of_a_thousand_objects_that_dies_anywhere_is_taken_up() {
    let stride = if setting("SLUICE_TEST_NTH_STRIDE", 10) == 1 { 1 } else { 250 };
    // Many of each series at once: they mostly wait for a lease to end.
    let lanes = if stride == 1 { 20 } else { 1 };
    let at_once = Semaphore::new(2 * lanes);
    let firsts = [false, true].into_iter().flat_map(|after| (1..=lanes).map(move |first| (after, first)));
    let running = firsts.map(|(after, first)| {
        let series = Series { kind: Kind::StoreWrite, event: Event::Dies, after };
        run_series(series, first, stride * lanes, &at_once, purge_a_thousand)
    });
    let lives: usize = join_all(running).await.into_iter().sum();
    println!("{lives} purges of {PURGED} objects died at one object each, every {stride}.: all of them done");
}

async fn every_series(postgres: bool) {
    let stride = setting("SLUICE_TEST_NTH_STRIDE", 10) as usize;
    let at_once = Semaphore::new(LIVES_AT_ONCE);
    // Series begin at different calls, so that together they leave out less.
    let series = all_series().into_iter().zip((1..=stride).cycle());
    let running = series.map(|(series, first)| {
        run_series(series, first, stride, &at_once, async move |plan| live(&plan, postgres).await)
    });
    let lives: usize = join_all(running).await.into_iter().sum();
    println!("{lives} lives disturbed at one call each, every {stride}. call: all of them as they should be");
}

fn all_series() -> Vec<Series> {
    use sql::Call::{Begin, Commit, Read, Write};
    let reads = [Kind::StoreRead, Kind::Database(Read), Kind::Database(Begin)];
    let writes = [Kind::StoreWrite, Kind::Database(Write), Kind::Database(Commit)];
    let mut series = Vec::new();
    for event in [Event::Fails, Event::Stays, Event::Dies] {
        series.extend(reads.map(|kind| Series { kind, event, after: false }));
        for after in [false, true] {
            series.extend(writes.map(|kind| Series { kind, event, after }));
        }
    }
    // While a call to the database holds what a deletion needs, none can come.
    for kind in [Kind::StoreRead, Kind::StoreWrite, Kind::Database(Read)] {
        series.push(Series { kind, event: Event::Deleted, after: false });
    }
    series
}

/// How many lives had their fault.
async fn run_series(
    series: Series,
    first: usize,
    stride: usize,
    at_once: &Semaphore,
    live: impl AsyncFn(Arc<Plan>) -> bool,
) -> usize {
    for life in 0.. {
        let _turn = at_once.acquire().await.unwrap();
        let plan = Arc::new(Plan::new(series, first + life * stride));
        if !live(plan).await {
            return life;
        }
    }
    unreachable!("a life has an end")
}

/// At which call of a life it happens.
struct Plan {
    series: Series,
    nth: usize,
    calls: Mutex<HashMap<Kind, usize>>,
    struck: SetOnce<Instant>,
    deleted: SetOnce<()>,
}

impl Plan {
    fn new(series: Series, nth: usize) -> Plan {
        let (struck, deleted) = (SetOnce::new(), SetOnce::new());
        Plan { series, nth, calls: Mutex::default(), struck, deleted }
    }

    fn words(&self) -> &'static str {
        FILMS[self.nth % FILMS.len()]
    }

    /// Whether a call takes effect before it fails, if it fails.
    fn fault(&self, kind: Kind) -> Option<bool> {
        let nth = {
            let mut calls = self.calls.lock().unwrap();
            let count = calls.entry(kind).or_default();
            *count += 1;
            *count
        };
        let (event, after) = (self.series.event, self.series.after);
        if kind == self.series.kind && nth == self.nth {
            let _ = self.struck.set(Instant::now());
            if event == Event::Deleted {
                block_in_place(|| Handle::current().block_on(self.deleted.wait()));
                return None;
            }
            return Some(after);
        }
        let struck = self.struck.get()?;
        let database = |kind| matches!(kind, Kind::Database(_));
        let same_server = database(kind) == database(self.series.kind);
        match event {
            Event::Stays if same_server && struck.elapsed() < STAYS => Some(after),
            Event::Dies => Some(false),
            _ => None,
        }
    }

    fn store(self: &Arc<Self>, inner: Memory) -> Arc<dyn Store> {
        let plan = self.clone();
        Arc::new(Faulty::chosen(inner, move |call| {
            let writes = ["create", "write", "finish", "put_file", "delete", "remove_unfinished"];
            let kind = if writes.contains(&call) { Kind::StoreWrite } else { Kind::StoreRead };
            plan.fault(kind).map(|after| if after { store::Fault::After } else { store::Fault::Before })
        }))
    }

    fn catalog(self: &Arc<Self>, calm: &World) -> sql::Catalog {
        let plan = self.clone();
        calm.catalog.clone().under(move |call| {
            let fault = plan.fault(Kind::Database(call));
            fault.map(|after| if after { sql::Fault::After } else { sql::Fault::Before })
        })
    }
}

/// One life from the upload to the receipt; whether it came to the Nth call.
async fn live(plan: &Arc<Plan>, postgres: bool) -> bool {
    let mut calm = if postgres {
        let Some(database) = Database::postgres().await else { return false };
        World::on(database).await
    } else {
        World::new().await
    };
    let memory = Memory::new();
    calm.store = Arc::new(memory.clone());
    (calm.config.jobs.lease_s, calm.config.jobs.attempts_max) = (2, 6);
    calm.config.jobs.poll_ms = 50;
    let video = calm.create().await;
    let mut world = calm.clone();
    (world.catalog, world.store) = (plan.catalog(&calm), plan.store(memory));
    let told = format!("{:?} {}", plan.series, plan.nth);

    let at_work = world.start();
    let heir = tokio::spawn(take_over(plan.clone(), calm.clone(), video));
    let expected = match plan.series.event {
        Event::Deleted => live_until_deleted(plan, &calm, video).await,
        _ => Some(live_in_full(plan, &world, &calm, video, &told).await),
    };
    assert!(calm.catalog.video(video, calm.clock.now()).await.unwrap().is_none(), "{told}: gone at once");
    assert!(calm.catalog.watchable(video, calm.clock.now()).await.unwrap().is_none(), "{told}: gone at once");
    let receipt = until_purged(&calm, video, &told).await;
    if let Some(stored) = expected {
        // What was removed without an answer is in no count.
        let exact = matches!(plan.series.kind, Kind::Database(_)) && plan.series.event != Event::Dies;
        assert!(receipt.objects_deleted <= stored, "{told}: {receipt:?} of {stored}");
        assert!(receipt.objects_deleted == stored || !exact, "{told}: {receipt:?} of {stored}");
    }
    at_work.stop().await;
    let struck = plan.struck.get().is_some();
    if struck {
        if let Some(heir) = heir.await.unwrap() {
            heir.stop().await;
        }
    } else {
        heir.abort();
    }

    sweep(&calm).await;
    calm.check().await;
    assert_eq!(calm.stored().await, Vec::<String>::new(), "{told}");
    assert_eq!(calm.store.list_unfinished(None, 10).await.unwrap().len(), 0, "{told}");
    assert_eq!(calm.catalog.jobs(None, None, None, 10).await.unwrap(), [], "{told}");
    calm.database.remove().await;
    struck
}

/// Whether it came to the Nth object.
async fn purge_a_thousand(plan: Arc<Plan>) -> bool {
    let mut calm = World::new().await;
    let memory = Memory::new();
    calm.store = Arc::new(memory.clone());
    calm.config.jobs.lease_s = 2;
    let video = calm.create().await;
    let attempt = calm.write_source(video, "words", 0).await;
    for number in 1..PURGED {
        let file = ObjectFile::Chunk(RenditionName::Low, number);
        calm.put(&ObjectKey { video, attempt, file }, "chunk").await;
    }
    calm.delete(video).await;
    let mut world = calm.clone();
    (world.catalog, world.store) = (plan.catalog(&calm), plan.store(memory));
    let at_work = world.start();
    let heir = tokio::spawn(take_over(plan.clone(), calm.clone(), video));
    until_purged(&calm, video, &format!("{:?} {}", plan.series, plan.nth)).await;
    assert_eq!(calm.store.list("", None, 1).await.unwrap().objects.len(), 0);
    at_work.stop().await;
    let struck = plan.struck.get().is_some();
    if struck {
        heir.await.unwrap().unwrap().stop().await
    } else {
        heir.abort()
    }
    calm.check().await;
    struck
}

/// What others do when it happens.
async fn take_over(plan: Arc<Plan>, calm: World, video: VideoId) -> Option<AtWork> {
    plan.struck.wait().await;
    match plan.series.event {
        Event::Fails | Event::Stays => None,
        Event::Dies => Some(calm.start()),
        Event::Deleted => {
            let other = calm.connected_anew().await;
            delete(|| &other, video, "fine weather").await;
            plan.deleted.set(()).unwrap();
            None
        }
    }
}

/// How many objects there were when it was deleted.
async fn live_in_full(plan: &Plan, world: &World, calm: &World, video: VideoId, told: &str) -> u64 {
    // Whoever talked to a process that died comes back to another one.
    let client =
        || if plan.series.event == Event::Dies && plan.struck.get().is_some() { calm } else { world };
    upload(client, video, plan.words(), told).await;
    assert_ne!(calm.seen(video).await.state, VideoState::AwaitingUpload, "{told}: it was acknowledged");
    calm.until(video, VideoState::Ready).await;
    what_is_shown_is_there(calm, video, plan.words(), told).await;
    // What its job has put and not yet committed would be counted here, and not by the purge.
    calm.until_drawn(video).await;
    let stored = calm.objects_of(video).await.len() as u64;
    delete(client, video, told).await;
    stored
}

/// Only the scheduler's calls count here. `None`: nobody knows how many objects there were.
async fn live_until_deleted(plan: &Plan, calm: &World, video: VideoId) -> Option<u64> {
    upload(|| calm, video, plan.words(), "fine weather").await;
    let over = async || {
        let seen = calm.catalog.video(video, calm.clock.now()).await.unwrap();
        seen.is_none_or(|seen| seen.state == VideoState::Ready).then_some(())
    };
    eventually(over, || "the video is ready or gone".to_owned()).await;
    // Either it was deleted on its way, or it is now, and the rest of the calls are those of the purge.
    match plan.struck.get() {
        Some(_) => drop(plan.deleted.wait().await),
        None => delete(|| calm, video, "fine weather").await,
    }
    None
}

/// As the streamserver does it; after an answer that says nothing the client comes again.
async fn upload<'a>(world: impl Fn() -> &'a World, video: VideoId, words: &str, told: &str) {
    for _ in 0..TRIES_MAX {
        let world = world();
        let attempt: AttemptId = world.ids.next(world.clock.now());
        match try_upload(world, video, words, attempt).await {
            Ok(()) => return,
            // It lives on in the rows until the sweeper comes.
            Err(_) => drop(world.catalog.abandon_upload(attempt, world.clock.now()).await),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{told}: no upload in {TRIES_MAX} tries");
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn try_upload(world: &World, video: VideoId, words: &str, attempt: AttemptId) -> Result<(), Failed> {
    let now = world.clock.now();
    match world
        .catalog
        .begin_upload(&NewUpload::unbounded(attempt, video, now.plus_s(UPLOAD_LEASE_S)), now)
        .await?
    {
        BeginUpload::Begun => {}
        BeginUpload::AlreadyUploaded => return Ok(()),
        BeginUpload::NotFound => panic!("the video is there"),
    }
    let mut writer = world.store.create(&ObjectKey { video, attempt, file: ObjectFile::Source }).await?;
    if let Err(error) = writer.write(bytes::Bytes::copy_from_slice(words.as_bytes())).await {
        writer.abort().await;
        return Err(error.into());
    }
    let stored = writer.finish().await?;
    let done = CompletedUpload {
        video,
        attempt,
        bytes: stored.bytes,
        crc64nvme: stored.crc64nvme,
        sha256_hex: None,
        filename: None,
        ingest_job: world.ids.next(now),
    };
    match world.catalog.complete_upload(&done, now).await? {
        CompleteUpload::Completed => Ok(()),
        other => panic!("{other:?}"),
    }
}

async fn delete<'a>(world: impl Fn() -> &'a World, video: VideoId, told: &str) {
    for _ in 0..TRIES_MAX {
        let world = world();
        let now = world.clock.now();
        let (id, job) = (world.ids.next(now), world.ids.next(now));
        let new = NewDeletion { video, requested_by: "test".to_owned(), due_at: now, id, job };
        match world.catalog.delete_video(&new, now).await {
            // The second: it was done, and the answer was lost.
            Ok(DeleteVideo::Accepted(_) | DeleteVideo::NotFound) => return,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    panic!("{told}: no deletion in {TRIES_MAX} tries");
}

/// The bytes are those that were sent, one publication shows every rung, and its objects are there.
async fn what_is_shown_is_there(calm: &World, video: VideoId, words: &str, told: &str) {
    let source = calm.catalog.source(video).await.unwrap().unwrap();
    let key = ObjectKey { video, attempt: source.attempt, file: ObjectFile::Source };
    let blocks: Vec<bytes::Bytes> =
        calm.store.read(&key, 0..source.bytes).await.unwrap().try_collect().await.unwrap();
    assert_eq!(blocks.concat(), words.as_bytes(), "{told}");
    let watchable =
        calm.catalog.watchable(video, calm.clock.now()).await.unwrap().expect("it can be watched");
    let publication = calm.catalog.publication(watchable.publication).await.unwrap().unwrap();
    assert_eq!(publication.renditions.len(), 3, "{told}");
    calm.check_library().await;
}

async fn until_purged(calm: &World, video: VideoId, told: &str) -> Receipt {
    let done = async || {
        let deletions = calm.catalog.deletions(None, None, 10).await.unwrap();
        assert_eq!(deletions.len(), 1, "{told}: {deletions:?}");
        assert_eq!(deletions[0].video, video, "{told}");
        (deletions[0].state == DeletionState::Done).then(|| deletions[0].receipt.unwrap())
    };
    eventually(done, || format!("{told}: the purge is done")).await
}

/// Attempts of uploads that failed are left to the sweeper of a scheduler that has fine weather.
async fn sweep(calm: &World) {
    let at_work = calm.start();
    let swept = async || {
        let unfinished = calm.store.list_unfinished(None, 10).await.unwrap();
        (unfinished.is_empty() && calm.stored().await.is_empty()).then_some(())
    };
    eventually(swept, || "the sweeper was there".to_owned()).await;
    at_work.stop().await;
}

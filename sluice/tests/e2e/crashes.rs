//! `kill -9` of any process at any moment, under everything that people do. The judge is what the clients were told,
//! and the store; the database is not asked until `sluice check` does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{MORTAL, size};
use crate::harness::{Client, Cluster, Persona, Points, Service, Sizes, clips};

const SIZES: Sizes = Sizes { apis: 2, streamservers: 2, schedulers: 3 };
/// Films that are not ready yet; more would only wait.
const WAITING_MAX: usize = 8;
/// Films that are kept; the deleter sees to it.
const KEPT_MAX: usize = 24;
/// From a deletion's answer until nobody sees the film.
const GONE_MAX: Duration = Duration::from_secs(1);
/// Two seconds is what a machine with nothing else to do takes, and what is printed; one that has takes longer.
const SERVING_MAX: Duration = Duration::from_secs(20);
/// From the last kill until everything that was begun has come to its end.
const SETTLED_MAX: Duration = Duration::from_secs(180);

/// Twelve kills in every run; `make campaign-crashes` asks for two thousand.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_dies_what_was_said_stays_true() {
    let (kills, seed) = (size("SLUICE_TEST_CRASHES", 12), size("SLUICE_TEST_SEED", 1));
    let every_ms = size("SLUICE_TEST_KILL_EVERY_MS", 250);
    let cluster = Arc::new(Cluster::start(SIZES, &MORTAL).await);
    let world = Arc::new(World::new(&cluster).await);
    let load = [
        tokio::spawn(world.clone().upload_films(0)),
        tokio::spawn(world.clone().upload_films(1)),
        tokio::spawn(world.clone().comment(Points::new(seed + 1))),
        tokio::spawn(world.clone().delete(Points::new(seed + 2))),
        tokio::spawn(world.clone().watch(Points::new(seed + 3))),
        tokio::spawn(world.clone().watch(Points::new(seed + 4))),
        tokio::spawn(world.clone().see_films_ready()),
    ];
    let probes: Vec<_> = [Service::Api, Service::Streamserver, Service::Scheduler]
        .map(|service| tokio::spawn(world.clone().probe(service)))
        .into();
    // Something to lose.
    world.until(|books| books.films.iter().any(|film| film.ready)).await;

    let began = Instant::now();
    let restarts = kill(&cluster, kills, every_ms, Points::new(seed)).await;
    let took = began.elapsed();
    world.stop.store(true, Ordering::SeqCst);
    for task in load {
        task.await.unwrap();
    }
    let mut gaps = Vec::new();
    for probe in probes {
        gaps.push(probe.await.unwrap());
    }
    let settled = Instant::now();
    world.settle().await;
    let settled = settled.elapsed();
    world.judge(&cluster).await;

    let slowest = restarts.iter().max().unwrap();
    let books = world.books.lock().unwrap();
    println!(
        "{kills} kills in {took:.0?}, seed {seed}: {} films acknowledged, {} deleted, {} comments, {} watched to the end; \
         a killed process's place was ready again after {:.2?} (median), {slowest:.2?} (longest); longest time without \
         an answer of api, streamserver, scheduler: {gaps:.2?}; settled {settled:.0?} after the last kill",
        books.films.len(),
        books.films.iter().filter(|film| film.deleted.is_some()).count(),
        books.films.iter().map(|film| film.comments.len()).sum::<usize>(),
        books.watched,
        median(&restarts),
    );
    assert!(
        gaps.iter().all(|gap| *gap <= SERVING_MAX),
        "not serving again within {SERVING_MAX:?}: {gaps:.2?}"
    );
    drop(books);
    drop(world);
    Arc::into_inner(cluster).expect("nobody else has it").finish();
}

/// Kills one process after the other, of those that serve; each is started again at once, beside the next kills. How
/// long each place was empty.
async fn kill(cluster: &Arc<Cluster>, kills: u64, every_ms: u64, mut points: Points) -> Vec<Duration> {
    let mut restarts = Vec::new();
    let mut restarting: HashMap<usize, tokio::task::JoinHandle<Duration>> = HashMap::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(every_ms));
    for _ in 0..kills {
        ticks.tick().await;
        // A moment of its own, so that kills do not fall into step with what polls.
        tokio::time::sleep(Duration::from_millis(points.next_below(every_ms))).await;
        let number = points.next_below(cluster.len() as u64) as usize;
        if let Some(before) = restarting.remove(&number) {
            restarts.push(before.await.unwrap());
        }
        let cluster = cluster.clone();
        restarting.insert(number, tokio::spawn(async move { cluster.kill_and_restart(number).await }));
    }
    for (_, last) in restarting {
        restarts.push(last.await.unwrap());
    }
    restarts
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2]
}

/// What the clients were told.
#[derive(Default)]
struct Books {
    films: Vec<Film>,
    watched: u64,
}

struct Film {
    id: String,
    /// Makes its bytes again.
    number: u64,
    /// Known to be ready.
    ready: bool,
    /// What each comment says; each was acknowledged.
    comments: Vec<String>,
    /// Somebody has begun to delete it.
    condemned: bool,
    /// When the deletion was acknowledged.
    deleted: Option<Instant>,
    /// CRC of the rendition `original`, once somebody has seen it to the end.
    original: Option<String>,
}

struct World {
    alice: Client,
    root: Client,
    clips: [Vec<u8>; 2],
    numbers: AtomicU64,
    stop: AtomicBool,
    books: Mutex<Books>,
}

impl World {
    async fn new(cluster: &Arc<Cluster>) -> World {
        let folder = cluster.folder.path();
        let clip = |name: &str, size: &str| std::fs::read(clips::h264(folder, name, size, 1)).unwrap();
        World {
            alice: cluster.client("alice").await,
            root: cluster.admin().await,
            clips: [clip("tiny.mp4", "128x96"), clip("small.mp4", "640x360")],
            numbers: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            books: Mutex::default(),
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Every fourth is large enough for a rung below it.
    fn bytes_of(&self, number: u64) -> Vec<u8> {
        clips::with_tail(&self.clips[usize::from(number % 4 == 3)], 30_000, number)
    }

    fn with<T>(&self, ask: impl FnOnce(&mut Books) -> T) -> T {
        ask(&mut self.books.lock().unwrap())
    }

    fn with_film<T>(&self, id: &str, ask: impl FnOnce(&mut Film) -> T) -> T {
        self.with(|books| ask(books.films.iter_mut().find(|film| film.id == id).unwrap()))
    }

    async fn until(&self, reached: impl Fn(&Books) -> bool) {
        let waited = Instant::now();
        while !self.with(|books| reached(books)) {
            assert!(waited.elapsed() < SETTLED_MAX);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn upload_films(self: Arc<Self>, _number: usize) {
        while !self.stopped() {
            let waiting =
                self.with(|books| books.films.iter().filter(|film| !film.ready && !film.condemned).count());
            if waiting >= WAITING_MAX {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            let number = self.numbers.fetch_add(1, Ordering::SeqCst);
            let id = self.alice.upload(&self.bytes_of(number)).await.id;
            let film = Film {
                id,
                number,
                ready: false,
                comments: Vec::new(),
                condemned: false,
                deleted: None,
                original: None,
            };
            self.with(|books| books.films.push(film));
        }
    }

    /// Looks at films that are being made until each is.
    async fn see_films_ready(self: Arc<Self>) {
        while !self.stopped() {
            for (id, _) in self.chosen(|film| !film.ready && !film.condemned) {
                let seen = self.alice.get(Service::Api, &format!("/api/videos/{id}")).await;
                if seen.answer.status == 404 {
                    assert!(
                        self.with_film(&id, |film| film.condemned),
                        "{id} is gone, and nobody deleted it"
                    );
                    continue;
                }
                let video = seen.answer.expect(200).json();
                assert!(video["state"] != "failed" && video["state"] != "rejected", "{video:#}");
                if video["state"] == "ready" {
                    self.with_film(&id, |film| film.ready = true);
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Id and number of those films.
    fn chosen(&self, which: impl Fn(&Film) -> bool) -> Vec<(String, u64)> {
        self.with(|books| {
            books.films.iter().filter(|film| which(film)).map(|film| (film.id.clone(), film.number)).collect()
        })
    }

    fn any(&self, points: &mut Points, which: impl Fn(&Film) -> bool) -> Option<(String, u64)> {
        let mut chosen = self.chosen(which);
        (!chosen.is_empty()).then(|| chosen.swap_remove(points.next_below(chosen.len() as u64) as usize))
    }

    async fn comment(self: Arc<Self>, mut points: Points) {
        let mut number = 0;
        while !self.stopped() {
            tokio::time::sleep(Duration::from_millis(points.next_below(60))).await;
            let Some((id, _)) = self.any(&mut points, |film| film.ready && !film.condemned) else { continue };
            number += 1;
            let content = format!("comment {number}");
            let (path, body) = (format!("/api/videos/{id}/comments"), json!({"content": content}));
            let key = self.alice.new_key();
            let done = self.alice.ask(Service::Api, |http, base| {
                http.post(format!("{base}{path}")).header("Idempotency-Key", &key).json(&body)
            });
            let done = done.await;
            self.with_film(&id, |film| match done.answer.status {
                201 => film.comments.push(content),
                404 => assert!(film.condemned, "{id} takes no comment, and nobody deleted it"),
                _ => panic!("{:?}", done.answer),
            });
        }
    }

    async fn delete(self: Arc<Self>, mut points: Points) {
        while !self.stopped() {
            tokio::time::sleep(Duration::from_millis(points.next_below(200))).await;
            if self.chosen(|film| !film.condemned).len() < KEPT_MAX {
                continue;
            }
            // Also one that is being made.
            let Some((id, _)) = self.any(&mut points, |film| !film.condemned) else { continue };
            self.with_film(&id, |film| film.condemned = true);
            let path = format!("/api/videos/{id}");
            let done = self.alice.ask(Service::Api, |http, base| http.delete(format!("{base}{path}"))).await;
            match done.answer.status {
                204 => {}
                404 if !done.in_doubt.is_empty() => {}
                _ => panic!("{:?}", done.answer),
            }
            self.with_film(&id, |film| film.deleted = Some(Instant::now()));
        }
    }

    /// Films that are there have always the same bytes, and those that were deleted none.
    async fn watch(self: Arc<Self>, mut points: Points) {
        while !self.stopped() {
            tokio::time::sleep(Duration::from_millis(points.next_below(40))).await;
            if points.next_below(4) == 0 {
                let gone = |film: &Film| film.deleted.is_some_and(|at| at.elapsed() > GONE_MAX);
                let Some((id, _)) = self.any(&mut points, gone) else { continue };
                for (service, path) in [
                    (Service::Api, format!("/api/videos/{id}")),
                    (Service::Streamserver, format!("/stream/videos/{id}")),
                    (Service::Streamserver, format!("/stream/videos/{id}/cover.jpg")),
                ] {
                    let answer = self.alice.get(service, &path).await.answer;
                    assert_eq!(answer.status, 404, "{path} was deleted: {:?}", answer.headers);
                }
                continue;
            }
            let Some((id, _)) = self.any(&mut points, |film| film.ready && !film.condemned) else { continue };
            let path = format!("/stream/videos/{id}?rendition=original");
            let answer = self.alice.get(Service::Streamserver, &path).await.answer;
            self.with(|books| books.watched += 1);
            self.with_film(&id, |film| match answer.status {
                200 => {
                    let crc = clips::crc64nvme(&answer.body);
                    assert_eq!(*film.original.get_or_insert_with(|| crc.clone()), crc, "{id} has changed");
                }
                404 => assert!(film.condemned, "{id} cannot be watched, and nobody deleted it"),
                _ => panic!("{answer:?}"),
            });
        }
    }

    /// The longest time in which a service answered nobody.
    async fn probe(self: Arc<Self>, service: Service) -> Duration {
        let path = match service {
            Service::Api => "/api/videos",
            Service::Streamserver => "/stream/videos/01980000-0000-7000-8000-000000000000",
            Service::Scheduler => "/scheduler/deletions?limit=1",
        };
        let (mut longest, mut answered) = (Duration::ZERO, Instant::now());
        while !self.stopped() {
            let done = self.root.get(service, path).await;
            assert!([200, 404].contains(&done.answer.status), "{:?}", done.answer);
            longest = longest.max(answered.elapsed());
            answered = Instant::now();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        longest
    }

    /// Until every film that was kept is ready, and every deletion done.
    async fn settle(&self) {
        let began = Instant::now();
        for (id, _) in self.chosen(|film| !film.condemned) {
            self.alice.until(&id, "ready").await;
        }
        while let Some(deletion) = self.deletions().await.into_iter().find(|d| d["state"] != "done") {
            assert!(began.elapsed() < SETTLED_MAX, "{deletion:#}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(began.elapsed() < SETTLED_MAX);
    }

    async fn deletions(&self) -> Vec<Value> {
        let mut deletions = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/scheduler/deletions?limit=100{cursor}");
            let page = self.root.get(Service::Scheduler, &path).await.answer.expect(200).json();
            deletions.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return deletions,
            }
        }
    }

    /// The clients' books against the store, and against what every process tells.
    async fn judge(&self, cluster: &Arc<Cluster>) {
        let objects = cluster.objects().await;
        let watchers = cluster.of(Service::Streamserver);
        let watchers: Vec<_> =
            watchers.into_iter().map(|number| Persona::anonymous(&cluster.base(number))).collect();
        let deletions = self.deletions().await;
        let films = std::mem::take(&mut self.books.lock().unwrap().films);
        for film in &films {
            let id = &film.id;
            let deleted = deletions.iter().filter(|deletion| deletion["video_id"] == **id).count();
            assert_eq!(deleted, usize::from(film.deleted.is_some()), "{id}: deletions");
            if film.deleted.is_some() {
                assert_eq!(objects.of_video(id).await, [""; 0], "{id} was deleted");
                self.alice.get(Service::Api, &format!("/api/videos/{id}")).await.answer.expect(404);
                continue;
            }
            objects.has_source(id, &self.bytes_of(film.number)).await;
            let mut masters = Vec::new();
            for watcher in &watchers {
                masters.push(watcher.published(id).await);
            }
            assert!(
                masters.iter().all(|master| *master == masters[0]),
                "{id}: one publication for everybody"
            );
            let original =
                watchers[0].get(&format!("/stream/videos/{id}?rendition=original")).await.expect(200);
            let crc = clips::crc64nvme(&original.body);
            assert!(film.original.as_ref().is_none_or(|seen| *seen == crc), "{id} has changed");
            self.judge_comments(film).await;
        }
        self.books.lock().unwrap().films = films;
    }

    async fn judge_comments(&self, film: &Film) {
        let path = format!("/api/videos/{}/comments?limit=100", film.id);
        let page = self.alice.get(Service::Api, &path).await.answer.expect(200).json();
        let mut there: Vec<_> =
            page["items"].as_array().unwrap().iter().map(|c| c["content"].as_str().unwrap()).collect();
        let mut said: Vec<_> = film.comments.iter().map(String::as_str).collect();
        there.sort();
        said.sort();
        if said.len() <= 100 {
            assert_eq!(there, said, "{}: every comment once", film.id);
        }
        let video =
            self.alice.get(Service::Api, &format!("/api/videos/{}", film.id)).await.answer.expect(200).json();
        assert_eq!(video["counts"]["comments"], said.len(), "{}", film.id);
    }
}

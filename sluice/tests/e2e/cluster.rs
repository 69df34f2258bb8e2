//! Several processes of each service: they leave and come back, share what Redis holds for them, and any of them may
//! be killed at any time.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::backends::variable;
use crate::harness::cluster::Uploaded;
use crate::harness::proxy::Proxy;
use crate::harness::{Cluster, Persona, Points, Service, Sizes, Weather, clips, probe};

const TWO_EACH: Sizes = Sizes { apis: 2, streamservers: 2, schedulers: 2 };
/// A short lease, so that a dead process's work is taken up soon; kills are no fault of a file.
pub const MORTAL: [(&str, &str); 6] = [
    ("SLUICE_LEASE_S", "3"),
    ("SLUICE_HEARTBEAT_S", "1"),
    ("SLUICE_ATTEMPTS_MAX", "50"),
    ("SLUICE_POLL_MS", "200"),
    ("SLUICE_SWEEP_S", "2"),
    ("SLUICE_RETRY_MAX_MS", "2000"),
];

pub fn size(name: &str, default: u64) -> u64 {
    variable(name).map_or(default, |value| value.parse().unwrap())
}

/// A process of a kind is asked to leave while another one of the kind serves, under load: nobody notices.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_leaves_and_nobody_notices() {
    // Nothing is taken up because a lease ran out.
    let cluster =
        Arc::new(Cluster::start(TWO_EACH, &[("SLUICE_LEASE_S", "120"), ("SLUICE_POLL_MS", "200")]).await);
    let alice = cluster.client("alice").await;
    let clip = std::fs::read(clips::h264(cluster.folder.path(), "clip.mp4", "1280x720", 6)).unwrap();
    let film = alice.upload(&clip).await.id;
    alice.until(&film, "ready").await;

    let stop = Arc::new(AtomicBool::new(false));
    let requests = Arc::new(AtomicUsize::new(0));
    let load: Vec<_> = (0..8)
        .map(|number| {
            let (alice, film, clip) = (alice.clone(), film.clone(), clip.clone());
            let (stop, requests) = (stop.clone(), requests.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let done = match number % 4 {
                        0 => alice.get(Service::Api, &format!("/api/videos/{film}")).await,
                        1 => alice.get(Service::Streamserver, &format!("/stream/videos/{film}")).await,
                        2 => {
                            alice
                                .get(Service::Streamserver, &format!("/stream/videos/{film}/master.m3u8"))
                                .await
                        }
                        _ => alice.upload(&clip[..100_000]).await.done,
                    };
                    assert!(done.answer.status < 300, "{:?}", done.answer);
                    assert_eq!(done.in_doubt, [""; 0], "a request failed on its way");
                    requests.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    for number in 0..cluster.len() {
        if cluster.service(number) == Service::Scheduler {
            continue;
        }
        let before = requests.load(Ordering::SeqCst);
        let leaving = cluster.clone();
        let left = Instant::now();
        tokio::task::spawn_blocking(move || leaving.terminate(number)).await.unwrap();
        slowest = slowest.max(left.elapsed());
        let restarting = cluster.clone();
        tokio::task::spawn_blocking(move || restarting.start_member(number)).await.unwrap();
        cluster.until_ready(number).await;
        while requests.load(Ordering::SeqCst) < before + 20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    stop.store(true, Ordering::SeqCst);
    for task in load {
        task.await.unwrap();
    }
    let requests = requests.load(Ordering::SeqCst);

    // A scheduler gives back what it has in hand, and the other one takes it up at once.
    let made = alice.upload(&clip).await.id;
    alice.until(&made, "playable").await;
    let workers = worker(&cluster, &made).await;
    let schedulers = cluster.of(Service::Scheduler);
    let at_work = schedulers.iter().find(|&&number| workers.contains(&format!("-{}-", cluster.pid(number))));
    let &at_work = at_work.unwrap_or_else(|| panic!("{workers} is none of ours"));
    let leaving = cluster.clone();
    let left = Instant::now();
    tokio::task::spawn_blocking(move || leaving.terminate(at_work)).await.unwrap();
    slowest = slowest.max(left.elapsed());
    alice.until(&made, "ready").await;
    let taken_up = left.elapsed();
    assert!(taken_up < Duration::from_secs(60), "half of a lease: {taken_up:?}");
    cluster.start_member(at_work);
    println!(
        "each of 4 processes left under load: {requests} requests, none failed; the slowest took {slowest:.1?}. A \
         scheduler left in mid-encode: ready {taken_up:.1?} later"
    );
    drop(alice);
    Arc::into_inner(cluster).expect("nobody else has it").finish();
}

/// Who works on a film.
async fn worker(cluster: &Arc<Cluster>, video: &str) -> String {
    let root = cluster.admin().await;
    let waited = Instant::now();
    loop {
        let jobs =
            root.get(Service::Scheduler, "/scheduler/jobs?state=running").await.answer.expect(200).json();
        let job = jobs["items"].as_array().unwrap().iter().find(|job| job["video_id"] == *video).cloned();
        if let Some(worker) = job.as_ref().and_then(|job| job["worker"].as_str()) {
            return worker.to_owned();
        }
        assert!(waited.elapsed() < Duration::from_secs(30), "nobody works on {video}");
    }
}

/// Two schedulers share the deletions, and each dies with some of them in hand: none is lost, none is done twice.
#[tokio::test(flavor = "multi_thread")]
async fn schedulers_die_in_the_middle_of_deletions() {
    let sizes = Sizes { apis: 1, streamservers: 1, schedulers: 2 };
    let cluster = Arc::new(Cluster::start(sizes, &MORTAL).await);
    let alice = cluster.client("alice").await;
    let root = cluster.admin().await;
    let clip = std::fs::read(clips::h264(cluster.folder.path(), "clip.mp4", "64x64", 1)).unwrap();
    let films = size("SLUICE_TEST_DELETIONS", 16);
    let mut ids = Vec::new();
    for _ in 0..films {
        ids.push(alice.upload(&clip).await.id);
    }
    for id in &ids {
        alice.until(id, "ready").await;
    }
    let mut points = Points::new(size("SLUICE_TEST_SEED", 1));
    let mut kills = 0;
    for (number, id) in ids.iter().enumerate() {
        let path = format!("/scheduler/videos/{id}");
        let asked = root.ask(Service::Scheduler, |http, base| http.delete(format!("{base}{path}"))).await;
        assert!(asked.answer.status == 200 || !asked.in_doubt.is_empty(), "{:?}", asked.answer);
        if number % 4 == 3 {
            tokio::time::sleep(Duration::from_millis(points.next_below(300))).await;
            let schedulers = cluster.of(Service::Scheduler);
            cluster.kill_and_restart(schedulers[points.next_below(2) as usize]).await;
            kills += 1;
        }
    }
    let waited = Instant::now();
    let deletions = loop {
        let page =
            root.get(Service::Scheduler, "/scheduler/deletions?limit=100").await.answer.expect(200).json();
        let deletions = page["items"].as_array().unwrap().clone();
        if deletions.iter().all(|deletion| deletion["state"] == "done") {
            break deletions;
        }
        assert!(waited.elapsed() < Duration::from_secs(60), "{page:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let mut by_video: HashMap<&str, &Value> = HashMap::new();
    for deletion in &deletions {
        let twice = by_video.insert(deletion["video_id"].as_str().unwrap(), deletion);
        assert!(twice.is_none(), "deleted twice: {deletion:#}");
        assert_eq!(deletion["receipt"]["checked_empty"], true, "{deletion:#}");
    }
    assert!(ids.iter().all(|id| by_video.contains_key(id.as_str())) && by_video.len() == ids.len());
    assert_eq!(cluster.sluice("objects"), "", "nothing is left");
    println!(
        "{films} deletions, a scheduler killed {kills} times meanwhile: {films} receipts, no object left"
    );
    drop((alice, root));
    Arc::into_inner(cluster).expect("nobody else has it").finish();
}

/// One that no other test takes from.
const REDIS_DATABASE: u8 = 9;

fn empty_redis(address: &str) {
    let mut redis = std::net::TcpStream::connect(address).unwrap();
    redis.write_all(format!("SELECT {REDIS_DATABASE}\r\nFLUSHDB\r\nQUIT\r\n").as_bytes()).unwrap();
    let mut said = String::new();
    redis.read_to_string(&mut said).unwrap();
    assert_eq!(said, "+OK\r\n+OK\r\n+OK\r\n");
}

/// Two processes count logins together and hear of ended sessions at once, as long as there is Redis; without it each
/// goes on by itself, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn redis_is_shared_and_may_go_away() {
    let Some(redis) = variable("SLUICE_TEST_REDIS") else {
        eprintln!("SKIPPED: what two processes share needs Redis (make test-scale)");
        return;
    };
    let redis = redis.strip_prefix("redis://").unwrap();
    empty_redis(redis);
    let proxy = Proxy::before(redis);
    let url = format!("redis://{}/{REDIS_DATABASE}", proxy.address);
    let settings = [
        ("REDIS_URL", url.as_str()),
        ("SLUICE_LOGINS_PER_MINUTE_PER_CLIENT", "8"),
        // So that there is a bucket to ask for with every request.
        ("SLUICE_REQUESTS_PER_S_PER_CLIENT", "10000"),
        ("SLUICE_REQUESTS_BURST_PER_CLIENT", "10000"),
    ];
    let sizes = Sizes { apis: 2, streamservers: 1, schedulers: 0 };
    let cluster = Arc::new(Cluster::start(sizes, &settings).await);
    let apis: Vec<String> = cluster.of(Service::Api).into_iter().map(|number| cluster.base(number)).collect();
    let stream = cluster.base(cluster.of(Service::Streamserver)[0]);
    let alice = cluster.user("alice").await;
    let body = json!({"username": "alice", "password": Persona::PASSWORD});
    let log_in = async |api: &str| Persona::anonymous(api).post("/api/sessions", &body).await.status;
    let mut granted = 1;
    while log_in(&apis[granted % 2]).await == 200 {
        granted += 1;
        assert!(granted <= 8, "each process counts for itself");
    }
    assert_eq!((log_in(&apis[0]).await, log_in(&apis[1]).await), (429, 429));

    // The second api and the streamserver know the session, and hear of its end.
    let me = format!("/api/users/{}/videos", alice.id);
    let elsewhere = [alice.at(&apis[1]), alice.at(&stream)];
    elsewhere[0].get(&me).await.expect(200);
    alice.delete("/api/sessions").await.expect(205);
    let ended = Instant::now();
    while elsewhere[0].get(&me).await.status != 401 {
        assert!(ended.elapsed() < Duration::from_millis(400), "sooner than a cache would tell");
    }
    let heard = ended.elapsed();
    let answer = elsewhere[1].get("/stream/videos/01980000-0000-7000-8000-000000000000").await;
    answer.problem(401, "/problems/unauthorized");

    let logged = |number: usize, words: &str| cluster.log(number).contains(words);
    for weather in [Weather::Refused, Weather::Stalled] {
        proxy.weather(weather.clone());
        let began = Instant::now();
        let mut slowest = Duration::ZERO;
        while began.elapsed() < Duration::from_secs(3) {
            for api in &apis {
                let asked = Instant::now();
                Persona::anonymous(api).get("/api/videos").await.expect(200);
                slowest = slowest.max(asked.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(slowest < Duration::from_millis(500), "{weather:?}: {slowest:?}");
        for number in cluster.of(Service::Api) {
            assert!(logged(number, "Redis does not answer"), "{weather:?}: {}", cluster.log(number));
            assert_eq!(cluster.readiness(number).await.unwrap().status, 200, "Redis is a help, not a need");
        }
        proxy.weather(Weather::Clear);
        let back = Instant::now();
        // Asking is what finds out.
        while !cluster.of(Service::Api).into_iter().all(|number| logged(number, "Redis answers again")) {
            for api in &apis {
                Persona::anonymous(api).get("/api/videos").await.expect(200);
            }
            assert!(back.elapsed() < Duration::from_secs(10), "{weather:?}: nobody noticed that it is back");
        }
        println!(
            "Redis {weather:?}: 200 within {slowest:.1?}, and back {:.1?} after its return",
            back.elapsed()
        );
    }
    println!(
        "8 logins a minute over two processes, {granted} of them here; a session's end heard after {heard:.1?}"
    );
    drop(alice);
    Arc::into_inner(cluster).expect("nobody else has it").finish();
}

/// `kill -9` of one process after the other while films are uploaded: every film becomes ready, once, with the bytes
/// that were sent. Ten films in every run; `make campaign-cluster` asks for two hundred.
#[tokio::test(flavor = "multi_thread")]
async fn films_become_ready_while_processes_die() {
    let films = size("SLUICE_TEST_CLUSTER_FILMS", 10);
    let (seed, every_ms) = (size("SLUICE_TEST_SEED", 1), size("SLUICE_TEST_KILL_EVERY_MS", 2000));
    let sizes = Sizes { apis: 2, streamservers: 2, schedulers: 3 };
    let cluster = Arc::new(Cluster::start(sizes, &MORTAL).await);
    let alice = cluster.client("alice").await;
    let clip = std::fs::read(clips::h264(cluster.folder.path(), "clip.mp4", "640x360", 2)).unwrap();
    let film_of = move |number: u64| clips::with_tail(&clip, 200_000 + 1000 * number as u32, number + 1);

    let began = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let killer = tokio::spawn(kill_regularly(cluster.clone(), Points::new(seed), every_ms, stop.clone()));
    // A few at a time, as people do, and as evenly as the kills.
    let next = Arc::new(AtomicUsize::new(0));
    let uploaders: Vec<_> = (0..4)
        .map(|_| {
            let (alice, next, film_of) = (alice.clone(), next.clone(), film_of.clone());
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst) as u64;
                    if number >= films {
                        return mine;
                    }
                    let uploaded = alice.upload(&film_of(number)).await;
                    alice.until(&uploaded.id, "ready").await;
                    mine.push((number, uploaded));
                }
            })
        })
        .collect();
    let mut uploaded = Vec::new();
    for uploader in uploaders {
        uploaded.extend(uploader.await.unwrap());
    }
    stop.store(true, Ordering::SeqCst);
    let killed = killer.await.unwrap();
    let took = began.elapsed();
    let in_doubt: usize = uploaded.iter().map(|(_, uploaded)| uploaded.done.in_doubt.len()).sum();

    let watchers = cluster.of(Service::Streamserver);
    let watchers: Vec<_> =
        watchers.into_iter().map(|number| Persona::anonymous(&cluster.base(number))).collect();
    let objects = cluster.objects().await;
    for (number, Uploaded { id, .. }) in &uploaded {
        let mut masters = Vec::new();
        for watcher in &watchers {
            masters.push(watcher.published(id).await);
        }
        assert!(masters.iter().all(|master| *master == masters[0]), "{id}: one publication for everybody");
        let url = format!("{}/stream/videos/{id}?rendition=original", watchers[0].base);
        assert_eq!(probe::ffprobe(&url).frames(), 60, "{id}");
        objects.has_source(id, &film_of(*number)).await;
    }
    assert_eq!(uploaded.len() as u64, films);
    println!(
        "{films} films of about 300 kB uploaded in {took:.0?} while {killed} processes were killed, seed {seed}: all \
         ready, all bytes identical, one publication each; {in_doubt} tries without an answer"
    );
    drop((alice, watchers));
    Arc::into_inner(cluster).expect("nobody else has it").finish();
}

/// One process after the other, chosen by chance, and started again; how many.
async fn kill_regularly(
    cluster: Arc<Cluster>,
    mut points: Points,
    every_ms: u64,
    stop: Arc<AtomicBool>,
) -> u64 {
    let mut killed = 0;
    let mut ticks = tokio::time::interval(Duration::from_millis(every_ms));
    ticks.tick().await;
    loop {
        ticks.tick().await;
        if stop.load(Ordering::SeqCst) {
            return killed;
        }
        let number = points.next_below(cluster.len() as u64) as usize;
        cluster.kill_and_restart(number).await;
        killed += 1;
    }
}

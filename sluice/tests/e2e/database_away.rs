//! PostgreSQL goes away while everything is in service, and comes back: 503 in good time, nothing lost, nothing done
//! twice, nobody's hand needed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::harness::backends::has_postgres;
use crate::harness::{Answer, Backends, Cluster, Persona, Service, Sizes, Weather, clips};
use crate::memory::large_film;

/// From a request to its answer, whatever the database does.
const ANSWER_MAX: Duration = Duration::from_secs(6);
/// From the database's return until everything works.
const BACK_MAX: Duration = Duration::from_secs(5);
/// The same for whoever waits for a connection first, and then for a row that somebody else holds.
const LOCKED_MAX: Duration = Duration::from_secs(9);

/// One process of each service behind a proxy before the database, with a film that can be watched.
struct Room {
    cluster: Arc<Cluster>,
    alice: Persona,
    root: Persona,
    film: String,
    waiting: String,
}

impl Room {
    async fn open(settings: &[(&str, &str)]) -> Room {
        let folder = tempfile::tempdir().unwrap();
        let backends = Backends::fresh(folder.path()).behind_proxies();
        let cluster = Arc::new(Cluster::on(backends, folder, Sizes::ONE_EACH, settings).await);
        let alice = cluster.user("alice").await;
        let root = Persona::log_in(&alice.base, "root").await;
        let clip = clips::h264(cluster.folder.path(), "clip.mp4", "320x240", 1);
        let mut room = Room { cluster, alice, root, film: String::new(), waiting: String::new() };
        room.film = room.upload(std::fs::read(clip).unwrap()).await;
        room.alice.until(&room.film, &["ready"], 60).await;
        room.waiting = room.create().await;
        room
    }

    async fn create(&self) -> String {
        self.alice.create("film").await["id"].as_str().unwrap().to_owned()
    }

    async fn upload(&self, bytes: Vec<u8>) -> String {
        let id = self.create().await;
        self.at(Service::Streamserver).send_bytes(&id, bytes).await.expect(201);
        id
    }

    fn at(&self, service: Service) -> Persona {
        self.alice.at(&self.cluster.base(self.cluster.of(service)[0]))
    }

    fn weather(&self, weather: Weather) {
        self.cluster.backends.database_proxy().weather(weather);
    }

    /// One request of each kind that needs the database, and the status it has when there is one.
    fn requests(&self) -> Vec<(&'static str, u16, RequestBuilder)> {
        let (api, stream) = (&self.alice, self.at(Service::Streamserver));
        let scheduler = self.root.at(&self.at(Service::Scheduler).base);
        let (film, waiting) = (&self.film, &self.waiting);
        let login = json!({"username": "alice", "password": Persona::PASSWORD});
        let anyone = Persona::anonymous(&api.base);
        vec![
            ("api: a video", 200, anyone.request(Method::GET, &format!("/api/videos/{film}"))),
            ("api: the list", 200, anyone.request(Method::GET, "/api/videos")),
            ("api: log in", 200, anyone.request(Method::POST, "/api/sessions").json(&login)),
            ("api: create", 201, api.request(Method::POST, "/api/videos").json(&json!({"title": "x"}))),
            ("stream: watch", 200, stream.request(Method::GET, &format!("/stream/videos/{film}"))),
            // An upload without a body, which is told so after the database was asked.
            (
                "stream: upload",
                411,
                stream.request(Method::POST, &format!("/stream/videos/{waiting}")).body(""),
            ),
            ("scheduler: deletions", 200, scheduler.request(Method::GET, "/scheduler/deletions")),
        ]
    }

    /// Every request at once; what each answered, and after how long.
    async fn ask_all(&self) -> Vec<(&'static str, u16, Answer, Duration)> {
        join_all(self.requests().into_iter().map(|(name, status, request)| async move {
            let asked = Instant::now();
            let answer = self.alice.try_send(request).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            (name, status, answer, asked.elapsed())
        }))
        .await
    }

    /// Until every request has the answer it should have, and every process says that it is ready.
    async fn until_all_is_well(&self) {
        let asked = Instant::now();
        loop {
            let answers = self.ask_all().await;
            let mut wrong: Vec<String> = answers
                .iter()
                .filter(|(_, status, answer, _)| answer.status != *status)
                .map(|(name, _, answer, _)| format!("{name}: {}", answer.status))
                .collect();
            let not_ready = self.readiness().await.into_iter().filter(|ready| ready.status != 200);
            wrong.extend(not_ready.map(|ready| ready.text()));
            if wrong.is_empty() {
                return;
            }
            assert!(asked.elapsed() < BACK_MAX, "{BACK_MAX:?} after the database came back: {wrong:#?}");
        }
    }

    async fn readiness(&self) -> Vec<Answer> {
        let asked = (0..self.cluster.len()).map(|number| self.cluster.readiness(number));
        join_all(asked).await.into_iter().map(Option::unwrap).collect()
    }

    /// How often the jobs of a video were begun.
    fn attempts(&self, video: &str) -> String {
        let asked = format!("SELECT kind, attempts FROM jobs WHERE video_id = '{video}' ORDER BY id");
        self.cluster.backends.psql(&asked)
    }

    fn finish(self) {
        Arc::into_inner(self.cluster).expect("nobody else has it").finish();
    }
}

/// A viewer in the middle of a film, who has taken some of it and now waits.
struct Viewer {
    response: reqwest::Response,
    taken_bytes: usize,
}

impl Viewer {
    async fn of(stream: &Persona, film: &str) -> Viewer {
        let mut response =
            stream.request(Method::GET, &format!("/stream/videos/{film}")).send().await.unwrap();
        let taken_bytes = response.chunk().await.unwrap().unwrap().len();
        Viewer { response, taken_bytes }
    }

    /// The rest of the film.
    async fn finish(mut self) -> usize {
        while let Some(bytes) = self.response.chunk().await.expect("the film goes on") {
            self.taken_bytes += bytes.len();
        }
        self.taken_bytes
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn away_and_back_again() {
    if !has_postgres("a database that goes away") {
        return;
    }
    // Away for longer than a lease: the jobs in hand are lost, and must not be the poorer for it.
    let room = Room::open(&[("SLUICE_LEASE_S", "3"), ("SLUICE_HEARTBEAT_S", "1")]).await;
    let long = large_film(room.cluster.folder.path(), 48 << 20);
    let long = room.upload(std::fs::read(long).unwrap()).await;
    let long_bytes =
        room.alice.until(&long, &["ready"], 60).await["renditions"][0]["size_bytes"].as_u64().unwrap();
    let clip = clips::h264(room.cluster.folder.path(), "work.mp4", "1280x720", 8);
    let clip = std::fs::read(clip).unwrap();
    for weather in [Weather::Refused, Weather::Stalled] {
        let viewer = Viewer::of(&room.at(Service::Streamserver), &long).await;
        let at_work = room.upload(clip.clone()).await;
        room.alice.until(&at_work, &["playable"], 60).await;
        room.weather(weather.clone());
        let away = Instant::now();
        let mut slowest = Duration::ZERO;
        // What was asked a moment ago is known that long.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let watching = tokio::spawn(async move {
            let began = Instant::now();
            (viewer.finish().await as u64, began.elapsed())
        });
        // For longer than a lease, and than a connection that nothing comes from is waited for.
        while away.elapsed() < Duration::from_secs(6) {
            for (name, _, answer, elapsed) in room.ask_all().await {
                let problem = answer.json();
                assert_eq!(answer.status, 503, "{weather:?}, {name}: {problem:#}");
                assert_eq!(problem["type"], "/problems/unavailable", "{weather:?}, {name}");
                assert!(
                    answer.header("retry-after").parse::<u32>().is_ok_and(|s| s > 0),
                    "{name}: {answer:?}"
                );
                assert!(elapsed < ANSWER_MAX, "{weather:?}, {name}: {elapsed:?}");
                slowest = slowest.max(elapsed);
            }
            for (number, ready) in (0..).zip(room.readiness().await) {
                let name = room.cluster.service(number).name();
                let live = Persona::anonymous(&room.cluster.ops(number)).get("/livez").await;
                assert_eq!(live.status, 200, "{weather:?}, {name}");
                assert_eq!(ready.status, 503, "{weather:?}, {name}");
                assert!(ready.text().contains("[-]database"), "{weather:?}, {name}: {}", ready.text());
            }
        }
        let (watched_bytes, watched) = watching.await.unwrap();
        assert_eq!(watched_bytes, long_bytes, "{weather:?}: the film goes on to its end");
        assert!(watched < Duration::from_secs(5), "{weather:?}: watching took {watched:?}");
        let away = away.elapsed();
        room.weather(Weather::Clear);
        let back = Instant::now();
        room.until_all_is_well().await;
        let back = back.elapsed();
        room.alice.until(&at_work, &["ready"], 60).await;
        let attempts = room.attempts(&at_work);
        assert!(attempts.lines().all(|line| line.ends_with("|1")), "{weather:?}: {attempts}");
        println!(
            "database {weather:?} for {away:.1?}: 503 after {slowest:.1?} at most, a film of {long_bytes} bytes went \
             on in {watched:.1?}; all well {back:.1?} after the return"
        );
    }
    room.finish();
}

/// The connection breaks between a commit and its answer: nobody who wrote knows whether it happened.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_a_commit_is_lost() {
    if !has_postgres("a lost answer to a commit") {
        return;
    }
    let room = Room::open(&[]).await;
    let lose_after = |word: &str| room.weather(Weather::AnswerLost { after: word.to_owned(), to: "COMMIT" });
    let proxy = room.cluster.backends.database_proxy();

    lose_after("bertha");
    let body = json!({"username": "bertha", "password": Persona::PASSWORD});
    let anyone = Persona::anonymous(&room.alice.base);
    anyone.post("/api/users", &body).await.problem(503, "/problems/unavailable");
    anyone.post("/api/users", &body).await.problem(409, "/problems/username-taken");
    Persona::log_in(&room.alice.base, "bertha").await;

    // The upload's bytes are there, so the server finds out by itself.
    let id = room.create().await;
    lose_after("holidays.mp4");
    let clip = std::fs::read(room.cluster.folder.path().join("clip.mp4")).unwrap();
    let uploader = room.at(Service::Streamserver);
    let request = uploader
        .request(Method::POST, &format!("/stream/videos/{id}"))
        .header("Content-Type", "video/mp4")
        .header("Content-Disposition", "attachment; filename=\"holidays.mp4\"")
        .body(clip);
    uploader.send(request).await.expect(201);
    assert_eq!(proxy.answers_lost(), 2);
    room.alice.until(&id, &["ready"], 60).await;
    let jobs = room.attempts(&id);
    assert_eq!(jobs.lines().filter(|line| line.starts_with("ingest")).count(), 1, "{jobs}");

    lose_after(&room.film);
    let path = format!("/api/videos/{}", room.film);
    room.alice.delete(&path).await.problem(503, "/problems/unavailable");
    room.alice.delete(&path).await.problem(404, "/problems/not-found");
    assert_eq!(proxy.answers_lost(), 3);
    assert_eq!(room.cluster.backends.psql("SELECT count(*) FROM deletions"), "1");

    // And every connection at once, again and again, while a film is made.
    let at_work =
        room.upload(std::fs::read(clips::h264(room.cluster.folder.path(), "b.mp4", "640x480", 2)).unwrap());
    let at_work = at_work.await;
    let mut cuts = 0;
    let state = loop {
        proxy.cut();
        cuts += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let path = format!("/api/videos/{at_work}");
        let answer = room.alice.get(&path).await;
        assert!([200, 503].contains(&answer.status), "{answer:?}");
        if answer.status == 200 && answer.json()["state"] == "ready" || cuts == 30 {
            break answer.status;
        }
    };
    room.alice.until(&at_work, &["ready"], 60).await;
    println!(
        "3 answers to commits lost: one effect each; {cuts} cuts of every connection (last {state}): ready"
    );
    room.finish();
}

/// Somebody holds a row for long, and everybody who wants to write it waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_lock_costs_those_who_want_it_and_no_reader() {
    if !has_postgres("a long lock") {
        return;
    }
    let room = Room::open(&[]).await;
    let held = format!(
        "SET client_connection_check_interval = '100ms'; BEGIN; \
         UPDATE videos SET title = title WHERE id = '{}'; SELECT pg_sleep(60)",
        room.film
    );
    let mut holder = room.cluster.backends.psql_at_work(&held);
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(60)%' \
                 AND wait_event = 'PgSleep'";
    while room.cluster.backends.psql(waits) == "0" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    // More than there are connections.
    let path = format!("/api/videos/{}", room.film);
    let asked = Instant::now();
    let writes = join_all((0..40).map(|number| {
        let (alice, path) = (room.alice.clone(), path.clone());
        async move {
            let title = json!({"title": format!("title {number}")});
            (alice.send(alice.request(Method::PATCH, &path).json(&title)).await, asked.elapsed())
        }
    }));
    let reads = async {
        let mut slowest = Duration::ZERO;
        while asked.elapsed() < Duration::from_secs(4) {
            let began = Instant::now();
            room.alice.get(&path).await.expect(200);
            room.at(Service::Streamserver).get(&format!("/stream/videos/{}", room.film)).await.expect(200);
            slowest = slowest.max(began.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        slowest
    };
    let (writes, slowest_read) = futures::future::join(writes, reads).await;
    let slowest_write = writes.iter().map(|(_, elapsed)| *elapsed).max().unwrap();
    for (answer, elapsed) in writes {
        assert!(elapsed < LOCKED_MAX, "{elapsed:?}");
        assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|s| s > 0), "{answer:?}");
        answer.problem(503, "/problems/unavailable");
    }
    assert!(slowest_read < Duration::from_secs(1), "{slowest_read:?}");

    holder.kill().unwrap();
    holder.wait().unwrap();
    room.until_all_is_well().await;
    let video = room.alice.video(&room.film).await;
    assert_eq!(video["title"], "film", "what was answered 503 did not happen");
    let title = json!({"title": "at last"});
    let request = room.alice.request(Method::PATCH, &path).json(&title);
    room.alice.send(request).await.expect(200);
    println!(
        "40 writes of a locked row: 503 after {slowest_write:.1?} at most; reads meanwhile {slowest_read:.1?} at most"
    );
    room.finish();
}

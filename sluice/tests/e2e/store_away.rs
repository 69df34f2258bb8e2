//! S3 goes away while everything is in service, and comes back; and answers get lost on their way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::{Body, Method};

use crate::harness::backends::{asked, variable};
use crate::harness::proxy::Proxy;
use crate::harness::{Answer, Backends, Cluster, Persona, Service, Sizes, Weather, clips};
use crate::memory;

/// From a request to its answer, for whoever watches.
const ANSWER_MAX: Duration = Duration::from_secs(6);
/// From a video's being ready until its storyboard is there too.
const JOBS_MAX: Duration = Duration::from_secs(30);
/// From the store's return until everything works.
const BACK_MAX: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(2);

/// One process of each service behind a proxy before the store.
struct Room {
    cluster: Arc<Cluster>,
    alice: Persona,
    clip: Vec<u8>,
}

impl Room {
    /// `None` on a disk, which is nowhere else; the quick run has the small S3 of this process instead.
    async fn open(settings: &[(&str, &str)]) -> Option<Room> {
        let (database, store) = match (variable("SLUICE_TEST_BACKENDS"), asked()) {
            (None, _) => ("sqlite".to_owned(), "s3s".to_owned()),
            (Some(_), asked) => asked,
        };
        if store == "disk" {
            eprintln!("SKIPPED: a store that goes away needs S3");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let backends = Backends::of(&database, &store, folder.path()).behind_proxies();
        let cluster = Arc::new(Cluster::on(backends, folder, Sizes::ONE_EACH, settings).await);
        let alice = cluster.user("alice").await;
        let clip = std::fs::read(clips::h264(cluster.folder.path(), "clip.mp4", "320x240", 1)).unwrap();
        Some(Room { cluster, alice, clip })
    }

    fn stream(&self) -> Persona {
        self.alice.at(&self.cluster.base(self.cluster.of(Service::Streamserver)[0]))
    }

    fn weather(&self, weather: Weather) {
        self.cluster.backends.store_proxy().weather(weather);
    }

    async fn create(&self) -> String {
        self.alice.create("film").await["id"].as_str().unwrap().to_owned()
    }

    async fn upload(&self, bytes: Vec<u8>) -> String {
        let id = self.create().await;
        self.stream().send_bytes(&id, bytes).await.expect(201);
        id
    }

    async fn ready(&self) -> String {
        let id = self.upload(self.clip.clone()).await;
        self.alice.until(&id, &["ready"], 60).await;
        id
    }

    /// Which processes say that they are not ready, and why.
    async fn not_ready(&self) -> Vec<(Service, String)> {
        let mut not_ready = Vec::new();
        for number in 0..self.cluster.len() {
            let answer = self.cluster.readiness(number).await.unwrap();
            if answer.status != 200 {
                not_ready.push((self.cluster.service(number), answer.text()));
            }
        }
        not_ready
    }

    /// Objects below a video, as the store itself lists them.
    fn sources(&self, video: &str) -> usize {
        let objects = self.cluster.sluice("objects");
        objects.lines().filter(|line| line.contains(video) && line.ends_with("/source")).count()
    }

    /// A job whose attempt counts for what the weather did would be the poorer for it.
    async fn no_job_is_the_poorer(&self) {
        let root = Persona::log_in(&self.alice.base, "root").await;
        let root = root.at(&self.cluster.base(self.cluster.of(Service::Scheduler)[0]));
        let began = Instant::now();
        loop {
            let jobs = root.get("/scheduler/jobs?limit=100").await.expect(200).json();
            let jobs = jobs["items"].as_array().unwrap();
            let waits = jobs.iter().any(|job| job["state"] != "done");
            if waits && began.elapsed() < JOBS_MAX {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            for job in jobs {
                assert_eq!((&job["state"], &job["attempts"]), (&"done".into(), &1.into()), "{job:#}");
            }
            return;
        }
    }

    fn finish(self) {
        Arc::into_inner(self.cluster).expect("nobody else has it").finish();
    }
}

#[track_caller]
fn is_unavailable(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 503, "{what}: {answer:?}");
    assert_eq!(answer.json()["type"], "/problems/unavailable", "{what}");
    assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|s| s > 0), "{what}: {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn away_and_back_again() {
    let Some(room) = Room::open(&[("SLUICE_RETRY_MAX_MS", "2000")]).await else { return };
    let known = room.ready().await;
    for weather in [Weather::Refused, Weather::Stalled] {
        let unknown = room.ready().await;
        let waiting = room.create().await;
        let stream = room.stream();
        stream.get(&format!("/stream/videos/{known}")).await.expect(200);
        // Its job finds no store, and waits for one.
        let at_work = room.upload(room.clip.clone()).await;
        room.weather(weather.clone());
        let paths = [
            format!("/stream/videos/{unknown}"),
            format!("/stream/videos/{unknown}/master.m3u8"),
            format!("/stream/videos/{unknown}/cover.jpg"),
        ];
        let watching = join_all(paths.iter().map(|path| async {
            let asked = Instant::now();
            is_unavailable(&stream.get(path).await, path);
            asked.elapsed()
        }));
        let uploading = async {
            let asked = Instant::now();
            is_unavailable(&stream.send_bytes(&waiting, room.clip.clone()).await, "upload");
            asked.elapsed()
        };
        let looking = async {
            // What needs no object goes on as before.
            room.alice.get(&format!("/api/videos/{known}")).await.expect(200);
            stream.get(&format!("/stream/videos/{known}/master.m3u8")).await.expect(200);
            // Neither does what was watched before, and is in memory.
            stream.get(&format!("/stream/videos/{known}")).await.expect(200);
            for number in 0..room.cluster.len() {
                let live = Persona::anonymous(&room.cluster.ops(number)).get("/livez").await;
                assert_eq!(live.status, 200, "{weather:?}");
            }
            let not_ready = room.not_ready().await;
            let services: Vec<Service> = not_ready.iter().map(|(service, _)| *service).collect();
            assert_eq!(services, [Service::Streamserver, Service::Scheduler], "{weather:?}: {not_ready:?}");
            assert!(not_ready.iter().all(|(_, text)| text.contains("[-]store")), "{not_ready:?}");
        };
        let (watching, uploading, ()) = futures::join!(watching, uploading, looking);
        let slowest = watching.into_iter().max().unwrap();
        assert!(slowest < ANSWER_MAX, "{weather:?}: watching was answered after {slowest:?}");

        room.weather(Weather::Clear);
        let back = Instant::now();
        let all_is_well = async || {
            for path in &paths {
                if stream.get(path).await.status != 200 {
                    return false;
                }
            }
            room.not_ready().await.is_empty()
        };
        while !all_is_well().await {
            assert!(back.elapsed() < BACK_MAX, "{weather:?}: {:?}", room.not_ready().await);
        }
        let back = back.elapsed();
        stream.send_bytes(&waiting, room.clip.clone()).await.expect(201);
        for id in [&waiting, &at_work] {
            room.alice.until(id, &["ready"], 60).await;
        }
        println!(
            "store {weather:?}: watching 503 after {slowest:.1?} at most, uploading after {uploading:.1?}; all well \
             {back:.1?} after the return"
        );
    }
    room.no_job_is_the_poorer().await;
    room.finish();
}

/// In the middle of an upload and of a film the store stands still for a while: both go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_costs_nobody_an_upload_or_a_film() {
    let Some(room) = Room::open(&[("S3_PART_BYTES", "5242880")]).await else { return };
    let film = clips::with_tail(&room.clip, 40 << 20, 1);
    let id = room.create().await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<Vec<u8>>>(1);
    let body = Body::wrap_stream(futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|block| (block, receiver))
    }));
    let stream = room.stream();
    let request = stream.request(Method::POST, &format!("/stream/videos/{id}"));
    let request = request.header("Content-Type", "video/mp4").body(body);
    let sending = tokio::spawn(async move { stream.send(request).await });
    let (first, second) = film.split_at(film.len() / 2);
    sender.send(Ok(first.to_vec())).await.unwrap();
    room.weather(Weather::Stalled);
    sender.send(Ok(second.to_vec())).await.unwrap();
    drop(sender);
    tokio::time::sleep(PAUSE).await;
    room.weather(Weather::Clear);
    let back = Instant::now();
    let stored = sending.await.unwrap().expect(201).json();
    let uploaded = back.elapsed();
    assert_eq!(stored["crc64nvme"], clips::crc64nvme(&film));
    room.alice.until(&id, &["ready"], 60).await;
    assert_eq!(room.sources(&id), 1);

    let long = memory::large_film(room.cluster.folder.path(), 48 << 20);
    let long = room.upload(std::fs::read(long).unwrap()).await;
    let long_bytes =
        room.alice.until(&long, &["ready"], 60).await["renditions"][0]["size_bytes"].as_u64().unwrap();
    let path = format!("/stream/videos/{long}");
    let mut watching = room.stream().request(Method::GET, &path).send().await.unwrap();
    let mut watched_bytes = watching.chunk().await.unwrap().unwrap().len() as u64;
    for pause in [Weather::Stalled, Weather::Refused] {
        room.weather(pause.clone());
        let back = tokio::time::sleep(PAUSE);
        tokio::pin!(back);
        // The viewer takes what still comes.
        loop {
            tokio::select! {
                () = &mut back => break,
                bytes = watching.chunk() => {
                    let bytes = bytes.unwrap_or_else(|error| panic!("{pause:?}: the film breaks off: {error:?}"));
                    watched_bytes += bytes.expect("there is more of it").len() as u64;
                }
            }
        }
        room.weather(Weather::Clear);
    }
    while let Some(bytes) = watching.chunk().await.expect("the film goes on") {
        watched_bytes += bytes.len() as u64;
    }
    assert_eq!(watched_bytes, long_bytes);
    println!(
        "a pause of {PAUSE:?}: an upload of {} bytes was 201 {uploaded:.1?} after it; a film went on",
        film.len()
    );
    room.finish();
}

/// The bytes are there, but nobody is told so.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_neither_loses_nor_doubles_an_upload() {
    let Some(room) = Room::open(&[("S3_PART_BYTES", "5242880"), ("SLUICE_SWEEP_S", "1")]).await else {
        return;
    };
    let proxy = room.cluster.backends.store_proxy();
    // Between the server and the store: a small object is put in one piece, a large one completed from parts.
    let lost = [
        (room.clip.clone(), "PUT /", "/source"),
        (clips::with_tail(&room.clip, 12 << 20, 2), "uploadId", "<CompleteMultipartUpload"),
    ];
    let mut ids = Vec::new();
    for (number, (film, after, to)) in (1..).zip(lost) {
        let id = room.create().await;
        room.weather(Weather::AnswerLost { after: after.to_owned(), to });
        let crc = clips::crc64nvme(&film);
        let stored = room.stream().send_bytes(&id, film).await.expect(201).json();
        assert_eq!(stored["crc64nvme"], crc);
        assert_eq!(proxy.answers_lost(), number, "the answer to {to} was lost");
        ids.push(id);
    }
    // Between the client and the server: the client sends it all again.
    let front = Proxy::before(room.stream().base.strip_prefix("http://").unwrap());
    let uploader = room.stream().at(&format!("http://{}", front.address));
    let id = room.create().await;
    let mut film = clips::with_tail(&room.clip, 1 << 20, 3);
    let end = film.len() - 15;
    film[end..].copy_from_slice(b"the end of film");
    front.weather(Weather::AnswerLost { after: id.clone(), to: "the end of film" });
    let request = || {
        let request = uploader.request(Method::POST, &format!("/stream/videos/{id}"));
        request.header("Content-Type", "video/mp4").body(film.clone())
    };
    assert!(uploader.try_send(request()).await.is_err(), "the answer is lost");
    uploader.send(request()).await.problem(409, "/problems/already-uploaded");
    ids.push(id);

    for id in &ids {
        room.alice.until(id, &["ready"], 60).await;
        assert_eq!(room.sources(id), 1, "{id}");
    }
    room.no_job_is_the_poorer().await;
    println!("3 answers to uploads lost, two by the store and one by the server: each film is there once");
    room.finish();
}

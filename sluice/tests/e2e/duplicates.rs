//! The same request twice, or fifty times at once, at two processes of each service: one effect.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::harness::{Answer, Cluster, Persona, Service, Sizes, clips};

const SIZES: Sizes = Sizes { apis: 2, streamservers: 2, schedulers: 1 };

struct Room {
    cluster: Arc<Cluster>,
    apis: Vec<Persona>,
    streamservers: Vec<Persona>,
    clip: Vec<u8>,
}

impl Room {
    async fn open() -> Room {
        let cluster = Arc::new(Cluster::start(SIZES, &[("SLUICE_SWEEP_S", "1")]).await);
        let alice = cluster.user("alice").await;
        let all =
            |service| cluster.of(service).into_iter().map(|number| alice.at(&cluster.base(number))).collect();
        let clip = std::fs::read(clips::h264(cluster.folder.path(), "clip.mp4", "320x240", 1)).unwrap();
        Room { apis: all(Service::Api), streamservers: all(Service::Streamserver), clip, cluster }
    }

    fn alice(&self) -> &Persona {
        &self.apis[0]
    }

    async fn create(&self) -> String {
        self.alice().create("film").await["id"].as_str().unwrap().to_owned()
    }

    fn finish(self) {
        Arc::into_inner(self.cluster).expect("nobody else has it").finish();
    }
}

/// The same request `times` times at once, at each of these in turn; all answers.
async fn at_once(
    whom: &[Persona],
    times: usize,
    request: impl Fn(&Persona) -> RequestBuilder,
) -> Vec<Answer> {
    join_all((0..times).map(|number| {
        let persona = &whom[number % whom.len()];
        persona.send(request(persona))
    }))
    .await
}

/// One has this status, and all others that one.
#[track_caller]
fn one_of(answers: &[Answer], effect: u16, others: u16, what: &str) {
    let with = |status| answers.iter().filter(|answer| answer.status == status).count();
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!((with(effect), with(others)), (1, answers.len() - 1), "{what}: {statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn twice_and_fifty_times_have_one_effect() {
    let room = Room::open().await;
    let began = Instant::now();
    for times in [2, 50] {
        register(&room, times).await;
        upload(&room, times).await;
        comment_and_delete(&room, times).await;
        end(&room, times).await;
    }
    println!("every request 2 times and 50 times at once: one effect each ({:.1?})", began.elapsed());
    room.finish();
}

async fn register(room: &Room, times: usize) {
    let name = format!("bertha_{times}");
    let body = json!({"username": name, "password": Persona::PASSWORD});
    let answers = at_once(&room.apis, times, |anyone| {
        let anyone = Persona::anonymous(&anyone.base);
        anyone.request(Method::POST, "/api/users").json(&body)
    });
    one_of(&answers.await, 201, 409, "register");
    Persona::log_in(&room.alice().base, &name).await;
}

/// One upload is the video's; the others are told so, and leave nothing.
async fn upload(room: &Room, times: usize) {
    let id = room.create().await;
    let path = format!("/stream/videos/{id}");
    let answers = at_once(&room.streamservers, times, |uploader| {
        let request = uploader.request(Method::POST, &path).header("Content-Type", "video/mp4");
        request.body(room.clip.clone())
    });
    one_of(&answers.await, 201, 409, "upload");
    room.alice().until(&id, &["ready"], 60).await;
    let waited = Instant::now();
    let sources = || {
        let objects = room.cluster.sluice("objects");
        objects.lines().filter(|line| line.contains(&id) && line.ends_with("/source")).count()
    };
    while sources() != 1 {
        assert!(waited.elapsed() < Duration::from_secs(20), "{} sources", sources());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let root = Persona::log_in(&room.alice().base, "root").await;
    let root = root.at(&room.cluster.base(room.cluster.of(Service::Scheduler)[0]));
    let jobs = root.get("/scheduler/jobs?kind=ingest&limit=100").await.expect(200).json();
    let jobs = jobs["items"].as_array().unwrap().iter().filter(|job| job["video_id"] == *id).count();
    assert_eq!(jobs, 1, "ingest is queued once");
}

async fn comment_and_delete(room: &Room, times: usize) {
    let id = room.create().await;
    room.streamservers[0].send_bytes(&id, room.clip.clone()).await.expect(201);
    room.alice().until(&id, &["ready"], 60).await;
    let path = format!("/api/videos/{id}/comments");
    let body = json!({"content": "nice"});
    let answers = at_once(&room.apis, times, |alice| {
        alice.request(Method::POST, &path).header("Idempotency-Key", format!("nice-{times}")).json(&body)
    })
    .await;
    let first: Value = answers[0].json();
    for answer in answers {
        assert_eq!((answer.status, answer.json()), (201, first.clone()), "the same key has the same answer");
    }
    let comments = room.alice().get(&path).await.expect(200).json();
    assert_eq!(comments["items"].as_array().unwrap().len(), 1);
    assert_eq!(room.alice().video(&id).await["counts"]["comments"], 1);

    let comment = format!("{path}/{}", first["id"].as_str().unwrap());
    let answers = at_once(&room.apis, times, |alice| alice.request(Method::DELETE, &comment)).await;
    one_of(&answers, 204, 404, "delete a comment");
    assert_eq!(room.alice().video(&id).await["counts"]["comments"], 0);

    let video = format!("/api/videos/{id}");
    let answers = at_once(&room.apis, times, |alice| alice.request(Method::DELETE, &video)).await;
    one_of(&answers, 204, 404, "delete a video");
    let root = Persona::log_in(&room.alice().base, "root").await;
    let root = root.at(&room.cluster.base(room.cluster.of(Service::Scheduler)[0]));
    let deletions = async || {
        let page = root.get("/scheduler/deletions?limit=100").await.expect(200).json();
        let of_it = page["items"].as_array().unwrap().iter().filter(|deletion| deletion["video_id"] == *id);
        of_it.map(|deletion| deletion["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let waited = Instant::now();
    while deletions().await != ["done"] {
        assert!(waited.elapsed() < Duration::from_secs(30), "{:?}", deletions().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Creating with a key; logging out and leaving.
async fn end(room: &Room, times: usize) {
    let name = format!("claire_{times}");
    let claire = Persona::register(&room.alice().base, &name).await;
    let claires: Vec<Persona> = room.apis.iter().map(|api| claire.at(&api.base)).collect();
    let body = json!({"title": "once"});
    let key = "film-of-claire";
    let create =
        |claire: &Persona| claire.request(Method::POST, "/api/videos").header("Idempotency-Key", key);
    let answers = at_once(&claires, times, |claire| create(claire).json(&body)).await;
    let first = answers[0].json()["id"].clone();
    for answer in &answers {
        assert_eq!((answer.status, &answer.json()["id"]), (201, &first), "the same key has the same answer");
    }
    let mine = claire.get(&format!("/api/users/{}/videos", claire.id)).await.expect(200).json();
    assert_eq!(mine["items"].as_array().unwrap().len(), 1);
    let other = json!({"title": "another"});
    let answer = claire.send(create(&claire).json(&other)).await;
    answer.problem(422, "/problems/idempotency-key-reused");
    // A key is its owner's alone.
    room.alice().send(create(room.alice()).json(&other)).await.expect(201);

    let again = Persona::log_in(&room.alice().base, &name).await;
    let again = [again.at(&claires[0].base), again.at(&claires[1].base)];
    let answers = at_once(&again, times, |claire| claire.request(Method::DELETE, "/api/sessions"));
    for answer in answers.await {
        assert!([205, 401].contains(&answer.status), "log out: {answer:?}");
    }
    let me = format!("/api/users/{}", claire.id);
    let answers = at_once(&claires, times, |claire| claire.request(Method::DELETE, &me)).await;
    let gone = answers.iter().filter(|answer| answer.status == 204).count();
    assert_eq!(gone, 1, "leave: {:?}", answers.iter().map(|answer| answer.status).collect::<Vec<_>>());
}

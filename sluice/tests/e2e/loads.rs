//! Many at once: connections that say nothing, uploads that trickle, ten times as many uploads as there is room for,
//! viewers, and those who only take up places. In every run small; `make campaign-loads` asks for what is promised, and
//! holds the times to it.

mod slow;
mod streams;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use reqwest::{Body, Method};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Mutex;

use crate::harness::backends::variable;
use crate::harness::{App, Peak, Persona};

const KIB: u64 = 1024;
const IDLE_KIB_MAX: u64 = 32;
const TRICKLING_KIB_MAX: u64 = 256;
/// What grows once, however many there are: pools, arenas, the first of everything.
const ONCE_KIB_MAX: u64 = 16 * KIB;

fn setting(name: &str, default: u64) -> u64 {
    variable(name).map_or(default, |value| value.parse().unwrap())
}

/// Times are promises of a quiet machine.
fn is_campaign() -> bool {
    variable("SLUICE_TEST_LOAD_S").is_some()
}

/// Both ends of every line are in this machine; what the test may open its children may too.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).unwrap();
}

fn address(app: &App) -> SocketAddr {
    app.base().strip_prefix("http://").unwrap().parse().unwrap()
}

async fn connect(app: &App) -> TcpStream {
    TcpStream::connect(address(app)).await.unwrap()
}

/// From an address of this machine that is not the one of everybody else, with room in the kernel for so much that is not
/// read.
async fn connect_from(
    client: Ipv4Addr,
    server: SocketAddr,
    received_bytes: u32,
) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(received_bytes)?;
    socket.bind(SocketAddr::from((client, 0)))?;
    socket.connect(server).await
}

/// Asks something small and reads the whole answer.
async fn ask(line: &mut TcpStream) {
    line.write_all(b"GET /api/nothing HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        assert!(line.read_buf(&mut answer).await.unwrap() > 0, "closed after {answer:?}");
    }
    assert!(answer.starts_with(b"HTTP/1.1 404 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_cost_little_and_stay() {
    raise_open_files();
    let connections = setting("SLUICE_TEST_LOAD_CONNECTIONS", 400);
    let app = App::with(&[("SLUICE_CONNECTIONS_MAX", "20000"), ("SLUICE_IDLE_S_MAX", "600")]).await;
    for _ in 0..20 {
        ask(&mut connect(&app).await).await;
    }
    let before_kib = app.program.resident_kib();
    let mut lines = Vec::new();
    for _ in 0..connections {
        let mut line = connect(&app).await;
        ask(&mut line).await;
        lines.push(line);
    }
    let grown_kib = app.program.resident_kib().saturating_sub(before_kib);
    for line in &mut lines {
        ask(line).await;
    }
    println!(
        "{connections} idle connections: +{grown_kib} KiB resident, {:.1} KiB each; all answered again",
        grown_kib as f64 / connections as f64
    );
    assert!(
        grown_kib <= connections * IDLE_KIB_MAX + ONCE_KIB_MAX * u64::from(!is_campaign()),
        "{grown_kib} KiB"
    );
    drop(lines);
    app.finish();
}

/// An upload of which a little comes four times a second.
async fn trickle(app: &App, persona: &Persona, video: &str, seconds: u64) -> TcpStream {
    const STEP: Duration = Duration::from_millis(250);
    let mut line = connect(app).await;
    let head = format!(
        "PUT /stream/videos/{video} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: video/mp4\r\n\
         Content-Length: {}\r\n\r\n",
        persona.token.as_deref().unwrap(),
        // More than comes.
        (seconds + 60) * 16 * KIB
    );
    line.write_all(head.as_bytes()).await.unwrap();
    let mut due = tokio::time::interval(STEP);
    for _ in 0..seconds * 4 {
        due.tick().await;
        line.write_all(&[7; 4 * KIB as usize]).await.expect("a slow upload is not cut off");
    }
    line
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_trickle_cost_little() {
    raise_open_files();
    let uploads = setting("SLUICE_TEST_LOAD_UPLOADS", 60);
    let seconds = setting("SLUICE_TEST_LOAD_S", 3);
    let settings =
        [("SLUICE_UPLOADS_MAX", "4000"), ("SLUICE_USER_UPLOADS_MAX", "0"), ("SLUICE_FREE_BYTES_MIN", "0")];
    let app = App::with(&settings).await;
    let ada = app.user("ada").await;
    let mut videos = Vec::new();
    for _ in 0..=uploads {
        videos.push(ada.create("trickling").await["id"].as_str().unwrap().to_owned());
    }
    drop(trickle(&app, &ada, &videos[0], 1).await);
    let before_kib = app.program.resident_kib();
    let peak = Peak::of(app.program.pid());
    let lines = join_all(videos[1..].iter().map(|video| trickle(&app, &ada, video, seconds))).await;
    let grown_kib = peak.end().saturating_sub(before_kib);
    println!(
        "{uploads} uploads at 16 KiB/s for {seconds} s: +{grown_kib} KiB resident, {:.0} KiB each",
        grown_kib as f64 / uploads as f64
    );
    assert!(
        grown_kib <= uploads * TRICKLING_KIB_MAX + ONCE_KIB_MAX * u64::from(!is_campaign()),
        "{grown_kib} KiB"
    );
    drop(lines);
    app.finish();
}

const PLACES: u64 = 8;
const USERS: u64 = 10;
/// An upload takes as long as its client does.
const UPLOAD_STEPS: usize = 8;
const UPLOAD_STEP: Duration = Duration::from_millis(32);
const UPLOAD_STEP_BYTES: usize = 16 * KIB as usize;

/// What was seen of a crowd.
#[derive(Default)]
struct Seen {
    stored: AtomicU64,
    refused_ms: Mutex<Vec<f64>>,
}

struct Crowd {
    people: Vec<Persona>,
    /// Of whom, and not uploaded yet.
    videos: Mutex<Vec<(usize, String)>>,
}

impl Crowd {
    async fn gather(app: &App, videos: u64) -> Crowd {
        let mut people = Vec::new();
        for number in 0..USERS {
            people.push(app.user(&format!("user{number}")).await);
        }
        let mut all = Vec::new();
        for number in 0..videos as usize {
            let person = number % people.len();
            let video = people[person].create("crowd").await["id"].as_str().unwrap().to_owned();
            all.push((person, video));
        }
        Crowd { people, videos: Mutex::new(all) }
    }

    /// `false`: there was no place for it.
    async fn upload(&self, seen: &Seen) -> bool {
        let Some((person, video)) = self.videos.lock().await.pop() else { panic!("too few videos") };
        let steps = futures::stream::unfold(0, |step| async move {
            if step > 0 {
                tokio::time::sleep(UPLOAD_STEP).await;
            }
            let block = Bytes::from_static(&[7; UPLOAD_STEP_BYTES]);
            (step < UPLOAD_STEPS).then_some((Ok::<_, std::io::Error>(block), step + 1))
        });
        let began = Instant::now();
        let request = self.people[person].request(Method::PUT, &format!("/stream/videos/{video}"));
        let request = request.header("Content-Type", "video/mp4");
        let request = request.header("Content-Length", UPLOAD_STEPS * UPLOAD_STEP_BYTES);
        let answer = self.people[person].send(request.body(Body::wrap_stream(steps))).await;
        match answer.status {
            201 => drop(seen.stored.fetch_add(1, Ordering::SeqCst)),
            429 | 503 => {
                assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
                seen.refused_ms.lock().await.push(began.elapsed().as_secs_f64() * 1000.0);
                self.videos.lock().await.insert(0, (person, video));
            }
            _ => panic!("{answer:?}"),
        }
        answer.status == 201
    }

    /// As many at once as there are places, one after the other. Answers uploads a second.
    async fn peak(self: &Arc<Self>, seconds: u64) -> f64 {
        let seen = Seen::default();
        let until = Instant::now() + Duration::from_secs(seconds);
        let began = Instant::now();
        let workers = (0..PLACES).map(|_| async {
            while Instant::now() < until {
                self.upload(&seen).await;
            }
        });
        join_all(workers).await;
        seen.stored.into_inner() as f64 / began.elapsed().as_secs_f64()
    }

    /// They come at this rate, whatever became of those before.
    async fn come(self: &Arc<Self>, per_s: f64, seconds: u64) -> Arc<Seen> {
        let seen = Arc::new(Seen::default());
        let mut due = tokio::time::interval(Duration::from_secs_f64(1.0 / per_s));
        let mut all = Vec::new();
        for _ in 0..(per_s * seconds as f64) as u64 {
            due.tick().await;
            let (crowd, seen) = (self.clone(), seen.clone());
            all.push(tokio::spawn(async move { crowd.upload(&seen).await }));
        }
        for one in all {
            one.await.unwrap();
        }
        seen
    }
}

/// Somebody who logs in and deletes, all the while. Answers what each took.
async fn others(app: &App, persona: &Persona, videos: Vec<String>, seconds: u64) -> (Vec<f64>, Vec<f64>) {
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut logins, mut deletions) = (Vec::new(), Vec::new());
    let mut due = tokio::time::interval(Duration::from_secs(1));
    for video in videos {
        if Instant::now() >= until {
            break;
        }
        due.tick().await;
        let began = Instant::now();
        let who = json!({"username": "root", "password": Persona::PASSWORD});
        app.anonymous().post("/api/sessions", &who).await.expect(200);
        logins.push(began.elapsed().as_secs_f64() * 1000.0);
        let began = Instant::now();
        persona.delete(&format!("/api/videos/{video}")).await.expect(204);
        deletions.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    (logins, deletions)
}

fn p99(all: &mut [f64]) -> f64 {
    all.sort_by(f64::total_cmp);
    all[(all.len() - 1) * 99 / 100]
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_too_many_uploads_are_told_so_and_hurt_nobody() {
    raise_open_files();
    let seconds = setting("SLUICE_TEST_LOAD_S", 3);
    let places = PLACES.to_string();
    let settings = [
        ("SLUICE_UPLOADS_MAX", &*places),
        ("SLUICE_USER_UPLOADS_MAX", "0"),
        ("SLUICE_LOGINS_PER_MINUTE_PER_CLIENT", "0"),
        // What is uploaded is no film; what becomes of it is not the question.
        ("SLUICE_JOB_KINDS", "purge"),
    ];
    let app = App::with(&settings).await;
    // An upload takes a quarter of a second.
    let crowd = Arc::new(Crowd::gather(&app, PLACES * 4 * (seconds * 2 + 4) + 400).await);
    let admin = app.admin().await;
    let mut deleted = Vec::new();
    for _ in 0..seconds {
        deleted.push(admin.create("to go").await["id"].as_str().unwrap().to_owned());
    }
    let peak = crowd.peak(seconds.min(10)).await;
    let (seen, (mut logins, mut deletions)) =
        tokio::join!(crowd.come(peak * 10.0, seconds), others(&app, &admin, deleted, seconds));
    let goodput = seen.stored.load(Ordering::SeqCst) as f64 / seconds as f64;
    let mut refused = std::mem::take(&mut *seen.refused_ms.lock().await);
    let refusals = refused.len();
    let (refused, login, deletion) = (p99(&mut refused), p99(&mut logins), p99(&mut deletions));
    println!(
        "peak {peak:.1} uploads/s; ten times that for {seconds} s: {goodput:.1}/s stored ({:.0} %), {refusals} refused, \
         99th percentiles: refusal {refused:.1} ms, login {login:.1} ms, deletion {deletion:.1} ms",
        goodput / peak * 100.0
    );
    assert!(refusals > 0);
    assert!(goodput >= 0.3 * peak, "{goodput} of {peak}, on however busy a machine");
    if is_campaign() {
        assert!(goodput >= 0.9 * peak, "{goodput} of {peak}");
        assert!(refused <= 10.0 && login <= 100.0 && deletion <= 100.0);
    }
    app.finish();
}

//! Those who only take up places, many more than there are places: heads that never end, bodies that come too slowly,
//! readers who read nothing. They come from a few addresses, and again when they were let go. Whoever wants
//! something has to notice nothing of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{connect_from, is_campaign, p99, raise_open_files, setting};
use crate::harness::{App, Peak, Persona};
use crate::memory::large_film;

const ADDRESSES: u64 = 10;
/// Of an answer that nobody reads.
const RECEIVED_BYTES: u32 = 8 * 1024;
/// More than the kernel takes off the server's hands.
const FILM_BYTES: u64 = 16 << 20;
/// What two cores need for a request among tests that have just begun.
const NOISE_MS: f64 = 10.0;
const SUCCESS_MIN: f64 = 0.999;
/// Who waits longer has no answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// On top of the longest limit.
const ALL_CUT_S_MAX: u64 = 30;

#[derive(Debug, Clone, Copy)]
enum Kind {
    Head,
    Body,
    Reader,
}

const KINDS: [Kind; 3] = [Kind::Head, Kind::Body, Kind::Reader];

/// How it ended for somebody slow.
enum End {
    /// There was no place: closed before anything was asked, or answered so.
    Refused,
    /// It had a place for a while.
    Cut,
}

/// What became of the slow.
#[derive(Default)]
struct Ends {
    refused: [AtomicU64; KINDS.len()],
    cut: [AtomicU64; KINDS.len()],
}

struct Attack {
    server: SocketAddr,
    film: String,
    /// Nobody comes again.
    over: AtomicBool,
    ends: Ends,
}

impl Attack {
    /// A thousand a second at most: it is places that they take, not the processor.
    const BETWEEN_TWO: Duration = Duration::from_millis(1);
    /// As a refusal asks for (`Retry-After`).
    const AGAIN_AFTER: Duration = Duration::from_secs(2);
    const TRICKLE: Duration = Duration::from_secs(1);
    /// Who is let go sooner has not had a place.
    const HELD_MIN: Duration = Duration::from_secs(1);

    async fn take_part(self: Arc<Self>, number: u64) {
        let client = Ipv4Addr::new(127, 2, 0, 1 + (number % ADDRESSES) as u8);
        let kind = (number / ADDRESSES) as usize % KINDS.len();
        tokio::time::sleep(Attack::BETWEEN_TWO * number as u32).await;
        while !self.over.load(Ordering::SeqCst) {
            let ended = match connect_from(client, self.server, RECEIVED_BYTES).await {
                Ok(line) => self.be_slow(KINDS[kind], line).await,
                Err(_) => End::Refused,
            };
            match ended {
                End::Refused => self.ends.refused[kind].fetch_add(1, Ordering::SeqCst),
                End::Cut => self.ends.cut[kind].fetch_add(1, Ordering::SeqCst),
            };
            tokio::time::sleep(Attack::AGAIN_AFTER).await;
        }
    }

    /// Until the server lets go.
    async fn be_slow(&self, kind: Kind, mut line: TcpStream) -> End {
        let began = Instant::now();
        match kind {
            Kind::Head => {
                Attack::trickle(&mut line, "GET /api/videos HTTP/1.1\r\nHost: x\r\n", "a: b\r\n").await
            }
            Kind::Body => {
                let head = "POST /api/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                            Content-Length: 60000\r\n\r\n{";
                Attack::trickle(&mut line, head, " ").await;
            }
            Kind::Reader => {
                if !self.has_an_answer(&mut line).await {
                    return End::Refused;
                }
                while let Ok(None) = line.take_error() {
                    tokio::time::sleep(Attack::TRICKLE / 4).await;
                }
            }
        }
        if began.elapsed() < Attack::HELD_MIN { End::Refused } else { End::Cut }
    }

    /// Sends a little of what it has begun now and then, until the server says something or closes.
    async fn trickle(line: &mut TcpStream, begin: &str, go_on: &str) {
        let mut send = begin;
        while line.write_all(send.as_bytes()).await.is_ok() {
            send = go_on;
            if tokio::time::timeout(Attack::TRICKLE, line.read_u8()).await.is_ok() {
                return;
            }
        }
    }

    /// Asks for the film and takes no more than the beginning of the answer's first line.
    async fn has_an_answer(&self, line: &mut TcpStream) -> bool {
        let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", self.film);
        let mut status = [0; "HTTP/1.1 200".len()];
        line.write_all(request.as_bytes()).await.is_ok()
            && line.read_exact(&mut status).await.is_ok()
            && status.ends_with(b" 200")
    }
}

/// What it was like for those who want something, each request on a connection of its own.
struct Honest {
    took_ms: Vec<f64>,
    failed: Vec<String>,
}

impl Honest {
    fn succeeded(&self) -> f64 {
        self.took_ms.len() as f64 / (self.took_ms.len() + self.failed.len()) as f64
    }
}

/// Watches and looks around, one after the other.
async fn use_it(ada: &Persona, film: &str, segment: &str, seconds: u64) -> Honest {
    let mut seen = Honest { took_ms: Vec::new(), failed: Vec::new() };
    let until = Instant::now() + Duration::from_secs(seconds);
    let video = film.replace("/stream/", "/api/");
    let paths = [segment, "/api/videos", film, &video];
    for path in paths.iter().cycle() {
        if Instant::now() >= until {
            break;
        }
        let request = ada.request(Method::GET, path).header("Range", "bytes=1000-65535");
        let began = Instant::now();
        match ada.try_send(request.header("Connection", "close").timeout(PATIENCE)).await {
            Ok(answer) if (200..300).contains(&answer.status) => {
                seen.took_ms.push(began.elapsed().as_secs_f64() * 1000.0);
            }
            Ok(answer) => seen.failed.push(format!("{path}: {}", answer.status)),
            Err(error) => seen.failed.push(format!("{path}: {error:?}")),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    seen
}

/// Of the gauge of places taken.
async fn taken(app: &App, bucket: &str) -> u64 {
    app.program.metric(&format!("sluice_active{{bucket=\"{bucket}\"}}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slow_take_no_place_from_others() {
    raise_open_files();
    let slow = setting("SLUICE_TEST_LOAD_SLOW", 600);
    let seconds = setting("SLUICE_TEST_LOAD_S", 6);
    // As few places for few as the defaults have for ten thousand, and limits for which nobody has to wait long.
    let small = [
        ("SLUICE_CONNECTIONS_MAX", "600"),
        ("SLUICE_STREAMS_MAX", "120"),
        ("SLUICE_HEADER_READ_S_MAX", "2"),
        ("SLUICE_BODY_STALL_S_MAX", "2"),
        ("SLUICE_WRITE_STALL_S_MAX", "2"),
    ];
    let app = App::with(if is_campaign() { &[] } else { &small }).await;
    let ada = app.user("ada").await;
    let id = ada.upload(&large_film(app.folder.path(), FILM_BYTES)).await;
    ada.until(&id, &["ready"], 300).await;
    let film = format!("/stream/videos/{id}");
    let segment = ada.segments(&id).await.swap_remove(0);

    let mut before = use_it(&ada, &film, &segment, seconds.min(20)).await;
    let before_kib = app.program.resident_kib();
    let peak = Peak::of(app.program.pid());
    let server = super::address(&app);
    let attack =
        Arc::new(Attack { server, film: film.clone(), over: AtomicBool::new(false), ends: Ends::default() });
    let attackers: Vec<_> = (0..slow).map(|number| tokio::spawn(attack.clone().take_part(number))).collect();
    let mut during = use_it(&ada, &film, &segment, seconds).await;
    let held = (taken(&app, "connections").await, taken(&app, "streams").await);
    attack.over.store(true, Ordering::SeqCst);
    let all_cut = futures::future::join_all(attackers);
    let limit = Duration::from_secs(ALL_CUT_S_MAX + if is_campaign() { 60 } else { 4 });
    let all_cut = tokio::time::timeout(limit, all_cut).await;
    let grown_kib = peak.end().saturating_sub(before_kib);

    let (before_ms, during_ms) = (p99(&mut before.took_ms), p99(&mut during.took_ms));
    println!(
        "{slow} slow ones from {ADDRESSES} addresses for {seconds} s (at the end {} connections, {} streams): +{grown_kib} KiB \
         resident, {:.1} KiB each; cut {:?}, refused {:?} (head, body, reader); honest: {} requests, {:.3} % succeeded, \
         99th percentile {before_ms:.1} ms before, {during_ms:.1} ms during",
        held.0,
        held.1,
        grown_kib as f64 / slow as f64,
        attack.ends.cut,
        attack.ends.refused,
        during.took_ms.len() + during.failed.len(),
        during.succeeded() * 100.0
    );
    assert!(before.failed.is_empty(), "{:?}", before.failed);
    if is_campaign() {
        assert!(during.succeeded() >= SUCCESS_MIN, "{:?}", during.failed);
        assert!(during_ms <= 2.0 * before_ms.max(NOISE_MS));
    } else {
        assert!(during.failed.is_empty(), "{:?}", during.failed);
    }
    all_cut.expect("who is slow is let go");
    for (kind, cut) in KINDS.iter().zip(&attack.ends.cut) {
        assert!(cut.load(Ordering::SeqCst) > 0, "nobody of {kind:?} had a place and lost it");
    }
    // All places are free again.
    let waited = Instant::now();
    while taken(&app, "streams").await > 0 {
        assert!(waited.elapsed() < Duration::from_secs(5), "{} streams", taken(&app, "streams").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    app.finish();
}

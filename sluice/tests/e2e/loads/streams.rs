//! Viewers at the rate of a film: half of them read it as one file, from different places on, half its segments.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{KIB, ONCE_KIB_MAX, connect_from, is_campaign, raise_open_files, setting};
use crate::harness::{App, Peak};
use crate::memory::large_film;

const STREAM_KIB_MAX: u64 = 128;
/// What is played in a step: 64 KiB a second.
const STEP: Duration = Duration::from_millis(250);
const STEP_BYTES: usize = 16 * KIB as usize;
/// What the kernel holds for a player: a second of it.
const RECEIVED_BYTES: u32 = 64 * 1024;
/// Loaded before a player begins; what comes later than this by the clock of the film makes it stop.
const AHEAD: Duration = Duration::from_secs(1);
const AHEAD_STEPS: usize = 4;
const ON_TIME_MIN: f64 = 0.999;

/// What players ask for, and what they should get.
struct Film {
    server: SocketAddr,
    path: String,
    whole: Bytes,
    segments: Vec<(String, Bytes)>,
}

impl Film {
    async fn made(app: &App, bytes: u64) -> Film {
        let alice = app.user("alice").await;
        let id = alice.upload(&large_film(app.folder.path(), bytes)).await;
        alice.until(&id, &["ready"], 300).await;
        let path = format!("/stream/videos/{id}");
        let whole = alice.get(&path).await.expect(200).body.into();
        let mut segments = Vec::new();
        for segment in alice.segments(&id).await {
            let bytes = alice.get(&segment).await.expect(200).body;
            segments.push((segment, bytes.into()));
        }
        Film { server: super::address(app), path, whole, segments }
    }

    /// What this viewer asks for, one after the other.
    fn plan(&self, viewer: usize, bytes: usize) -> VecDeque<Wanted> {
        if viewer.is_multiple_of(2) {
            let first = viewer * 7919 * KIB as usize % (self.whole.len() - bytes);
            return [Wanted::part(&self.path, &self.whole, first..self.whole.len())].into();
        }
        let turned = self.segments.iter().cycle().skip(viewer * 31 % self.segments.len());
        let mut plan = VecDeque::new();
        let mut planned = 0;
        for (path, segment) in turned {
            plan.push_back(Wanted::part(path, segment, 0..segment.len()));
            planned += segment.len();
            if planned >= bytes {
                break;
            }
        }
        plan
    }
}

struct Wanted {
    request: String,
    bytes: Bytes,
}

impl Wanted {
    fn part(path: &str, whole: &Bytes, range: Range<usize>) -> Wanted {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes={}-\r\n\r\n", range.start);
        Wanted { request, bytes: whole.slice(range) }
    }
}

/// A connection, and what is still to come on it.
struct Viewer {
    line: TcpStream,
    plan: VecDeque<Wanted>,
    coming: Bytes,
}

impl Viewer {
    /// The next bytes, which have to be the right ones.
    async fn read(&mut self, mut bytes: usize) {
        let mut block = [0; STEP_BYTES];
        while bytes > 0 {
            if self.coming.is_empty() {
                self.ask().await;
            }
            let wanted = bytes.min(self.coming.len()).min(block.len());
            let read = self.line.read(&mut block[..wanted]).await.unwrap();
            assert!(read > 0, "{} bytes are missing", self.coming.len());
            assert!(self.coming.split_to(read) == block[..read], "not the film's bytes");
            bytes -= read;
        }
    }

    async fn ask(&mut self) {
        let wanted = self.plan.pop_front().expect("the film is long enough");
        self.line.write_all(wanted.request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.line.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 206 "), "{}", String::from_utf8_lossy(&head));
        self.coming = wanted.bytes;
    }

    /// How late each step was by the clock that runs since the first byte; a player loads a little ahead of it.
    async fn watch(mut self, steps: usize) -> Vec<Duration> {
        self.read(1).await;
        let began = Instant::now();
        self.read(STEP_BYTES * AHEAD_STEPS - 1).await;
        let mut late = Vec::new();
        for step in 0..steps as u32 {
            tokio::time::sleep_until((began + STEP * step).into()).await;
            self.read(STEP_BYTES).await;
            late.push(began.elapsed().saturating_sub(STEP * step));
        }
        late
    }
}

async fn watch(film: &Film, viewer: usize, steps: usize) -> Vec<Duration> {
    let [_, _, high, low] = u32::try_from(viewer).unwrap().to_be_bytes();
    let client = Ipv4Addr::new(127, 1, high, low);
    // They do not all press the button at the same moment.
    tokio::time::sleep(STEP * 4 * (viewer as u32 % 97) / 97).await;
    let line = connect_from(client, film.server, RECEIVED_BYTES).await.unwrap();
    let plan = film.plan(viewer, (steps + AHEAD_STEPS) * STEP_BYTES);
    Viewer { line, plan, coming: Bytes::new() }.watch(steps).await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_viewers_cost_little_and_get_their_film_in_time() {
    raise_open_files();
    let viewers = setting("SLUICE_TEST_LOAD_STREAMS", 60) as usize;
    let steps = setting("SLUICE_TEST_LOAD_S", 3) as usize * 4;
    let places = (viewers + 100).max(2000).to_string();
    let app = App::with(&[("SLUICE_STREAMS_MAX", &places), ("SLUICE_VIEWS_FLUSH_S", "1")]).await;
    // Of more than they read: they are at different places of it.
    let film = Arc::new(Film::made(&app, 4 * (steps + AHEAD_STEPS) as u64 * STEP_BYTES as u64).await);
    join_all((0..20).map(|viewer| watch(&film, viewer, 1))).await;
    let before_kib = app.program.resident_kib();
    let peak = Peak::of(app.program.pid());
    let watching = (0..viewers).map(|viewer| {
        let film = film.clone();
        tokio::spawn(async move { watch(&film, viewer, steps).await })
    });
    let seen = join_all(watching).await;
    let grown_kib = peak.end().saturating_sub(before_kib);
    let late: Vec<Duration> = seen.into_iter().flat_map(Result::unwrap).collect();
    let on_time = late.iter().filter(|late| **late <= AHEAD).count() as f64 / late.len() as f64;
    println!(
        "{viewers} streams at 64 KiB/s for {} s: +{grown_kib} KiB resident, {:.1} KiB each; on time {:.3} %, the latest by {:.0?}",
        steps / 4,
        grown_kib as f64 / viewers as f64,
        on_time * 100.0,
        late.iter().max().unwrap()
    );
    assert!(
        grown_kib <= viewers as u64 * STREAM_KIB_MAX + ONCE_KIB_MAX * u64::from(!is_campaign()),
        "{grown_kib} KiB"
    );
    if is_campaign() {
        assert!(on_time >= ON_TIME_MIN, "{on_time}");
    }
    app.finish();
}

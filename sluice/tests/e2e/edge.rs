//! Debian's nginx with our configuration before two streamservers: a crowd on a film that nobody has watched yet.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Backends, Persona, Program, client_within, clips};
use crate::memory::large_film;
use futures::{StreamExt, stream};
use tempfile::TempDir;

const PURGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/nginx/purge");
const CONFIGURATION: &str = include_str!("../../../deploy/nginx/cache.conf");
const CROWD: usize = 1_000;
const CROWD_AT_ONCE: usize = 200;
const RANGE_BYTES: u64 = 100_000;
const COLD_FILM_BYTES: u64 = 12 << 20;
/// The sound's, and the last ones of files, which are smaller.
const OTHER_BLOCKS_MAX: u64 = 4;
const OTHER_FILM_BYTES: u64 = 1 << 20;
const CROWD_S_MAX: Duration = Duration::from_secs(60);
/// A second until the origins know, one that the cache may keep it, and one for a slow machine.
const GONE_MAX: Duration = Duration::from_secs(3);

/// One nginx on a port of its own; dropping it ends it.
struct Nginx {
    process: Child,
    base: String,
}

impl Nginx {
    /// `None`, said aloud, where there is none.
    async fn start(folder: &Path, origins: &[&str]) -> Option<Nginx> {
        if Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_err() {
            eprintln!("SKIPPED: no nginx; scripts/setup test installs it");
            return None;
        }
        let port = free_port();
        let servers: String = origins.iter().map(|origin| format!("server {origin}; ")).collect();
        let ours = CONFIGURATION
            .replace("/var/cache/nginx/sluice", &folder.join("cache").display().to_string())
            .replace("server 127.0.0.1:9000;", &servers)
            .replace("listen 8080;", &format!("listen 127.0.0.1:{port};"));
        let folder = folder.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {folder}/{kind};\n"))
            .concat();
        let whole = format!(
            "daemon off; worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/error.log info;\n\
             events {{ worker_connections 4096; }}\nhttp {{ access_log off; {temporary}{ours} }}\n{}",
            if rustix::process::geteuid().is_root() { "user root;\n" } else { "" }
        );
        let file = format!("{folder}/nginx.conf");
        std::fs::write(&file, whole).unwrap();
        let process = Command::new("nginx").args(["-p", &folder.to_string(), "-c", &file]).spawn().unwrap();
        let nginx = Nginx { process, base: format!("http://127.0.0.1:{port}") };
        let began = Instant::now();
        let client = client_within(CROWD_S_MAX);
        while client.get(&nginx.base).send().await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(10), "nginx does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Some(nginx)
    }

    /// As an operator would; what the script says.
    fn purge(folder: &Path, video: &str) -> String {
        let output =
            Command::new(PURGE).args([video, folder.join("cache").to_str().unwrap()]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.process),
            rustix::process::Signal::TERM,
        );
        let _ = self.process.wait();
    }
}

/// Services of their own behind nginx, streamservers two of them.
struct Edge {
    nginx: Nginx,
    origins: [Program; 2],
    _scheduler: Program,
    api: Program,
    backends: Backends,
    // Removed when all of them have ended.
    folder: TempDir,
}

impl Edge {
    /// `None`, said aloud, where there is no nginx.
    async fn start(backends: impl FnOnce(&Path) -> Backends) -> Option<Edge> {
        let folder = tempfile::tempdir().unwrap();
        let backends = backends(folder.path());
        let start = |name: &str, log: &str| Program::start(name, folder.path(), log, backends.settings());
        let (api, scheduler) = (start("api", "api"), start("scheduler", "scheduler"));
        let origins = [start("streamserver", "one"), start("streamserver", "two")];
        let addresses: Vec<&str> =
            origins.iter().map(|origin| origin.base.trim_start_matches("http://")).collect();
        let nginx = Nginx::start(folder.path(), &addresses).await?;
        Some(Edge { nginx, origins, _scheduler: scheduler, api, backends, folder })
    }

    /// An upload passes through, too. Answers with the video's id.
    async fn upload(&self, owner: &Persona, film: &Path) -> String {
        let video = owner.create("film").await;
        let id = video["id"].as_str().unwrap().to_owned();
        owner.at(&self.nginx.base).send_bytes(&id, std::fs::read(film).unwrap()).await.expect(201);
        id
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// How often each path was asked for of the origins, by their logs.
fn asked(origins: &[Program], below: &str) -> BTreeMap<String, usize> {
    let mut paths = BTreeMap::new();
    for line in origins.iter().flat_map(|origin| origin.log().lines().map(str::to_owned).collect::<Vec<_>>())
    {
        let Ok(line) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
        let path = line["path"].as_str().unwrap_or_default();
        if line["message"] == "request" && line["method"] == "GET" && path.starts_with(below) {
            *paths.entry(path.to_owned()).or_default() += 1;
        }
    }
    paths
}

#[tokio::test]
async fn a_crowd_behind_nginx_costs_the_origins_one_request_for_each_piece() {
    let Some(edge) = Edge::start(Backends::fresh).await else { return };
    let Edge { nginx, origins, folder, .. } = &edge;
    let alice = Persona::register(&edge.api.base, "alice").await;
    let id = &*edge.upload(&alice, &clips::h264(folder.path(), "clip.mp4", "1280x720", 8)).await;
    alice.until(id, &["ready"], 120).await;

    let direct = Persona::anonymous(&origins[0].base);
    let whole = direct.get(&format!("/stream/videos/{id}")).await.expect(200).body;
    let mut segments: Vec<(String, Vec<u8>)> = Vec::new();
    for path in direct.segments(id).await {
        let bytes = direct.get(&path).await.expect(200).body;
        segments.push((path, bytes));
    }
    let (publication, _) = segments[0].0.rsplit_once('/').unwrap();
    let before = asked(origins, publication);

    let client = client_within(CROWD_S_MAX);
    let viewers = (0..CROWD).map(|viewer| {
        let (path, expected) = &segments[viewer % segments.len()];
        let (client, url) = (client.clone(), format!("{}{path}", nginx.base));
        async move { client.get(url).send().await.unwrap().bytes().await.unwrap() == expected[..] }
    });
    let right: Vec<bool> = stream::iter(viewers).buffer_unordered(CROWD_AT_ONCE).collect().await;
    assert!(right.into_iter().all(|right| right));
    let after = asked(origins, publication);
    for (path, _) in &segments {
        assert_eq!(after[path] - before[path], 1, "{path}");
    }

    // A player that seeks: ranges of the film as one file, from slices of both replicas.
    let behind = Persona::anonymous(&nginx.base);
    let film_path = format!("/stream/videos/{id}");
    let length = whole.len();
    for (first, last) in
        [(0, 0), (5, 99_999), (length / 2, length - 1), (1_048_570.min(length - 2), length - 1)]
    {
        let answer = behind.get_range(&film_path, &format!("bytes={first}-{last}")).await.expect(206);
        assert!(answer.body == whole[first..=last], "{first}-{last}");
        assert_eq!(answer.header("content-range"), format!("bytes {first}-{last}/{length}"));
    }
    assert!(behind.get(&film_path).await.expect(200).body == whole);

    let errors = std::fs::read_to_string(folder.path().join("error.log")).unwrap();
    let complaints: Vec<&str> =
        errors.lines().filter(|line| line.contains("etag") || line.contains("[error]")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");

    let other = edge.upload(&alice, &large_film(folder.path(), OTHER_FILM_BYTES)).await;
    alice.until(&other, &["ready"], 120).await;
    let of_other = behind.segments(&other).await;
    for cached in ["MISS", "HIT"] {
        assert_eq!(behind.get(&of_other[0]).await.expect(200).header("x-cache"), cached);
    }

    // Deleted: gone from the cache, too, as soon as what names it has to be asked for again.
    let deleted = Instant::now();
    alice.delete(&format!("/api/videos/{id}")).await.expect(204);
    while behind.get(&film_path).await.status != 404 {
        assert!(deleted.elapsed() < GONE_MAX, "still there behind the cache");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // What never changes stays there for whoever knows its name, until it is thrown out: that alone, and all of it.
    let segment = &segments[0].0;
    direct.get(segment).await.expect(404);
    assert_eq!(behind.get(segment).await.expect(200).header("x-cache"), "HIT");
    assert!(Nginx::purge(folder.path(), id).contains(" files of "));
    behind.get(segment).await.expect(404);
    assert!(Nginx::purge(folder.path(), id).starts_with("nothing of "));
    assert_eq!(behind.get(&of_other[0]).await.expect(200).header("x-cache"), "HIT");
}

/// How many blocks the origins have fetched from the store.
async fn blocks_fetched(origins: &[Program]) -> u64 {
    let mut blocks = 0;
    for origin in origins {
        blocks += origin.metric("streamserver_cache_requests_total{result=\"miss\"}").await;
    }
    blocks
}

/// Segments and the film as one file lie in the same blocks, at other places.
#[tokio::test]
async fn a_crowd_behind_nginx_costs_the_store_one_read_for_each_block() {
    let Some(edge) = Edge::start(Backends::on_s3).await else { return };
    let Edge { nginx, origins, backends, folder, .. } = &edge;
    let alice = Persona::register(&edge.api.base, "alice").await;
    let id = &*edge.upload(&alice, &large_film(folder.path(), COLD_FILM_BYTES)).await;
    // Its storyboard is drawn from what is stored, too.
    let ready = alice.until_drawn(id, 120).await;
    let length = ready["renditions"][0]["size_bytes"].as_u64().unwrap();
    let fetched = blocks_fetched(origins).await;
    backends.take_reads();

    let segments = Persona::anonymous(&nginx.base).segments(id).await;
    let client = client_within(CROWD_S_MAX);
    let viewers = (0..CROWD as u64).map(|viewer| {
        let first = viewer * 104_729 % (length - RANGE_BYTES);
        let (path, range) = match viewer % 2 {
            0 => (segments[viewer as usize / 2 % segments.len()].clone(), None),
            _ => (format!("/stream/videos/{id}"), Some(format!("bytes={first}-{}", first + RANGE_BYTES - 1))),
        };
        let request = client.get(format!("{}{path}", nginx.base));
        let request = match &range {
            Some(range) => request.header("Range", range),
            None => request,
        };
        async move { (path, range, request.send().await.unwrap().bytes().await.unwrap()) }
    });
    let seen: Vec<_> = stream::iter(viewers).buffer_unordered(CROWD_AT_ONCE).collect().await;
    let fetched = blocks_fetched(origins).await - fetched;
    println!("{CROWD} clients on {length} bytes: {fetched} blocks from the store");
    assert!((length >> 20..=(length >> 20) + OTHER_BLOCKS_MAX).contains(&fetched), "{fetched} blocks");
    // Where the store can tell: these, and what is read whole by itself, such as the index.
    if let Some(told) = backends.take_reads() {
        let mut reads = BTreeMap::new();
        told.into_iter().for_each(|read| *reads.entry(read).or_insert(0) += 1);
        assert!(reads.values().all(|times| *times == 1), "{reads:#?}");
        assert!(reads.len() as u64 >= fetched, "{fetched} blocks: {reads:#?}");
    }

    let direct = Persona::anonymous(&origins[0].base);
    let whole = direct.get(&format!("/stream/videos/{id}")).await.expect(200).body;
    let mut pieces = BTreeMap::new();
    for (path, range, bytes) in seen {
        let first = range.map(|range| range[6..range.find('-').unwrap()].parse::<usize>().unwrap());
        match first {
            Some(first) => assert!(bytes == whole[first..first + RANGE_BYTES as usize], "{first}"),
            None => assert!(pieces.entry(path).or_insert_with(|| bytes.clone()) == &bytes),
        }
    }
    for (path, bytes) in pieces {
        assert!(direct.get(&path).await.expect(200).body == bytes, "{path}");
    }
}

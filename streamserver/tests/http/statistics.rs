//! Who is counted as a viewer, once a window, and what was sent; told to the database in batches.

use std::sync::{Arc, Mutex};

use chassis::Clock;
use domain::{VideoId, Visibility};
use metrics_exporter_prometheus::PrometheusBuilder;
use reqwest::{Method, Response};
use sql::{Call, Fault};
use store::Disk;

use crate::film::Film;
use crate::world::World;

/// The setting's default.
const WINDOW_MS: i64 = 1_800_000;

impl World {
    async fn counts(&self, video: VideoId) -> (u64, u64) {
        self.tell_statistics().await;
        let video = self.catalog.video(video, self.clock.now()).await.unwrap().unwrap();
        (video.views_count, video.served_bytes)
    }

    async fn views(&self, film: &Film) -> u64 {
        self.counts(film.video).await.0
    }

    /// As somebody with this browser; the bytes that came.
    async fn watch(&self, path: &str, browser: &str, headers: &[(&str, &str)]) -> usize {
        read(self.send(Method::GET, path, browser, headers).await).await
    }

    async fn send(&self, method: Method, path: &str, browser: &str, headers: &[(&str, &str)]) -> Response {
        let request = self.http.request(method, self.url(path)).header("user-agent", browser);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = request.send().await.unwrap();
        assert!(response.status().is_success() || response.status() == 304, "{path}");
        response
    }

    async fn ready_film(&self) -> (Film, String) {
        let alice = self.user("alice").await;
        let film = self.ready(&alice, Visibility::Public).await;
        let base = format!("/stream/videos/{}/{}", film.video, self.publication(film.video).await);
        (film, base)
    }
}

async fn read(response: Response) -> usize {
    response.bytes().await.unwrap().len()
}

#[tokio::test]
async fn a_view_is_more_than_the_beginning_of_the_film() {
    let (world, _): (World, Clock) = World::with_manual_clock().await;
    let (film, base) = world.ready_film().await;
    let whole = format!("/stream/videos/{}", film.video);
    let total = film.original.len();
    // 5 of 21 seconds.
    let preview = total * 5 / 21;
    let mut sent = 0;
    for (path, range) in [
        (whole.as_str(), "bytes=0-1"),
        (&whole, &format!("bytes=0-{}", preview - 1)),
        (&format!("{whole}?download=1"), ""),
        (&format!("{base}/original.video.init.mp4"), ""),
        (&format!("{base}/original.video.00001.mp4"), ""),
        (&format!("{base}/original.audio.00002.mp4"), ""),
    ] {
        let headers = if range.is_empty() { vec![] } else { vec![("range", range)] };
        sent += world.watch(path, "early", &headers).await;
    }
    world.watch(&format!("{base}/original.video.m3u8"), "early", &[]).await;
    world.watch(&format!("{whole}/cover.jpg"), "early", &[]).await;
    let second = format!("{base}/low.video.00002.mp4");
    let etag = {
        let head = world.send(Method::HEAD, &second, "early", &[]).await;
        head.headers()["etag"].to_str().unwrap().to_owned()
    };
    world.send(Method::HEAD, &whole, "early", &[]).await;
    world.watch(&second, "early", &[("if-none-match", &etag)]).await;
    assert_eq!(world.counts(film.video).await, (0, sent as u64), "none of these is a view");
    for header in ["sec-purpose", "purpose"] {
        sent += world.watch(&second, "early", &[(header, "prefetch;anonymous-client-ip")]).await;
    }
    assert_eq!(world.counts(film.video).await, (0, sent as u64), "nobody may ever look at it");

    let later = format!("bytes={preview}-{preview}");
    let end = format!("bytes={}-", total - 1);
    let ways = [(second.as_str(), ""), (&whole, ""), (&whole, &later), (&whole, &end)];
    for (n, (path, range)) in ways.into_iter().enumerate() {
        let headers = if range.is_empty() { vec![] } else { vec![("range", range)] };
        sent += world.watch(path, &format!("browser {n}"), &headers).await;
        assert_eq!(world.counts(film.video).await, (n as u64 + 1, sent as u64), "{path} {range}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_viewer_counts_once_in_a_window() {
    let (world, clock) = World::with_manual_clock().await;
    let (film, base) = world.ready_film().await;
    let segment = format!("{base}/low.video.00002.mp4");
    let (bob, carol) = (world.user("bob").await, world.user("carol").await);
    let bearer = |token: &str| format!("Bearer {token}");
    let watch = async |browser: &str, token: Option<&str>| {
        let token = token.map(bearer);
        let headers: Vec<_> = token.iter().map(|token| ("authorization", token.as_str())).collect();
        world.watch(&segment, browser, &headers).await;
    };
    watch("a", None).await;
    watch("a", None).await;
    assert_eq!(world.views(&film).await, 1);
    watch("b", None).await;
    watch("a", Some(&bob.token)).await;
    watch("b", Some(&bob.token)).await;
    watch("b", Some(&carol.token)).await;
    assert_eq!(
        world.views(&film).await,
        4,
        "two browsers at one address, and two people, whatever their browser"
    );

    clock.advance_ms(WINDOW_MS - 1);
    watch("a", None).await;
    assert_eq!(world.views(&film).await, 4);
    clock.advance_ms(1);
    watch("a", None).await;
    watch("a", None).await;
    assert_eq!(world.views(&film).await, 5);
    world.end().await;
}

#[tokio::test]
async fn what_was_not_told_is_told_at_the_end() {
    let (world, clock) = World::with_manual_clock().await;
    let (film, base) = world.ready_film().await;
    let sent = world.watch(&format!("{base}/low.video.00002.mp4"), "a", &[]).await;
    let seen = async || world.catalog.video(film.video, clock.now()).await.unwrap().unwrap().views_count;
    assert_eq!(seen().await, 0, "no request waits for the database");
    world.drain().await;
    assert_eq!(seen().await, 1);
    assert_eq!(world.counts(film.video).await, (1, sent as u64));
    world.end().await;
}

#[tokio::test]
async fn what_players_say_changes_no_answer() {
    let (world, _): (World, Clock) = World::with_manual_clock().await;
    let (film, base) = world.ready_film().await;
    let segment = format!("{base}/low.video.00002.mp4");
    let plain = world.send(Method::GET, &segment, "a", &[]).await;
    let etag = plain.headers()["etag"].clone();
    let bytes = plain.bytes().await.unwrap();
    let junk = ["CMCD=su%2Csid%3D%22x%22", "CMCD=", "CMCD=%ff%00", "CMCD=a&CMCD=b", "CMCD", "%zz=&&="];
    for query in junk {
        let answer =
            world.send(Method::GET, &format!("{segment}?{query}"), "a", &[("cmcd-status", ",,=")]).await;
        assert_eq!((answer.status().as_u16(), &answer.headers()["etag"]), (200, &etag), "{query}");
        assert!(answer.bytes().await.unwrap() == bytes, "{query}");
    }
    assert_eq!(world.views(&film).await, 1);
    world.end().await;
}

/// Recorded once in a process; every test has its own.
#[tokio::test]
async fn what_players_say_is_measured() {
    let buckets = PrometheusBuilder::new().set_buckets(&[0.25, 0.5, 1.0]).unwrap();
    let recorder = buckets.install_recorder().unwrap();
    let (world, clock) = World::with_manual_clock().await;
    let (film, base) = world.ready_film().await;
    let [first, second] = [1, 2].map(|number| format!("{base}/low.video.0000{number}.mp4"));
    let value = |name: &str| {
        let text = recorder.render();
        let found =
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok());
        found.unwrap_or_else(|| panic!("no `{name}` in {text}"))
    };

    // One player says it in the query and starts in 700 ms, the other in headers and in 300 ms.
    world.watch(&format!("{first}?CMCD=sid%3D%22a%22%2Csu"), "a", &[]).await;
    clock.advance_ms(400);
    let of_b = ("cmcd-session", "sid=\"b\"");
    world.watch(&first, "b", &[of_b, ("cmcd-request", "su")]).await;
    clock.advance_ms(300);
    world.watch(&second, "b", &[of_b]).await;
    world.watch(&format!("{second}?CMCD=sid%3D%22a%22"), "a", &[]).await;
    // Later the buffer of one runs dry. Somebody else says nothing at all.
    world.watch(&second, "b", &[of_b, ("cmcd-request", "su"), ("cmcd-status", "bs")]).await;
    world.watch(&second, "c", &[]).await;
    assert_eq!(world.views(&film).await, 3);

    assert_eq!(value("streamserver_cmcd_startup_seconds_count"), 2.0);
    assert_eq!(value("streamserver_cmcd_startup_seconds_sum"), 1.0);
    assert_eq!(value("streamserver_cmcd_startup_seconds_bucket{le=\"0.5\"}"), 1.0);
    let [starved, all] =
        ["streamserver_cmcd_starved_requests_total", "streamserver_cmcd_requests_total"].map(value);
    assert_eq!((starved, all), (1.0, 5.0), "one request in five");
    world.end().await;
}

#[tokio::test]
async fn a_database_that_is_away_hears_it_later() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Disk::open(&folder.path().join("store")).unwrap());
    let weather = Arc::new(Mutex::new(None));
    let now = weather.clone();
    let strikes = move |call| now.lock().unwrap().filter(|(at, _)| *at == call).map(|(_, fault)| fault);
    let world = World::build_under(folder, store, |catalog| catalog.under(strikes), |_| {}).await;
    let (film, base) = world.ready_film().await;
    let sent = world.watch(&format!("{base}/low.video.00002.mp4"), "a", &[]).await as u64;
    *weather.lock().unwrap() = Some((Call::Begin, Fault::Before));
    assert_eq!(world.counts(film.video).await, (0, 0));
    // It was taken, and nobody heard of it: the view is the same one, the bytes are there twice.
    *weather.lock().unwrap() = Some((Call::Commit, Fault::After));
    world.tell_statistics().await;
    *weather.lock().unwrap() = None;
    assert_eq!(world.counts(film.video).await, (1, 2 * sent));
    assert_eq!(world.counts(film.video).await, (1, 2 * sent), "told once");
    world.end().await;
}

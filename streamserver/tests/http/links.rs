//! A private film by its link: every address that an answer names opens with it, and nothing opens without.

use std::collections::BTreeSet;
use std::time::Duration;

use chassis::{Clock, Link, LinkKeys};
use domain::{VideoId, Visibility};
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode, Url};

use crate::film::Film;
use crate::world::{STREAM_URL, World, expect_problem};

const OLD_KEY: &str = "old:0123456789abcdef0123456789abcdef";
const NEW_KEY: &str = "new:fedcba9876543210fedcba9876543210";
const LINK_S: u64 = 3600;

/// An answer read to its end.
pub struct Got {
    pub status: StatusCode,
    headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Got {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Those that do not tell one answer from the next.
    pub fn lasting_headers(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        for name in ["x-request-id", "date", "server-timing"] {
            headers.remove(name);
        }
        headers
    }

    fn names_others(&self) -> bool {
        let kinds = [
            "application/vnd.apple.mpegurl",
            "application/dash+xml",
            "text/vtt; charset=utf-8",
            "application/json",
        ];
        kinds.contains(&self.header("content-type"))
    }
}

impl World {
    fn link(&self, video: VideoId) -> Link {
        self.link_keys.sign(video, self.clock.now(), LINK_S)
    }

    /// What `GET /api/videos/:vid/playback` names, with this behind it.
    fn entrances(&self, video: VideoId, query: &str) -> Vec<Url> {
        let files = [
            "/master.m3u8?",
            "/manifest.mpd?",
            "?",
            "/cover.jpg?",
            "/cover.webp?",
            "/storyboard.vtt?",
            "/storyboard.json?",
        ];
        let address =
            |file: &&str| self.url(&format!("/stream/videos/{video}{file}{query}")).parse().unwrap();
        files.iter().map(address).collect()
    }

    pub async fn fetch(&self, method: Method, url: &Url, headers: &[(&str, &str)]) -> Got {
        let request = self.http.request(method, url.clone());
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Got { status, headers, body: response.bytes().await.unwrap().to_vec() }
    }

    /// The entrances, all that they name, and all that is named there.
    pub async fn walk(&self, video: VideoId, query: &str) -> Vec<Url> {
        let mut found = self.entrances(video, query);
        let ranges = format!("/stream/videos/{video}/manifest.mpd?addressing=ranges&{query}");
        let ranges: Url = self.url(&ranges).parse().unwrap();
        let manifest = String::from_utf8(self.fetch(Method::GET, &ranges, &[]).await.body).unwrap();
        found.extend(named(&manifest).into_iter().map(|name| ranges.join(&name).unwrap()));
        let mut next = 0;
        while let Some(url) = found.get(next).cloned() {
            next += 1;
            let got = self.fetch(Method::GET, &url, &[]).await;
            assert_eq!(got.status, 200, "{url}");
            if got.names_others() {
                // Some players take no relative address.
                let text = String::from_utf8(got.body).unwrap().replace(STREAM_URL, &self.url(""));
                found.extend(named(&text).into_iter().map(|name| url.join(&name).unwrap()));
            }
        }
        found
    }

    pub async fn ready_with_storyboard(&self, visibility: Visibility) -> Film {
        let alice = self.user(&format!("alice{}", self.objects().await.len())).await;
        let film = self.ready(&alice, visibility).await;
        self.draw_storyboard(film.video).await;
        film
    }
}

/// Every address in a playlist, a manifest or a storyboard; of a track that a manifest names in one go, the first segment's.
fn named(text: &str) -> Vec<String> {
    if let Ok(storyboard) = serde_json::from_str::<serde_json::Value>(text) {
        return vec![storyboard["url"].as_str().unwrap().to_owned()];
    }
    if text.contains("<MPD") {
        let starts = [" initialization=\"", " media=\"", "<BaseURL>"];
        let addresses = starts.iter().flat_map(|start| text.split(start).skip(1));
        return addresses
            .map(|rest| {
                rest.split(['"', '<']).next().unwrap().replace("&amp;", "&").replace("$Number%05d$", "00001")
            })
            .collect();
    }
    let mut names = Vec::new();
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("URI=\"") {
            names.push(rest.split('"').next().unwrap().to_owned());
        } else if let Some((name, _)) = line.split_once("#xywh=") {
            names.push(name.to_owned());
        } else if text.starts_with("#EXTM3U") && !line.starts_with('#') {
            names.push(line.to_owned());
        }
    }
    names
}

fn with_query(url: &Url, query: Option<&str>) -> Url {
    let mut url = url.clone();
    url.set_query(query);
    url
}

/// The last bit that a signature has.
fn with_a_bit_changed(query: &str) -> String {
    let (rest, last) = query.split_at(query.len() - 1);
    let changed = if last == "A" { "E" } else { "A" };
    format!("{rest}{changed}")
}

#[tokio::test]
async fn a_link_opens_all_that_is_named_from_there_and_nothing_opens_without() {
    let (world, clock) = World::with_manual_clock().await;
    let film = world.ready_with_storyboard(Visibility::Private).await;
    let other = world.ready_with_storyboard(Visibility::Private).await;
    let link = world.link(film.video);
    let addresses = world.walk(film.video, link.query()).await;
    let ending = |ending: &str| {
        let paths: BTreeSet<&str> =
            addresses.iter().map(Url::path).filter(|path| path.ends_with(ending)).collect();
        paths.len()
    };
    // Three tracks of pictures and two of sound, each with a playlist, an init segment, four segments, and as one file.
    let found = [
        ".mpd",
        "storyboard.json",
        "storyboard.m3u8",
        "storyboard.jpg",
        "video.m3u8",
        "audio.m3u8",
        ".init.mp4",
        ".00004.mp4",
    ];
    assert_eq!(found.map(ending), [1, 1, 1, 1, 3, 2, 5, 5]);
    assert_eq!([ending("video.mp4"), ending("audio.mp4")], [3, 2]);
    for url in &addresses {
        assert_eq!(url.query(), Some(link.query()), "{url}");
        the_same_as_for_its_owner(&world, &film, url, &link).await;
    }

    let strange = world.link(other.video).query().to_owned();
    let changed = with_a_bit_changed(link.query());
    for url in &addresses {
        for query in [None, Some(strange.as_str()), Some(&changed), Some(""), Some("exp=9999999999&sig=k1.x")]
        {
            for method in [Method::GET, Method::HEAD] {
                let got = world.fetch(method, &with_query(url, query), &[("range", "bytes=0-1")]).await;
                assert_eq!((got.status.as_u16(), got.header("cache-control")), (404, "no-store"), "{url}");
            }
        }
    }

    clock.advance_ms(link.expires_at.ms_since(clock.now()) - 1);
    assert_eq!(world.fetch(Method::GET, &addresses[0], &[]).await.status, 200);
    clock.advance_ms(1 + 5 * 60_000);
    for url in &addresses {
        let problem =
            expect_problem(world.http.get(url.clone()).send().await.unwrap(), 403, "link-expired").await;
        assert_eq!(problem["server_time"], clock.now().to_rfc3339());
        assert_eq!(problem["expired_at"], link.expires_at.to_rfc3339());
        assert!(problem["detail"].as_str().unwrap().contains("expired 5 min ago"), "{problem}");
        assert_eq!(world.fetch(Method::HEAD, url, &[]).await.status, 403);
        // Who changed it has none that was ever good.
        let wrong = with_query(url, Some(&changed));
        assert_eq!(world.fetch(Method::GET, &wrong, &[]).await.status, 404);
        let own = ("authorization", format!("Bearer {}", film.owner.token));
        assert_eq!(world.fetch(Method::GET, url, &[(own.0, &own.1)]).await.status, 200, "a token is enough");
    }
    world.end().await;
}

async fn the_same_as_for_its_owner(world: &World, film: &Film, url: &Url, link: &Link) {
    let got = world.fetch(Method::GET, url, &[]).await;
    let bearer = format!("Bearer {}", film.owner.token);
    let own = world.fetch(Method::GET, &with_query(url, None), &[("authorization", &bearer)]).await;
    assert_eq!((got.status, own.status), (StatusCode::OK, StatusCode::OK), "{url}");
    assert_eq!(got.header("content-type"), own.header("content-type"));
    assert_eq!(got.header("content-length"), got.body.len().to_string());
    let left_s = link.left_s(world.clock.now());
    let points = [
        "",
        "/master.m3u8",
        "/manifest.mpd",
        "/cover.jpg",
        "/cover.webp",
        "/storyboard.vtt",
        "/storyboard.json",
        "/storyboard.m3u8",
    ]
    .map(|file| format!("/stream/videos/{}{file}", film.video))
    .contains(&url.path().to_owned());
    let max_age = format!("max-age={}", if points { 1 } else { left_s });
    assert_eq!(got.header("cache-control"), format!("private, {max_age}"), "{url}");
    assert_eq!(own.header("cdn-cache-control"), "");
    if got.names_others() {
        let (text, plain) =
            (String::from_utf8(got.body.clone()).unwrap(), String::from_utf8(own.body.clone()).unwrap());
        let text = text.replace("&amp;", "&");
        assert_eq!(text.replace(&format!("?{}", link.query()), ""), plain);
        assert_eq!(text.matches(link.query()).count(), named(&plain).len());
        assert_eq!(got.header("cdn-cache-control"), "no-store", "{url}: written for one alone");
        assert_ne!(got.header("etag"), own.header("etag"));
    } else {
        assert!(got.body == own.body, "{url}");
        assert_eq!(got.header("cdn-cache-control"), max_age, "{url}: the same for all");
        assert_eq!(got.header("etag"), own.header("etag"));
    }
    let head = world.fetch(Method::HEAD, url, &[]).await;
    assert_eq!((head.status, head.header("etag")), (StatusCode::OK, got.header("etag")));
    assert_eq!(head.header("content-length"), got.body.len().to_string());
    let fresh = world.fetch(Method::GET, url, &[("if-none-match", got.header("etag"))]).await;
    assert_eq!((fresh.status.as_u16(), fresh.header("cache-control")), (304, got.header("cache-control")));
    assert_eq!(fresh.header("cdn-cache-control"), got.header("cdn-cache-control"));
    if got.header("accept-ranges") == "bytes" {
        let part = world.fetch(Method::GET, url, &[("range", "bytes=1-3")]).await;
        assert_eq!((part.status.as_u16(), &part.body[..]), (206, &got.body[1..4]), "{url}");
    }
}

#[tokio::test]
async fn links_of_an_older_key_work_while_it_is_listed() {
    let keys = |text: &str| LinkKeys::parse(text).unwrap();
    let open = async |text: &str| -> Vec<u16> {
        let (world, clock) = World::with_link_keys(keys(text)).await;
        let film = world.ready_with_storyboard(Visibility::Private).await;
        let mut statuses = Vec::new();
        for key in [OLD_KEY, NEW_KEY] {
            let link = keys(key).sign(film.video, clock.now(), LINK_S);
            for url in world.entrances(film.video, link.query()) {
                statuses.push(world.fetch(Method::GET, &url, &[]).await.status.as_u16());
            }
        }
        statuses.dedup();
        world.end().await;
        statuses
    };
    assert_eq!(open(OLD_KEY).await, [200, 404]);
    assert_eq!(open(&format!("{NEW_KEY},{OLD_KEY}")).await, [200]);
    assert_eq!(open(NEW_KEY).await, [404, 200]);
}

#[tokio::test]
async fn a_deleted_film_is_gone_for_those_with_a_link_too() {
    let (world, clock) = World::with_manual_clock().await;
    let film = world.ready_with_storyboard(Visibility::Private).await;
    let link = world.link(film.video);
    let addresses = world.walk(film.video, link.query()).await;
    world.delete(film.video, 0).await;
    // What was cached a moment ago is asked for again.
    let gone = async { while world.fetch(Method::GET, &addresses[0], &[]).await.status != 404 {} };
    tokio::time::timeout(Duration::from_secs(5), gone).await.expect("it is gone soon");
    for after_ms in [0, LINK_S as i64 * 2000] {
        clock.advance_ms(after_ms);
        for url in &addresses {
            expect_problem(world.http.get(url.clone()).send().await.unwrap(), 404, "not-found").await;
        }
    }
    world.end().await;
}

#[tokio::test]
async fn a_public_film_is_the_same_with_a_link_with_a_stale_one_and_with_junk() {
    let (world, clock) = World::with_manual_clock().await;
    let film = world.ready_with_storyboard(Visibility::Public).await;
    let link = world.link(film.video);
    let junk = ["exp=1&sig=k1.AAAA", "exp=&sig=", "sig=%00&exp=%zz&sig", "?&&=&exp"];
    for late_ms in [0, LINK_S as i64 * 2000] {
        clock.advance_ms(late_ms);
        for query in junk.iter().copied().chain([link.query()]) {
            for url in world.entrances(film.video, query) {
                let (got, plain) = (
                    world.fetch(Method::GET, &url, &[]).await,
                    world.fetch(Method::GET, &with_query(&url, None), &[]).await,
                );
                assert_eq!(got.status, 200, "{url}");
                assert!(got.body == plain.body, "{url}: what everybody gets is kept for everybody");
                assert_eq!(got.header("cache-control"), "public, max-age=1");
                assert_eq!(got.header("etag"), plain.header("etag"));
            }
        }
    }
    world.end().await;
}

#[tokio::test]
async fn what_began_while_a_link_was_good_comes_to_its_end() {
    let (world, clock): (World, Clock) = World::with_manual_clock().await;
    let alice = world.user("alice").await;
    // Longer than the buffers between us hold.
    let film = world.playable_of(&alice, Visibility::Private, 40_000_000).await;
    let link = world.link(film.video);
    let url = world.url(&format!("/stream/videos/{}?{}", film.video, link.query()));
    let mut flowing = world.http.get(&url).send().await.unwrap();
    let mut bytes = flowing.chunk().await.unwrap().unwrap().len();
    clock.advance_ms(LINK_S as i64 * 2000);
    expect_problem(world.http.get(&url).send().await.unwrap(), 403, "link-expired").await;
    while let Some(chunk) = flowing.chunk().await.unwrap() {
        bytes += chunk.len();
    }
    assert_eq!(bytes, film.original.len());
    world.end().await;
}

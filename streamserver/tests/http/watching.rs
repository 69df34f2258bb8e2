//! `http-api` §4, as far as it is built.

use std::io::Read;
use std::time::{Duration, Instant};

use domain::{CoverFormat, Role, VideoId, Visibility};
use m3u8_rs::{MasterPlaylist, MediaPlaylist, Playlist, VariantStream};
use reqwest::header::RANGE;

use crate::film::{Film, SECONDS, cover};
use crate::world::{STREAM_URL, World, expect_problem};

pub const IMMUTABLE: &str = "public, max-age=31536000, immutable";

impl World {
    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.http.get(self.url(path)).send().await.unwrap()
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
        let request = self.http.get(self.url(path));
        headers
            .iter()
            .fold(request, |request, (name, value)| request.header(*name, *value))
            .send()
            .await
            .unwrap()
    }

    pub async fn master(&self, video: VideoId) -> MasterPlaylist {
        let response = self.get(&format!("/stream/videos/{video}/master.m3u8")).await;
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "content-type"), "application/vnd.apple.mpegurl");
        match m3u8_rs::parse_playlist_res(&response.bytes().await.unwrap()) {
            Ok(Playlist::MasterPlaylist(master)) => master,
            other => panic!("{other:?}"),
        }
    }

    /// `uri` as a master playlist names it.
    pub async fn media(&self, video: VideoId, uri: &str) -> MediaPlaylist {
        let response = self.get(&format!("/stream/videos/{video}/{uri}")).await;
        assert_eq!(response.status(), 200, "{uri}");
        assert_eq!(header(&response, "cache-control"), IMMUTABLE);
        match m3u8_rs::parse_playlist_res(&response.bytes().await.unwrap()) {
            Ok(Playlist::MediaPlaylist(media)) => media,
            other => panic!("{other:?}"),
        }
    }
}

/// Without those of keyframes alone.
pub fn streams(master: &MasterPlaylist) -> Vec<&VariantStream> {
    master.variants.iter().filter(|variant| !variant.is_i_frame).collect()
}

pub fn header<'a>(response: &'a reqwest::Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

fn folder(uri: &str) -> &str {
    uri.rsplit_once('/').unwrap().0
}

#[tokio::test]
async fn the_progressive_file_and_its_headers() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let film = world.playable(&alice, Visibility::Public).await;
    let path = format!("/stream/videos/{}", film.video);

    let response = world.get_with(&path, &[("origin", "https://elsewhere.example")]).await;
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "content-type"), "video/mp4");
    assert_eq!(header(&response, "content-length"), film.original.len().to_string());
    assert_eq!(header(&response, "accept-ranges"), "bytes");
    assert_eq!(header(&response, "x-content-type-options"), "nosniff");
    assert!(header(&response, "content-security-policy").contains("sandbox"));
    assert!(header(&response, "content-security-policy").contains("default-src 'none'"));
    assert_eq!(header(&response, "access-control-allow-origin"), "*");
    let exposed = header(&response, "access-control-expose-headers").to_ascii_lowercase();
    assert!(
        ["content-range", "content-length", "etag"].iter().all(|name| exposed.contains(name)),
        "{exposed}"
    );
    assert_eq!(header(&response, "cache-control"), "public, max-age=1");
    assert!(!response.headers().contains_key("set-cookie"));
    assert!(!response.headers().contains_key("content-disposition"));
    let (etag, modified) =
        (header(&response, "etag").to_owned(), header(&response, "last-modified").to_owned());
    assert!(etag.starts_with('"'), "{etag}");
    assert!(response.bytes().await.unwrap() == film.original);

    let head = world.http.head(world.url(&path)).header(RANGE, "bytes=0-1").send().await.unwrap();
    assert_eq!(head.status(), 200);
    assert_eq!(header(&head, "content-length"), film.original.len().to_string());
    assert_eq!(header(&head, "etag"), etag);

    for condition in [("if-none-match", &etag), ("if-modified-since", &modified)] {
        let response = world.get_with(&path, &[(condition.0, condition.1)]).await;
        assert_eq!(response.status(), 304, "{condition:?}");
        assert_eq!(header(&response, "etag"), etag);
        assert_eq!(header(&response, "cache-control"), "public, max-age=1");
        assert!(response.bytes().await.unwrap().is_empty());
    }
    expect_problem(world.get_with(&path, &[("if-match", "\"other\"")]).await, 412, "precondition-failed")
        .await;
    world.end().await;
}

#[tokio::test]
async fn ranges_of_the_progressive_file() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let film = world.playable(&alice, Visibility::Public).await;
    let path = format!("/stream/videos/{}", film.video);
    let total = film.original.len();
    let etag = header(&world.get(&path).await, "etag").to_owned();

    for (range, start, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, total),
        ("bytes=10-20", 10, 21),
        ("bytes=-5", total - 5, total),
        ("bytes=1999000-99999999999999999999", 1_999_000, total),
        ("bytes=13-600000", 13, 600_001),
    ] {
        let response = world.get_with(&path, &[("range", range)]).await;
        assert_eq!(response.status(), 206, "{range}");
        assert_eq!(header(&response, "content-range"), format!("bytes {start}-{}/{total}", end - 1));
        assert_eq!(header(&response, "content-length"), (end - start).to_string());
        assert_eq!(header(&response, "content-type"), "video/mp4");
        assert_eq!(header(&response, "etag"), etag);
        assert!(response.bytes().await.unwrap() == film.original[start..end], "{range}");
    }
    for range in ["bytes=-0", &format!("bytes={total}-"), "bytes=9999999999999999999999999-"] {
        let response = world.get_with(&path, &[("range", range)]).await;
        assert_eq!(header(&response, "content-range"), format!("bytes */{total}"));
        expect_problem(response, 416, "range-not-satisfiable").await;
    }
    let many = format!("bytes={}", (0..1000).map(|i| format!("{}-,", i)).collect::<String>());
    for range in ["bytes=5-2", "x=0-1", "bytes=0-5,3-9", &many] {
        let response = world.get_with(&path, &[("range", range)]).await;
        assert_eq!(response.status(), 200, "{range}");
        assert!(response.bytes().await.unwrap() == film.original);
    }
    // If-Range: the tag of what is there, and that of something else.
    let response = world.get_with(&path, &[("range", "bytes=0-1"), ("if-range", &etag)]).await;
    assert_eq!(response.status(), 206);
    let response = world.get_with(&path, &[("range", "bytes=0-1"), ("if-range", "\"stale\"")]).await;
    assert_eq!(response.status(), 200);
    world.end().await;
}

#[tokio::test]
async fn several_ranges_in_one_answer() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let film = world.playable(&alice, Visibility::Public).await;
    let total = film.original.len();
    let path = format!("/stream/videos/{}", film.video);
    let response = world.get_with(&path, &[("range", "bytes=5-9, 0-1,-3")]).await;
    assert_eq!(response.status(), 206);
    let content_type = header(&response, "content-type").to_owned();
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let length: usize = header(&response, "content-length").parse().unwrap();
    let body = response.bytes().await.unwrap();
    assert_eq!(body.len(), length);
    let mut expected = Vec::new();
    for (start, end) in [(5, 10), (0, 2), (total - 3, total)] {
        let head = format!(
            "\r\n--{boundary}\r\nContent-Type: video/mp4\r\nContent-Range: bytes {start}-{}/{total}\r\n\r\n",
            end - 1
        );
        expected.extend_from_slice(head.as_bytes());
        expected.extend_from_slice(&film.original[start..end]);
    }
    expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert!(body == expected);
    world.end().await;
}

#[tokio::test]
async fn renditions_by_name_and_the_nearest_of_a_missing_one() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let mut film = world.playable(&alice, Visibility::Public).await;
    let path = |wanted: &str| format!("/stream/videos/{}{wanted}", film.video);
    let etag = header(&world.get(&path("")).await, "etag").to_owned();
    for wanted in ["", "?rendition=original", "?rendition=medium", "?rendition=low"] {
        assert!(world.get(&path(wanted)).await.bytes().await.unwrap() == film.original, "{wanted}");
    }
    assert_eq!(world.get(&path("?rendition=best")).await.status(), 400);
    let paths = ["", "?rendition=original", "?rendition=medium", "?rendition=low"].map(path);
    world.assemble(&mut film).await;
    until(|| async { world.get(&paths[3]).await.bytes().await.unwrap() == film.low }).await;
    assert!(world.get(&paths[2]).await.bytes().await.unwrap() == film.medium);
    for path in &paths[..2] {
        let response = world.get(path).await;
        assert_eq!(header(&response, "etag"), etag, "the same bytes keep their tag");
        assert!(response.bytes().await.unwrap() == film.original);
    }
    world.end().await;
}

#[tokio::test]
async fn the_lowest_rung_stands_in_for_an_original_that_is_being_encoded() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let mut film = world.encoded_low(&alice).await;
    let path = |wanted: &str| format!("/stream/videos/{}{wanted}", film.video);
    let paths = ["", "?rendition=original", "?rendition=medium", "?rendition=low"].map(path);
    for path in &paths {
        let response = world.get(path).await;
        assert_eq!(header(&response, "cache-control"), "public, max-age=1", "{path}: for now");
        assert!(response.bytes().await.unwrap() == film.low, "{path}");
    }
    let before = world.get(&paths[1]).await;
    let (etag, modified) = (header(&before, "etag").to_owned(), header(&before, "last-modified").to_owned());
    let older = world.publication(film.video).await;
    let gone = world.get(&format!("/stream/videos/{}/{older}/original.video.m3u8", film.video)).await;
    assert_eq!((gone.status().as_u16(), header(&gone, "cache-control")), (404, "no-store"));
    let master = world.master(film.video).await;
    assert_eq!((streams(&master).len(), master.alternatives.len()), (1, 1));
    let variant = &master.variants[0];
    world.media(film.video, &variant.uri).await;

    world.encode_original(&mut film).await;
    until(|| async { world.get(&paths[1]).await.bytes().await.unwrap() == film.original }).await;
    let expected = [&film.original, &film.original, &film.medium, &film.low];
    for (path, expected) in paths.iter().zip(expected) {
        assert!(world.get(path).await.bytes().await.unwrap() == expected, "{path}");
    }
    // Whoever kept the stand-in gets the real one, whole.
    for (name, value) in [("if-none-match", &etag), ("if-modified-since", &modified)] {
        assert_eq!(world.get_with(&paths[1], &[(name, value)]).await.status(), 200, "{name}");
        assert_eq!(
            world.get_with(&paths[3], &[(name, value)]).await.status(),
            304,
            "{name}: the same as ever"
        );
    }
    for part in [&etag, &modified] {
        let rest = world.get_with(&paths[1], &[("range", "bytes=10-"), ("if-range", part)]).await;
        assert_eq!(rest.status(), 200, "never two renditions in one file: {part}");
    }
    until(|| async { streams(&world.master(film.video).await).len() > 1 }).await;
    let master = world.master(film.video).await;
    assert_eq!((streams(&master).len(), master.alternatives.len()), (3, 1), "the sound is the same for all");
    for uri in master.variants.iter().map(|variant| &variant.uri) {
        world.media(film.video, uri).await;
    }
    // Whoever began goes on.
    world.media(film.video, &variant.uri).await;
    world.end().await;
}

#[tokio::test]
async fn other_codecs_are_served_to_who_asks_for_them_by_name_and_to_nobody_else() {
    use domain::RenditionName::{LowAv1, MediumHevc};
    let world = World::new().await;
    let alice = world.user("alice").await;
    let mut film = world.playable(&alice, Visibility::Public).await;
    let path = |wanted: &str| format!("/stream/videos/{}{wanted}", film.video);
    let (av1, hevc) = (path("?rendition=low-av1"), path("?rendition=medium-hevc"));
    let others = ["", "?rendition=low-hevc", "?rendition=high-av1", "?rendition=lowest"].map(path);
    let bytes = world.assemble_with(&mut film, &[LowAv1, MediumHevc]).await;
    until(|| async { world.get(&av1).await.bytes().await.unwrap() == bytes[0] }).await;
    assert!(world.get(&hevc).await.bytes().await.unwrap() == bytes[1]);
    for (path, expected) in others.iter().zip([&film.original, &film.low, &film.medium, &film.low]) {
        assert!(world.get(path).await.bytes().await.unwrap() == expected, "{path}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_download_is_named_after_its_title() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let film = world.playable(&alice, Visibility::Public).await;
    let response = world.get(&format!("/stream/videos/{}?download=1", film.video)).await;
    assert_eq!(
        header(&response, "content-disposition"),
        "attachment; filename=\"Sea & Sand.mp4\"; filename*=UTF-8''Sea%20&%20Sand.mp4"
    );
    assert!(response.bytes().await.unwrap() == film.original);
    world.end().await;
}

#[tokio::test]
async fn hls_from_the_master_to_the_last_byte() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let film = world.ready(&alice, Visibility::Public).await;
    let master = world.master(film.video).await;
    assert!(master.independent_segments);
    let uris: Vec<&str> = streams(&master).iter().map(|v| v.uri.rsplit_once('/').unwrap().1).collect();
    assert_eq!(uris, ["medium.video.m3u8", "original.video.m3u8", "low.video.m3u8"], "2 Mbit/s first");
    let groups: Vec<&str> = master.alternatives.iter().map(|group| group.group_id.as_str()).collect();
    assert_eq!(groups, ["audio-original", "audio-medium"], "one group for each distinct track");

    let mut targets = Vec::new();
    let mut boundaries = Vec::new();
    let audio = master.alternatives.iter().map(|group| group.uri.clone().unwrap());
    for uri in streams(&master).iter().map(|variant| variant.uri.clone()).chain(audio) {
        let media = world.media(film.video, &uri).await;
        targets.push(media.target_duration);
        boundaries
            .push(media.segments.iter().map(|s| (s.duration * 1000.0).round() as u64).collect::<Vec<_>>());
        let total_s: f32 = media.segments.iter().map(|segment| segment.duration).sum();
        assert!((total_s - SECONDS as f32).abs() < 0.1);
        let base = format!("/stream/videos/{}/{}", film.video, folder(&uri));
        let map = world.get(&format!("{base}/{}", media.segments[0].map.as_ref().unwrap().uri)).await;
        assert!(map.text().await.unwrap().starts_with("init "));
        let mut bytes = 0;
        for segment in &media.segments {
            assert!(segment.uri.ends_with(".mp4"));
            let response = world.get(&format!("{base}/{}", segment.uri)).await;
            assert_eq!(response.status(), 200);
            assert_eq!(header(&response, "cache-control"), IMMUTABLE);
            let kind = if uri.contains("audio") { "audio/mp4" } else { "video/mp4" };
            assert_eq!(header(&response, "content-type"), kind);
            let length: usize = header(&response, "content-length").parse().unwrap();
            let body = response.bytes().await.unwrap();
            assert_eq!(body.len(), length);
            bytes += length;
        }
        assert!(bytes > 100_000);
    }
    assert!(targets.iter().all(|target| *target == 6), "{targets:?}");
    assert_eq!(boundaries[0], [3000, 6000, 6000, 6000], "one GOP, then about six seconds");
    assert!(boundaries.iter().all(|found| *found == boundaries[0]), "{boundaries:?}");
    world.end().await;
}

/// Apple's rules 6.1, 6.2 and 6.8.
#[tokio::test]
async fn keyframes_are_the_beginnings_of_fragments() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let film = world.ready(&alice, Visibility::Public).await;
    let master = world.master(film.video).await;
    let of_keyframes: Vec<_> = master.variants.iter().filter(|variant| variant.is_i_frame).collect();
    assert_eq!(of_keyframes.len(), streams(&master).len());
    for variant in of_keyframes {
        let media = world.media(film.video, &variant.uri).await;
        assert!(media.i_frames_only && media.end_list);
        assert_eq!(media.target_duration, 6, "as in the other playlists");
        let total_s: f32 = media.segments.iter().map(|segment| segment.duration).sum();
        assert!((total_s - SECONDS as f32).abs() < 0.1);
        let base = format!("/stream/videos/{}/{}", film.video, folder(&variant.uri));
        let map = world.get(&format!("{base}/{}", media.segments[0].map.as_ref().unwrap().uri)).await;
        assert!(map.text().await.unwrap().starts_with("init "));
        let mut bytes = 0;
        for keyframe in &media.segments {
            let range = keyframe.byte_range.as_ref().unwrap();
            let (from, to) = (range.offset.unwrap(), range.offset.unwrap() + range.length - 1);
            let headers = [("range", &*format!("bytes={from}-{to}"))];
            let response = world.get_with(&format!("{base}/{}", keyframe.uri), &headers).await;
            assert_eq!(response.status(), 206);
            bytes += response.bytes().await.unwrap().len() as u64;
        }
        let average_bps = 8 * bytes / SECONDS;
        assert!((average_bps..=average_bps + 1).contains(&variant.average_bandwidth.unwrap()));
        // The first segment has but one fragment.
        let range = media.segments[0].byte_range.as_ref().unwrap();
        let (from, to) = (range.offset.unwrap(), range.offset.unwrap() + range.length - 1);
        let file = format!("{base}/{}", media.segments[0].uri);
        let first =
            world.get_with(&file, &[("range", &format!("bytes={from}-{to}"))]).await.bytes().await.unwrap();
        let segment =
            world.get(&format!("{base}/{}", media.segments[0].uri.replace(".mp4", ".00001.mp4"))).await;
        assert!(segment.bytes().await.unwrap().starts_with(&first));
    }
    world.end().await;
}

#[tokio::test]
async fn segments_are_the_bytes_their_layout_names() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let film = world.playable(&alice, Visibility::Public).await;
    let publication = world.publication(film.video).await;
    let base = format!("/stream/videos/{}/{publication}", film.video);
    // By reference: `moof` inline, then three times nine tenths of a second of the upload.
    let source = &film.original[b"ftyp moov mdat".len()..];
    let second = source.len() / SECONDS as usize;
    let mut expected = b"moof video 0".to_vec();
    for s in 0..3 {
        expected.extend_from_slice(&source[s * second + second / 10..s * second + second]);
    }
    let path = format!("{base}/original.video.00001.mp4");
    let response = world.get(&path).await;
    let etag = header(&response, "etag").to_owned();
    assert!(response.bytes().await.unwrap() == expected);
    let part = world.get_with(&path, &[("range", "bytes=5-100000")]).await;
    assert_eq!(part.status(), 206);
    assert!(part.bytes().await.unwrap() == expected[5..=100_000]);
    assert_eq!(world.get_with(&path, &[("if-none-match", &etag)]).await.status(), 304);

    for missing in [
        "original.video.00000.mp4",
        "original.video.00099.mp4",
        "original.video.1.mp4",
        "low.video.m3u8",
        "x",
        "source",
    ] {
        expect_problem(world.get(&format!("{base}/{missing}")).await, 404, "not-found").await;
    }
    let other = world.playable(&alice, Visibility::Public).await;
    let mixed = format!("/stream/videos/{}/{publication}/original.video.m3u8", other.video);
    expect_problem(world.get(&mixed).await, 404, "not-found").await;
    let unknown: domain::PublicationId = world.id();
    let unknown = format!("/stream/videos/{}/{unknown}/original.video.m3u8", film.video);
    expect_problem(world.get(&unknown).await, 404, "not-found").await;
    let malformed = format!("/stream/videos/{}/nonsense/original.video.m3u8", film.video);
    expect_problem(world.get(&malformed).await, 400, "invalid-id").await;
    world.end().await;
}

#[tokio::test]
async fn who_began_on_an_older_publication_may_go_on() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let mut film = world.playable(&alice, Visibility::Public).await;
    let older = world.publication(film.video).await;
    world.assemble(&mut film).await;
    assert_ne!(world.publication(film.video).await, older);
    let path = format!("/stream/videos/{}/{older}/original.video.00002.mp4", film.video);
    assert_eq!(world.get(&path).await.status(), 200);
    world.end().await;
}

#[tokio::test]
async fn playlists_are_gzipped_for_those_who_take_it() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let film = world.playable(&alice, Visibility::Public).await;
    let path = format!("/stream/videos/{}/master.m3u8", film.video);
    let plain = world.get(&path).await;
    assert!(header(&plain, "vary").to_ascii_lowercase().contains("accept-encoding"));
    assert_eq!(header(&plain, "cache-control"), "public, max-age=1");
    let plain_tag = header(&plain, "etag").to_owned();
    let text = plain.text().await.unwrap();
    let gzipped = world.get_with(&path, &[("accept-encoding", "gzip")]).await;
    assert_eq!(header(&gzipped, "content-encoding"), "gzip");
    let gzip_tag = header(&gzipped, "etag").to_owned();
    assert_ne!(gzip_tag, plain_tag);
    let length: usize = header(&gzipped, "content-length").parse().unwrap();
    let body = gzipped.bytes().await.unwrap();
    assert_eq!(body.len(), length);
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut unpacked).unwrap();
    assert_eq!(unpacked, text);
    let again = world.get_with(&path, &[("accept-encoding", "gzip"), ("if-none-match", &gzip_tag)]).await;
    assert_eq!(again.status(), 304);
    world.end().await;
}

#[tokio::test]
async fn covers_in_the_nearest_width() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let film = world.playable(&alice, Visibility::Public).await;
    for (file, width, format) in [
        ("cover.jpg", 240, CoverFormat::Jpeg),
        ("cover.jpg?w=120", 120, CoverFormat::Jpeg),
        ("cover.jpg?w=720", 240, CoverFormat::Jpeg),
        ("cover.webp?w=1", 120, CoverFormat::Webp),
        ("cover.webp", 240, CoverFormat::Webp),
    ] {
        let path = format!("/stream/videos/{}/{file}", film.video);
        let response = world.get(&path).await;
        assert_eq!(response.status(), 200, "{file}");
        let kind = if format == CoverFormat::Jpeg { "image/jpeg" } else { "image/webp" };
        assert_eq!(header(&response, "content-type"), kind);
        let etag = header(&response, "etag").to_owned();
        assert!(response.bytes().await.unwrap() == cover(width, format), "{file}");
        assert_eq!(world.get_with(&path, &[("if-none-match", &etag)]).await.status(), 304);
        let head = world.http.head(world.url(&path)).send().await.unwrap();
        assert_eq!(header(&head, "content-length"), cover(width, format).len().to_string());
    }
    assert_eq!(world.get(&format!("/stream/videos/{}/cover.jpg?w=x", film.video)).await.status(), 400);
    world.end().await;
}

#[tokio::test]
async fn a_storyboard_names_its_sprite() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let film = world.ready(&alice, Visibility::Public).await;
    let json = format!("/stream/videos/{}/storyboard.json", film.video);
    expect_problem(world.get(&json).await, 404, "not-found").await;
    let path = format!("/stream/videos/{}/storyboard.vtt", film.video);
    expect_problem(world.get(&path).await, 404, "not-found").await;
    let attempt = world.draw_storyboard(film.video).await;
    // What was cached a moment ago is asked for again.
    let there = async { while world.get(&path).await.status() == 404 {} };
    tokio::time::timeout(Duration::from_secs(10), there).await.expect("it is there soon");

    let cues = world.get(&path).await;
    assert_eq!(header(&cues, "content-type"), "text/vtt; charset=utf-8");
    assert_eq!(header(&cues, "cache-control"), "public, max-age=1");
    let text = cues.text().await.unwrap();
    let name = text.lines().find_map(|line| line.split_once("#xywh=")).unwrap().0;
    let path = format!("/stream/videos/{}/{name}", film.video);
    let sprite = world.get(&path).await;
    assert_eq!(header(&sprite, "content-type"), "image/jpeg");
    assert_eq!(header(&sprite, "cache-control"), IMMUTABLE);
    let etag = header(&sprite, "etag").to_owned();
    assert!(sprite.bytes().await.unwrap() == crate::film::sprite());
    assert_eq!(world.get_with(&path, &[("if-none-match", &etag)]).await.status(), 304);
    let head = world.http.head(world.url(&path)).send().await.unwrap();
    assert_eq!(header(&head, "content-length"), crate::film::sprite().len().to_string());

    let path = format!("/stream/videos/{}/storyboard.json", film.video);
    let json = world.get(&path).await;
    assert_eq!(header(&json, "content-type"), "application/json");
    assert_eq!(header(&json, "cache-control"), "public, max-age=1");
    let etag = header(&json, "etag").to_owned();
    assert_eq!(world.get_with(&path, &[("if-none-match", &etag)]).await.status(), 304);
    let storyboard: serde_json::Value = serde_json::from_str(&json.text().await.unwrap()).unwrap();
    assert_eq!(
        storyboard,
        serde_json::json!({
            "url": format!("{STREAM_URL}/stream/videos/{}/{name}", film.video),
            "tile_width": 160, "tile_height": 90, "duration": 21.0,
            "tiles": [{"start": 0.0, "x": 0, "y": 0}],
        })
    );

    let other = world.ready(&alice, Visibility::Public).await;
    world.draw_storyboard(other.video).await;
    for elsewhere in [
        format!("/stream/videos/{}/{attempt}/storyboard.jpg", other.video),
        format!("/stream/videos/{}/{}/storyboard.jpg", film.video, world.publication(film.video).await),
        format!("/stream/videos/{}/storyboard.jpg", film.video),
    ] {
        expect_problem(world.get(&elsewhere).await, 404, "not-found").await;
    }
    world.end().await;
}

#[tokio::test]
async fn a_master_playlist_names_the_storyboard_once_it_is_drawn() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let film = world.ready(&alice, Visibility::Public).await;
    let folder = format!("/stream/videos/{}", film.video);
    let (master, pictures) = (format!("{folder}/master.m3u8"), format!("{folder}/storyboard.m3u8"));
    expect_problem(world.get(&pictures).await, 404, "not-found").await;
    let before = world.get(&master).await;
    let etag = header(&before, "etag").to_owned();
    assert!(!before.text().await.unwrap().contains("IMAGE"));
    let attempt = world.draw_storyboard(film.video).await;
    // What was cached a moment ago is asked for again.
    let there = async { while header(&world.get(&master).await, "etag") == etag {} };
    tokio::time::timeout(Duration::from_secs(10), there).await.expect("it is there soon");
    let text = world.get(&master).await.text().await.unwrap();
    let bandwidth = (8 * crate::film::sprite().len() as u64).div_ceil(SECONDS);
    let line = format!("BANDWIDTH={bandwidth},CODECS=\"jpeg\",RESOLUTION=160x90,URI=\"storyboard.m3u8\"");
    assert!(text.ends_with(&format!("#EXT-X-IMAGE-STREAM-INF:{line}\n")), "{text}");
    assert_eq!(streams(&world.master(film.video).await).len(), 3, "other players find what they look for");

    let response = world.get(&pictures).await;
    assert_eq!(header(&response, "content-type"), "application/vnd.apple.mpegurl");
    assert_eq!(header(&response, "cache-control"), "public, max-age=1");
    let etag = header(&response, "etag").to_owned();
    assert_eq!(world.get_with(&pictures, &[("if-none-match", &etag)]).await.status(), 304);
    let zipped = world.get_with(&pictures, &[("accept-encoding", "gzip")]).await;
    assert_eq!(header(&zipped, "content-encoding"), "gzip");
    let text = response.text().await.unwrap();
    let tiles = format!("RESOLUTION=160x90,LAYOUT=1x1,DURATION={SECONDS}.000000");
    let ending = format!("#EXT-X-TILES:{tiles}\n{attempt}/storyboard.jpg\n#EXT-X-ENDLIST\n");
    assert!(text.ends_with(&ending), "{text}");
    world.end().await;
}

/// Every address of a film that a viewer may know.
async fn addresses(world: &World, film: &Film) -> Vec<String> {
    let publication = world.publication(film.video).await;
    let storyboard = world.draw_storyboard(film.video).await;
    let video = format!("/stream/videos/{}", film.video);
    vec![
        format!("{video}/storyboard.vtt"),
        format!("{video}/storyboard.json"),
        format!("{video}/storyboard.m3u8"),
        format!("{video}/{storyboard}/storyboard.jpg"),
        video.clone(),
        format!("{video}?rendition=low&download=1"),
        format!("{video}/master.m3u8"),
        format!("{video}/manifest.mpd"),
        format!("{video}/manifest.mpd?addressing=ranges"),
        format!("{video}/cover.jpg"),
        format!("{video}/cover.webp?w=120"),
        format!("{video}/{publication}/original.video.m3u8"),
        format!("{video}/{publication}/original.audio.m3u8"),
        format!("{video}/{publication}/original.video.keyframes.m3u8"),
        format!("{video}/{publication}/original.video.init.mp4"),
        format!("{video}/{publication}/original.video.mp4"),
        format!("{video}/{publication}/original.video.00001.mp4"),
        format!("{video}/{publication}/original.audio.00002.mp4"),
    ]
}

#[tokio::test]
async fn a_private_film_is_its_owners_alone() {
    let world = World::new().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let admin = world.person("root", Role::Admin).await;
    let film = world.ready(&alice, Visibility::Private).await;
    for path in addresses(&world, &film).await {
        expect_problem(world.get(&path).await, 404, "not-found").await;
        let as_person = |token: &str| world.http.get(world.url(&path)).bearer_auth(token).send();
        expect_problem(as_person(&bob.token).await.unwrap(), 404, "not-found").await;
        for person in [&film.owner, &admin] {
            let response = as_person(&person.token).await.unwrap();
            assert_eq!(response.status(), 200, "{path}");
            assert_eq!(header(&response, "cache-control"), "private, no-store");
        }
        expect_problem(as_person("nonsense").await.unwrap(), 401, "unauthorized").await;
    }
    world.end().await;
}

#[tokio::test]
async fn an_unlisted_film_is_for_those_who_know_it() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let film = world.ready(&alice, Visibility::Unlisted).await;
    for path in addresses(&world, &film).await {
        assert_eq!(world.get(&path).await.status(), 200, "{path}");
    }
    world.end().await;
}

#[tokio::test]
async fn what_cannot_be_watched_is_not_there() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let waiting = world.video(&alice, Visibility::Public).await;
    let unknown: VideoId = world.id();
    for video in [waiting, unknown] {
        for file in [
            "",
            "/master.m3u8",
            "/manifest.mpd",
            "/cover.jpg",
            "/cover.webp",
            "/storyboard.vtt",
            "/storyboard.json",
            "/storyboard.m3u8",
        ] {
            let path = format!("/stream/videos/{video}{file}");
            expect_problem(world.get(&path).await, 404, "not-found").await;
            let own = world.http.get(world.url(&path)).bearer_auth(&alice.token).send().await.unwrap();
            expect_problem(own, 404, "not-found").await;
        }
    }
    for path in
        ["/stream/videos/nonsense", "/stream/videos/..%2f..%2fx/master.m3u8", "/stream/videos/%00/cover.jpg"]
    {
        expect_problem(world.get(path).await, 400, "invalid-id").await;
    }
    let patch = world.http.patch(world.url(&format!("/stream/videos/{waiting}"))).send().await.unwrap();
    let allowed = header(&patch, "allow").to_owned();
    assert!(["GET", "HEAD", "POST", "PUT"].iter().all(|method| allowed.contains(method)), "{allowed}");
    expect_problem(patch, 405, "method-not-allowed").await;
    world.end().await;
}

#[tokio::test]
async fn a_deleted_film_is_gone_within_a_second_everywhere() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    for after_ms in [0, 700] {
        let film = world.ready(&alice, Visibility::Public).await;
        let addresses = addresses(&world, &film).await;
        for path in &addresses {
            assert_eq!(world.get(path).await.status(), 200, "{path}");
        }
        world.delete(film.video, after_ms).await;
        let due = Instant::now() + Duration::from_millis(after_ms as u64);
        until(|| async {
            let mut all_gone = true;
            for path in &addresses {
                // An answer that has just begun may break off, even before its head is sent.
                let answer = world.http.get(world.url(path)).send().await;
                all_gone &= answer.is_ok_and(|answer| answer.status() == 404);
            }
            all_gone
        })
        .await;
        assert!(due.elapsed() < Duration::from_secs(1), "{:?}", due.elapsed());
    }
    world.end().await;
}

#[tokio::test]
async fn an_answer_that_still_flows_breaks_off_when_its_film_is_deleted() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let film = world.playable_of(&alice, Visibility::Public, 40_000_000).await;
    let path = format!("/stream/videos/{}", film.video);
    // Its body is longer than the buffers between us hold.
    let mut flowing = world.get(&path).await;
    assert!(flowing.chunk().await.unwrap().is_some());
    world.delete(film.video, 0).await;
    until(|| async { world.get(&path).await.status() == 404 }).await;
    let end = loop {
        match flowing.chunk().await {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert!(end.is_err(), "the whole film came although it was deleted");
    world.end().await;
}

#[tokio::test]
async fn places_run_out_and_come_back() {
    let world = World::with_limits(|limits| limits.streams_max = 1).await;
    let alice = world.user("alice").await;
    let film = world.playable_of(&alice, Visibility::Public, 40_000_000).await;
    let path = format!("/stream/videos/{}", film.video);
    // Its body is longer than the buffers between us hold, so its place is taken until it is read.
    let mut first = world.get(&path).await;
    assert!(first.chunk().await.unwrap().is_some());
    let second = world.get_with(&path, &[("range", "bytes=0-1")]).await;
    assert!(second.headers().contains_key("retry-after"));
    expect_problem(second, 503, "overloaded").await;
    // HEAD and 304 need no place.
    assert_eq!(world.http.head(world.url(&path)).send().await.unwrap().status(), 200);
    drop(first);
    until(|| async { world.get_with(&path, &[("range", "bytes=0-1")]).await.status() == 206 }).await;
    world.end().await;
}

/// Asks again until it is so.
async fn until<F: Future<Output = bool>>(condition: impl Fn() -> F) {
    let met = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), met).await.expect("it becomes so in time");
}

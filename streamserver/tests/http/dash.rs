//! The manifest, and tracks as files: the same bytes as HLS names them.

use std::time::Duration;

use bytes::Bytes;
use dash_mpd_core::{MPD, Representation};
use domain::{VideoId, Visibility};
use mp4_atom::{Decode, Sidx};

use crate::film::{Film, SECONDS};
use crate::watching::{IMMUTABLE, header, streams};
use crate::world::{World, expect_problem};

impl World {
    async fn manifest(&self, video: VideoId, query: &str) -> MPD {
        let response = self.get(&format!("/stream/videos/{video}/manifest.mpd{query}")).await;
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "content-type"), "application/dash+xml");
        assert_eq!(header(&response, "cache-control"), "public, max-age=1");
        let text = response.text().await.unwrap();
        dash_mpd_core::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    /// `uri` as a manifest or playlist of the video names it.
    async fn below(&self, video: VideoId, uri: &str) -> Bytes {
        let response = self.get(&format!("/stream/videos/{video}/{uri}")).await;
        assert_eq!(response.status(), 200, "{uri}");
        assert_eq!(header(&response, "cache-control"), IMMUTABLE);
        let kind = if uri.contains(".audio.") { "audio/mp4" } else { "video/mp4" };
        assert_eq!(header(&response, "content-type"), kind);
        response.bytes().await.unwrap()
    }

    async fn range(&self, video: VideoId, uri: &str, range: &str) -> Bytes {
        let headers = [("range", &*format!("bytes={range}"))];
        let response = self.get_with(&format!("/stream/videos/{video}/{uri}"), &headers).await;
        assert_eq!(response.status(), 206, "{uri} {range}");
        response.bytes().await.unwrap()
    }

    /// Everything that the media playlists name, in their order.
    async fn hls_segments(&self, film: &Film) -> Vec<String> {
        let master = self.master(film.video).await;
        let audio = master.alternatives.iter().filter_map(|group| group.uri.clone());
        let mut names = Vec::new();
        for uri in streams(&master).iter().map(|variant| variant.uri.clone()).chain(audio) {
            let folder = uri.rsplit_once('/').unwrap().0.to_owned();
            let media = self.media(film.video, &uri).await;
            names.push(format!("{folder}/{}", media.segments[0].map.as_ref().unwrap().uri));
            names.extend(media.segments.iter().map(|segment| format!("{folder}/{}", segment.uri)));
        }
        names
    }
}

fn representations(mpd: &MPD) -> Vec<&Representation> {
    mpd.periods[0].adaptations.iter().flat_map(|set| &set.representations).collect()
}

/// What a client asks for, with the ticks that each segment is said to last.
fn named(representation: &Representation) -> (String, Vec<(String, u64)>) {
    let template = representation.SegmentTemplate.as_ref().unwrap();
    let media = template.media.as_ref().unwrap();
    let timeline = template.SegmentTimeline.as_ref().unwrap();
    let lasting = timeline.segments.iter().flat_map(|s| vec![s.d; 1 + s.r.unwrap_or(0) as usize]);
    let numbered = (template.startNumber.unwrap()..).zip(lasting);
    let segments =
        numbered.map(|(number, ticks)| (media.replace("$Number%05d$", &format!("{number:05}")), ticks));
    (template.initialization.clone().unwrap(), segments.collect())
}

#[tokio::test]
async fn a_manifest_names_the_segments_that_hls_names() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let film = world.ready(&alice, Visibility::Public).await;
    let mpd = world.manifest(film.video, "").await;
    assert_eq!(mpd.mpdtype.as_deref(), Some("static"));
    assert_eq!(mpd.mediaPresentationDuration.unwrap().as_secs_f64(), SECONDS as f64);
    let sets: Vec<_> = mpd.periods[0]
        .adaptations
        .iter()
        .map(|set| (set.contentType.as_deref().unwrap(), set.representations.len()))
        .collect();
    assert_eq!(sets, [("video", 3), ("audio", 2)]);
    let mut all = Vec::new();
    for representation in representations(&mpd) {
        let (init, segments) = named(representation);
        let timescale = representation.SegmentTemplate.as_ref().unwrap().timescale.unwrap();
        let lasting: Vec<u64> = segments.iter().map(|(_, ticks)| ticks / timescale).collect();
        assert_eq!(lasting, [3, 6, 6, 6], "{:?}", representation.id);
        let mut bytes = 0;
        for (uri, _) in &segments {
            bytes += world.below(film.video, uri).await.len() as u64;
        }
        let average_bps = 8 * bytes / SECONDS;
        let said = representation.bandwidth.unwrap();
        assert!((average_bps..2 * average_bps).contains(&said), "{said} where {average_bps} are needed");
        world.below(film.video, &init).await;
        all.push(init);
        all.extend(segments.into_iter().map(|(uri, _)| uri));
    }
    let mut hls = world.hls_segments(&film).await;
    all.sort();
    hls.sort();
    assert_eq!(all, hls);
    world.end().await;
}

#[tokio::test]
async fn segments_are_the_ranges_that_a_tracks_index_names() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let film = world.ready(&alice, Visibility::Public).await;
    let (by_name, by_range) =
        (world.manifest(film.video, "").await, world.manifest(film.video, "?addressing=ranges").await);
    let (named_tracks, tracks) = (representations(&by_name), representations(&by_range));
    assert_eq!(tracks.len(), 5);
    for (track, same) in tracks.iter().zip(named_tracks) {
        assert_eq!(track.id, same.id);
        let (init, segments) = named(same);
        let file = &track.BaseURL[0].base;
        let base = track.SegmentBase.as_ref().unwrap();
        let head = base.Initialization.as_ref().unwrap().range.as_deref().unwrap();
        assert!(world.range(film.video, file, head).await == world.below(film.video, &init).await);
        let index = base.indexRange.as_deref().unwrap();
        let mut sidx = &world.range(film.video, file, index).await[..];
        let sidx = Sidx::decode(&mut sidx).unwrap();
        assert_eq!(Some(u64::from(sidx.timescale)), base.timescale);
        assert_eq!(sidx.references.len(), segments.len());
        let mut at = index.rsplit_once('-').unwrap().1.parse::<u64>().unwrap() + 1;
        for (reference, (uri, ticks)) in sidx.references.iter().zip(&segments) {
            assert_eq!(u64::from(reference.subsegment_duration), *ticks);
            let end = at + u64::from(reference.referenced_size);
            let part = world.range(film.video, file, &format!("{at}-{}", end - 1)).await;
            assert!(part == world.below(film.video, uri).await, "{uri}");
            at = end;
        }
        let whole = world.below(film.video, file).await;
        assert_eq!(whole.len() as u64, at, "nothing behind the last segment");
        assert!(whole[whole.len() - 7..] == world.range(film.video, file, "-7").await);
    }
    world.end().await;
}

#[tokio::test]
async fn a_manifest_is_kept_and_zipped_as_a_playlist_is() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let film = world.playable(&alice, Visibility::Public).await;
    let path = format!("/stream/videos/{}/manifest.mpd", film.video);
    let ranges = format!("{path}?addressing=ranges");
    let mut tags = Vec::new();
    for path in [&path, &ranges] {
        for accepted in ["identity", "gzip"] {
            let response = world.get_with(path, &[("accept-encoding", accepted)]).await;
            assert!(header(&response, "vary").to_ascii_lowercase().contains("accept-encoding"));
            assert_eq!(header(&response, "content-encoding") == "gzip", accepted == "gzip");
            let tag = header(&response, "etag").to_owned();
            let again = world.get_with(path, &[("accept-encoding", accepted), ("if-none-match", &tag)]).await;
            assert_eq!(again.status(), 304);
            tags.push(tag);
        }
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 4, "{tags:?}");
    expect_problem(world.get(&format!("{path}?addressing=telepathy")).await, 400, "bad-request").await;
    for missing in ["low.video.mp4", "original.video.mp4.mp4", "original.mp4", "medium.audio.mp4"] {
        let path = format!("/stream/videos/{}/{}/{missing}", film.video, world.publication(film.video).await);
        expect_problem(world.get(&path).await, 404, "not-found").await;
    }
    world.end().await;
}

#[tokio::test]
async fn a_manifest_shows_the_storyboard_once_it_is_drawn() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let film = world.ready(&alice, Visibility::Public).await;
    let path = format!("/stream/videos/{}/manifest.mpd", film.video);
    let before = header(&world.get(&path).await, "etag").to_owned();
    let attempt = world.draw_storyboard(film.video).await;
    // What was cached a moment ago is asked for again.
    let there = async { while header(&world.get(&path).await, "etag") == before {} };
    tokio::time::timeout(Duration::from_secs(10), there).await.expect("it is there soon");
    for query in ["", "?addressing=ranges"] {
        let mpd = world.manifest(film.video, query).await;
        let sprite = mpd.periods[0].adaptations.last().unwrap().representations.last().unwrap();
        let template = sprite.SegmentTemplate.as_ref().unwrap();
        assert_eq!(template.media, Some(format!("{attempt}/storyboard.jpg")));
        assert_eq!(template.duration.unwrap() / template.timescale.unwrap() as f64, SECONDS as f64);
        assert_eq!(sprite.bandwidth, Some((8 * crate::film::sprite().len() as u64).div_ceil(SECONDS)));
    }
    world.end().await;
}

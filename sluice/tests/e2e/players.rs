//! What other people's players make of a film: in browsers, and FFmpeg.

use m3u8_rs::{MediaPlaylist, Playlist};
use mp4_atom::{Decode, Moof, Sidx};
use serde_json::json;

use crate::clients::{node, run};
use crate::harness::{App, Persona, clips, probe};

const SEED: &str = "20261122";
const READY_S_MAX: u64 = 120;
/// Of what is announced to what is measured (Apple's rules 1.26 and 1.27).
const RATE_ERROR_MAX: f64 = 0.1;

#[tokio::test(flavor = "multi_thread")]
async fn players_play_seek_switch_and_show_pictures() {
    let app = App::start().await;
    let ada = app.user("ada").await;
    let clip = clips::h264(app.folder.path(), "film.mp4", "1280x720", 30);
    let (public, private) = (ready(&ada, &clip, "public").await, ready(&ada, &clip, "private").await);
    // They wait for time to go by, more than for anything else.
    let (public, private) = tokio::join!(watched(&ada, &public), watched(&ada, &private));
    assert_eq!(public, 6, "each player with each manifest that it reads");
    assert_eq!(private, 7, "and one with a token");
    app.finish();
}

/// By how many in Chromium. All of them show all of it, and so does Firefox.
async fn watched(owner: &Persona, id: &str) -> usize {
    let walk = |name: &str| {
        let mut walk = node(name);
        walk.args([&owner.base, owner.token.as_deref().unwrap(), SEED, id]);
        run(walk)
    };
    let seen = walk("players.mjs").await;
    for line in &seen {
        println!("{line}");
        let shown: Vec<u64> = line["shown"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
        assert!([720, 480, 360].iter().all(|height| shown.contains(height)), "{line}");
        assert!((line["duration_s"].as_f64().unwrap() - 30.0).abs() < 0.1, "{line}");
        assert_eq!(
            (line["seeks"].as_u64(), line["pictures"].as_array().unwrap().len()),
            (Some(20), 3),
            "{line}"
        );
    }
    let line = &walk("firefox.mjs").await[0];
    println!("{line}");
    assert_eq!((line["seeks"].as_u64(), line["shown"][0].as_u64()), (Some(20), Some(720)), "{line}");
    seen.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_reads_every_manifest_and_every_part_is_what_it_is_said_to_be() {
    let app = App::start().await;
    let ada = app.user("ada").await;
    let clip = clips::h264(app.folder.path(), "film.mp4", "1280x720", 12);
    let id = ready(&ada, &clip, "public").await;
    let film = format!("{}/stream/videos/{id}", app.base());
    for manifest in ["master.m3u8", "manifest.mpd", "manifest.mpd?addressing=ranges"] {
        let probed = probe::ffprobe(&format!("{film}/{manifest}"));
        assert_eq!(probed.frames(), 360, "{manifest}");
        assert!(probed.stream("audio").is_some(), "{manifest}");
        probe::decodes(&format!("{film}/{manifest}"));
    }
    let anyone = app.anonymous();
    let text = anyone.get(&format!("/stream/videos/{id}/master.m3u8")).await.expect(200).text();
    let Ok(Playlist::MasterPlaylist(master)) = m3u8_rs::parse_playlist_res(text.as_bytes()) else {
        panic!("{text}")
    };
    assert!(!text.contains("VIDEO-RANGE"), "all of it is SDR (Apple's rule 9.16)");
    let (keyframes, streams): (Vec<_>, Vec<_>) = master.variants.iter().partition(|one| one.is_i_frame);
    assert_eq!((streams.len(), keyframes.len()), (3, 3));
    for stream in streams {
        let group = stream.audio.as_deref().unwrap();
        let sound = master.alternatives.iter().find(|one| one.group_id == group).unwrap();
        let pictures = Track::get(&anyone, &id, &stream.uri).await;
        let sound = Track::get(&anyone, &id, sound.uri.as_deref().unwrap()).await;
        for track in [&pictures, &sound] {
            track.is_its_index(&anyone).await;
        }
        let near = |said: u64, measured: f64| (said as f64 / measured - 1.0).abs() <= RATE_ERROR_MAX;
        let average_bps = pictures.average_bps() + sound.average_bps();
        assert!(near(stream.average_bandwidth.unwrap(), average_bps), "{stream:?}: {average_bps}");
        let peak_bps = pictures.peak_bps() + sound.peak_bps();
        assert!(near(stream.bandwidth, peak_bps), "{stream:?}: {peak_bps}");
    }
    for playlist in keyframes {
        each_is_one_picture(&anyone, &app, &id, &playlist.uri).await;
    }
    app.finish();
}

async fn ready(owner: &Persona, clip: &std::path::Path, visibility: &str) -> String {
    let video = json!({"title": "film", "visibility": visibility});
    let video = owner.post("/api/videos", &video).await.expect(201).json();
    let id = video["id"].as_str().unwrap().to_owned();
    owner.send_bytes(&id, std::fs::read(clip).unwrap()).await.expect(201);
    owner.until_drawn(&id, READY_S_MAX).await;
    id
}

/// A track as its playlist names it, and its segments.
struct Track {
    /// Of the folder that the playlist lies in.
    folder: String,
    name: String,
    playlist: MediaPlaylist,
    segments: Vec<Vec<u8>>,
}

impl Track {
    async fn get(anyone: &Persona, id: &str, uri: &str) -> Track {
        let playlist = media(anyone, id, uri).await;
        let (folder, name) = uri.rsplit_once('/').unwrap();
        let folder = format!("/stream/videos/{id}/{folder}");
        let mut segments = Vec::new();
        for segment in &playlist.segments {
            segments.push(anyone.get(&format!("{folder}/{}", segment.uri)).await.expect(200).body);
        }
        Track { folder, name: name.replace(".m3u8", ".mp4"), playlist, segments }
    }

    fn seconds(&self) -> impl Iterator<Item = f64> {
        self.playlist.segments.iter().map(|segment| f64::from(segment.duration))
    }

    fn average_bps(&self) -> f64 {
        let bytes: usize = self.segments.iter().map(Vec::len).sum();
        8.0 * bytes as f64 / self.seconds().sum::<f64>()
    }

    /// Of segments that are at least half a target duration long, or of all where there are none.
    fn peak_bps(&self) -> f64 {
        let half_s = self.playlist.target_duration as f64 / 2.0;
        let long = self.segments.iter().zip(self.seconds()).filter(|(_, seconds)| *seconds >= half_s);
        long.map(|(bytes, seconds)| 8.0 * bytes.len() as f64 / seconds).fold(self.average_bps(), f64::max)
    }

    /// Init segment, `sidx` and segments, byte for byte; the index leads to fragments that begin when it says so.
    async fn is_its_index(&self, anyone: &Persona) {
        let whole = anyone.get(&format!("{}/{}", self.folder, self.name)).await.expect(200).body;
        let init = self.playlist.segments[0].map.as_ref().unwrap();
        let init = anyone.get(&format!("{}/{}", self.folder, init.uri)).await.expect(200).body;
        let rest = whole.strip_prefix(&init[..]).expect("the file begins with its init segment");
        let mut behind = rest;
        let sidx = Sidx::decode(&mut behind).expect("then comes the index");
        assert!(behind == self.segments.concat(), "then come the segments");
        assert_eq!(sidx.references.len(), self.segments.len());
        let mut offsets = Vec::new();
        let mut shown_at = sidx.earliest_presentation_time;
        for (reference, segment) in sidx.references.iter().zip(&self.segments) {
            assert_eq!(reference.referenced_size as usize, segment.len());
            assert!(reference.starts_with_sap && reference.sap_type == 1);
            let moof = Moof::decode(&mut &segment[..]).expect("a segment begins with a fragment");
            let decoded_at = moof.traf[0].tfdt.as_ref().unwrap().base_media_decode_time;
            offsets.push(decoded_at as i64 - shown_at as i64);
            shown_at += u64::from(reference.subsegment_duration);
        }
        // Decoding has a clock of its own, which runs as fast. The first segment may be cut where the film starts.
        assert!(offsets[1..].iter().all(|offset| *offset == offsets[1]), "{}: {offsets:?}", self.name);
    }
}

async fn media(anyone: &Persona, id: &str, uri: &str) -> MediaPlaylist {
    let body = anyone.get(&format!("/stream/videos/{id}/{uri}")).await.expect(200).body;
    match m3u8_rs::parse_playlist_res(&body) {
        Ok(Playlist::MediaPlaylist(media)) => media,
        other => panic!("{other:?}"),
    }
}

/// What a playlist of keyframes names, decoded behind its init segment.
async fn each_is_one_picture(anyone: &Persona, app: &App, id: &str, uri: &str) {
    let playlist = media(anyone, id, uri).await;
    let folder = format!("/stream/videos/{id}/{}", uri.rsplit_once('/').unwrap().0);
    let init = playlist.segments[0].map.as_ref().unwrap();
    let init = anyone.get(&format!("{folder}/{}", init.uri)).await.expect(200).body;
    assert_eq!(playlist.segments.len(), 6, "one every two seconds");
    for keyframe in &playlist.segments {
        let range = keyframe.byte_range.as_ref().unwrap();
        let (from, to) = (range.offset.unwrap(), range.offset.unwrap() + range.length - 1);
        let bytes =
            anyone.get_range(&format!("{folder}/{}", keyframe.uri), &format!("bytes={from}-{to}")).await;
        let file = app.folder.path().join("keyframe.mp4");
        std::fs::write(&file, [&init[..], &bytes.expect(206).body].concat()).unwrap();
        assert_eq!(probe::ffprobe(file.to_str().unwrap()).frames(), 1, "{uri} {range:?}");
    }
}

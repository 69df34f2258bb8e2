//! A film that browsers cannot play: its smallest rung is watched while the others are made.

use std::path::Path;

use crate::harness::{App, Persona, clips, probe};

/// So that the others take their time.
const SLOW: [(&str, &str); 2] = [("SLUICE_ENCODE_X264_PRESET", "slower"), ("SLUICE_ENCODE_CHUNK_S", "2")];

#[tokio::test]
async fn a_clip_in_hevc_is_playable_before_its_original_is_encoded() {
    let app = App::with(&SLOW).await;
    let clip = clips::hevc(app.folder.path(), "clip.mp4", "1280x720", 5);
    playable_before_ready(&app, &clip, (640, 360), (1280, 720)).await;
    app.finish();
}

#[tokio::test]
async fn a_real_clip_in_hevc_is_playable_before_its_original_is_encoded() {
    let Some(folder) = clips::media_dir() else { return };
    let app = App::with(&SLOW).await;
    playable_before_ready(&app, &folder.join("hevc8_vfr_960x540.mov"), (426, 240), (960, 540)).await;
    app.finish();
}

async fn playable_before_ready(app: &App, clip: &Path, low: (u64, u64), original: (u64, u64)) {
    let alice = app.user("alice").await;
    let id = alice.upload(clip).await;
    let seen = alice.until(&id, &["playable"], 120).await;
    let states: Vec<_> = seen["renditions"].as_array().unwrap().iter().map(|r| &r["state"]).collect();
    assert_eq!(states, ["pending", "pending", "ready"], "{seen:#}");
    alice.get(&format!("/stream/videos/{id}/cover.jpg")).await.expect(200);
    // Whatever is asked for is answered with what is there, and kept by nobody.
    let path = |rendition: &str| format!("/stream/videos/{id}?rendition={rendition}");
    let url = |rendition: &str| format!("{}{}", app.base(), path(rendition));
    let before = alice.get(&path("original")).await.expect(200);
    assert_eq!(before.header("cache-control"), "public, max-age=1");
    assert_eq!(before.body, alice.get(&path("low")).await.expect(200).body);
    assert_eq!(variants_and_sounds(&alice, &id).await, (1, 1));
    let first = probe::ffprobe(&format!("{}/stream/videos/{id}/master.m3u8", app.base()));
    assert_eq!(first.shown_size(), low);
    let still = alice.video(&id).await;
    assert_eq!(still["state"], "playable", "the test was too slow to see it: {still:#}");

    alice.until(&id, &["ready"], 300).await;
    assert_eq!(variants_and_sounds(&alice, &id).await, (3, 1), "the sound is shared by all");
    let after = alice.get(&path("original")).await.expect(200);
    assert_ne!(after.header("etag"), before.header("etag"));
    assert_eq!(alice.get(&path("low")).await.expect(200).body, before.body, "what was out stays as it was");
    let frames = probe::ffprobe(&url("low")).frames();
    let keyframes = probe::keyframes(&url("low"));
    for (rendition, size) in [("original", Some(original)), ("medium", None), ("low", Some(low))] {
        let probed = probe::ffprobe(&url(rendition));
        assert_eq!(probed.frames(), frames, "{rendition}");
        assert!(size.is_none_or(|size| probed.shown_size() == size), "{rendition}: {:#}", probed.0);
        assert_eq!(probe::keyframes(&url(rendition)), keyframes, "{rendition}: cut at the same pictures");
        probe::decodes(&url(rendition));
    }
    probe::decodes(&format!("{}/stream/videos/{id}/master.m3u8", app.base()));
}

async fn variants_and_sounds(persona: &Persona, id: &str) -> (usize, usize) {
    let master = persona.get(&format!("/stream/videos/{id}/master.m3u8")).await.expect(200).text();
    let lines = |tag: &str| master.lines().filter(|line| line.starts_with(tag)).count();
    (lines("#EXT-X-STREAM-INF"), lines("#EXT-X-MEDIA:TYPE=AUDIO"))
}

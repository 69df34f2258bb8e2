//! A private film lent to somebody without an account: by its link, until that expires.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{App, Persona, clips, probe};

#[tokio::test]
async fn whoever_has_the_link_of_a_private_film_watches_it() {
    let app = App::with(&[("SLUICE_VIEWS_FLUSH_S", "1")]).await;
    let (alice, guest) = (app.user("alice").await, app.anonymous());
    let clip = clips::h264(app.folder.path(), "private.mp4", "640x360", 4);
    let video = alice
        .post("/api/videos", &json!({"title": "Ours", "visibility": "private"}))
        .await
        .expect(201)
        .json();
    let id = video["id"].as_str().unwrap();
    alice.send_bytes(id, std::fs::read(&clip).unwrap()).await.expect(201);
    alice.until(id, &["ready"], 60).await;
    let lent = lent_with_storyboard(&alice, id).await;

    // Real players find their way through every playlist.
    for name in ["hls_url", "play_url"] {
        let url = lent[name].as_str().unwrap();
        probe::decodes(url);
        assert_eq!(probe::ffprobe(url).frames(), 120, "{name}");
        guest.get(url.split_once('?').unwrap().0).await.problem(404, "/problems/not-found");
    }
    assert_eq!(
        guest.get(lent["cover_url"].as_str().unwrap()).await.expect(200).header("content-type"),
        "image/jpeg"
    );
    let cues = reqwest::Url::parse(lent["storyboard_url"].as_str().unwrap()).unwrap();
    let text = guest.get(cues.as_str()).await.expect(200).text();
    let sprite = text.lines().find_map(|line| line.split_once("#xywh=")).unwrap().0;
    probe::decodes(cues.join(sprite).unwrap().as_str());
    guest.get(&format!("/api/videos/{id}/playback")).await.problem(404, "/problems/not-found");

    // ffmpeg is one viewer, however often it came and by whichever way.
    let counted = async || alice.video(id).await["counts"]["views"].as_u64().unwrap();
    let asked = Instant::now();
    while counted().await == 0 {
        assert!(asked.elapsed() < Duration::from_secs(20), "no view was counted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(counted().await, 1);

    let signature = cues.query().unwrap().split_once("sig=").unwrap().1;
    assert!(!app.program.log().contains(signature), "whoever reads the log cannot watch");
    alice.delete(&format!("/api/videos/{id}")).await.expect(204);
    guest.until_gone(lent["play_url"].as_str().unwrap(), Instant::now()).await;
    app.finish();
}

/// What the owner hands on, once the storyboard is there too.
async fn lent_with_storyboard(owner: &Persona, id: &str) -> serde_json::Value {
    for _ in 0..1500 {
        let lent = owner.get(&format!("/api/videos/{id}/playback")).await.expect(200).json();
        if lent["storyboard_url"].is_string() {
            return lent;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no storyboard within 30 s")
}

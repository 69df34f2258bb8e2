//! The storyboard as a player meets it: cues over the whole film, each with a part of one sprite.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::harness::{App, Persona, clips, probe};

/// Of a cue, in seconds and pixels.
struct Tile {
    from_s: f64,
    to_s: f64,
    place: [u32; 4],
}

#[tokio::test]
async fn a_film_that_is_ready_gets_a_storyboard_and_takes_it_along() {
    let app = App::start().await;
    let (alice, anyone) = (app.user("alice").await, app.anonymous());
    let clip = clips::h264(app.folder.path(), "portrait.mp4", "360x640", 12);
    let id = alice.upload(&clip).await;
    let drawn = alice.until_drawn(&id, 90).await;
    let duration_s = drawn["duration_s"].as_f64().unwrap();
    let url = drawn["storyboard_url"].as_str().unwrap();
    assert!(url.ends_with(&format!("/stream/videos/{id}/storyboard.vtt")), "{url}");

    let cues = anyone.get(url).await.expect(200);
    assert_eq!(cues.header("content-type"), "text/vtt; charset=utf-8");
    assert_eq!(cues.header("access-control-allow-origin"), "*");
    let (sprite, tiles) = parse(&cues.text());
    let sprite = reqwest::Url::parse(&format!("{}/stream/videos/{id}/storyboard.vtt", app.base()))
        .unwrap()
        .join(&sprite)
        .unwrap();
    assert_eq!(tiles.len(), 12);
    assert!((tiles[0].from_s, tiles[11].to_s) == (0.0, (duration_s * 1000.0).ceil() / 1000.0));
    assert!(tiles.windows(2).all(|pair| pair[0].to_s == pair[1].from_s));

    let sheet = anyone.get(sprite.as_str()).await.expect(200);
    assert_eq!(sheet.header("content-type"), "image/jpeg");
    assert_eq!(sheet.header("cache-control"), "public, max-age=31536000, immutable");
    // What the cues announce.
    assert_eq!(probe::ffprobe(sprite.as_str()).shown_size(), (4 * 90, 3 * 160));
    probe::decodes(sprite.as_str());
    for Tile { place: [x, y, width, height], .. } in &tiles {
        assert_eq!((*width, *height), (90, 160));
        assert!(x + width <= 4 * 90 && y + height <= 3 * 160);
    }

    // Of a private film, for its owner alone.
    show_to(&alice, &id, "private").await;
    let paths = [format!("/stream/videos/{id}/storyboard.vtt"), sprite.path().to_owned()];
    let bob = app.user("bob").await;
    for path in &paths {
        anyone.until_gone(path, Instant::now()).await;
        bob.get(path).await.problem(404, "/problems/not-found");
        assert_eq!(alice.get(path).await.expect(200).header("cache-control"), "private, no-store");
    }
    show_to(&alice, &id, "public").await;

    let asked = Instant::now();
    alice.delete(&format!("/api/videos/{id}")).await.expect(204);
    for path in &paths {
        anyone.until_gone(path, asked).await;
    }
    while !app.objects().is_empty() {
        assert!(asked.elapsed() < Duration::from_secs(60), "{:?}", app.objects());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    app.finish();
}

async fn show_to(owner: &Persona, id: &str, visibility: &str) {
    let request = owner.request(Method::PATCH, &format!("/api/videos/{id}"));
    owner.send(request.json(&json!({"visibility": visibility}))).await.expect(200);
}

/// The name of the sprite, and the cues.
fn parse(text: &str) -> (String, Vec<Tile>) {
    let blocks: Vec<&str> = text.trim_end().split("\n\n").collect();
    assert_eq!(blocks[0], "WEBVTT");
    let mut names = Vec::new();
    let mut tiles = Vec::new();
    for block in &blocks[1..] {
        let (times, picture) = block.split_once('\n').unwrap();
        let (from, to) = times.split_once(" --> ").unwrap();
        let (name, place) = picture.split_once("#xywh=").unwrap();
        names.push(name.to_owned());
        let place: Vec<u32> = place.split(',').map(|number| number.parse().unwrap()).collect();
        tiles.push(Tile { from_s: seconds(from), to_s: seconds(to), place: place.try_into().unwrap() });
    }
    names.dedup();
    assert_eq!(names.len(), 1, "one sprite");
    (names.remove(0), tiles)
}

fn seconds(instant: &str) -> f64 {
    instant.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap())
}

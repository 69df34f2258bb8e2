use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{Answer, App, Persona};

async fn show_to(owner: &Persona, path: &str, visibility: &str) {
    Answer::of(owner.request(Method::PATCH, path).json(&json!({"visibility": visibility}))).await.expect(200);
}

#[tokio::test]
async fn a_private_video_is_lent_by_signed_addresses() {
    let app = App::with(&[("SLUICE_LINK_S", "600")]).await;
    let (alice, bob, root) = (app.user("alice").await, app.user("bob").await, app.admin().await);
    let path = alice.create("First").await;
    let playback = format!("{path}/playback");
    show_to(&alice, &path, "private").await;
    alice.get(&playback).await.problem(404, "/problems/not-found");
    app.make_playable(&path).await;

    let answer = alice.get(&playback).await.expect(200);
    assert_eq!(answer.header("cache-control"), "private, no-store");
    let lent = answer.json();
    let expires_at = domain::Timestamp::parse_rfc3339(lent["expires_at"].as_str().unwrap()).unwrap();
    let lasts_ms = expires_at.ms_since(app.clock.now());
    assert!((600_000..660_000).contains(&lasts_ms), "{lasts_ms}");
    let video = alice.get(&path).await.expect(200).json();
    let query = lent["play_url"].as_str().unwrap().split_once('?').unwrap().1.to_owned();
    assert!(query.starts_with(&format!("exp={}&sig=", expires_at.unix_ms() / 1000)), "{query}");
    for name in ["hls_url", "dash_url", "play_url", "cover_url"] {
        assert_eq!(lent[name], format!("{}?{query}", video[name].as_str().unwrap()), "{name}");
    }
    assert_eq!(lent["storyboard_url"], Value::Null, "there is none yet");
    root.get(&playback).await.expect(200);
    for stranger in [bob, app.anonymous()] {
        stranger.get(&playback).await.problem(404, "/problems/not-found");
    }
    let bad = Answer::of(alice.request(Method::GET, "/api/videos/x/playback")).await;
    bad.problem(400, "/problems/invalid-id");
    alice.delete(&path).await.expect(204);
    alice.get(&playback).await.problem(404, "/problems/not-found");
}

#[tokio::test]
async fn what_everybody_may_watch_needs_no_signature() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    let path = alice.create("First").await;
    app.make_playable(&path).await;
    for visibility in ["public", "unlisted"] {
        show_to(&alice, &path, visibility).await;
        let video = alice.get(&path).await.expect(200).json();
        let lent = app.anonymous().get(&format!("{path}/playback")).await.expect(200).json();
        for name in ["hls_url", "dash_url", "play_url", "cover_url"] {
            assert_eq!(lent[name], video[name], "{name}");
        }
        assert_eq!(lent["expires_at"], Value::Null);
    }
}

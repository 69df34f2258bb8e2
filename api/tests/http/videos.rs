use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{Answer, App};

#[tokio::test]
async fn creating_a_video_says_where_its_file_goes() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    let body = json!({"title": " First ", "description": "…", "tags": ["Sea", "sea", "sky"], "visibility": "unlisted"});
    let created = alice.post("/api/videos", &body).await.expect(201);
    let video = created.json();
    let id = video["id"].as_str().unwrap();
    assert_eq!(created.header("location"), format!("/api/videos/{id}"));
    assert_eq!((&video["title"], &video["tags"]), (&json!("First"), &json!(["sea", "sky"])));
    assert_eq!((&video["state"], &video["visibility"]), (&json!("awaiting_upload"), &json!("unlisted")));
    assert_eq!(video["upload"]["url"], format!("{}/stream/videos/{id}", app.base));
    assert_eq!(video["upload"]["tus_url"], format!("{}/stream/uploads", app.base));
    assert_eq!(video["upload"]["max_bytes"], app.settings.limits.upload_bytes_max);
    for unknown_yet in
        ["duration_s", "width", "play_url", "hls_url", "dash_url", "cover_url", "published_at", "error"]
    {
        assert_eq!(video[unknown_yet], Value::Null, "{unknown_yet}");
    }
    assert_eq!(video["counts"], json!({"views": 0, "likes": 0, "comments": 0}));
}

#[tokio::test]
async fn bad_videos_are_refused() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    let create = async |body: Value| alice.post("/api/videos", &body).await;
    create(json!({"title": "", "description": "x".repeat(5001), "tags": ["x".repeat(33)], "visibility": "secret"}))
        .await
        .bad_fields(&["title", "description", "tags", "visibility"]);
    create(json!({"title": "x".repeat(129)})).await.bad_fields(&["title"]);
    create(json!({"title": "x", "tags": vec!["x"; 21]})).await.bad_fields(&["tags"]);
    create(json!({"title": "x", "state": "ready"})).await.bad_fields(&["state"]);
    create(json!({})).await.bad_fields(&["title"]);
    create(json!([])).await.problem(400, "/problems/bad-request");
    app.anonymous().post("/api/videos", &json!({"title": "x"})).await.problem(401, "/problems/unauthorized");
}

#[tokio::test]
async fn the_upload_token_uploads_and_does_nothing_else() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    let path = alice.create("First").await;
    app.clock.advance_ms(60_000);
    let upload = alice.get(&path).await.expect(200).json()["upload"].clone();
    // As long as the video waits, however late it is asked for.
    let expires_at = domain::Timestamp::parse_rfc3339(upload["expires_at"].as_str().unwrap()).unwrap();
    assert_eq!(expires_at.ms_since(app.clock.now()), (app.settings.upload_token_s as i64 - 60) * 1000);
    let bearer = app.with_token(upload["token"].as_str().map(str::to_owned));
    bearer.get(&path).await.problem(403, "/problems/forbidden");
    bearer.delete(&path).await.problem(403, "/problems/forbidden");
    bearer.post("/api/videos", &json!({"title": "x"})).await.problem(403, "/problems/forbidden");
    let root = app.admin().await;
    assert_eq!(root.get(&path).await.expect(200).json().get("upload"), None, "only its owner uploads");
}

#[tokio::test]
async fn before_it_is_playable_only_the_owner_and_admins_see_it() {
    let app = App::start().await;
    let (alice, bob, root) = (app.user("alice").await, app.user("bob").await, app.admin().await);
    let path = alice.create("First").await;
    let hidden = async || {
        alice.get(&path).await.expect(200);
        root.get(&path).await.expect(200);
        for stranger in [&bob, &app.anonymous()] {
            stranger.get(&path).await.problem(404, "/problems/not-found");
            stranger.get(&format!("{path}/comments")).await.problem(404, "/problems/not-found");
            stranger.get(&format!("{path}/events")).await.problem(404, "/problems/not-found");
        }
        bob.patch(&path, &json!({"title": "x"})).await.problem(404, "/problems/not-found");
        bob.delete(&path).await.problem(404, "/problems/not-found");
        bob.post(&format!("{path}/comments"), &json!({"content": "x"}))
            .await
            .problem(404, "/problems/not-found");
    };
    hidden().await;
    app.upload(&path).await;
    hidden().await;
    let lease = app.start_processing().await;
    hidden().await;
    app.publish_original(&lease).await;
    bob.get(&path).await.expect(200);
    alice.patch(&path, &json!({"visibility": "private"})).await.expect(200);
    hidden().await;
}

#[tokio::test]
async fn a_playable_video_tells_where_and_what() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    let path = alice.create("First").await;
    app.make_playable(&path).await;
    let video = app.anonymous().get(&path).await.expect(200).json();
    let stream = format!("{}/stream/videos/{}", app.base, video["id"].as_str().unwrap());
    assert_eq!(video["state"], "playable");
    assert_eq!(video["play_url"], stream);
    assert_eq!(video["hls_url"], format!("{stream}/master.m3u8"));
    assert_eq!(video["dash_url"], format!("{stream}/manifest.mpd"));
    assert_eq!(video["cover_url"], format!("{stream}/cover.jpg"));
    assert_eq!((&video["width"], &video["height"]), (&json!(1280), &json!(720)));
    assert_eq!((&video["duration_s"], &video["frame_rate"]), (&json!(10.0), &json!(29.97)));
    assert_eq!(video["thumbhash"], "aGFzaA==");
    let [original, low] = video["renditions"].as_array().unwrap().as_slice() else { panic!("{video}") };
    assert_eq!(original["url"], format!("{stream}?rendition=original"));
    assert_eq!((&original["state"], &original["size_bytes"]), (&json!("ready"), &json!(1000)));
    assert_eq!((&low["state"], &low["url"]), (&json!("pending"), &Value::Null));
    assert_eq!((&original["progress"], &low["progress"]), (&json!(1.0), &json!(0.0)));
    assert_eq!((&video["stage"], &video["eta_s"]), (&json!("waiting"), &Value::Null));
    assert_eq!(original.get("engine"), None, "which versions run here is for admins");
    let seen = app.admin().await.get(&path).await.expect(200).json();
    assert_eq!(seen["renditions"][0]["engine"], "test");
    app.finish_encode().await;
    app.publish_renditions().await;
    let video = alice.get(&path).await.expect(200).json();
    assert_eq!((&video["progress"], &video["stage"]), (&json!(1.0), &Value::Null));
    assert_eq!((&video["state"], &video["renditions"][1]["state"]), (&json!("ready"), &json!("ready")));
    assert!(video.get("upload").is_none());
}

#[tokio::test]
async fn what_went_wrong_is_told_without_our_own_words() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    let rejected = alice.create("A text").await;
    app.upload(&rejected).await;
    let lease = app.start_processing().await;
    app.reject(&lease, domain::MediaProblem::NotMedia, "It is a text.").await;
    let video = alice.get(&rejected).await.expect(200).json();
    assert_eq!(video["state"], "rejected");
    assert_eq!(
        video["error"],
        json!({"type": "/problems/media-not-media", "title": "The file is not a video", "detail": "It is a text."})
    );
    let failed = alice.create("Bad luck").await;
    app.upload(&failed).await;
    let lease = app.start_processing().await;
    app.fail(&lease, "ENOSPC /var/lib/secret").await;
    let video = alice.get(&failed).await.expect(200);
    assert_eq!(video.json()["error"]["type"], "/problems/processing-failed");
    assert!(!video.text.contains("secret"));
}

#[tokio::test]
async fn the_list_shows_public_playable_videos_newest_first() {
    let app = App::start().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let mut shown = Vec::new();
    for number in 0..3 {
        app.clock.advance_ms(1);
        let body = json!({"title": format!("{number}"), "tags": [format!("tag{number}")]});
        let path = format!(
            "/api/videos/{}",
            alice.post("/api/videos", &body).await.expect(201).json()["id"].as_str().unwrap()
        );
        app.make_playable(&path).await;
        shown.insert(0, number.to_string());
    }
    bob.create("Waiting").await;
    let unlisted = bob.create("Unlisted").await;
    app.make_playable(&unlisted).await;
    bob.patch(&unlisted, &json!({"visibility": "unlisted"})).await.expect(200);
    let anyone = app.anonymous();
    let titles = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|v| v["title"].as_str().unwrap().to_owned()).collect()
    };
    let all = anyone.get("/api/videos").await.expect(200).json();
    assert_eq!((titles(&all), &all["next_cursor"]), (shown.clone(), &Value::Null));
    let first = anyone.get("/api/videos?limit=2").await.expect(200).json();
    assert_eq!(titles(&first), shown[..2]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = anyone.get(&format!("/api/videos?limit=2&cursor={cursor}")).await.expect(200).json();
    assert_eq!((titles(&second), &second["next_cursor"]), (shown[2..].to_vec(), &Value::Null));
    let tagged = anyone.get("/api/videos?tag=TAG1").await.expect(200).json();
    assert_eq!(titles(&tagged), ["1"]);
    let of_bob = anyone.get(&format!("/api/videos?author={}", bob.id)).await.expect(200).json();
    assert_eq!(titles(&of_bob), [""; 0]);
    // A cursor of one list is none of another.
    let other_list = format!("/api/users/{}/videos?cursor={cursor}", alice.id);
    anyone.get(&other_list).await.bad_fields(&["cursor"]);
}

#[tokio::test]
async fn bad_pages_and_filters_are_refused() {
    let app = App::start().await;
    let anyone = app.anonymous();
    for limit in ["0", "101", "-1", "x", ""] {
        anyone.get(&format!("/api/videos?limit={limit}")).await.bad_fields(&["limit"]);
    }
    for cursor in ["x", "AAAAAAAAAAAAAAAA", "%F0%9F%92%A3", ""] {
        anyone.get(&format!("/api/videos?cursor={cursor}")).await.bad_fields(&["cursor"]);
    }
    anyone.get("/api/videos?author=nobody").await.problem(400, "/problems/invalid-id");
    anyone.get(&format!("/api/videos?tag={}", "x".repeat(33))).await.bad_fields(&["tag"]);
    anyone.get("/api/videos?q=sea").await.bad_fields(&["q"]);
}

#[tokio::test]
async fn the_owner_changes_it_and_others_may_not() {
    let app = App::start().await;
    let (alice, bob, root) = (app.user("alice").await, app.user("bob").await, app.admin().await);
    let path = alice.create("First").await;
    app.make_playable(&path).await;
    let change = json!({"title": "Second", "description": "More", "tags": ["a"], "visibility": "unlisted"});
    let changed = alice.patch(&path, &change).await.expect(200).json();
    for field in ["title", "description", "tags", "visibility"] {
        assert_eq!(changed[field], change[field]);
    }
    let kept = alice.patch(&path, &json!({})).await.expect(200).json();
    assert_eq!(kept["title"], "Second");
    alice.patch(&path, &json!({"cover_at_s": 3.5})).await.expect(200);
    app.claim(domain::JobKind::Cover).await;
    alice.patch(&path, &json!({"title": "", "cover_at_s": 11.0})).await.bad_fields(&["title", "cover_at_s"]);
    alice.patch(&path, &json!({"author": "x"})).await.bad_fields(&["author"]);
    bob.patch(&path, &json!({"title": "x"})).await.problem(403, "/problems/forbidden");
    app.anonymous().patch(&path, &json!({"title": "x"})).await.problem(401, "/problems/unauthorized");
    root.patch(&path, &json!({"title": "Moderated"})).await.expect(200);
    let unknown = format!("/api/videos/{}", app.unknown_id());
    alice.patch(&unknown, &json!({"title": "x"})).await.problem(404, "/problems/not-found");
    alice.patch("/api/videos/nope", &json!({"title": "x"})).await.problem(400, "/problems/invalid-id");
}

#[tokio::test]
async fn a_deleted_video_is_gone_at_once() {
    let app = App::start().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let path = alice.create("First").await;
    app.make_playable(&path).await;
    bob.delete(&path).await.problem(403, "/problems/forbidden");
    app.anonymous().delete(&path).await.problem(401, "/problems/unauthorized");
    assert_eq!(alice.delete(&path).await.expect(204).text, "");
    alice.delete(&path).await.problem(404, "/problems/not-found");
    alice.get(&path).await.problem(404, "/problems/not-found");
    alice.get(&format!("{path}/events")).await.problem(404, "/problems/not-found");
    let list = app.anonymous().get("/api/videos").await.expect(200).json();
    assert_eq!(list["items"], json!([]));
    app.claim(domain::JobKind::Purge).await;
    let root = app.admin().await;
    let other = alice.create("Second").await;
    root.delete(&other).await.expect(204);
}

#[tokio::test]
async fn one_video_answers_head_too_and_refuses_strange_ids() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    let path = alice.create("First").await;
    let head = Answer::of(alice.request(Method::HEAD, &path)).await.expect(200);
    assert_eq!(head.text, "");
    for id in ["nope", "550e8400-e29b-41d4-a716-446655440000", "..%2f..%2fetc"] {
        alice.get(&format!("/api/videos/{id}")).await.problem(400, "/problems/invalid-id");
    }
    alice.get(&format!("/api/videos/{}", app.unknown_id())).await.problem(404, "/problems/not-found");
}

#[tokio::test]
async fn views_are_for_all_to_see_and_bytes_for_the_owner() {
    let app = App::start().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let path = alice.create("First").await;
    app.make_playable(&path).await;
    let id = path.rsplit('/').next().unwrap().parse().unwrap();
    let viewers = [1, 2].map(|n| domain::ViewerHash::of(&[n; 32])).into();
    let watched = std::collections::BTreeMap::from([(id, sql::Watched { viewers, served_bytes: 1234 })]);
    app.catalog.add_watched(&watched, app.clock.now(), app.clock.now()).await.unwrap();
    let seen = |video: &Value| (video["counts"]["views"].clone(), video.get("served_bytes").cloned());
    let own = alice.get(&path).await.expect(200).json();
    assert_eq!(seen(&own), (json!(2), Some(json!(1234))));
    let listed = bob.get("/api/videos").await.expect(200).json();
    assert_eq!(seen(&listed["items"][0]), (json!(2), None));
}

use serde_json::{Value, json};

use crate::app::App;

#[tokio::test]
async fn comments_are_written_listed_and_counted() {
    let app = App::start().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let video = alice.create("First").await;
    app.make_playable(&video).await;
    let path = format!("{video}/comments");
    for text in ["one", "two <b>bold</b>", "three"] {
        app.clock.advance_ms(1);
        let created = bob.post(&path, &json!({"content": text})).await.expect(201);
        assert_eq!(created.json()["content"], text);
        assert!(created.header("location").starts_with(&path));
    }
    let first = app.anonymous().get(&format!("{path}?limit=2")).await.expect(200).json();
    let said = |page: &Value| -> Vec<Value> {
        page["items"].as_array().unwrap().iter().map(|comment| comment["content"].clone()).collect()
    };
    assert_eq!(said(&first), ["three", "two <b>bold</b>"]);
    assert_eq!(first["items"][0]["author"]["username"], "bob");
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = app.anonymous().get(&format!("{path}?limit=2&cursor={cursor}")).await.expect(200).json();
    assert_eq!((said(&second), &second["next_cursor"]), (vec![json!("one")], &Value::Null));
    assert_eq!(alice.get(&video).await.json()["counts"]["comments"], 3);
}

#[tokio::test]
async fn bad_comments_are_refused() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    let video = alice.create("First").await;
    let path = format!("{video}/comments");
    alice.post(&path, &json!({"content": " "})).await.bad_fields(&["content"]);
    alice.post(&path, &json!({"content": "x".repeat(2001)})).await.bad_fields(&["content"]);
    alice.post(&path, &json!({"content": "x", "likes": 9})).await.bad_fields(&["likes"]);
    alice.post(&path, &json!({"content": "x".repeat(2000)})).await.expect(201);
    app.anonymous().post(&path, &json!({"content": "x"})).await.problem(401, "/problems/unauthorized");
    alice
        .post("/api/videos/nope/comments", &json!({"content": "x"}))
        .await
        .problem(400, "/problems/invalid-id");
    let unknown = format!("/api/videos/{}/comments", app.unknown_id());
    alice.post(&unknown, &json!({"content": "x"})).await.problem(404, "/problems/not-found");
    alice.get(&unknown).await.problem(404, "/problems/not-found");
    alice.get("/api/videos/nope/comments").await.problem(400, "/problems/invalid-id");
    alice.get(&format!("{path}?cursor=forged")).await.bad_fields(&["cursor"]);
}

#[tokio::test]
async fn its_author_the_videos_author_and_admins_delete_a_comment() {
    let app = App::start().await;
    let (alice, bob, carol) = (app.user("alice").await, app.user("bob").await, app.user("carol").await);
    let root = app.admin().await;
    let video = alice.create("First").await;
    app.make_playable(&video).await;
    for deleter in [&bob, &alice, &root] {
        let comment =
            bob.post(&format!("{video}/comments"), &json!({"content": "x"})).await.expect(201).json();
        let path = format!("{video}/comments/{}", comment["id"].as_str().unwrap());
        carol.delete(&path).await.problem(403, "/problems/forbidden");
        app.anonymous().delete(&path).await.problem(401, "/problems/unauthorized");
        deleter.delete(&path).await.expect(204);
        deleter.delete(&path).await.problem(404, "/problems/not-found");
    }
    alice.delete(&format!("{video}/comments/nope")).await.problem(400, "/problems/invalid-id");
    let comment = bob.post(&format!("{video}/comments"), &json!({"content": "x"})).await.expect(201).json();
    let other = alice.create("Second").await;
    let elsewhere = format!("{other}/comments/{}", comment["id"].as_str().unwrap());
    alice.delete(&elsewhere).await.problem(404, "/problems/not-found");
}

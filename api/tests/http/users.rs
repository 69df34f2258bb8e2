use serde_json::{Value, json};

use crate::app::{App, PASSWORD};

#[tokio::test]
async fn registering_gives_a_profile() {
    let app = App::start().await;
    let body = json!({"username": "Al.Ice_9", "password": PASSWORD, "email": "Al@Example.org", "display_name": "Alice"});
    let created = app.anonymous().post("/api/users", &body).await.expect(201);
    let user = created.json();
    assert_eq!(user["username"], "al.ice_9");
    assert_eq!((&user["email"], &user["role"]), (&json!("al@example.org"), &json!("user")));
    assert_eq!(created.header("location"), format!("/api/users/{}", user["id"].as_str().unwrap()));
    assert!(!created.text.contains("password"));
}

#[tokio::test]
async fn bad_registrations_are_refused_field_by_field() {
    let app = App::start().await;
    let register = async |body: Value| app.anonymous().post("/api/users", &body).await;
    register(json!({"username": "x", "password": "short", "email": "no"}))
        .await
        .bad_fields(&["username", "password", "email"]);
    register(json!({"username": "alice"})).await.bad_fields(&["password"]);
    register(json!({"username": "alice", "password": PASSWORD, "admin": true})).await.bad_fields(&["admin"]);
    register(json!({"username": 7, "password": PASSWORD})).await.bad_fields(&["username"]);
    register(json!({"username": "alice", "password": "x".repeat(129)})).await.bad_fields(&["password"]);
}

#[tokio::test]
async fn names_and_addresses_are_taken_once() {
    let app = App::start().await;
    let register = async |name: &str, email: &str| {
        let body = json!({"username": name, "password": PASSWORD, "email": email});
        app.anonymous().post("/api/users", &body).await
    };
    register("alice", "a@example.org").await.expect(201);
    register("ALICE", "b@example.org").await.problem(409, "/problems/username-taken");
    register("bob", "A@example.org").await.problem(409, "/problems/email-taken");
}

#[tokio::test]
async fn others_see_what_is_public() {
    let app = App::start().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let path = format!("/api/users/{}", alice.id);
    assert!(alice.get(&path).await.expect(200).json()["role"].is_string());
    for other in [bob, app.anonymous()] {
        let seen = other.get(&path).await.expect(200).json();
        assert_eq!(seen["username"], "alice");
        for private in ["email", "phone", "date_of_birth", "role"] {
            assert!(seen.get(private).is_none(), "{private} of {seen}");
        }
    }
    app.anonymous().get("/api/users/nope").await.problem(400, "/problems/invalid-id");
    app.anonymous()
        .get(&format!("/api/users/{}", app.unknown_id()))
        .await
        .problem(404, "/problems/not-found");
}

#[tokio::test]
async fn one_changes_ones_own_profile() {
    let app = App::start().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let path = format!("/api/users/{}", alice.id);
    let change = json!({"display_name": "Al", "bio": "Two\nlines", "email": "al@example.org", "phone": "+49 30 1234567",
        "date_of_birth": "1990-12-31"});
    let changed = alice.patch(&path, &change).await.expect(200).json();
    for field in ["display_name", "bio", "email", "phone", "date_of_birth"] {
        assert_eq!(changed[field], change[field]);
    }
    let emptied = alice.patch(&path, &json!({"email": null, "phone": null})).await.expect(200).json();
    assert_eq!((&emptied["email"], &emptied["bio"]), (&Value::Null, &json!("Two\nlines")));
    alice
        .patch(&path, &json!({"phone": "call me", "date_of_birth": "2090-01-01"}))
        .await
        .bad_fields(&["phone", "date_of_birth"]);
    alice.patch(&path, &json!({"username": "other"})).await.bad_fields(&["username"]);
    bob.patch(&path, &json!({"bio": "x"})).await.problem(403, "/problems/forbidden");
    app.anonymous().patch(&path, &json!({"bio": "x"})).await.problem(401, "/problems/unauthorized");
    bob.patch(&format!("/api/users/{}", bob.id), &json!({"email": "b@example.org"})).await.expect(200);
    alice.patch(&path, &json!({"email": "b@example.org"})).await.problem(409, "/problems/email-taken");
}

#[tokio::test]
async fn a_new_password_needs_the_old_one_and_ends_other_sessions() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    let elsewhere = app.log_in("alice").await;
    let path = format!("/api/users/{}", alice.id);
    alice.patch(&path, &json!({"password": "new password"})).await.bad_fields(&["current_password"]);
    let wrong = json!({"password": "new password", "current_password": "wrong horse"});
    alice.patch(&path, &wrong).await.problem(403, "/problems/wrong-password");
    let right = json!({"password": "new password", "current_password": PASSWORD});
    alice.patch(&path, &right).await.expect(200);
    alice.get(&path).await.expect(200);
    elsewhere.get(&path).await.problem(401, "/problems/unauthorized");
    let old = json!({"username": "alice", "password": PASSWORD});
    app.anonymous().post("/api/sessions", &old).await.problem(401, "/problems/wrong-credentials");
}

#[tokio::test]
async fn a_deleted_account_takes_its_sessions_and_videos_along() {
    let app = App::start().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let path = format!("/api/users/{}", alice.id);
    let video = alice.create("Mine").await;
    app.make_playable(&video).await;
    bob.get(&video).await.expect(200);
    bob.delete(&path).await.problem(403, "/problems/forbidden");
    app.anonymous().delete(&path).await.problem(401, "/problems/unauthorized");
    alice.delete(&path).await.expect(204);
    alice.get("/api/videos").await.problem(401, "/problems/unauthorized");
    bob.get(&path).await.problem(404, "/problems/not-found");
    bob.get(&video).await.problem(404, "/problems/not-found");
    bob.delete(&path).await.problem(404, "/problems/not-found");
}

#[tokio::test]
async fn a_persons_videos_are_all_theirs_and_the_watchable_ones_for_others() {
    let app = App::start().await;
    let (alice, bob, root) = (app.user("alice").await, app.user("bob").await, app.admin().await);
    let path = format!("/api/users/{}/videos", alice.id);
    alice.create("Waiting").await;
    let shown = alice.create("Shown").await;
    app.make_playable(&shown).await;
    let count = async |persona: &crate::app::Persona| {
        persona.get(&path).await.expect(200).json()["items"].as_array().unwrap().len()
    };
    assert_eq!([count(&alice).await, count(&bob).await, count(&root).await], [2, 1, 2]);
    alice.patch(&shown, &json!({"visibility": "unlisted"})).await.expect(200);
    assert_eq!(count(&bob).await, 0);
    bob.get("/api/users/nope/videos").await.problem(400, "/problems/invalid-id");
    bob.get(&format!("/api/users/{}/videos", app.unknown_id())).await.problem(404, "/problems/not-found");
}

use serde_json::{Value, json};

use crate::app::{App, PASSWORD};

#[tokio::test]
async fn logging_in_by_name_or_address_gives_a_token() {
    let app = App::start().await;
    let body = json!({"username": "alice", "password": PASSWORD, "email": "al@example.org"});
    app.anonymous().post("/api/users", &body).await.expect(201);
    for login in [json!({"username": "ALICE"}), json!({"email": "Al@example.org"})] {
        let mut credentials = login;
        credentials["password"] = PASSWORD.into();
        let session = app.anonymous().post("/api/sessions", &credentials).await.expect(200).json();
        assert_eq!(session["user"]["username"], "alice");
        let expires_at = domain::Timestamp::parse_rfc3339(session["expires_at"].as_str().unwrap()).unwrap();
        assert_eq!(expires_at, app.clock.now().plus_s(app.settings.session_s as i64));
        let alice = app.with_token(session["token"].as_str().map(str::to_owned));
        alice.get(&format!("/api/users/{}", session["user"]["id"].as_str().unwrap())).await.expect(200);
    }
}

#[tokio::test]
async fn an_unknown_user_and_a_wrong_password_look_the_same() {
    let app = App::start().await;
    app.user("alice").await;
    let refusal = async |name: &str| {
        let credentials = json!({"username": name, "password": "wrong horse"});
        let refused = app.anonymous().post("/api/sessions", &credentials).await;
        let mut body = refused.problem(401, "/problems/wrong-credentials");
        body["request_id"] = Value::Null;
        body
    };
    assert_eq!(refusal("alice").await, refusal("nobody").await);
    // Three rounds each; the least of them is free of what else the machine did.
    let mut least_ms = [f64::MAX; 2];
    for _ in 0..3 {
        for (name, least) in ["alice", "nobody"].iter().zip(&mut least_ms) {
            let started = std::time::Instant::now();
            refusal(name).await;
            *least = least.min(started.elapsed().as_secs_f64() * 1000.0);
        }
    }
    let [known, unknown] = least_ms;
    assert!(unknown > known / 3.0 && known > unknown / 3.0, "{known} ms and {unknown} ms");
}

#[tokio::test]
async fn bad_logins_are_refused() {
    let app = App::start().await;
    let log_in = async |body: Value| app.anonymous().post("/api/sessions", &body).await;
    log_in(json!({"password": PASSWORD})).await.bad_fields(&["username"]);
    log_in(json!({"username": "a", "email": "b", "password": PASSWORD})).await.bad_fields(&["username"]);
    log_in(json!({"username": "alice"})).await.bad_fields(&["password"]);
    log_in(json!({"username": "../x", "password": ""})).await.problem(401, "/problems/wrong-credentials");
}

#[tokio::test]
async fn a_token_is_dead_after_logging_out() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    let ended = alice.delete("/api/sessions").await.expect(205);
    assert_eq!(ended.text, "");
    alice.delete("/api/sessions").await.problem(401, "/problems/unauthorized");
    alice.get("/api/videos").await.problem(401, "/problems/unauthorized");
    app.anonymous().delete("/api/sessions").await.problem(401, "/problems/unauthorized");
}

#[tokio::test]
async fn a_session_expires() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    app.clock.advance_ms((app.settings.session_s as i64 + 60) * 1000);
    let refused = alice.get("/api/videos").await.problem(401, "/problems/unauthorized");
    assert!(refused["detail"].as_str().unwrap().contains("expired"), "{refused}");
}

#[tokio::test]
async fn guessing_is_slowed_down() {
    let app = App::with(&[("SLUICE_LOGINS_PER_MINUTE_PER_CLIENT", "2")]).await;
    let credentials = json!({"username": "nobody", "password": "wrong horse"});
    for _ in 0..2 {
        app.anonymous().post("/api/sessions", &credentials).await.problem(401, "/problems/wrong-credentials");
    }
    let refused = app.anonymous().post("/api/sessions", &credentials).await;
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert!(refused.header("ratelimit").contains("\"login\";r=0"), "{:?}", refused.headers);
    assert!(refused.header("ratelimit-policy").contains("\"login\";q=2;w=60"));
    refused.problem(429, "/problems/rate-limited");
}

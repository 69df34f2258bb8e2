use serde_json::json;

use crate::app::{App, PASSWORD};

#[tokio::test]
async fn the_one_time_link_makes_the_first_admin_and_no_other() {
    let app = App::start().await;
    let link = app.api.prepare_admin(&app.settings).await.unwrap().expect("there is no admin yet");
    let token = link.strip_prefix(&format!("{}/setup#k=", app.base)).expect("a link of ours");
    let choose = |token: &str, name: &str| json!({"token": token, "username": name, "password": PASSWORD});
    let anyone = app.anonymous();
    anyone.post("/api/setup", &choose("nonsense", "root")).await.problem(401, "/problems/unauthorized");
    anyone.post("/api/setup", &choose(token, "x")).await.bad_fields(&["username"]);
    app.user("alice").await;
    anyone.post("/api/setup", &choose(token, "alice")).await.problem(409, "/problems/username-taken");
    let admin = anyone.post("/api/setup", &choose(token, "root")).await.expect(201).json();
    assert_eq!(admin["role"], "admin");
    app.log_in("root").await;
    anyone.post("/api/setup", &choose(token, "root2")).await.problem(409, "/problems/already-set-up");
    assert_eq!(app.api.prepare_admin(&app.settings).await.unwrap(), None);
}

#[tokio::test]
async fn the_link_expires() {
    let app = App::start().await;
    let link = app.api.prepare_admin(&app.settings).await.unwrap().unwrap();
    app.clock.advance_ms((app.settings.setup_token_s as i64 + 60) * 1000);
    let token = link.split("#k=").nth(1).unwrap();
    let body = json!({"token": token, "username": "root", "password": PASSWORD});
    app.anonymous().post("/api/setup", &body).await.problem(401, "/problems/unauthorized");
}

#[tokio::test]
async fn the_settings_can_name_the_admin() {
    let env = [("SLUICE_ADMIN_USERNAME", "boss"), ("SLUICE_ADMIN_PASSWORD", PASSWORD)];
    let app = App::with(&env).await;
    assert_eq!(app.api.prepare_admin(&app.settings).await.unwrap(), None);
    app.log_in("boss").await;
    assert_eq!(app.api.prepare_admin(&app.settings).await.unwrap(), None, "again, as at every start");
}

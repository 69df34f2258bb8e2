//! What holds for every route.

use reqwest::Method;
use serde_json::json;

use crate::app::{Answer, App, PASSWORD};

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let app = App::start().await;
    let anyone = app.anonymous();
    assert_eq!(anyone.get("/api/videos").await.header("cache-control"), "private, no-store");
    anyone.get("/api/nothing").await.problem(404, "/problems/not-found");
    anyone.get("/api/videos/").await.problem(404, "/problems/not-found");
    let refused = Answer::of(anyone.request(Method::PUT, "/api/videos")).await;
    let allow = refused.header("allow").to_owned();
    refused.problem(405, "/problems/method-not-allowed");
    for method in ["GET", "HEAD", "POST"] {
        assert!(allow.contains(method), "{method} in {allow:?}");
    }
}

#[tokio::test]
async fn bodies_are_bounded_and_typed() {
    let app = App::start().await;
    let post = |body: String| app.anonymous().request(Method::POST, "/api/users").body(body);
    let json = |body: String| post(body).header("content-type", "application/json");
    Answer::of(post("{}".into())).await.problem(415, "/problems/unsupported-media-type");
    Answer::of(json("{".into())).await.problem(400, "/problems/bad-request");
    Answer::of(json(String::new())).await.problem(400, "/problems/bad-request");
    let large = format!("{{\"username\":\"{}\"}}", "x".repeat(70_000));
    Answer::of(json(large.clone())).await.problem(413, "/problems/too-large");
    let chunked = futures::stream::iter([Ok::<_, std::io::Error>(large)]);
    let request =
        app.anonymous().request(Method::POST, "/api/users").header("content-type", "application/json");
    let request = request.body(reqwest::Body::wrap_stream(chunked));
    Answer::of(request).await.problem(413, "/problems/too-large");
}

#[tokio::test]
async fn a_bad_token_is_refused_even_where_none_is_needed() {
    let app = App::start().await;
    app.with_token(Some("nonsense".into())).get("/api/videos").await.problem(401, "/problems/unauthorized");
    let basic = app.anonymous().request(Method::GET, "/api/videos").basic_auth("alice", Some(PASSWORD));
    Answer::of(basic).await.problem(401, "/problems/unauthorized");
}

#[tokio::test]
async fn request_ids_are_taken_over_or_made() {
    let app = App::start().await;
    let with =
        |id: &'static str| app.anonymous().request(Method::GET, "/api/nothing").header("x-request-id", id);
    let taken = Answer::of(with("from-the-client.1")).await;
    assert_eq!(taken.header("x-request-id"), "from-the-client.1");
    let body = taken.problem(404, "/problems/not-found");
    assert_eq!(body["request_id"], "from-the-client.1");
    let made = Answer::of(with("<script>")).await;
    assert_eq!(made.header("x-request-id").len(), 32);
    assert_eq!(made.header("x-content-type-options"), "nosniff");
}

#[tokio::test]
async fn pages_of_other_origins_may_call() {
    let app = App::start().await;
    let preflight = app.anonymous().request(Method::OPTIONS, "/api/videos");
    let preflight = preflight
        .header("origin", "https://other.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type");
    let answer = Answer::of(preflight).await.expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert!(answer.header("access-control-allow-headers").contains("authorization"));
    assert!(answer.header("access-control-allow-methods").contains("PATCH"));
    let get = app.anonymous().request(Method::GET, "/api/videos").header("origin", "https://other.example");
    let answer = Answer::of(get).await.expect(200);
    assert!(answer.header("access-control-expose-headers").contains("retry-after"));
}

#[tokio::test]
async fn asking_too_often_is_refused() {
    let app =
        App::with(&[("SLUICE_REQUESTS_PER_S_PER_CLIENT", "1"), ("SLUICE_REQUESTS_BURST_PER_CLIENT", "3")])
            .await;
    let anyone = app.anonymous();
    let first = anyone.get("/api/videos").await.expect(200);
    assert_eq!(first.header("ratelimit"), "\"client\";r=2;t=1");
    assert_eq!(first.header("ratelimit-policy"), "\"client\";q=3;w=3");
    anyone.get("/api/videos").await.expect(200);
    anyone.get("/api/videos").await.expect(200);
    let refused = anyone.get("/api/videos").await;
    assert_eq!(refused.header("retry-after"), "1");
    refused.problem(429, "/problems/rate-limited");
}

#[tokio::test]
async fn users_have_a_bucket_of_their_own() {
    let app =
        App::with(&[("SLUICE_REQUESTS_PER_S_PER_USER", "1"), ("SLUICE_REQUESTS_BURST_PER_USER", "2")]).await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    alice.get("/api/videos").await.expect(200);
    alice.get("/api/videos").await.expect(200);
    let refused = alice.get("/api/videos").await;
    assert!(refused.header("ratelimit").starts_with("\"user\";r=0"), "{:?}", refused.headers);
    refused.problem(429, "/problems/rate-limited");
    bob.get("/api/videos").await.expect(200);
}

#[tokio::test]
async fn addresses_that_are_too_long_are_refused() {
    let app = App::start().await;
    let anyone = app.anonymous();
    anyone.get(&format!("/api/videos?tag={}", "x".repeat(9000))).await.problem(414, "/problems/uri-too-long");
    let request = anyone.request(Method::GET, "/api/videos").header("x-padding", "x".repeat(17_000));
    Answer::of(request).await.problem(431, "/problems/headers-too-large");
}

#[tokio::test]
async fn the_document_names_every_route_and_says_who_may() {
    let app = App::start().await;
    let document = app.anonymous().get("/openapi.json").await.expect(200).json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(document["info"]["title"], "Sluice");
    let paths = &document["paths"];
    for (path, methods) in [
        ("/api/users", vec!["post"]),
        ("/api/users/{uid}", vec!["get", "patch", "delete"]),
        ("/api/users/{uid}/videos", vec!["get"]),
        ("/api/sessions", vec!["post", "delete"]),
        ("/api/setup", vec!["post"]),
        ("/api/videos", vec!["get", "post"]),
        ("/api/videos/{vid}", vec!["get", "patch", "delete"]),
        ("/api/videos/{vid}/events", vec!["get"]),
        ("/api/videos/{vid}/comments", vec!["get", "post"]),
        ("/api/videos/{vid}/comments/{cid}", vec!["delete"]),
    ] {
        for method in methods {
            assert!(paths[path][method].is_object(), "{method} {path}");
        }
    }
    assert_eq!(paths["/api/videos"]["post"]["security"], json!([{"token": []}]));
    assert_eq!(paths["/api/videos"]["get"]["security"], json!([{}, {"token": []}]));
    let refusal = &paths["/api/videos"]["post"]["responses"]["401"]["content"]["application/problem+json"];
    assert_eq!(refusal["schema"]["$ref"], "#/components/schemas/Problem");
    assert!(document["components"]["schemas"]["Problem"]["properties"]["request_id"].is_object());
    assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
}

#[tokio::test]
async fn the_documents_page_and_the_first_page_need_no_other_host() {
    let app = App::start().await;
    let docs = app.anonymous().get("/docs").await.expect(200);
    assert!(!docs.text.contains("https://"), "{}", docs.text);
    let page = app.anonymous().get("/").await;
    assert!(page.status == 200 || page.text.contains("not part of this build"), "{}", page.text);
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    app.anonymous().get("/assets/nothing.js").await.problem(404, "/problems/not-found");
}

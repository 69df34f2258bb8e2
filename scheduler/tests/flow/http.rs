//! `http-api` §5, each row with each status.

use ::http::{Method, Request};
use axum::body::Body;
use chassis::{App, Edge, EdgeConfig, Ids, ServiceName, Settings, SigningKey, Tokens};
use domain::{Role, VideoState};
use serde_json::Value;
use sql::NewSession;

use crate::world::World;

struct Api {
    world: World,
    app: App,
    key: SigningKey,
}

struct Answer {
    status: u16,
    body: Value,
}

impl Answer {
    #[track_caller]
    fn problem(&self, status: u16, kind: &str) {
        assert_eq!((self.status, self.body["type"].as_str()), (status, Some(kind)), "{}", self.body);
    }
}

impl Api {
    async fn new() -> Api {
        let world = World::new().await;
        let key = SigningKey::generate(&Ids::system()).unwrap();
        let tokens = Tokens::new(key.verifying(), world.clock.clone(), world.catalog.session_lookup());
        let (routes, _) = scheduler::routes(world.scheduler(), tokens).finish();
        let settings = Settings::defaults(ServiceName::Scheduler);
        let app = Edge::new(EdgeConfig::new(&settings, Ids::system())).wrap(routes);
        Api { world, app, key }
    }

    async fn token(&self, role: Role) -> String {
        let (now, user) = (self.world.clock.now(), self.world.user().await);
        let new = NewSession { id: self.world.ids.next(now), user, expires_at: now.plus_s(60) };
        self.world.catalog.create_session(&new, now).await.unwrap();
        self.key.session_token(user, new.id, role, now, new.expires_at)
    }

    fn service(&self) -> String {
        self.key.service_token(self.world.clock.now(), 60)
    }

    async fn ask(&self, method: Method, path: &str, token: Option<&str>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let response = self.app.ask(request.body(Body::empty()).unwrap()).await;
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        Answer { status, body: serde_json::from_slice(&bytes).unwrap_or_default() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, Some(&self.service())).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.ask(Method::DELETE, path, Some(&self.service())).await
    }
}

const UNKNOWN: &str = "01931b5f-0000-7000-8000-000000000000";

#[tokio::test(flavor = "multi_thread")]
async fn only_admins_and_services_get_in() {
    let api = Api::new().await;
    let (user, admin) = (api.token(Role::User).await, api.token(Role::Admin).await);
    let paths = [
        (Method::DELETE, format!("/scheduler/videos/{UNKNOWN}")),
        (Method::GET, "/scheduler/deletions".to_owned()),
        (Method::GET, format!("/scheduler/deletions/{UNKNOWN}")),
        (Method::DELETE, format!("/scheduler/deletions/{UNKNOWN}")),
        (Method::GET, "/scheduler/jobs".to_owned()),
        (Method::POST, format!("/scheduler/jobs/{UNKNOWN}/retry")),
    ];
    for (method, path) in paths {
        api.ask(method.clone(), &path, None).await.problem(401, "/problems/unauthorized");
        api.ask(method.clone(), &path, Some("x.y.z")).await.problem(401, "/problems/unauthorized");
        api.ask(method.clone(), &path, Some(&user)).await.problem(403, "/problems/forbidden");
        for token in [&admin, &api.service()] {
            let answer = api.ask(method.clone(), &path, Some(token)).await;
            assert!(matches!(answer.status, 200 | 404), "{method} {path}: {}", answer.body);
        }
    }
    assert_eq!(api.ask(Method::PUT, "/scheduler/jobs", None).await.status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_now() {
    let api = Api::new().await;
    let at_work = api.world.start();
    let video = api.world.upload("").await;
    api.world.until(video, VideoState::Ready).await;
    let admin = api.token(Role::Admin).await;
    let path = format!("/scheduler/videos/{video}");
    let asked = api.ask(Method::DELETE, &path, Some(&admin)).await;
    assert_eq!(asked.status, 200, "{}", asked.body);
    assert_eq!(
        (&asked.body["state"], &asked.body["video_id"]),
        (&"scheduled".into(), &video.to_string().into())
    );
    assert_eq!(asked.body["receipt"], Value::Null);
    assert_ne!(asked.body["requested_by"], "service");
    api.delete(&path).await.problem(404, "/problems/not-found");

    let path = format!("/scheduler/deletions/{}", asked.body["id"].as_str().unwrap());
    let done = async || Some(api.get(&path).await).filter(|answer| answer.body["state"] == "done");
    let done = crate::world::eventually(done, || "the receipt is written".to_owned()).await;
    assert_eq!(done.body["receipt"]["checked_empty"], true);
    assert!(done.body["receipt"]["objects_deleted"].as_u64().unwrap() > 1, "{}", done.body);
    assert!(done.body["finished_at"].as_str().unwrap().ends_with('Z'));
    api.delete(&path).await.problem(409, "/problems/deletion-not-scheduled");
    at_work.stop().await;
    api.world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_later_can_be_called_off() {
    let api = Api::new().await;
    let video = api.world.create().await;
    for bad in ["after_s=-1", "at=tomorrow", "after_s=1e99", "at=2027-01-01T00:00:00Z&after_s=1"] {
        api.delete(&format!("/scheduler/videos/{video}?{bad}")).await.problem(400, "/problems/invalid-field");
    }
    let asked = api.delete(&format!("/scheduler/videos/{video}?after_s=3600")).await;
    assert_eq!((asked.status, asked.body["requested_by"].as_str()), (200, Some("service")));
    assert_eq!(api.world.seen(video).await.state, VideoState::AwaitingUpload);
    let path = format!("/scheduler/deletions/{}", asked.body["id"].as_str().unwrap());
    assert_eq!(api.delete(&path).await.status, 204);
    api.delete(&path).await.problem(409, "/problems/deletion-not-scheduled");
    assert_eq!(api.get(&path).await.body["state"], "cancelled");
    assert_eq!(api.world.seen(video).await.gone_at, None);
    for method in [Method::GET, Method::DELETE] {
        let unknown = format!("/scheduler/deletions/{UNKNOWN}");
        api.ask(method.clone(), &unknown, Some(&api.service())).await.problem(404, "/problems/not-found");
        let malformed = api.ask(method, "/scheduler/deletions/7", Some(&api.service())).await;
        malformed.problem(400, "/problems/invalid-id");
    }
    api.delete("/scheduler/videos/7").await.problem(400, "/problems/invalid-id");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_page_and_filter() {
    let api = Api::new().await;
    for _ in 0..3 {
        let video = api.world.create().await;
        api.delete(&format!("/scheduler/videos/{video}?after_s=60")).await;
    }
    let first = api.get("/scheduler/deletions?limit=2&state=scheduled").await;
    assert_eq!(first.body["items"].as_array().unwrap().len(), 2);
    let cursor = first.body["next_cursor"].as_str().unwrap();
    let rest = api.get(&format!("/scheduler/deletions?limit=2&cursor={cursor}")).await;
    assert_eq!(rest.body["items"].as_array().unwrap().len(), 1);
    assert_eq!(rest.body["next_cursor"], Value::Null);
    assert_eq!(api.get("/scheduler/deletions?state=done").await.body["items"], serde_json::json!([]));
    assert_eq!(api.get("/scheduler/jobs?kind=purge&state=queued").await.body["items"][0]["kind"], "purge");
    for bad in
        ["deletions?state=odd", "jobs?kind=odd", "jobs?state=odd", "jobs?cursor=forged", "jobs?limit=0"]
    {
        api.get(&format!("/scheduler/{bad}")).await.problem(400, "/problems/invalid-field");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_dead_job_is_retried() {
    let api = Api::new().await;
    let at_work = api.world.start();
    let video = api.world.upload("crash").await;
    api.world.until(video, VideoState::Failed).await;
    at_work.stop().await;
    let dead = api.get("/scheduler/jobs?state=dead").await;
    let job = &dead.body["items"][0];
    assert!(job["error"].as_str().unwrap().contains("crashed"), "{job}");
    let path = format!("/scheduler/jobs/{}/retry", job["id"].as_str().unwrap());
    let service = api.service();
    let retried = api.ask(Method::POST, &path, Some(&service)).await;
    assert_eq!((retried.status, retried.body["state"].as_str()), (200, Some("queued")), "{}", retried.body);
    api.ask(Method::POST, &path, Some(&service)).await.problem(409, "/problems/job-not-dead");
    let unknown = format!("/scheduler/jobs/{UNKNOWN}/retry");
    api.ask(Method::POST, &unknown, Some(&service)).await.problem(404, "/problems/not-found");
    let malformed = api.ask(Method::POST, "/scheduler/jobs/7/retry", Some(&service)).await;
    malformed.problem(400, "/problems/invalid-id");
}

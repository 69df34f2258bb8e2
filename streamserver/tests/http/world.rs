//! One service on a database and a store of its own, and the people who use it.

use std::sync::Arc;

use chassis::settings::ServiceName;
use chassis::{Clock, Edge, EdgeConfig, Ids, Limits, LinkKeys, Settings, SigningKey, Tokens};
use domain::{DatabasePlace, IdParts, Role, SessionId, UserId, VideoId, VideoState, Visibility};
use sql::{Catalog, NewDeletion, NewSession, NewUser, NewVideo};
use store::{Disk, Store};
use streamserver::{Deps, StreamServer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Where the world believes that viewers reach it.
pub const STREAM_URL: &str = "https://streams.example";

pub struct World {
    pub catalog: Catalog,
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    pub ids: Ids,
    pub http: reqwest::Client,
    pub address: std::net::SocketAddr,
    /// Those of the service.
    pub link_keys: LinkKeys,
    server: StreamServer,
    key: SigningKey,
    shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<std::io::Result<()>>,
    // Removed when the test ends.
    folder: tempfile::TempDir,
}

/// A logged-in person.
#[derive(Clone)]
pub struct Person {
    pub id: UserId,
    pub token: String,
}

impl World {
    pub async fn new() -> World {
        World::with_limits(|_| {}).await
    }

    pub async fn with_limits(change: impl FnOnce(&mut Limits)) -> World {
        World::with_settings(|settings| change(&mut settings.limits)).await
    }

    pub async fn with_settings(change: impl FnOnce(&mut Settings)) -> World {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Disk::open(&folder.path().join("store")).unwrap());
        let keys = LinkKeys::generate(&Ids::system()).unwrap();
        World::build_at(folder, store, Clock::system(), keys, |catalog| catalog, change).await
    }

    pub async fn build(
        folder: tempfile::TempDir,
        store: Arc<dyn Store>,
        change: impl FnOnce(&mut Limits),
    ) -> World {
        World::build_under(folder, store, |catalog| catalog, change).await
    }

    /// With a clock that stands until it is told.
    pub async fn with_manual_clock() -> (World, Clock) {
        World::with_link_keys(LinkKeys::generate(&Ids::system()).unwrap()).await
    }

    /// The same, with these keys.
    pub async fn with_link_keys(keys: LinkKeys) -> (World, Clock) {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Disk::open(&folder.path().join("store")).unwrap());
        let clock = Clock::manual(Clock::system().now());
        (World::build_at(folder, store, clock.clone(), keys, |catalog| catalog, |_| {}).await, clock)
    }

    /// The service's view of the database may be another than the test's.
    pub async fn build_under(
        folder: tempfile::TempDir,
        store: Arc<dyn Store>,
        view: impl FnOnce(Catalog) -> Catalog,
        change: impl FnOnce(&mut Limits),
    ) -> World {
        let keys = LinkKeys::generate(&Ids::system()).unwrap();
        World::build_at(folder, store, Clock::system(), keys, view, |settings| change(&mut settings.limits))
            .await
    }

    async fn build_at(
        folder: tempfile::TempDir,
        store: Arc<dyn Store>,
        clock: Clock,
        link_keys: LinkKeys,
        view: impl FnOnce(Catalog) -> Catalog,
        change: impl FnOnce(&mut Settings),
    ) -> World {
        let mut settings = Settings::load(ServiceName::Streamserver, None, []).unwrap();
        // Tests ask faster than people.
        settings.limits.requests_per_s_per_client = 0;
        settings.limits.requests_per_s_per_user = 0;
        change(&mut settings);
        let place = DatabasePlace::sqlite(&folder.path().join("sluice.db"));
        let catalog = Catalog::open(&place).await.unwrap();
        let ids = Ids::system();
        let key = SigningKey::generate(&ids).unwrap();
        let shutdown = CancellationToken::new();
        let deps = Deps {
            catalog: view(catalog.clone()),
            store: store.clone(),
            clock: clock.clone(),
            ids: ids.clone(),
            link_keys: link_keys.clone(),
            limits: settings.limits.clone(),
            views: settings.views,
            cache_tag_header: settings.cache_tag_header,
            shutdown: shutdown.clone(),
        };
        let server = StreamServer::new(deps, STREAM_URL.to_owned());
        let tokens = Tokens::new(key.verifying(), clock.clone(), catalog.session_lookup());
        let (router, _) = streamserver::routes(server.clone(), tokens).finish();
        let app = Edge::new(EdgeConfig::new(&settings, ids.clone())).wrap(router);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn({
            let (limits, shutdown) = (settings.limits.clone(), shutdown.clone());
            async move { chassis::serve(listener, app, &limits, &[], shutdown).await }
        });
        // Clients want one, also those that never use it; somebody may have chosen one before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        World { catalog, store, clock, ids, http, address, link_keys, server, key, shutdown, serving, folder }
    }

    pub fn id<T: From<IdParts>>(&self) -> T {
        self.ids.next(self.clock.now())
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn user(&self, username: &str) -> Person {
        self.person(username, Role::User).await
    }

    pub async fn person(&self, username: &str, role: Role) -> Person {
        let (id, session): (UserId, SessionId) = (self.id(), self.id());
        let now = self.clock.now();
        let user = NewUser {
            id,
            username: username.parse().unwrap(),
            email: None,
            password_hash: "none".into(),
            role,
            display_name: username.into(),
        };
        self.catalog.create_user(&user, now).await.unwrap();
        let expires_at = now.plus_s(30 * 24 * 3600);
        self.catalog.create_session(&NewSession { id: session, user: id, expires_at }, now).await.unwrap();
        Person { id, token: self.key.session_token(id, session, role, now, expires_at) }
    }

    pub fn upload_token(&self, person: &Person, video: VideoId) -> String {
        self.key.upload_token(person.id, video, self.clock.now(), 3600).token
    }

    /// A row that waits for its upload.
    pub async fn video(&self, author: &Person, visibility: Visibility) -> VideoId {
        let id = self.id();
        let video = NewVideo {
            quota: Default::default(),
            id,
            author: author.id,
            title: "Sea & \"Sand\"".into(),
            description: String::new(),
            tags: Vec::new(),
            visibility,
        };
        self.catalog.create_video(&video, self.clock.now()).await.unwrap().unwrap();
        id
    }

    pub async fn state(&self, video: VideoId) -> VideoState {
        self.catalog.video(video, self.clock.now()).await.unwrap().unwrap().state
    }

    /// Deletes after so many milliseconds.
    pub async fn delete(&self, video: VideoId, after_ms: i64) {
        let now = self.clock.now();
        let deletion = NewDeletion {
            video,
            requested_by: "test".into(),
            due_at: now.plus_ms(after_ms),
            id: self.id(),
            job: self.id(),
        };
        self.catalog.delete_video(&deletion, now).await.unwrap();
    }

    pub async fn objects(&self) -> Vec<String> {
        let page = self.store.list("", None, 1000).await.unwrap();
        page.objects.into_iter().map(|(path, _)| path).collect()
    }

    /// What the process does now and then.
    pub async fn finish_left_open(&self) {
        self.server.finish_left_open().await;
    }

    /// What the process does every few seconds.
    pub async fn tell_statistics(&self) {
        self.server.tell_statistics().await;
    }

    /// What it does before it ends.
    pub async fn drain(&self) {
        self.server.drain().await;
    }

    /// As a signal would.
    pub fn ask_to_end(&self) {
        self.shutdown.cancel();
    }

    /// Every test ends like this: the service stops, nothing is left over, the rows make sense.
    pub async fn end(self) {
        self.shutdown.cancel();
        drop(self.http);
        self.serving.await.unwrap().unwrap();
        self.server.drain().await;
        assert_eq!(self.store.list_unfinished(None, 10).await.unwrap(), []);
        assert_eq!(self.catalog.violations().await.unwrap(), []);
        self.catalog.close().await;
        drop(self.folder);
    }
}

/// The answer has this status, and if it is a refusal, it is a problem of this type.
pub async fn expect_problem(response: reqwest::Response, status: u16, kind: &str) -> serde_json::Value {
    let (found, content_type) = (response.status().as_u16(), response.headers().get("content-type").cloned());
    let text = response.text().await.unwrap();
    assert_eq!(found, status, "{text}");
    assert_eq!(content_type.unwrap(), "application/problem+json");
    let problem: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(problem["type"], format!("/problems/{kind}"), "{text}");
    assert_eq!(problem["status"], status);
    assert!(problem["request_id"].is_string(), "{text}");
    problem
}

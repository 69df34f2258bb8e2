//! The service in this process on a port of its own, and the personas who use it.

use std::sync::Arc;

use api::{Api, Deps, docs};
use chassis::{Clock, Edge, EdgeConfig, Ids, LinkKeys, ServiceName, Settings, SigningKey, Tokens, serve};
use domain::{DatabasePlace, Timestamp};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sql::Catalog;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub const PASSWORD: &str = "correct horse";

pub struct App {
    pub base: String,
    pub catalog: Catalog,
    pub clock: Clock,
    pub ids: Ids,
    pub api: Arc<Api>,
    pub settings: Settings,
    pub shutdown: CancellationToken,
    pub client: reqwest::Client,
    _folder: tempfile::TempDir,
}

/// Someone with a token, or without.
pub struct Persona {
    base: String,
    client: reqwest::Client,
    pub token: Option<String>,
    pub id: String,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl App {
    pub async fn start() -> App {
        App::with(&[]).await
    }

    /// With these settings, as in the environment.
    pub async fn with(env: &[(&str, &str)]) -> App {
        let folder = tempfile::tempdir().unwrap();
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings = Settings::load(ServiceName::AllInOne, None, env).unwrap();
        let catalog = Catalog::open(&DatabasePlace::sqlite(&folder.path().join("sluice.db"))).await.unwrap();
        let clock = Clock::manual(Timestamp::from_unix_ms(1_790_000_000_000));
        let ids = Ids::seeded(7);
        let signing_key = SigningKey::generate(&ids).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let deps = Deps {
            tokens: Tokens::new(signing_key.verifying(), clock.clone(), catalog.session_lookup()),
            catalog: catalog.clone(),
            signing_key,
            link_keys: LinkKeys::generate(&ids).unwrap(),
            clock: clock.clone(),
            ids: ids.clone(),
            shared: None,
            urls: settings.urls(address),
            shutdown: shutdown.clone(),
        };
        let api = Api::new(deps, &settings);
        let (router, document) = api.clone().routes().finish();
        let edge = Edge::new(EdgeConfig::new(&settings, ids.clone()));
        let app = edge.wrap(router.merge(docs(document)));
        let (limits, stop) = (settings.limits.clone(), shutdown.clone());
        tokio::spawn(async move { serve(listener, app, &limits, &[], stop).await });
        // Clients want one, also those that never use it; somebody may have chosen one before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (base, client) = (format!("http://{address}"), reqwest::Client::new());
        App { base, catalog, clock, ids, api, settings, shutdown, client, _folder: folder }
    }

    pub fn anonymous(&self) -> Persona {
        self.with_token(None)
    }

    pub fn with_token(&self, token: Option<String>) -> Persona {
        Persona { base: self.base.clone(), client: self.client.clone(), token, id: String::new() }
    }

    /// Registers and logs in.
    pub async fn user(&self, name: &str) -> Persona {
        let registration = json!({"username": name, "password": PASSWORD});
        self.anonymous().post("/api/users", &registration).await.expect(201);
        self.log_in(name).await
    }

    pub async fn admin(&self) -> Persona {
        let hash = chassis::password::hash(PASSWORD.to_owned()).await.unwrap();
        let (id, now) = (self.ids.next(self.clock.now()), self.clock.now());
        self.catalog.upsert_admin(id, &"root".parse().unwrap(), &hash, now).await.unwrap();
        self.log_in("root").await
    }

    pub async fn log_in(&self, name: &str) -> Persona {
        let credentials = json!({"username": name, "password": PASSWORD});
        let session = self.anonymous().post("/api/sessions", &credentials).await.expect(200).json();
        let token = session["token"].as_str().unwrap().to_owned();
        let id = session["user"]["id"].as_str().unwrap().to_owned();
        Persona { id, ..self.with_token(Some(token)) }
    }

    /// A well-formed id that nothing has.
    pub fn unknown_id(&self) -> domain::VideoId {
        self.ids.next(self.clock.now())
    }
}

impl Persona {
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::DELETE, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(body)).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::PATCH, path).json(body)).await
    }

    /// The video's path.
    pub async fn create(&self, title: &str) -> String {
        let video = self.post("/api/videos", &json!({"title": title})).await.expect(201).json();
        format!("/api/videos/{}", video["id"].as_str().unwrap())
    }
}

impl Answer {
    pub async fn of(request: RequestBuilder) -> Answer {
        let response = request.send().await.expect("the service answers");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, text: response.text().await.unwrap() }
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Everything that every problem must have.
    #[track_caller]
    pub fn problem(self, status: u16, kind: &str) -> Value {
        let answer = self.expect(status);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        let body = answer.json();
        assert_eq!(body["type"], kind, "{body}");
        assert_eq!(body["status"], status);
        assert_eq!(body["request_id"], answer.header("x-request-id"));
        assert!(body["title"].is_string() && !body["detail"].as_str().unwrap().is_empty(), "{body}");
        assert_eq!(status == 401, !answer.header("www-authenticate").is_empty());
        body
    }

    /// A 400 that names these fields.
    #[track_caller]
    pub fn bad_fields(self, fields: &[&str]) {
        let body = self.problem(400, "/problems/invalid-field");
        let named: Vec<_> = body["errors"].as_array().unwrap().iter().map(|e| e["field"].clone()).collect();
        assert_eq!(named, fields, "{body}");
    }
}

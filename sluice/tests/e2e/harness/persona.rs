use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use reqwest::{Body, Client, Method, RequestBuilder};
use serde_json::{Value, json};

/// Somebody who talks to the server.
#[derive(Clone)]
pub struct Persona {
    http: Client,
    pub base: String,
    pub id: String,
    pub username: String,
    pub token: Option<String>,
}

/// An answer read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {} {}", self.status, String::from_utf8_lossy(&self.body)))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The answer itself, when it has this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    /// A problem of this status and type, in its right form.
    #[track_caller]
    pub fn problem(self, status: u16, kind: &str) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["type"], kind, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
        assert_eq!(problem["request_id"], self.header("x-request-id"), "{problem}");
        problem
    }
}

/// A client whose requests take no longer.
pub fn client_within(time_max: Duration) -> Client {
    // It wants one, though it never uses it; somebody may have chosen one before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().timeout(time_max).build().unwrap()
}

impl Persona {
    pub const PASSWORD: &str = "correct horse battery";

    pub fn anonymous(base: &str) -> Persona {
        Persona {
            http: client_within(Duration::from_secs(300)),
            base: base.to_owned(),
            id: String::new(),
            username: String::new(),
            token: None,
        }
    }

    pub async fn register(base: &str, username: &str) -> Persona {
        let anonymous = Persona::anonymous(base);
        let body = json!({"username": username, "password": Persona::PASSWORD});
        anonymous.post("/api/users", &body).await.expect(201);
        Persona::log_in(base, username).await
    }

    pub async fn log_in(base: &str, username: &str) -> Persona {
        let mut persona = Persona::anonymous(base);
        let body = json!({"username": username, "password": Persona::PASSWORD});
        let session = persona.post("/api/sessions", &body).await.expect(200).json();
        persona.token = Some(session["token"].as_str().unwrap().to_owned());
        persona.id = session["user"]["id"].as_str().unwrap().to_owned();
        persona.username = username.to_owned();
        persona
    }

    /// The same person at another address.
    pub fn at(&self, base: &str) -> Persona {
        Persona { base: base.to_owned(), ..self.clone() }
    }

    pub fn with_token(&self, token: &str) -> Persona {
        Persona { token: Some(token.to_owned()), ..self.clone() }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.base) };
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    pub async fn send(&self, request: RequestBuilder) -> Answer {
        self.try_send(request).await.unwrap()
    }

    pub async fn try_send(&self, request: RequestBuilder) -> reqwest::Result<Answer> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, body: response.bytes().await?.to_vec() })
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// Asks until the answer is 404, at most until a second after `since`. Meanwhile an answer may also break off:
    /// what is being deleted is not sent to its end.
    pub async fn until_gone(&self, path: &str, since: Instant) {
        loop {
            let answer = self.try_send(self.request(Method::GET, path)).await;
            if answer.is_ok_and(|answer| answer.status == 404) {
                return;
            }
            assert!(since.elapsed() < Duration::from_secs(1), "{path} is still there a second later");
        }
    }

    pub async fn get_range(&self, path: &str, range: &str) -> Answer {
        self.send(self.request(Method::GET, path).header("Range", range)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// A new video, waiting for its upload.
    pub async fn create(&self, title: &str) -> Value {
        self.post("/api/videos", &json!({"title": title})).await.expect(201).json()
    }

    /// Sends the bytes whole.
    pub async fn send_bytes(&self, video: &str, bytes: impl Into<Body>) -> Answer {
        let request = self
            .request(Method::POST, &format!("/stream/videos/{video}"))
            .header(CONTENT_TYPE, "video/mp4")
            .body(bytes);
        self.send(request).await
    }

    /// Creates a video and uploads the file to it; the id.
    pub async fn upload(&self, file: &Path) -> String {
        let video = self.create(&file.file_name().unwrap().to_string_lossy()).await;
        let id = video["id"].as_str().unwrap().to_owned();
        self.send_bytes(&id, std::fs::read(file).unwrap()).await.expect(201);
        id
    }

    pub async fn video(&self, id: &str) -> Value {
        self.get(&format!("/api/videos/{id}")).await.expect(200).json()
    }

    /// Waits until the video is in one of these states, at most `s_max` seconds; fails early in another final one.
    pub async fn until(&self, id: &str, states: &[&str], s_max: u64) -> Value {
        let deadline = Instant::now() + Duration::from_secs(s_max);
        loop {
            let video = self.video(id).await;
            let state = video["state"].as_str().unwrap();
            if states.contains(&state) {
                return video;
            }
            let ended = ["ready", "rejected", "failed", "expired"].contains(&state);
            assert!(!ended, "wanted {states:?}, but the video ended {video:#}");
            assert!(Instant::now() < deadline, "wanted {states:?} within {s_max} s: {video:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What is published: the master playlist but for the storyboard, which may come between two who ask.
    pub async fn published(&self, id: &str) -> String {
        let master = self.get(&format!("/stream/videos/{id}/master.m3u8")).await.expect(200).text();
        let lines = master.lines().filter(|line| !line.starts_with("#EXT-X-IMAGE-STREAM-INF"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The addresses of the first variant's segments of pictures, as the playlists name them.
    pub async fn segments(&self, id: &str) -> Vec<String> {
        let master = self.get(&format!("/stream/videos/{id}/master.m3u8")).await.expect(200).text();
        let playlist = master.lines().find(|line| line.ends_with("video.m3u8")).unwrap();
        let media = self.get(&format!("/stream/videos/{id}/{playlist}")).await.expect(200).text();
        let folder = format!("/stream/videos/{id}/{}", playlist.rsplit_once('/').unwrap().0);
        let names = media.lines().filter(|line| line.ends_with(".mp4") && !line.starts_with('#'));
        names.map(|name| format!("{folder}/{name}")).collect()
    }

    /// Waits until the video is ready and has its storyboard, the last that comes: then nothing about it changes.
    pub async fn until_drawn(&self, id: &str, s_max: u64) -> Value {
        let deadline = Instant::now() + Duration::from_secs(s_max);
        self.until(id, &["ready"], s_max).await;
        loop {
            let video = self.video(id).await;
            if video["storyboard_url"].is_string() {
                return video;
            }
            assert!(Instant::now() < deadline, "no storyboard within {s_max} s: {video:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

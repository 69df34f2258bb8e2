//! The service, as somebody who has logged in.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Client, Method, RequestBuilder, Response, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Of what an answer to a small question may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);

pub struct Server {
    http: Client,
    base: Url,
    /// `None` before the log-in.
    token: Option<String>,
}

#[derive(Deserialize)]
pub struct Video {
    pub id: String,
    pub state: String,
    pub progress: f64,
    pub error: Option<Problem>,
    pub upload: Option<Place>,
}

/// Where its bytes go.
#[derive(Deserialize)]
pub struct Place {
    pub tus_url: String,
    pub max_bytes: u64,
}

/// As far as it is for a person.
#[derive(Deserialize)]
pub struct Problem {
    pub detail: String,
}

#[derive(Deserialize)]
struct Session {
    token: String,
}

impl Server {
    pub async fn log_in(base: &Url, username: &str, password: &str) -> anyhow::Result<Server> {
        // Somebody may have chosen one before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder().connect_timeout(CONNECT_MAX).build()?;
        let mut server = Server { http, base: base.clone(), token: None };
        let body = json!({ "username": username, "password": password });
        let session: Session = server.ask(Method::POST, "/api/sessions", Some(&body)).await?;
        server.token = Some(session.token);
        Ok(server)
    }

    pub async fn create_video(&self, title: &str, visibility: &str) -> anyhow::Result<Video> {
        let body = json!({ "title": title, "visibility": visibility });
        self.ask(Method::POST, "/api/videos", Some(&body)).await
    }

    pub async fn video(&self, id: &str) -> anyhow::Result<Video> {
        self.ask(Method::GET, &format!("/api/videos/{id}"), None).await
    }

    pub async fn delete_video(&self, id: &str) -> anyhow::Result<()> {
        let request = self.request(Method::DELETE, &format!("/api/videos/{id}"))?.timeout(ANSWER_MAX);
        request.send().await?.error_for_status()?;
        Ok(())
    }

    /// `address` as the service told it, perhaps without its host.
    pub fn request(&self, method: Method, address: &str) -> anyhow::Result<RequestBuilder> {
        let url = self.base.join(address).with_context(|| format!("`{address}` is no address"))?;
        let request = self.http.request(method, url);
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        })
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> anyhow::Result<T> {
        let mut request = self.request(method, path)?.timeout(ANSWER_MAX);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.with_context(|| format!("{} does not answer (--to)", self.base))?;
        if !answer.status().is_success() {
            bail!("{}", refusal(answer).await);
        }
        answer.json().await.with_context(|| format!("{} (--to) is something else than Sluice", self.base))
    }
}

/// What a person is to know of an answer that is none.
pub async fn refusal(answer: Response) -> String {
    let status = answer.status();
    match answer.json::<Problem>().await {
        Ok(problem) => problem.detail,
        Err(_) => format!("the service answered {status}"),
    }
}

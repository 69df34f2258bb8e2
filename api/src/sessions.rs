//! Logging in and out.

use std::sync::Arc;

use axum::extract::State;
use chassis::{Caller, ClientAddress, Json, Problem, password};
use domain::SessionId;
use http::StatusCode;
use serde::Deserialize;
use sql::NewSession;
use utoipa::ToSchema;

use crate::failure::OrProblem;
use crate::{Api, view};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogIn {
    /// This or `email`.
    username: Option<String>,
    email: Option<String>,
    password: String,
}

/// Log in.
#[utoipa::path(post, path = "/api/sessions", tag = "sessions", request_body = LogIn, responses(
    (status = 200, body = view::Session), (status = 400, description = "A field is wrong"),
    (status = 401, description = "`/problems/wrong-credentials`: no such user, or not their password"),
))]
pub(crate) async fn log_in(
    State(api): State<Arc<Api>>,
    client: ClientAddress,
    Json(body): Json<LogIn>,
) -> Result<Json<view::Session>, Problem> {
    api.logins.check(&client.limit_key()).await?;
    let login = login(body.username, body.email)?;
    let found = api.catalog.credentials(&login).await.or_problem()?;
    // An unknown user costs as much time as a known one.
    let stored = found.as_ref().map(|credentials| credentials.password_hash.clone());
    let right = password::verify(body.password, stored).await?;
    let credentials = found.filter(|_| right).ok_or_else(wrong_credentials)?;
    api.open_session(credentials.user).await.map(Json)
}

/// Log out. The token is dead on every service within a second.
#[utoipa::path(delete, path = "/api/sessions", tag = "sessions", responses((status = 205)))]
pub(crate) async fn log_out(State(api): State<Arc<Api>>, caller: Caller) -> Result<StatusCode, Problem> {
    let Caller::User { session, .. } = caller else {
        return Err(Problem::unauthorized("There is no session to end."));
    };
    api.catalog.revoke_session(session, api.now()).await.or_problem()?;
    api.tokens.forget(Some(session)).await;
    Ok(StatusCode::RESET_CONTENT)
}

impl Api {
    async fn open_session(&self, user: sql::User) -> Result<view::Session, Problem> {
        let now = self.now();
        let id: SessionId = self.ids.next(now);
        let expires_at = now.plus_s(i64::try_from(self.session_s).unwrap_or(i64::MAX));
        let session = NewSession { id, user: user.id, expires_at };
        if !self.catalog.create_session(&session, now).await.or_problem()? {
            return Err(wrong_credentials());
        }
        Ok(view::Session {
            token: self.signing_key.session_token(user.id, id, user.role, now, expires_at),
            expires_at: expires_at.to_rfc3339(),
            user: view::User::own(user),
        })
    }
}

/// Case-folded as both are stored.
fn login(username: Option<String>, email: Option<String>) -> Result<String, Problem> {
    match (username, email) {
        (Some(login), None) | (None, Some(login)) => Ok(login.trim().to_lowercase()),
        _ => Err(Problem::field("username", "give `username` or `email`, and not both")),
    }
}

fn wrong_credentials() -> Problem {
    let detail = "There is no account with this name and password; check both and try again.";
    let unauthorized = Problem::unauthorized(detail);
    unauthorized.with_kind("/problems/wrong-credentials", "Wrong name or password")
}

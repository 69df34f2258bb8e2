//! The first admin: from the settings, or chosen by whoever holds the one-time link that the first start prints.

use std::sync::Arc;

use axum::extract::State;
use chassis::{Json, Problem, Settings, password};
use domain::{Role, Username};
use http::StatusCode;
use serde::Deserialize;
use sql::NewUser;
use utoipa::ToSchema;

use crate::failure::OrProblem;
use crate::input::{self, Fields};
use crate::{Api, view};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChooseAdmin {
    /// From the link, after `#k=`.
    token: String,
    username: String,
    /// 8 to 128 characters.
    password: String,
}

/// Choose the first admin, with the one-time link that the first start prints.
#[utoipa::path(post, path = "/api/setup", tag = "setup", request_body = ChooseAdmin, responses(
    (status = 201, body = view::User), (status = 400, description = "A field is wrong"),
    (status = 401, description = "The link is not ours, or it has expired"),
    (status = 409, description = "`/problems/already-set-up`, or `/problems/username-taken`"),
))]
pub(crate) async fn choose_admin(
    State(api): State<Arc<Api>>,
    Json(body): Json<ChooseAdmin>,
) -> Result<(StatusCode, Json<view::User>), Problem> {
    api.tokens.check_setup(&body.token)?;
    if api.catalog.admin_exists().await.or_problem()? {
        return Err(already_set_up());
    }
    let new = api.first_admin(body).await?;
    if !api.catalog.create_first_admin(&new, api.now()).await.or_problem()? {
        let lost = api.catalog.admin_exists().await.or_problem()?;
        return Err(if lost { already_set_up() } else { name_taken() });
    }
    tracing::info!(user.id = %new.id, "the first admin was chosen");
    let user = api.catalog.user(new.id).await.or_problem()?.ok_or_else(Problem::not_found)?;
    Ok((StatusCode::CREATED, Json(view::User::own(user))))
}

impl Api {
    /// At the start: makes the admin that the settings name. Without one, and while there is none, the address to print.
    pub async fn prepare_admin(&self, settings: &Settings) -> Result<Option<String>, Problem> {
        if let (Some(username), Some(password)) = (&settings.admin_username, &settings.admin_password) {
            let username: Username = username.parse().map_err(Problem::internal)?;
            let hash = password::hash(password.clone()).await?;
            let id = self.ids.next(self.now());
            self.catalog.upsert_admin(id, &username, &hash, self.now()).await.or_problem()?;
            return Ok(None);
        }
        if self.catalog.admin_exists().await.or_problem()? {
            return Ok(None);
        }
        let token = self.signing_key.setup_token(self.now(), settings.setup_token_s);
        // After `#`: browsers do not send it, so it stands in no log.
        Ok(Some(format!("{}/setup#k={token}", self.urls.public)))
    }

    async fn first_admin(&self, body: ChooseAdmin) -> Result<NewUser, Problem> {
        let mut fields = Fields::default();
        let username = fields.take("username", input::username(body.username));
        let password = fields.take("password", input::password(body.password));
        let (Some(username), Some(password)) = (username, password) else { return Err(fields.problem()) };
        Ok(NewUser {
            id: self.ids.next(self.now()),
            display_name: username.as_str().to_owned(),
            username,
            email: None,
            password_hash: password::hash(password).await?,
            role: Role::Admin,
        })
    }
}

fn already_set_up() -> Problem {
    let detail = "There is an admin already; this link has done its work. Log in instead.";
    Problem::conflict("/problems/already-set-up", "Already set up", detail)
}

fn name_taken() -> Problem {
    let detail = "Somebody has this user name already; choose another one.";
    Problem::conflict("/problems/username-taken", "The user name is taken", detail)
}

//! People.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use chassis::page::{Page, PageParams, PageQuery};
use chassis::{Caller, ClientAddress, Json, Path, Problem, password};
use domain::{Role, UserId};
use http::StatusCode;
use http::header::LOCATION;
use serde::Deserialize;
use sql::{Audience, CreateUser, NewUser, UpdateUser, UserPatch, VideoFilter};
use utoipa::ToSchema;

use crate::failure::OrProblem;
use crate::input::{self, Fields};
use crate::{Api, videos, view};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Register {
    /// 3 to 32 of `a-z0-9_.`, case-folded.
    username: String,
    /// 8 to 128 characters.
    password: String,
    email: Option<String>,
    /// 1 to 64 characters; the user name when left out.
    display_name: Option<String>,
}

/// Create an account.
#[utoipa::path(post, path = "/api/users", tag = "users", request_body = Register, responses(
    (status = 201, body = view::User), (status = 400, description = "A field is wrong"),
    (status = 409, description = "`/problems/username-taken` or `/problems/email-taken`"),
))]
pub(crate) async fn register(
    State(api): State<Arc<Api>>,
    client: ClientAddress,
    Json(body): Json<Register>,
) -> Result<impl IntoResponse, Problem> {
    api.registrations.check(&client.limit_key()).await?;
    let new = api.new_user(body).await?;
    match api.catalog.create_user(&new, api.now()).await.or_problem()? {
        CreateUser::Created(user) => {
            let location = format!("/api/users/{}", user.id);
            Ok((StatusCode::CREATED, [(LOCATION, location)], Json(view::User::own(user))))
        }
        CreateUser::UsernameTaken => Err(username_taken()),
        CreateUser::EmailTaken => Err(email_taken()),
    }
}

/// A person; what is private is there only for the person.
#[utoipa::path(get, path = "/api/users/{uid}", tag = "users", params(("uid" = String, Path)), responses(
    (status = 200, body = view::User), (status = 400, description = "Not an id"), (status = 404, description = "Unknown"),
))]
pub(crate) async fn profile(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<UserId>,
) -> Result<Json<view::User>, Problem> {
    let user = api.catalog.user(id).await.or_problem()?.ok_or_else(Problem::not_found)?;
    Ok(Json(if caller.is(id) { view::User::own(user) } else { view::User::public(user) }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Update {
    display_name: Option<String>,
    bio: Option<String>,
    /// `null` empties it, as with the two that follow.
    #[serde(default, deserialize_with = "input::nullable")]
    #[schema(value_type = Option<String>)]
    email: Option<Option<String>>,
    #[serde(default, deserialize_with = "input::nullable")]
    #[schema(value_type = Option<String>)]
    phone: Option<Option<String>>,
    /// `YYYY-MM-DD`
    #[serde(default, deserialize_with = "input::nullable")]
    #[schema(value_type = Option<String>)]
    date_of_birth: Option<Option<String>>,
    /// A new one; all other sessions end.
    password: Option<String>,
    /// Needed with `password`.
    current_password: Option<String>,
}

/// Change one's own profile.
#[utoipa::path(patch, path = "/api/users/{uid}", tag = "users", params(("uid" = String, Path)), request_body = Update,
    responses(
        (status = 200, body = view::User), (status = 400, description = "A field is wrong"),
        (status = 403, description = "Somebody else's profile, or `/problems/wrong-password`"),
        (status = 404, description = "Unknown"), (status = 409, description = "`/problems/email-taken`"),
))]
pub(crate) async fn update(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<UserId>,
    Json(body): Json<Update>,
) -> Result<Json<view::User>, Problem> {
    api.require_self(id, &caller).await?;
    let new_password = body.password.is_some();
    let patch = api.user_patch(id, &caller, body).await?;
    match api.catalog.update_user(id, &patch, api.now()).await.or_problem()? {
        UpdateUser::Updated(user) => {
            if new_password {
                api.tokens.forget(None).await;
            }
            Ok(Json(view::User::own(user)))
        }
        UpdateUser::EmailTaken => Err(email_taken()),
        UpdateUser::NotFound => Err(Problem::not_found()),
    }
}

/// Delete one's own account. Sessions end, comments go, videos go through deletion.
#[utoipa::path(delete, path = "/api/users/{uid}", tag = "users", params(("uid" = String, Path)), responses(
    (status = 204), (status = 400, description = "Not an id"), (status = 403, description = "Somebody else's account"),
    (status = 404, description = "Unknown"),
))]
pub(crate) async fn delete(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<UserId>,
) -> Result<StatusCode, Problem> {
    api.require_self(id, &caller).await?;
    let now = api.now();
    let deleted = api.catalog.delete_user(id, || api.ids.parts(now), now).await.or_problem()?;
    api.tokens.forget(None).await;
    if deleted { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::not_found()) }
}

/// A person's videos, newest first: for the person all, for others those that are public and can be watched.
#[utoipa::path(get, path = "/api/users/{uid}/videos", tag = "users", params(("uid" = String, Path), PageParams),
    responses(
        (status = 200, body = Page<view::Video>), (status = 400, description = "Not an id, or a bad page"),
        (status = 404, description = "Unknown"),
))]
pub(crate) async fn videos(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<UserId>,
    page: PageQuery,
) -> Result<Json<Page<view::Video>>, Problem> {
    api.catalog.user(id).await.or_problem()?.ok_or_else(Problem::not_found)?;
    let everything = caller.is(id) || caller.is_admin();
    let audience = if everything { Audience::OwnAll } else { Audience::Public };
    let filter = VideoFilter { author: Some(id), tag: None, audience };
    videos::page(&api, &filter, "user-videos", page, &caller).await.map(Json)
}

impl Api {
    async fn new_user(&self, body: Register) -> Result<NewUser, Problem> {
        let mut fields = Fields::default();
        let username = fields.take("username", input::username(body.username));
        let password = fields.take("password", input::password(body.password));
        let email = fields.take_optional("email", body.email, input::email);
        let display_name = fields.take_optional("display_name", body.display_name, input::display_name);
        let (Some(username), Some(password), Some(email), Some(display_name)) =
            (username, password, email, display_name)
        else {
            return Err(fields.problem());
        };
        Ok(NewUser {
            id: self.ids.next(self.now()),
            display_name: display_name.unwrap_or_else(|| username.as_str().to_owned()),
            username,
            email,
            password_hash: password::hash(password).await?,
            role: Role::User,
        })
    }

    async fn user_patch(&self, id: UserId, caller: &Caller, body: Update) -> Result<UserPatch, Problem> {
        let mut fields = Fields::default();
        let display_name = fields.take_optional("display_name", body.display_name, input::display_name);
        let bio = fields.take_optional("bio", body.bio, input::bio);
        let email = fields.take_nullable("email", body.email, input::email);
        let phone = fields.take_nullable("phone", body.phone, input::phone);
        let born = |text| input::date_of_birth(text, self.now());
        let date_of_birth = fields.take_nullable("date_of_birth", body.date_of_birth, born);
        let password = fields.take_optional("password", body.password, input::password);
        let current = match (&password, body.current_password) {
            (Some(Some(_)), None) => {
                fields.take("current_password", Err("needed to change the password".into()))
            }
            (_, current) => Some(current),
        };
        let (
            Some(display_name),
            Some(bio),
            Some(email),
            Some(phone),
            Some(date_of_birth),
            Some(password),
            Some(current),
        ) = (display_name, bio, email, phone, date_of_birth, password, current)
        else {
            return Err(fields.problem());
        };
        let password_hash = match password.zip(current) {
            Some((password, current)) => {
                self.check_password(id, current).await?;
                Some(password::hash(password).await?)
            }
            None => None,
        };
        let session_kept = match caller {
            Caller::User { session, .. } => Some(*session),
            _ => None,
        };
        Ok(UserPatch { display_name, bio, email, phone, date_of_birth, password_hash, session_kept })
    }

    async fn check_password(&self, id: UserId, current: String) -> Result<(), Problem> {
        let user = self.catalog.user(id).await.or_problem()?.ok_or_else(Problem::not_found)?;
        let stored = self.catalog.credentials(user.username.as_str()).await.or_problem()?;
        if password::verify(current, stored.map(|stored| stored.password_hash)).await? {
            return Ok(());
        }
        let detail = "`current_password` is not the password of this account.";
        Err(Problem::new(StatusCode::FORBIDDEN, "/problems/wrong-password", "Wrong password", detail))
    }

    /// Profiles are public, so somebody else's is a 403; an unknown one a 404.
    pub(crate) async fn require_self(&self, id: UserId, caller: &Caller) -> Result<(), Problem> {
        if caller.is(id) {
            return Ok(());
        }
        self.catalog.user(id).await.or_problem()?.ok_or_else(Problem::not_found)?;
        Err(Problem::forbidden("This is somebody else's account."))
    }
}

fn username_taken() -> Problem {
    let detail = "Somebody has this user name already; choose another one.";
    Problem::conflict("/problems/username-taken", "The user name is taken", detail)
        .with_field("username", "taken")
}

fn email_taken() -> Problem {
    let detail = "Another account has this e-mail address; log in to it, or give another address.";
    Problem::conflict("/problems/email-taken", "The e-mail address is taken", detail)
        .with_field("email", "taken")
}

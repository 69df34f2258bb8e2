//! Who a request is from, as its token says.

use axum::extract::FromRequestParts;
use domain::{Role, SessionId, Timestamp, UserId, VideoId};
use http::request::Parts;

use crate::Problem;

/// Put into the request by the route's policy; an extractor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    Anonymous,
    User {
        user: UserId,
        session: SessionId,
        role: Role,
    },
    /// May upload this video and nothing else.
    Upload {
        video: VideoId,
        user: UserId,
        /// Of the token; [`crate::Policy::BegunUpload`] lets it pass.
        expires_at: Timestamp,
    },
    /// Another part of the installation.
    Service,
}

impl Caller {
    /// The logged-in person, if there is one.
    pub fn user(&self) -> Option<UserId> {
        match self {
            Caller::User { user, .. } => Some(*user),
            _ => None,
        }
    }

    /// The logged-in person, or a 401.
    pub fn require_user(&self) -> Result<UserId, Problem> {
        self.user()
            .ok_or_else(|| Problem::unauthorized("Log in and send the token as `Authorization: Bearer …`."))
    }

    pub fn is_admin(&self) -> bool {
        matches!(self, Caller::Service | Caller::User { role: Role::Admin | Role::Service, .. })
    }

    /// Logged in as this person.
    pub fn is(&self, user: UserId) -> bool {
        self.user() == Some(user)
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get().copied();
        caller.ok_or_else(|| Problem::internal("the route was registered without a policy"))
    }
}

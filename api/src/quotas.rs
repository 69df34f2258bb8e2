//! What a person may have.

use std::sync::Arc;

use axum::extract::State;
use chassis::{Caller, Json, Path, Problem};
use domain::UserId;
use serde::{Deserialize, Serialize};
use sql::OwnQuota;
use utoipa::ToSchema;

use crate::Api;
use crate::failure::OrProblem;

/// What holds for a person, and what they have.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QuotaView {
    /// Of files as they were uploaded. `null`, here and below: any.
    bytes_max: Option<u64>,
    videos_max: Option<u64>,
    /// Videos that are being uploaded, broken off ones included.
    uploads_max: Option<u64>,
    used_bytes: u64,
    /// Of uploads that have not ended: as long as they were said to be.
    uploading_bytes: u64,
    videos: u64,
    uploads: u64,
}

/// What is left out, or `null`, is as the settings say; 0 is any.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetQuota {
    bytes_max: Option<u64>,
    videos_max: Option<u64>,
    uploads_max: Option<u64>,
}

/// What a person may have, and has; for the person, and for admins.
#[utoipa::path(get, path = "/api/users/{uid}/quota", tag = "users", params(("uid" = String, Path)), responses(
    (status = 200, body = QuotaView), (status = 400, description = "Not an id"),
    (status = 403, description = "Somebody else's"), (status = 404, description = "Unknown"),
))]
pub(crate) async fn show(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<UserId>,
) -> Result<Json<QuotaView>, Problem> {
    if !caller.is_admin() {
        api.require_self(id, &caller).await?;
    }
    api.quota_of(id).await.map(Json)
}

/// Set what a person may have. What they have already stays.
#[utoipa::path(put, path = "/api/users/{uid}/quota", tag = "users", params(("uid" = String, Path)),
    request_body = SetQuota, responses(
        (status = 200, body = QuotaView), (status = 400, description = "Not an id, or a field is wrong"),
        (status = 404, description = "Unknown"),
))]
pub(crate) async fn set(
    State(api): State<Arc<Api>>,
    Path(id): Path<UserId>,
    Json(body): Json<SetQuota>,
) -> Result<Json<QuotaView>, Problem> {
    let SetQuota { bytes_max, videos_max, uploads_max } = body;
    let own = OwnQuota { bytes_max, videos_max, uploads_max };
    if !api.catalog.set_quota(id, &own).await.or_problem()? {
        return Err(Problem::not_found());
    }
    api.quota_of(id).await.map(Json)
}

impl Api {
    async fn quota_of(&self, id: UserId) -> Result<QuotaView, Problem> {
        let found = self.catalog.quota(id, self.now()).await.or_problem()?;
        let (own, usage) = found.ok_or_else(Problem::not_found)?;
        let quota = own.over(&self.quota);
        Ok(QuotaView {
            bytes_max: quota.bytes_max,
            videos_max: quota.videos_max,
            uploads_max: quota.uploads_max,
            used_bytes: usage.bytes,
            uploading_bytes: usage.promised_bytes,
            videos: usage.videos,
            uploads: usage.uploads,
        })
    }
}

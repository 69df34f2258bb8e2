//! How far an upload has come. Whoever asks ends the request that writes to it.

use chassis::{Caller, Problem};
use domain::{UploadId, UploadKind, UploadState};
use http::StatusCode;
use sql::Resumable;

use super::finish::finish_in_peace;
use super::hold::Held;
use crate::{StreamServer, failure};

pub async fn look_at(server: &StreamServer, caller: &Caller, id: UploadId) -> Result<Resumable, Problem> {
    let upload = server.upload_of(caller, id).await?;
    if upload.state != UploadState::Open || upload.kind == UploadKind::Final {
        let now = server.clock.now();
        let touched = server.catalog.touch_resumable(id, server.upload_expires_at(now), now).await;
        return touched.map(|()| upload).map_err(failure::sql);
    }
    match at_rest(server, id, Held::acquire(server, id)).await {
        // Nothing more is to come from the client; it is put together later, or is being put together.
        Err(problem) if upload.length_bytes == Some(upload.offset_bytes) && is_passing(&problem) => {
            Ok(upload)
        }
        looked => looked,
    }
}

/// Another time it goes better.
fn is_passing(problem: &Problem) -> bool {
    problem.status().is_server_error() || problem.status() == StatusCode::LOCKED
}

/// Nobody writes to it. All its bytes may have been there before somebody died: then it is finished now.
pub async fn at_rest(
    server: &StreamServer,
    id: UploadId,
    acquired: impl Future<Output = Result<Option<Held>, Problem>>,
) -> Result<Resumable, Problem> {
    match acquired.await? {
        Some(held) if held.has_all_bytes() => finish_in_peace(held, None).await,
        Some(held) => {
            let upload = held.upload.clone();
            held.release().await;
            Ok(upload)
        }
        None => {
            let found = server.catalog.resumable(id, server.clock.now()).await.map_err(failure::sql)?;
            found.ok_or_else(Problem::not_found)
        }
    }
}

//! tus 1.0.0.

mod concat;
pub mod create;
pub mod headers;

use std::time::{Duration, UNIX_EPOCH};

use axum::extract::Request;
use axum::response::Response;
use chassis::{Caller, Problem};
use domain::{Timestamp, UploadId, UploadKind, UploadState};
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue, StatusCode};
use sql::Resumable;

use self::headers::{
    TUS_CHECKSUM_ALGORITHM, TUS_EXTENSION, TUS_MAX_SIZE, TUS_VERSION, UPLOAD_CONCAT, UPLOAD_DEFER_LENGTH,
    UPLOAD_EXPIRES, UPLOAD_METADATA,
};
use super::append::{Incoming, append_at};
use super::look::look_at;
use super::{UPLOAD_LENGTH, UPLOAD_OFFSET, empty, refusal};
use crate::StreamServer;

/// What of it is spoken here.
pub fn description(server: &StreamServer) -> HeaderMap {
    HeaderMap::from_iter([
        (TUS_VERSION, headers::VERSION),
        (TUS_EXTENSION, headers::EXTENSIONS),
        (TUS_CHECKSUM_ALGORITHM, headers::ALGORITHMS),
        (TUS_MAX_SIZE, HeaderValue::from(server.limits.upload_bytes_max)),
    ])
}

pub async fn look(server: &StreamServer, caller: &Caller, id: UploadId) -> Result<Response, Problem> {
    let looked = look_at(server, caller, id).await;
    looked.and_then(|upload| shown(&upload)).map_err(|problem| {
        if !problem.status().is_server_error() {
            return problem;
        }
        // Clients in use forget an upload whose offset they are refused, and begin anew.
        tracing::warn!(upload.id = %id, ?problem, "an upload cannot be looked at");
        refusal::ask_again()
    })
}

pub async fn append(
    server: &StreamServer,
    caller: &Caller,
    id: UploadId,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    if !headers::has_bytes(&head.headers) {
        return Err(headers::wrong_body_type());
    }
    let offset_bytes = headers::offset(&head.headers)?;
    let length_bytes = headers::length(&head.headers)?;
    let checksum = headers::checksum(&head.headers)?;
    let upload = server.upload_of(caller, id).await?;
    let incoming = Incoming { body, checksum, length_bytes, completes: false };
    let upload = append_at(server, &upload, offset_bytes, incoming).await?;
    Ok(appended(&upload))
}

fn appended(upload: &Resumable) -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(upload.offset_bytes));
    if upload.state == UploadState::Open {
        headers.extend(expires(upload.expires_at));
    }
    response
}

fn shown(upload: &Resumable) -> Result<Response, Problem> {
    let mut response = empty(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let is_open = upload.state == UploadState::Open;
    if !(is_open && upload.kind == UploadKind::Final) {
        headers.insert(UPLOAD_OFFSET, HeaderValue::from(upload.offset_bytes));
    }
    match upload.length_bytes {
        Some(length_bytes) => headers.insert(UPLOAD_LENGTH, HeaderValue::from(length_bytes)),
        None => headers.insert(UPLOAD_DEFER_LENGTH, HeaderValue::from_static("1")),
    };
    if !upload.metadata.is_empty() {
        headers.insert(UPLOAD_METADATA, HeaderValue::try_from(&upload.metadata).map_err(Problem::internal)?);
    }
    let concat = match (upload.kind, &upload.concat) {
        (UploadKind::Partial, _) => Some("partial"),
        (_, concat) => concat.as_deref(),
    };
    if let Some(concat) = concat {
        headers.insert(UPLOAD_CONCAT, HeaderValue::try_from(concat).map_err(Problem::internal)?);
    }
    if is_open || upload.kind == UploadKind::Partial {
        headers.extend(expires(upload.expires_at));
    }
    Ok(response)
}

pub fn expires(at: Timestamp) -> HeaderMap {
    let at = UNIX_EPOCH + Duration::from_millis(at.unix_ms().unsigned_abs());
    let date = HeaderValue::try_from(httpdate::fmt_http_date(at)).expect("dates are plain ASCII");
    HeaderMap::from_iter([(UPLOAD_EXPIRES, date)])
}

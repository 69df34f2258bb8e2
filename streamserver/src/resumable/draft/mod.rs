//! The IETF's resumable uploads (draft-ietf-httpbis-resumable-upload), for clients that announce an interop version which
//! is spoken here.
//!
//! hyper cannot send `104 (Upload Resumption Supported)`. A client learns of its upload by the answer to a request that is
//! not to complete it (`Upload-Complete: ?0`), mostly an empty one. One that sends all in one request (`?1`) would never
//! hear where to go on, so that is a whole upload as any other, and no upload is left behind when it breaks off.

mod begin;
pub mod headers;
mod refusal;

use axum::extract::Request;
use axum::response::Response;
use chassis::{Caller, Problem};
use domain::{ObjectFile, ObjectKey, UploadId, UploadKind, UploadState, VideoId};
use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use sql::Resumable;
use store::Stored;

use self::headers::{
    ACCEPT_PATCH, COMPLETE, INCOMPLETE, INTEROP_VERSION, Interop, PARTIAL_UPLOAD, Said, UPLOAD_COMPLETE,
    UPLOAD_LIMIT, lifetime_s,
};
use super::append::{Incoming, append_at};
use super::look::look_at;
use super::{UPLOAD_LENGTH, UPLOAD_OFFSET, empty, is_without_bytes};
use crate::upload;
use crate::{StreamServer, failure};

pub use self::begin::upload_or_begin;

/// What of it is spoken here, to whoever asks with `OPTIONS`.
pub fn description(server: &StreamServer, asked: &HeaderMap) -> HeaderMap {
    let draft = Draft { server, interop: Interop::announced(asked).unwrap_or(Interop::V8) };
    HeaderMap::from_iter([(ACCEPT_PATCH, PARTIAL_UPLOAD), (UPLOAD_LIMIT, draft.limit_of_new())])
}

/// The draft, as it is spoken with one client.
pub struct Draft<'a> {
    pub server: &'a StreamServer,
    pub interop: Interop,
}

impl Draft<'_> {
    /// A 5xx has its client ask again.
    pub async fn look(&self, caller: &Caller, id: UploadId) -> Result<Response, Problem> {
        let looked = look_at(self.server, caller, id).await;
        looked.map(|upload| self.shown(&upload)).map_err(|problem| self.refused(problem))
    }

    pub async fn append(&self, caller: &Caller, id: UploadId, request: Request) -> Result<Response, Problem> {
        self.try_append(caller, id, request).await.map_err(|problem| self.refused(problem))
    }

    async fn try_append(&self, caller: &Caller, id: UploadId, request: Request) -> Result<Response, Problem> {
        let (head, body) = request.into_parts();
        if !headers::is_partial(&head.headers) {
            return Err(refusal::other_type());
        }
        let offset_bytes = headers::offset(&head.headers)?;
        let said = Said::read(&head.headers, &body, offset_bytes)?.ok_or_else(|| {
            Problem::bad_request(
                "`Upload-Complete` has to say whether these bytes are the last: `?1` or `?0`.",
            )
        })?;
        let upload = self.server.upload_of(caller, id).await?;
        if upload.kind != UploadKind::Whole {
            return Err(refusal::is_of_tus());
        }
        if upload.state == UploadState::Complete && !said.complete && is_without_bytes(&body) {
            return Err(refusal::completed());
        }
        let Said { complete, length_bytes, checksum } = said;
        let incoming = Incoming { body, checksum, length_bytes, completes: complete };
        let upload = append_at(self.server, &upload, offset_bytes, incoming).await?;
        if complete { self.completed(&upload).await } else { Ok(self.appended(&upload)) }
    }

    /// In the words of the draft.
    pub fn refused(&self, problem: Problem) -> Problem {
        refusal::told(problem, self.limit_of_new())
    }

    fn shown(&self, upload: &Resumable) -> Response {
        let is_complete = upload.state == UploadState::Complete;
        let mut response = self.told(upload, if is_complete { COMPLETE } else { INCOMPLETE });
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(length_bytes) = upload.length_bytes {
            headers.insert(UPLOAD_LENGTH, HeaderValue::from(length_bytes));
        }
        response
    }

    /// More is to come, says the client. It may be that all that was announced is there, and is the video's; then an empty
    /// request that completes the upload is answered as the last one with bytes would have been.
    fn appended(&self, upload: &Resumable) -> Response {
        self.told(upload, INCOMPLETE)
    }

    fn told(&self, upload: &Resumable, complete: HeaderValue) -> Response {
        let lifetime_s = lifetime_s(upload.expires_at, self.server.clock.now());
        let mut response = empty(StatusCode::NO_CONTENT);
        response.headers_mut().extend(self.state(upload.offset_bytes, complete, self.limit(lifetime_s)));
        response
    }

    /// As the address of the video answers to the whole file.
    async fn completed(&self, upload: &Resumable) -> Result<Response, Problem> {
        let stored = self.source(upload.video).await?;
        Ok(self.stored(upload.video, upload.offset_bytes, upload::created(upload.video, stored)))
    }

    /// `response` is the answer to a whole upload.
    fn stored(&self, video: VideoId, bytes: u64, mut response: Response) -> Response {
        let location = HeaderValue::try_from(format!("/stream/videos/{video}"));
        let headers = response.headers_mut();
        headers.insert(LOCATION, location.expect("ids are plain ASCII"));
        headers.extend(self.state(bytes, COMPLETE, self.limit_of_new()));
        response
    }

    async fn source(&self, video: VideoId) -> Result<Stored, Problem> {
        let catalog = &self.server.catalog;
        let source = catalog.source(video).await.map_err(failure::sql)?.ok_or_else(Problem::not_found)?;
        let key = ObjectKey { video, attempt: source.attempt, file: ObjectFile::Source };
        let object = catalog.object(&key).await.map_err(failure::sql)?.ok_or_else(Problem::not_found)?;
        let crc64nvme = object.crc64nvme.ok_or_else(|| Problem::internal("a source without its checksum"))?;
        Ok(Stored { bytes: source.bytes, crc64nvme })
    }

    fn state(&self, offset_bytes: u64, complete: HeaderValue, limit: HeaderValue) -> HeaderMap {
        HeaderMap::from_iter([
            (INTEROP_VERSION, self.interop.header()),
            (UPLOAD_OFFSET, HeaderValue::from(offset_bytes)),
            (UPLOAD_COMPLETE, complete),
            (UPLOAD_LIMIT, limit),
        ])
    }

    fn limit(&self, lifetime_s: u64) -> HeaderValue {
        self.interop.limit(self.server.limits.upload_bytes_max, lifetime_s)
    }

    fn limit_of_new(&self) -> HeaderValue {
        self.limit(self.server.limits.upload_expires_s)
    }
}

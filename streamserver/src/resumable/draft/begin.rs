//! The address of a video, as the target of an upload in the draft.

use axum::body::Body;
use axum::response::Response;
use chassis::Problem;
use domain::UploadKind;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::headers::{self, INCOMPLETE, Interop, Said, lifetime_s};
use super::{Draft, refusal};
use crate::StreamServer;
use crate::resumable::append::Incoming;
use crate::resumable::create::{create, new_upload};
use crate::resumable::{empty, is_without_bytes};
use crate::upload::{self, Target};
use crate::upload_request::filename_of_part;

/// A whole upload, unless the client speaks the draft and says that more is to come.
pub async fn upload_or_begin(
    server: &StreamServer,
    target: Target,
    mut headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Some(interop) = Interop::announced(&headers) else {
        if headers::is_complete(&headers) == Some(false) {
            return Err(refusal::no_version());
        }
        return Ok(upload::whole(server, target, &headers, body, None).await?.answer());
    };
    // tus-js-client gives the first bytes the type of those that follow; it is none of the file's.
    if headers::is_partial(&headers) {
        headers.remove(CONTENT_TYPE);
    }
    let draft = Draft { server, interop };
    let begun = draft.upload_or_begin(target, &headers, body).await;
    begun.map_err(|problem| draft.refused(problem))
}

impl Draft<'_> {
    async fn upload_or_begin(
        &self,
        target: Target,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, Problem> {
        match Said::read(headers, &body, 0)? {
            None => Ok(upload::whole(self.server, target, headers, body, None).await?.answer()),
            Some(said) if said.complete => {
                let whole = upload::whole(self.server, target, headers, body, said.length_bytes).await?;
                Ok(self.stored(target.video, whole.content_bytes, whole.answer()))
            }
            Some(said) => self.begin(target, headers, body, said).await,
        }
    }

    async fn begin(
        &self,
        target: Target,
        headers: &HeaderMap,
        body: Body,
        said: Said,
    ) -> Result<Response, Problem> {
        let filename = filename_of_part(headers)?;
        let new =
            new_upload(self.server, target.video, UploadKind::Whole, said.length_bytes, filename.as_deref());
        let Said { checksum, .. } = said;
        let first = Incoming { body, checksum, length_bytes: None, completes: false };
        let first = Some(first).filter(|first| !is_without_bytes(&first.body));
        let created = create(self.server, target.author, new, first).await?;
        let location = HeaderValue::try_from(format!("/stream/uploads/{}", created.id));
        let limit = self.limit(lifetime_s(created.expires_at, self.server.clock.now()));
        let mut response = empty(StatusCode::CREATED);
        let headers = response.headers_mut();
        headers.insert(LOCATION, location.expect("ids are plain ASCII"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(self.state(created.offset_bytes.unwrap_or(0), INCOMPLETE, limit));
        Ok(response)
    }
}

//! From a request's body to an object being written: bounded memory, checksummed on the way.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use chassis::Problem;
use domain::{AttemptId, Timestamp};
use futures::StreamExt;
use http::StatusCode;
use store::ObjectWriter;

use crate::digest::{Hasher, HasherDied, Sha256, Wishes};
use crate::multipart::{Event, MultipartError, Parser};
use crate::upload_request::{Shape, UploadRequest, check_media_type};
use crate::{StreamServer, failure};

/// An upload shows that it lives by moving this end of its lease.
pub const LEASE_S: i64 = 60;
pub const LEASE_EXTENDED_EVERY: Duration = Duration::from_secs(20);
/// After the database did not answer.
const EXTENDED_AGAIN_MS: i64 = 2_000;

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// From the form, or as the request said.
    pub filename: Option<String>,
    /// Where somebody asked for it.
    pub sha256: Option<Sha256>,
}

/// Reads the whole body into `writer`. On `Err` the writer is to be aborted: nothing of the upload is kept.
pub async fn receive(
    server: &StreamServer,
    attempt: AttemptId,
    request: UploadRequest,
    body: Body,
    writer: &mut dyn ObjectWriter,
) -> Result<Received, Problem> {
    let UploadRequest { shape, wishes, filename } = request;
    let mut body = Incoming {
        server,
        attempt,
        stream: body.into_data_stream(),
        hasher: hasher(!wishes.expected.is_empty() || wishes.answer && shape.is_file())?,
        extend_at: server.clock.now().plus_ms(LEASE_EXTENDED_EVERY.as_millis() as i64),
        lease_until: server.clock.now().plus_s(LEASE_S),
    };
    let mut file = File { writer, hasher: None, bytes: 0, bytes_max: server.limits.upload_bytes_max };
    let filename = match shape {
        Shape::File => {
            while let Some(bytes) = body.next().await? {
                file.write(bytes).await?;
            }
            filename
        }
        Shape::Form(parser) => {
            file.hasher = hasher(wishes.answer)?;
            receive_form(&mut body, parser, &mut file).await?
        }
    };
    if file.bytes == 0 {
        return Err(Problem::bad_request("The file is empty; send the video as the body."));
    }
    let of_file = finish(file.hasher).await?;
    let of_content = finish(body.hasher).await?;
    check(&wishes, of_content)?;
    Ok(Received { filename, sha256: of_file.or(of_content.filter(|_| wishes.answer)) })
}

/// Answers the file's name.
async fn receive_form(
    body: &mut Incoming<'_>,
    mut parser: Parser,
    file: &mut File<'_>,
) -> Result<Option<String>, Problem> {
    let mut filename = None;
    while let Some(bytes) = body.next().await? {
        parser.push(&bytes);
        while let Some(event) = parser.next_event().map_err(bad_form)? {
            match event {
                Event::File { name, content_type } => {
                    check_media_type(content_type.as_deref())?;
                    filename = name;
                }
                Event::Bytes(bytes) => file.write(bytes).await?,
                Event::FileEnd => {}
            }
        }
    }
    parser.finish().map_err(bad_form)?;
    Ok(filename)
}

/// The body, counted as life of the upload.
struct Incoming<'a> {
    server: &'a StreamServer,
    attempt: AttemptId,
    stream: BodyDataStream,
    /// Over the content as it is on the wire, which is what `Content-Digest` speaks of.
    hasher: Option<Hasher>,
    extend_at: Timestamp,
    lease_until: Timestamp,
}

impl Incoming<'_> {
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let Some(bytes) = self.stream.next().await else { return Ok(None) };
        let bytes = bytes.map_err(|error| chassis::body::problem(&error))?;
        if let Some(hasher) = &self.hasher {
            hasher.update(bytes.clone()).await.map_err(hasher_died)?;
        }
        self.extend_lease().await?;
        Ok(Some(bytes))
    }

    /// A database that is away for less than the lease costs nobody an upload.
    async fn extend_lease(&mut self) -> Result<(), Problem> {
        let now = self.server.clock.now();
        if now < self.extend_at {
            return Ok(());
        }
        match self.server.extend_upload(self.attempt, now.plus_s(LEASE_S)).await {
            Ok(()) => {
                self.extend_at = now.plus_ms(LEASE_EXTENDED_EVERY.as_millis() as i64);
                self.lease_until = now.plus_s(LEASE_S);
                Ok(())
            }
            Err(problem)
                if problem.status() == StatusCode::SERVICE_UNAVAILABLE
                    && self.server.clock.now().plus_ms(EXTENDED_AGAIN_MS) < self.lease_until =>
            {
                self.extend_at = self.server.clock.now().plus_ms(EXTENDED_AGAIN_MS);
                Ok(())
            }
            Err(problem) => Err(problem),
        }
    }
}

/// The file, on its way to the store.
struct File<'a> {
    writer: &'a mut dyn ObjectWriter,
    /// Over the file alone, where it is only a part of the content.
    hasher: Option<Hasher>,
    bytes: u64,
    bytes_max: u64,
}

impl File<'_> {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Problem> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.bytes_max {
            return Err(failure::upload_too_large(self.bytes_max));
        }
        if let Some(hasher) = &self.hasher {
            hasher.update(bytes.clone()).await.map_err(hasher_died)?;
        }
        self.writer.write(bytes).await.map_err(failure::store)
    }
}

fn hasher(wanted: bool) -> Result<Option<Hasher>, Problem> {
    if wanted { Hasher::start().map(Some).map_err(Problem::internal) } else { Ok(None) }
}

async fn finish(hasher: Option<Hasher>) -> Result<Option<Sha256>, Problem> {
    match hasher {
        Some(hasher) => hasher.finish().await.map(Some).map_err(hasher_died),
        None => Ok(None),
    }
}

fn hasher_died(error: HasherDied) -> Problem {
    Problem::internal(error)
}

fn check(wishes: &Wishes, digest: Option<Sha256>) -> Result<(), Problem> {
    let Some(digest) = digest else { return Ok(()) };
    if wishes.expected.iter().all(|expected| *expected == digest) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::BAD_REQUEST,
        "/problems/digest-mismatch",
        "The bytes are not those you meant to send",
        "What arrived does not have the SHA-256 that `Content-Digest` or `Repr-Digest` says; nothing was kept. Send \
         it again.",
    ))
}

fn bad_form(error: MultipartError) -> Problem {
    Problem::bad_request(format!("The form cannot be read: {error}."))
}

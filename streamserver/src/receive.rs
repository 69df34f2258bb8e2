//! From a request's body to an object being written: bounded memory, checksummed on the way.

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use chassis::Problem;
use futures::StreamExt;
use ring::digest::SHA256;
use store::ObjectWriter;

use crate::attempt::{Attempt, Extending, Lease};
use crate::digest::{Hasher, HasherDied, Sha256, Wishes};
use crate::multipart::{Event, MultipartError, Parser};
use crate::pace::Pace;
use crate::resumable::refusal;
use crate::room::Longest;
use crate::upload_request::{Shape, UploadRequest, check_media_type};
use crate::{digest, failure};

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// From the form, or as the request said.
    pub filename: Option<String>,
    /// Where somebody asked for it.
    pub sha256: Option<Sha256>,
    pub content_bytes: u64,
}

/// Reads the whole body into `writer`. On `Err` the writer is to be aborted: nothing of the upload is kept.
pub async fn receive(
    attempt: &Attempt,
    request: UploadRequest,
    body: Body,
    longest: Longest,
    writer: &mut dyn ObjectWriter,
) -> Result<Received, Problem> {
    let UploadRequest { shape, wishes, filename, length_bytes } = request;
    let server = attempt.server();
    let mut body = Incoming {
        attempt,
        stream: body.into_data_stream(),
        hasher: hasher(!wishes.expected.is_empty() || wishes.answer && shape.is_file())?,
        lease: Extending::from(server.clock.now()),
        length_bytes,
        pace: Pace::start(server.limits.upload_bytes_per_s_max),
        bytes: 0,
    };
    let mut file = File { writer, hasher: None, bytes: 0, longest };
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
    if length_bytes.is_some_and(|length_bytes| length_bytes != body.bytes) {
        return Err(refusal::other_length());
    }
    let of_file = finish(file.hasher).await?;
    let of_content = finish(body.hasher).await?;
    check(&wishes, of_content)?;
    let sha256 = of_file.or(of_content.filter(|_| wishes.answer));
    Ok(Received { filename, sha256, content_bytes: body.bytes })
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
    attempt: &'a Attempt,
    stream: BodyDataStream,
    /// Over the content as it is on the wire, which is what `Content-Digest` speaks of.
    hasher: Option<Hasher>,
    lease: Extending,
    pace: Pace,
    /// As many as it is to have, where somebody said so.
    length_bytes: Option<u64>,
    bytes: u64,
}

impl Incoming<'_> {
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        self.pace.wait().await;
        let Some(bytes) = self.stream.next().await else { return Ok(None) };
        let bytes = bytes.map_err(|error| chassis::body::problem(&error))?;
        if let Some(hasher) = &self.hasher {
            hasher.update(bytes.clone()).await.map_err(hasher_died)?;
        }
        let more = bytes.len() as u64;
        self.bytes += more;
        if self.length_bytes.is_some_and(|length_bytes| self.bytes > length_bytes) {
            return Err(refusal::other_length());
        }
        self.pace.passed(more);
        self.attempt.received(self.bytes);
        self.lease.extend(self.attempt).await?;
        Ok(Some(bytes))
    }
}

/// The file, on its way to the store.
struct File<'a> {
    writer: &'a mut dyn ObjectWriter,
    /// Over the file alone, where it is only a part of the content.
    hasher: Option<Hasher>,
    bytes: u64,
    longest: Longest,
}

impl File<'_> {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Problem> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.longest.bytes {
            return Err(self.longest.problem());
        }
        if let Some(hasher) = &self.hasher {
            hasher.update(bytes.clone()).await.map_err(hasher_died)?;
        }
        self.writer.write(bytes).await.map_err(failure::store)
    }
}

fn hasher(wanted: bool) -> Result<Option<Hasher>, Problem> {
    if wanted { Hasher::start(&SHA256).map(Some).map_err(Problem::internal) } else { Ok(None) }
}

async fn finish(hasher: Option<Hasher>) -> Result<Option<Sha256>, Problem> {
    let Some(hasher) = hasher else { return Ok(None) };
    let digest = hasher.finish().await.map_err(hasher_died)?;
    Ok(Some(digest.as_ref().try_into().expect("SHA-256 has 32 bytes")))
}

fn hasher_died(error: HasherDied) -> Problem {
    Problem::internal(error)
}

fn check(wishes: &Wishes, digest: Option<Sha256>) -> Result<(), Problem> {
    let Some(digest) = digest else { return Ok(()) };
    if wishes.expected.iter().all(|expected| *expected == digest) {
        return Ok(());
    }
    Err(digest::mismatch())
}

fn bad_form(error: MultipartError) -> Problem {
    Problem::bad_request(format!("The form cannot be read: {error}."))
}

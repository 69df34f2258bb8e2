//! What goes wrong between a client and an S3, on demand.

use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future, stream};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::body::{Frame, Incoming};
use s3s::service::S3Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Blocks = Pin<Box<dyn stream::Stream<Item = Result<Frame<Bytes>, BoxError>> + Send>>;
type Answer = Response<StreamBody<Blocks>>;

/// What happens to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Deed {
    /// As it should be.
    Pass,
    /// Refused without being done.
    Refuse(u16, &'static str),
    /// Done, and then answered as if it were not.
    RefuseAfter(u16, &'static str),
    /// The connection ends before anything is done.
    Cut,
    /// Done, but the connection ends before the answer.
    CutAfter,
    /// Never read and never answered.
    Stall,
    /// Done, with one byte of the request flipped.
    FlipSent(usize),
    /// Answered with one byte of the body flipped.
    FlipAnswer(usize),
    /// The connection ends after so many bytes of the body.
    Truncate(usize),
    /// So many bytes of the body come, and then none for ever.
    StallAfter(usize),
    /// Answered with a body that is shorter, and that says so.
    Shorten(usize),
    /// Answered with another `Content-Range`.
    ContentRange(&'static str),
    /// Done, and answered by 200 and this body.
    BodyAfter(String),
    /// Not done, and answered by 200 and this body.
    BodyInstead(String),
    /// Answered with an ETag that is no checksum.
    OpaqueETag,
    /// Refused, with this `Date`.
    Date(u16, &'static str, &'static str),
    /// The answer's body with one text in place of another.
    Replace(&'static str, &'static str),
}

/// A request, as far as deeds go by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// As S3 names it: `PutObject`.
    pub operation: &'static str,
    /// Path and query.
    pub target: String,
    /// How many of this operation came before it.
    pub number: usize,
    /// Whether it carries one of the SDK's checksums.
    pub has_checksum: bool,
}

type Rule = Box<dyn Fn(&Call) -> Deed + Send + Sync>;

#[derive(Default)]
pub struct Mischief {
    rule: Mutex<Option<Rule>>,
    calls: Mutex<Vec<Call>>,
    pub stalled: AtomicUsize,
}

impl Mischief {
    /// From now on; the count of calls begins anew.
    pub fn set(&self, rule: impl Fn(&Call) -> Deed + Send + Sync + 'static) {
        self.calls.lock().unwrap().clear();
        *self.rule.lock().unwrap() = Some(Box::new(rule));
    }

    pub fn calls(&self, operation: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|call| call.operation == operation).count()
    }

    pub fn all_calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    fn judge(&self, request: &Request<Incoming>) -> Deed {
        let operation = operation(request);
        let target = request.uri().path_and_query().map(|target| target.to_string()).unwrap_or_default();
        let mut calls = self.calls.lock().unwrap();
        let number = calls.iter().filter(|call| call.operation == operation).count();
        let mut headers = request.headers().keys().map(|name| name.as_str());
        let has_checksum = headers.any(|name| name.starts_with("x-amz-checksum-") || name == "x-amz-trailer");
        let call = Call { operation, target, number, has_checksum };
        calls.push(call.clone());
        drop(calls);
        self.rule.lock().unwrap().as_ref().map_or(Deed::Pass, |rule| rule(&call))
    }

    pub async fn answer(
        self: std::sync::Arc<Self>,
        service: S3Service,
        request: Request<Incoming>,
    ) -> Result<Answer, BoxError> {
        let deed = self.judge(&request);
        match deed {
            Deed::Refuse(status, code) => {
                // A client that is still sending would see a broken pipe in place of the answer.
                let _ = request.into_body().collect().await;
                return Ok(refusal(status, code));
            }
            Deed::Date(status, code, date) => {
                let _ = request.into_body().collect().await;
                let mut answer = refusal(status, code);
                answer.headers_mut().insert(header::DATE, HeaderValue::from_static(date));
                return Ok(answer);
            }
            Deed::BodyInstead(text) => {
                let _ = request.into_body().collect().await;
                return Ok(Response::new(whole(&text)));
            }
            Deed::Cut => return Err("cut".into()),
            Deed::Stall => {
                self.stalled.fetch_add(1, Ordering::SeqCst);
                return future::pending().await;
            }
            _ => {}
        }
        let request = request.map(|body| match deed {
            Deed::FlipSent(at) => s3s::Body::http_body_unsync(StreamBody::new(flipped(blocks(body), at))),
            _ => s3s::Body::from(body),
        });
        let answer =
            service.call(request).await.map_err(|error| -> BoxError { format!("{error:?}").into() })?;
        let answer = answer.map(|body| StreamBody::new(blocks(body)));
        Ok(match deed {
            Deed::CutAfter => return Err("cut after".into()),
            Deed::RefuseAfter(status, code) => {
                let _ = BodyExt::collect(answer.into_body()).await;
                refusal(status, code)
            }
            Deed::BodyAfter(text) => {
                let _ = BodyExt::collect(answer.into_body()).await;
                Response::new(whole(&text))
            }
            Deed::OpaqueETag => {
                let mut answer = answer;
                if let Some(etag) = answer.headers_mut().get_mut(header::ETAG) {
                    *etag = HeaderValue::from_static("\"opaque\"");
                }
                answer
            }
            Deed::FlipAnswer(at) => answer.map(|body| StreamBody::new(flipped(Box::pin(body), at))),
            Deed::Truncate(at) => answer.map(|body| {
                let end = stream::once(future::ready(Err("truncated".into())));
                StreamBody::new(Box::pin(cut(Box::pin(body), at).chain(end)) as Blocks)
            }),
            Deed::StallAfter(at) => answer.map(|body| {
                StreamBody::new(Box::pin(cut(Box::pin(body), at).chain(stream::pending())) as Blocks)
            }),
            Deed::Shorten(by) => shortened(answer, by),
            Deed::ContentRange(range) => {
                let mut answer = answer;
                answer.headers_mut().insert(header::CONTENT_RANGE, HeaderValue::from_static(range));
                answer
            }
            Deed::Replace(from, to) => {
                let (mut head, body) = answer.into_parts();
                let body = BodyExt::collect(body).await?.to_bytes();
                let text = String::from_utf8_lossy(&body).replace(from, to);
                head.headers.remove(header::CONTENT_LENGTH);
                Response::from_parts(head, whole(&text))
            }
            _ => answer,
        })
    }
}

fn operation(request: &Request<Incoming>) -> &'static str {
    let query = request.uri().query().unwrap_or_default();
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    let is_object = request.uri().path().trim_matches('/').contains('/');
    match (request.method(), is_object) {
        (&Method::PUT, true) if has("partNumber") => "UploadPart",
        (&Method::PUT, true) => "PutObject",
        (&Method::GET, true) => "GetObject",
        (&Method::HEAD, true) => "HeadObject",
        (&Method::HEAD, false) => "HeadBucket",
        (&Method::POST, true) if has("uploads") => "CreateMultipartUpload",
        (&Method::POST, true) => "CompleteMultipartUpload",
        (&Method::DELETE, true) if has("uploadId") => "AbortMultipartUpload",
        (&Method::DELETE, true) => "DeleteObject",
        (&Method::POST, false) => "DeleteObjects",
        (&Method::GET, false) if has("uploads") => "ListMultipartUploads",
        (&Method::GET, false) => "ListObjectsV2",
        _ => "?",
    }
}

fn blocks<B>(body: B) -> Blocks
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Box::pin(TryStreamExt::map_err(BodyStream::new(body), Into::into))
}

fn whole(text: &str) -> StreamBody<Blocks> {
    let frame = Frame::data(Bytes::copy_from_slice(text.as_bytes()));
    StreamBody::new(Box::pin(stream::once(future::ready(Ok(frame)))))
}

fn refusal(status: u16, code: &str) -> Answer {
    let text = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as the test wants</Message></Error>"
    );
    let mut answer = Response::new(whole(if code.is_empty() { "" } else { &text }));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

fn flipped(blocks: Blocks, at: usize) -> Blocks {
    let mut offset = 0;
    Box::pin(blocks.map_ok(move |frame| {
        let Ok(data) = frame.into_data() else { return Frame::data(Bytes::new()) };
        let mut bytes = data.to_vec();
        if let Some(byte) = at.checked_sub(offset).and_then(|at| bytes.get_mut(at)) {
            *byte ^= 0x10;
        }
        offset += bytes.len();
        Frame::data(bytes.into())
    }))
}

/// The first `left` bytes.
fn cut(blocks: Blocks, left: usize) -> Blocks {
    Box::pin(stream::try_unfold((blocks, left), |(mut blocks, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let Some(frame) = blocks.try_next().await? else { return Ok(None) };
        let Ok(mut data) = frame.into_data() else { return Ok(None) };
        data.truncate(left);
        let left = left - data.len();
        Ok(Some((Frame::data(data), (blocks, left))))
    }))
}

fn shortened(answer: Answer, by: usize) -> Answer {
    let length = answer.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let length = length.and_then(|length| length.parse::<usize>().ok()).unwrap() - by;
    let (mut head, body) = answer.into_parts();
    head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    Response::from_parts(head, StreamBody::new(cut(Box::pin(body), length)))
}

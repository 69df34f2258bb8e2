//! Ranged reads that go on where they broke off.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream as SdkByteStream;
use bytes::Bytes;
use futures::{StreamExt, stream};

use super::bucket::{Bucket, part_bytes};
use super::etag::{Check, ETag};
use super::failure::{Failure, Kind};
use crate::{ByteStream, READ_BLOCK_BYTES_MAX, StoreError};

/// Times that a read is taken up again without a byte in between.
const RESUMES_MAX: u32 = 3;
/// After nobody answered.
const RESUME_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Asks for the whole range at once, so that what is not there shows here, and yields it block by block. The
/// connection is read as fast as the reader takes it.
pub(super) async fn read(
    bucket: &Arc<Bucket>,
    path: &str,
    range: Range<u64>,
) -> Result<ByteStream, StoreError> {
    let outside = || Failure::found("GetObject", path, Kind::Refused, "the range reaches beyond the object");
    if range.start > range.end {
        return Err(outside().into());
    }
    if range.is_empty() {
        // S3 has no word for it.
        let head = bucket.head(path).await?.ok_or(StoreError::NotFound)?;
        return if range.end <= head.bytes { Ok(stream::empty().boxed()) } else { Err(outside().into()) };
    }
    let answer = bucket.get(path, range.start, range.end, None).await?;
    let total = check_range(path, &answer, &range)?;
    let etag = answer.e_tag().map(|etag| ETag::new(etag, part_bytes(answer.metadata())));
    let is_whole = range.start == 0 && total == Some(range.end);
    let is_known = bucket.abilities.md5_etags.load(Ordering::Relaxed);
    let check = etag.as_ref().filter(|_| is_whole && is_known).and_then(ETag::check);
    let download = Download {
        bucket: bucket.clone(),
        path: path.to_owned(),
        etag: etag.map(|etag| etag.text),
        rest: range,
        body: Some(answer.body),
        pending: Bytes::new(),
        resumes: 0,
        check,
    };
    Ok(stream::try_unfold(download, Download::next).boxed())
}

/// Whether the answer is exactly what was asked for; the length of the whole object where it tells.
fn check_range(path: &str, answer: &GetObjectOutput, range: &Range<u64>) -> Result<Option<u64>, Failure> {
    let refuse = |kind, text: String| Failure::found("GetObject", path, kind, text);
    let length = answer.content_length().and_then(|length| u64::try_from(length).ok());
    let wanted = range.end - range.start;
    let Some(content_range) = answer.content_range() else {
        // A server that ignores ranges is fine where the whole object was asked for.
        return match length {
            Some(length) if range.start == 0 && length == wanted => Ok(Some(length)),
            _ => Err(refuse(Kind::NoAnswer, "S3 did not answer the range that was asked for".to_owned())),
        };
    };
    let parse = || {
        let (bounds, total) = content_range.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = bounds.split_once('-')?;
        Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?, total.parse::<u64>().ok()))
    };
    let Some((first, last, total)) = parse() else {
        return Err(refuse(Kind::NoAnswer, format!("S3 answered the range `{content_range}`")));
    };
    if first == range.start && total.is_some_and(|total| total < range.end) {
        return Err(refuse(Kind::Refused, "the range reaches beyond the object".to_owned()));
    }
    let as_asked = first == range.start && last.checked_add(1) == Some(range.end);
    if !as_asked || length.is_some_and(|length| length != wanted) {
        let text = format!("S3 answered `{content_range}` and {length:?} bytes for {range:?}");
        return Err(refuse(Kind::NoAnswer, text));
    }
    Ok(total)
}

struct Download {
    bucket: Arc<Bucket>,
    path: String,
    /// Of the object as the read began: a resumed read goes on in the same one or not at all.
    etag: Option<String>,
    rest: Range<u64>,
    /// `None`: to be asked for again.
    body: Option<SdkByteStream>,
    /// Arrived and not yet yielded.
    pending: Bytes,
    resumes: u32,
    /// Where the whole object is read and its ETag is a checksum.
    check: Option<Check>,
}

impl Download {
    async fn next(mut self) -> Result<Option<(Bytes, Download)>, StoreError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        if self.pending.is_empty() {
            self.pending = self.receive().await?;
        }
        let block = self.pending.split_to(self.pending.len().min(READ_BLOCK_BYTES_MAX));
        self.rest.start += block.len() as u64;
        if let Some(check) = &mut self.check {
            check.update(&block);
        }
        if self.rest.is_empty() && self.check.take().is_some_and(|check| !check.holds()) {
            return Err(self
                .failure(Kind::Damaged, "the bytes are not those of the object's checksum")
                .into());
        }
        Ok(Some((block, self)))
    }

    /// At least one byte, and none beyond the range.
    async fn receive(&mut self) -> Result<Bytes, StoreError> {
        let (stall, asked) = (self.bucket.patience.stall, Instant::now());
        loop {
            let mut body = match self.body.take() {
                Some(body) => body,
                None => match self.resume().await {
                    Ok(body) => body,
                    // A server that comes back is waited for as long as one that says nothing.
                    Err(error) if error.is_retryable() && asked.elapsed() < stall => {
                        tokio::time::sleep(RESUME_AGAIN_AFTER).await;
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            let why = match tokio::time::timeout(stall, body.next()).await {
                Ok(Some(Ok(bytes))) if bytes.len() as u64 > self.rest.end - self.rest.start => {
                    return Err(self.failure(Kind::NoAnswer, "S3 sent more than was asked for").into());
                }
                Ok(Some(Ok(bytes))) => {
                    self.body = Some(body);
                    if bytes.is_empty() {
                        continue;
                    }
                    self.resumes = 0;
                    return Ok(bytes);
                }
                Ok(Some(Err(error))) => super::failure::chain(&error),
                Ok(None) => "S3 sent less than it announced".to_owned(),
                Err(_) => format!("no byte for {} s", stall.as_secs_f32()),
            };
            let failure = self.failure(Kind::NoAnswer, &why);
            if self.resumes == RESUMES_MAX {
                return Err(failure.into());
            }
            self.resumes += 1;
            tracing::debug!(error = %failure, at = self.rest.start, "a read broke off and is resumed");
        }
    }

    async fn resume(&self) -> Result<SdkByteStream, StoreError> {
        let (start, end) = (self.rest.start, self.rest.end);
        let answer = self.bucket.get(&self.path, start, end, self.etag.as_deref()).await?;
        check_range(&self.path, &answer, &self.rest)?;
        Ok(answer.body)
    }

    fn failure(&self, kind: Kind, text: &str) -> Failure {
        Failure::found("GetObject", &self.path, kind, text)
    }
}

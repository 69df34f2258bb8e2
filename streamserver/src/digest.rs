//! SHA-256 where a client asks for it (RFC 9530, and SHA-1 by tus). It costs ten times the rest of an upload on a CPU
//! without SHA instructions, so it runs on a thread of its own, and only then.

use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use chassis::Problem;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use ring::digest::{Algorithm, Context, Digest};
use sfv::{BareItem, Dictionary, ListEntry, Parser};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
pub const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
const WANT_REPR_DIGEST: HeaderName = HeaderName::from_static("want-repr-digest");
const SHA_256: &str = "sha-256";

/// Bytes that wait to be hashed, at most. The frames are shared with the writer's queue, not copied.
const QUEUE_BYTES_MAX: usize = 1024 * 1024;

pub type Sha256 = [u8; 32];

/// What a client asks of an upload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// From `Content-Digest` and `Repr-Digest`: what the content must hash to.
    pub expected: Vec<Sha256>,
    /// From `Want-Repr-Digest`.
    pub answer: bool,
}

/// A digest header that cannot be read; the text is for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a dictionary such as `sha-256=:…:` with 32 bytes in base64 (RFC 9530)")]
pub struct InvalidDigest(HeaderName);

impl Wishes {
    /// Algorithms other than sha-256 are ignored, as RFC 9530 allows.
    pub fn read(headers: &HeaderMap) -> Result<Wishes, InvalidDigest> {
        let mut expected = Vec::new();
        for name in [CONTENT_DIGEST, REPR_DIGEST] {
            expected.extend(sha256(headers, name)?);
        }
        // A preference, so one that cannot be read is no reason to refuse.
        let wanted = dictionary(headers, &WANT_REPR_DIGEST).ok().flatten();
        let weight = wanted
            .as_ref()
            .and_then(|wanted| wanted.get(SHA_256))
            .and_then(bare)
            .and_then(BareItem::as_integer);
        Ok(Wishes { expected, answer: weight.is_some_and(|weight| i64::from(weight) > 0) })
    }
}

/// `sha-256=:…:`, as `Repr-Digest` says it.
pub fn header_value(digest: &Sha256) -> HeaderValue {
    let text = format!("{SHA_256}=:{}:", BASE64_STANDARD.encode(digest));
    HeaderValue::try_from(text).expect("base64 is plain ASCII")
}

/// What the content of this request must hash to.
pub fn of_content(headers: &HeaderMap) -> Result<Option<Sha256>, InvalidDigest> {
    sha256(headers, CONTENT_DIGEST)
}

/// 400
pub fn mismatch() -> Problem {
    let detail = "What arrived does not have the SHA-256 that `Content-Digest` or `Repr-Digest` says; nothing was kept. Send \
                  it again.";
    let title = "The bytes are not those you meant to send";
    Problem::new(StatusCode::BAD_REQUEST, "/problems/digest-mismatch", title, detail)
}

fn sha256(headers: &HeaderMap, name: HeaderName) -> Result<Option<Sha256>, InvalidDigest> {
    let Some(dictionary) = dictionary(headers, &name)? else { return Ok(None) };
    let Some(entry) = dictionary.get(SHA_256) else { return Ok(None) };
    let digest = bare(entry).and_then(BareItem::as_byte_sequence).and_then(|bytes| bytes.try_into().ok());
    digest.map(Some).ok_or(InvalidDigest(name))
}

fn dictionary(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Dictionary>, InvalidDigest> {
    let values: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    if values.is_empty() {
        return Ok(None);
    }
    let parsed = Parser::new(&values.join(&b", "[..])).parse();
    parsed.map(Some).map_err(|_| InvalidDigest(name.clone()))
}

fn bare(entry: &ListEntry) -> Option<&BareItem> {
    match entry {
        ListEntry::Item(item) => Some(&item.bare_item),
        ListEntry::InnerList(_) => None,
    }
}

/// Hashes on a thread of its own while the upload goes on.
pub struct Hasher {
    queue: mpsc::UnboundedSender<(Bytes, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
    digest: oneshot::Receiver<Digest>,
}

/// The hashing thread is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the hashing thread has ended")]
pub struct HasherDied;

impl Hasher {
    pub fn start(algorithm: &'static Algorithm) -> std::io::Result<Hasher> {
        let (queue, mut frames) = mpsc::unbounded_channel::<(Bytes, OwnedSemaphorePermit)>();
        let (report, digest) = oneshot::channel();
        std::thread::Builder::new().name("upload-hasher".into()).spawn(move || {
            let mut context = Context::new(algorithm);
            while let Some((frame, _permit)) = frames.blocking_recv() {
                context.update(&frame);
            }
            // The upload may have been given up.
            let _ = report.send(context.finish());
        })?;
        Ok(Hasher { queue, room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)), digest })
    }

    /// Waits while the thread is behind.
    pub async fn update(&self, mut bytes: Bytes) -> Result<(), HasherDied> {
        while !bytes.is_empty() {
            let frame = bytes.split_to(bytes.len().min(QUEUE_BYTES_MAX));
            let permits = frame.len() as u32; // at most QUEUE_BYTES_MAX
            let permit = self.room.clone().acquire_many_owned(permits).await.map_err(|_| HasherDied)?;
            self.queue.send((frame, permit)).map_err(|_| HasherDied)?;
        }
        Ok(())
    }

    pub async fn finish(self) -> Result<Digest, HasherDied> {
        drop(self.queue);
        self.digest.await.map_err(|_| HasherDied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::digest::SHA256;

    fn read(headers: &[(HeaderName, &str)]) -> Result<Wishes, InvalidDigest> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
        Wishes::read(&headers.collect())
    }

    #[test]
    fn wishes_are_read() {
        let empty = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
        let wishes =
            read(&[(CONTENT_DIGEST, empty), (REPR_DIGEST, &format!("sha-512=:AA==:, {empty}"))]).unwrap();
        assert_eq!(wishes.expected.len(), 2);
        assert_eq!(header_value(&wishes.expected[0]), empty);
        assert!(!wishes.answer);
        assert!(read(&[(WANT_REPR_DIGEST, "sha-512=3, sha-256=1")]).unwrap().answer);
        assert!(!read(&[(WANT_REPR_DIGEST, "sha-256=0")]).unwrap().answer);
        assert_eq!(read(&[]).unwrap(), Wishes::default());
        assert!(read(&[(CONTENT_DIGEST, "md5=:AA==:")]).unwrap().expected.is_empty());
        for bad in ["sha-256=:AA==:", "sha-256=1", "sha-256", "sha-256=abc", "???", "sha-256=:4"] {
            assert_eq!(read(&[(REPR_DIGEST, bad)]), Err(InvalidDigest(REPR_DIGEST)), "{bad}");
        }
    }

    #[tokio::test]
    async fn hashes_what_it_is_given() {
        let hasher = Hasher::start(&SHA256).unwrap();
        hasher.update(Bytes::from_static(b"abc")).await.unwrap();
        hasher.update(Bytes::from(vec![b'x'; 3 * QUEUE_BYTES_MAX])).await.unwrap();
        let mut expected = Context::new(&SHA256);
        expected.update(b"abc");
        expected.update(&vec![b'x'; 3 * QUEUE_BYTES_MAX]);
        assert_eq!(hasher.finish().await.unwrap().as_ref(), expected.finish().as_ref());
    }
}

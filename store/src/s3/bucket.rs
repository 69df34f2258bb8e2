//! One bucket, or what lies below a prefix in it: each call of S3 that the store makes, once.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::list_multipart_uploads::ListMultipartUploadsOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier};
use domain::Timestamp;
use tokio::sync::Semaphore;

use super::access::{Clients, S3Patience};
use super::etag::ETag;
use super::failure::{Failure, Kind};
use super::piece::Piece;

/// Name of a multipart object's metadata: with it the checksum in its ETag can be computed again.
const PART_BYTES: &str = "part-bytes";
/// Times that a piece is sent again because other bytes arrived.
const DAMAGED_TRIES_MAX: u32 = 3;

pub(super) struct Bucket {
    pub clients: Clients,
    pub name: String,
    /// Before every key: empty, or with a slash at its end.
    pub prefix: String,
    pub spool_dir: PathBuf,
    pub part_bytes: u64,
    /// Pieces on their way at once, for the whole process.
    pub in_flight: Semaphore,
    /// Uploads that are being aborted behind somebody's back.
    pub aborting: Arc<Semaphore>,
    pub patience: S3Patience,
    pub abilities: Abilities,
}

/// What this server can do; found out at the start.
#[derive(Default)]
pub(super) struct Abilities {
    pub lists_uploads: AtomicBool,
    pub deletes_batches: AtomicBool,
    /// Its ETags are MD5 sums, which encryption and some servers change.
    pub md5_etags: AtomicBool,
}

#[derive(Debug, Clone)]
pub(super) struct Head {
    pub bytes: u64,
    pub etag: Option<ETag>,
    pub modified: Option<Timestamp>,
}

/// A part that S3 has.
#[derive(Debug, Clone)]
pub(super) struct SentPart {
    /// From 1.
    pub number: u32,
    /// As S3 gave it, to be given back when the upload is completed.
    pub etag: String,
    pub md5: [u8; 16],
}

impl Bucket {
    pub fn key(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    pub async fn head(&self, path: &str) -> Result<Option<Head>, Failure> {
        let call = self.clients.asking.head_object().bucket(&self.name).key(self.key(path));
        match call.send().await.map_err(|error| Failure::new("HeadObject", path, error)) {
            Ok(head) => Ok(Some(Head {
                bytes: head.content_length().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0),
                etag: head.e_tag().map(|etag| ETag::new(etag, part_bytes(head.metadata()))),
                modified: timestamp(head.last_modified()),
            })),
            Err(failure) if failure.kind == Kind::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The bytes from `start` up to and without `end`, of the object with this ETag if one is given.
    pub async fn get(
        &self,
        path: &str,
        start: u64,
        end: u64,
        etag: Option<&str>,
    ) -> Result<GetObjectOutput, Failure> {
        let call = self.clients.asking.get_object().bucket(&self.name).key(self.key(path));
        let call = call.range(format!("bytes={start}-{}", end - 1)).set_if_match(etag.map(str::to_owned));
        call.send().await.map_err(|error| Failure::new("GetObject", path, error))
    }

    /// One whole object. Where other bytes arrive than were sent, they are sent again.
    pub async fn put(&self, path: &str, piece: &Piece) -> Result<(), Failure> {
        let result = self.undamaged(path, piece, || async {
            let call = self.clients.sending.put_object().bucket(&self.name).key(self.key(path));
            let call = call.content_md5(piece.content_md5());
            let sent = call.body(piece.body()).send().await;
            let sent = sent.map_err(|error| Failure::new("PutObject", path, error))?;
            Ok(sent.e_tag().unwrap_or_default().to_owned())
        });
        match result.await {
            // A server that does not check keeps what nobody may read.
            Err(failure) if failure.kind == Kind::Damaged => {
                let _ = self.delete_one(path).await;
                Err(failure)
            }
            result => result.map(|_| ()),
        }
    }

    pub async fn create_upload(&self, path: &str, part_bytes: u64) -> Result<String, Failure> {
        let call = self.clients.asking.create_multipart_upload().bucket(&self.name).key(self.key(path));
        let created = call.metadata(PART_BYTES, part_bytes.to_string()).send().await;
        let created = created.map_err(|error| Failure::new("CreateMultipartUpload", path, error))?;
        let none = || Failure::found("CreateMultipartUpload", path, Kind::Refused, "S3 gave no upload id");
        created.upload_id().map(str::to_owned).ok_or_else(none)
    }

    pub async fn send_part(
        &self,
        path: &str,
        upload_id: &str,
        number: u32,
        piece: &Piece,
    ) -> Result<SentPart, Failure> {
        let etag = self.undamaged(path, piece, || async {
            let call = self.clients.sending.upload_part().bucket(&self.name).key(self.key(path));
            let call = call.upload_id(upload_id).part_number(number as i32);
            let call = call.content_md5(piece.content_md5());
            let sent = call.body(piece.body()).send().await;
            let sent = sent.map_err(|error| Failure::new("UploadPart", path, error))?;
            let none = || Failure::found("UploadPart", path, Kind::Refused, "S3 gave no ETag");
            sent.e_tag().map(str::to_owned).ok_or_else(none)
        });
        Ok(SentPart { number, etag: etag.await?, md5: piece.md5() })
    }

    /// Sends until S3 has what was sent, and answers the ETag. One that stalls keeps its place among those in
    /// flight until its time is up, and no other's.
    async fn undamaged<F>(&self, path: &str, piece: &Piece, send: impl Fn() -> F) -> Result<String, Failure>
    where
        F: Future<Output = Result<String, Failure>>,
    {
        for left in (0..DAMAGED_TRIES_MAX).rev() {
            let place = self.in_flight.acquire().await;
            let sent = send().await;
            drop(place);
            let failure = match sent {
                Ok(etag) if self.fits(&etag, piece) => return Ok(etag),
                Ok(_) => Failure::found("PUT", path, Kind::Damaged, "S3 has other bytes than were sent"),
                Err(failure) => failure,
            };
            if failure.kind != Kind::Damaged || left == 0 {
                return Err(failure);
            }
            tracing::warn!(error = %failure, "damaged on the way to S3; sent again");
        }
        Err(Failure::found("PUT", path, Kind::Damaged, "S3 got other bytes than were sent"))
    }

    /// `true` where the ETag says nothing about the bytes.
    fn fits(&self, etag: &str, piece: &Piece) -> bool {
        let etag = ETag::new(etag, None);
        !self.abilities.md5_etags.load(Ordering::Relaxed) || etag.md5().is_none_or(|md5| md5 == piece.md5())
    }

    pub async fn complete_upload(
        &self,
        path: &str,
        upload_id: &str,
        parts: &[SentPart],
    ) -> Result<(), Failure> {
        let parts = parts
            .iter()
            .map(|part| CompletedPart::builder().part_number(part.number as i32).e_tag(&part.etag).build())
            .collect();
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let call = self.clients.completing.complete_multipart_upload().bucket(&self.name);
        let call = call.key(self.key(path)).upload_id(upload_id).multipart_upload(parts);
        call.send().await.map_err(|error| Failure::new("CompleteMultipartUpload", path, error))?;
        Ok(())
    }

    /// One that is gone is a success.
    pub async fn abort_upload(&self, path: &str, upload_id: &str) -> Result<(), Failure> {
        let call = self.clients.asking.abort_multipart_upload().bucket(&self.name);
        let aborted = call.key(self.key(path)).upload_id(upload_id).send().await;
        match aborted.map_err(|error| Failure::new("AbortMultipartUpload", path, error)) {
            Err(failure) if failure.kind != Kind::NotFound && !failure.is("NoSuchUpload") => Err(failure),
            _ => Ok(()),
        }
    }

    /// A page of objects in the order of their keys; `prefix` and `after` are paths.
    pub async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
        keys_max: usize,
    ) -> Result<ListObjectsV2Output, Failure> {
        let call = self.clients.asking.list_objects_v2().bucket(&self.name).prefix(self.key(prefix));
        let call = call.max_keys(keys_max as i32).set_start_after(after.map(|after| self.key(after)));
        call.send().await.map_err(|error| Failure::new("ListObjectsV2", prefix, error))
    }

    /// A page of uploads that were not completed, after the one with this key and upload id.
    pub async fn list_uploads_page(
        &self,
        after: Option<(&str, &str)>,
        uploads_max: usize,
    ) -> Result<ListMultipartUploadsOutput, Failure> {
        let mut call = self.clients.asking.list_multipart_uploads().bucket(&self.name);
        if !self.prefix.is_empty() {
            call = call.prefix(&self.prefix);
        }
        if let Some((path, upload_id)) = after {
            call = call.key_marker(self.key(path)).upload_id_marker(upload_id);
        }
        let page = call.max_uploads(uploads_max as i32).send().await;
        page.map_err(|error| Failure::new("ListMultipartUploads", &self.prefix, error))
    }

    /// One that is gone is a success.
    pub async fn delete_one(&self, path: &str) -> Result<(), Failure> {
        let call = self.clients.asking.delete_object().bucket(&self.name).key(self.key(path));
        match call.send().await.map_err(|error| Failure::new("DeleteObject", path, error)) {
            Err(failure) if failure.kind != Kind::NotFound => Err(failure),
            _ => Ok(()),
        }
    }

    /// The paths that S3 says are gone; about the others nothing is known.
    pub async fn delete_batch(&self, paths: &[String]) -> Result<Vec<String>, Failure> {
        let wrong = |text: String| Failure::found("DeleteObjects", "", Kind::Refused, text);
        let keys = paths.iter().map(|path| ObjectIdentifier::builder().key(self.key(path)).build());
        let keys = keys.collect::<Result<_, _>>().map_err(|error| wrong(error.to_string()))?;
        let batch = Delete::builder().set_objects(Some(keys)).build();
        let batch = batch.map_err(|error| wrong(error.to_string()))?;
        let call = self.clients.asking.delete_objects().bucket(&self.name).delete(batch);
        let answer = call.send().await.map_err(|error| Failure::new("DeleteObjects", "", error))?;
        let gone = answer.deleted().iter().filter_map(|deleted| deleted.key());
        let missing = answer.errors().iter().filter(|error| error.code() == Some("NoSuchKey"));
        let keys = gone.chain(missing.filter_map(|error| error.key()));
        Ok(keys.filter_map(|key| key.strip_prefix(&self.prefix)).map(str::to_owned).collect())
    }

    /// Whether the bucket is there for us: the cheapest call there is.
    pub async fn ask(&self) -> Result<(), Failure> {
        let call = self.clients.probing.head_bucket().bucket(&self.name);
        call.send().await.map_err(|error| Failure::new("HeadBucket", &self.name, error))?;
        Ok(())
    }
}

pub(super) fn timestamp(date: Option<&aws_sdk_s3::primitives::DateTime>) -> Option<Timestamp> {
    date.and_then(|date| date.to_millis().ok()).map(Timestamp::from_unix_ms)
}

pub(super) fn part_bytes(metadata: Option<&std::collections::HashMap<String, String>>) -> Option<u64> {
    metadata?.get(PART_BYTES)?.parse().ok()
}

//! What is tried before a bucket is relied on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use aws_sdk_s3::config::ProvideCredentials;
use domain::{S3Place, StartError, Timestamp};
use tokio::sync::Semaphore;

use super::access::{Clients, S3Access, S3Patience};
use super::bucket::{Abilities, Bucket, timestamp};
use super::etag::{ETag, hex};
use super::failure::{Failure, Kind, chain, one_line};
use super::piece::Piece;
use super::refusal::Address;
use super::spool::Spool;
use super::writer::BLOCK_BYTES;
use crate::disk::blocking;

/// Where start-ups write what they read back. It is no part of the library, and listings leave it out.
pub(super) const PROBE_FOLDER: &str = ".probe/";
const CONTENT: &[u8] = b"the store can be written and read";
/// What a start-up that died left behind is removed by a later one.
const LEFTOVER_AGE_MS_MIN: i64 = 60 * 60 * 1000;
/// Uploads that are aborted behind somebody's back at once; the sweeper finds the others.
const ABORTS_MAX: usize = 256;

pub(super) async fn open(
    place: &S3Place,
    access: &S3Access,
    patience: S3Patience,
) -> Result<Bucket, StartError> {
    make_spool_dir(place)?;
    let address = address(place, access).await?;
    let block = BLOCK_BYTES as u64;
    let part_bytes = (place.part_bytes / block).max(1) * block;
    let clients = access.clients(address.path_style, part_bytes, &patience);
    let bucket = Bucket {
        // The rehearsal tries once, quickly, and is told everything.
        clients: Clients::all(&clients.probing),
        name: place.bucket.clone(),
        prefix: if place.prefix.is_empty() { String::new() } else { format!("{}/", place.prefix) },
        spool_dir: place.spool_dir.clone(),
        part_bytes,
        in_flight: Semaphore::new(place.parts_in_flight_max.max(1)),
        aborting: Arc::new(Semaphore::new(ABORTS_MAX)),
        patience,
        abilities: Abilities::default(),
    };
    let rehearsal = Rehearsal { bucket: &bucket, address: &address };
    rehearsal.run().await?;
    Ok(Bucket { clients, ..bucket })
}

fn make_spool_dir(place: &S3Place) -> Result<(), StartError> {
    let made = std::fs::create_dir_all(&place.spool_dir).and_then(|()| Spool::create(&place.spool_dir));
    made.map(|_| ()).map_err(|error| {
        let folder = place.spool_dir.display();
        StartError::cannot_create(format!(
            "Parts for S3 cannot be kept in {folder}: {error}. See SLUICE_DATA_DIR."
        ))
    })
}

async fn address(place: &S3Place, access: &S3Access) -> Result<Address, StartError> {
    let region = access.region.clone().ok_or_else(|| {
        StartError::settings(
            "S3 needs a region, and none is set. Set AWS_REGION: Garage wants \"garage\", most other servers \
             \"us-east-1\", Amazon the region of the bucket.",
        )
    })?;
    let missing = |why: &str| {
        StartError::settings(format!(
            "There are no credentials for S3{why}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
             AWS_PROFILE, or run where a role gives them."
        ))
    };
    let provider = access.credentials.as_ref().ok_or_else(|| missing(""))?;
    let found = provider.provide_credentials().await;
    let credentials = found.map_err(|error| missing(&format!(" ({})", one_line(&chain(&error)))))?;
    Ok(Address {
        bucket: place.bucket.clone(),
        path_style: place.force_path_style.unwrap_or(access.endpoint.is_some()),
        endpoint: access.endpoint.clone(),
        region,
        access_key_id: credentials.access_key_id().to_owned(),
    })
}

/// Does once what the store will do, so that what cannot work shows now and in words.
struct Rehearsal<'a> {
    bucket: &'a Bucket,
    address: &'a Address,
}

impl Rehearsal<'_> {
    async fn run(&self) -> Result<(), StartError> {
        let leftovers = self.patiently(|| self.bucket.list_page(PROBE_FOLDER, None, 1000)).await?;
        self.patiently(|| self.bucket.ask()).await?;
        let piece = self.piece().await?;
        let upload_path = format!("{PROBE_FOLDER}upload");
        let id = self.patiently(|| self.bucket.create_upload(&upload_path, CONTENT.len() as u64)).await?;
        self.look_for_uploads().await;
        self.patiently(|| self.bucket.abort_upload(&upload_path, &id)).await?;

        // S3 made this name, so that no two start-ups share it.
        let path = format!("{PROBE_FOLDER}{}", hex(&piece.md5_with(&id)));
        let in_parts = self.upload(&path, &piece).await;
        let tried = self.object(&path, &piece).await;
        let removed = self.remove(&path).await;
        in_parts?;
        let written = tried?;
        removed?;
        for left in leftovers.contents() {
            let key = left.key().and_then(|key| key.strip_prefix(&self.bucket.prefix));
            if let Some(path) = key.filter(|_| is_leftover(timestamp(left.last_modified()), written)) {
                self.patiently(|| self.bucket.delete_one(path)).await?;
            }
        }
        Ok(())
    }

    async fn piece(&self) -> Result<Piece, StartError> {
        let folder = self.bucket.spool_dir.clone();
        let piece = blocking(move || {
            let mut spool = Spool::create(&folder)?;
            spool.write(CONTENT)?;
            Ok(spool.into_piece())
        });
        piece.await.map_err(|error| {
            StartError::cannot_create(format!("Parts for S3 cannot be kept: {}", chain(&error)))
        })
    }

    async fn look_for_uploads(&self) {
        match self.bucket.list_uploads_page(None, 1).await {
            Ok(_) => self.bucket.abilities.lists_uploads.store(true, Ordering::Relaxed),
            Err(failure) => tracing::warn!(
                error = %failure,
                "S3 cannot list unfinished uploads: what a process leaves behind when it dies stays until a rule \
                 of the bucket removes it (AbortIncompleteMultipartUpload)"
            ),
        }
    }

    async fn upload(&self, path: &str, piece: &Piece) -> Result<(), StartError> {
        let id = self.patiently(|| self.bucket.create_upload(path, CONTENT.len() as u64)).await?;
        let completed = async {
            let part = self.patiently(|| self.bucket.send_part(path, &id, 1, piece)).await?;
            let is_md5 = ETag::new(&part.etag, None).md5() == Some(piece.md5());
            self.bucket.abilities.md5_etags.store(is_md5, Ordering::Relaxed);
            let parts = [part];
            self.patiently(|| self.bucket.complete_upload(path, &id, &parts)).await
        };
        let completed = completed.await;
        if completed.is_err() {
            // The first failure is the one to tell.
            let _ = self.bucket.abort_upload(path, &id).await;
        }
        completed
    }

    /// Answers when it was written, by the clock of S3.
    async fn object(&self, path: &str, piece: &Piece) -> Result<Option<Timestamp>, StartError> {
        self.patiently(|| self.bucket.put(path, piece)).await?;
        let read = self.patiently(|| async {
            let answer = self.bucket.get(path, 0, CONTENT.len() as u64, None).await?;
            let body = answer.body.collect().await;
            body.map_err(|error| Failure::found("GetObject", path, Kind::NoAnswer, chain(&error)))
        });
        if read.await?.into_bytes() != CONTENT {
            return Err(self.address.wrong("It gives back other bytes than were put"));
        }
        let Some(head) = self.patiently(|| self.bucket.head(path)).await? else {
            return Err(self.address.wrong("It does not know an object that was just put"));
        };
        let is_md5 = head.etag.is_some_and(|etag| etag.md5() == Some(piece.md5()));
        self.bucket.abilities.md5_etags.fetch_and(is_md5, Ordering::Relaxed);
        let page = self.patiently(|| self.bucket.list_page(path, None, 1)).await?;
        if page.contents().is_empty() {
            return Err(self.address.wrong("It does not list an object that was just put"));
        }
        Ok(head.modified)
    }

    async fn remove(&self, path: &str) -> Result<(), StartError> {
        match self.bucket.delete_batch(&[path.to_owned()]).await {
            Ok(_) => self.bucket.abilities.deletes_batches.store(true, Ordering::Relaxed),
            Err(failure) => {
                tracing::warn!(error = %failure, "S3 cannot delete in batches: objects are deleted one by one");
            }
        }
        self.patiently(|| self.bucket.delete_one(path)).await?;
        match self.patiently(|| self.bucket.head(path)).await? {
            Some(_) => Err(self.address.wrong("It still has an object that was just deleted")),
            None => Ok(()),
        }
    }

    /// Again and again while nobody answers; once where the answer is no.
    async fn patiently<T, F>(&self, call: impl Fn() -> F) -> Result<T, StartError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let (waits, began) = (self.bucket.patience.start_waits, Instant::now());
        for (number, wait) in (1..).zip(waits) {
            match call().await {
                Ok(value) => return Ok(value),
                Err(failure) if may_pass(&failure) => {
                    tracing::warn!(endpoint = %self.address, tries = number, error = %failure, "S3 does not answer");
                    tokio::time::sleep(*wait).await;
                }
                Err(failure) => return Err(self.refusal(&failure)),
            }
        }
        call().await.map_err(|failure| match may_pass(&failure) {
            true => self.address.unavailable(&failure, waits.len() + 1, began.elapsed()),
            false => self.refusal(&failure),
        })
    }

    fn refusal(&self, failure: &Failure) -> StartError {
        let clock = self.bucket.clients.probing.config().time_source().unwrap_or_default();
        self.address.refusal(failure, &clock)
    }
}

fn may_pass(failure: &Failure) -> bool {
    matches!(failure.kind, Kind::NoAnswer | Kind::Busy)
}

fn is_leftover(modified: Option<Timestamp>, now: Option<Timestamp>) -> bool {
    modified.zip(now).is_some_and(|(modified, now)| now.ms_since(modified) > LEFTOVER_AGE_MS_MIN)
}

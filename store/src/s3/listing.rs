//! What is there, and what was begun and not completed.

use super::bucket::{Bucket, timestamp};
use super::failure::{Failure, Kind};
use super::start::PROBE_FOLDER;
use crate::{ListPage, StoreError, Unfinished};
use std::sync::atomic::Ordering;

/// S3 gives no more at once.
const PAGE_MAX: usize = 1000;
/// Between the key and the upload id in the name of an unfinished upload, as in its address.
const UPLOAD_ID: &str = "?uploadId=";

/// Page by page, each after the last key of the one before it. A page that fails or makes no sense fails the
/// whole: what a purge is told is gone must be gone.
pub(super) async fn list(
    bucket: &Bucket,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<ListPage, StoreError> {
    let mut found = ListPage::default();
    let mut last = after.filter(|after| *after >= prefix).map(str::to_owned);
    found.more = true;
    while found.more && found.objects.len() < limit {
        let wanted = (limit - found.objects.len()).min(PAGE_MAX);
        let page = bucket.list_page(prefix, last.as_deref(), wanted).await?;
        found.more = page.is_truncated().unwrap_or(false);
        if found.more && page.contents().is_empty() {
            return Err(nonsense(prefix, "S3 says that there is more, and lists nothing"));
        }
        for object in page.contents() {
            let path = object.key().and_then(|key| key.strip_prefix(&bucket.prefix));
            let path = path.filter(|path| path.starts_with(prefix));
            let path = path.filter(|path| last.as_deref().is_none_or(|last| last < *path));
            let path =
                path.ok_or_else(|| nonsense(prefix, "S3 listed what was not asked for, or out of order"))?;
            last = Some(path.to_owned());
            if !path.starts_with(PROBE_FOLDER) {
                let bytes = object.size().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
                found.objects.push((path.to_owned(), bytes));
            }
        }
    }
    Ok(found)
}

fn nonsense(prefix: &str, text: &str) -> StoreError {
    Failure::found("ListObjectsV2", prefix, Kind::Busy, text).into()
}

/// Nothing where the server cannot list uploads: those then stay until a rule of the bucket removes them.
pub(super) async fn list_unfinished(
    bucket: &Bucket,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<Unfinished>, StoreError> {
    let mut found = Vec::new();
    if !bucket.abilities.lists_uploads.load(Ordering::Relaxed) {
        return Ok(found);
    }
    let mut last = match after {
        Some(after) => Some(parse_name(after)?),
        None => None,
    };
    while found.len() < limit {
        let wanted = (limit - found.len()).min(PAGE_MAX);
        let marker = last.as_ref().map(|(path, id)| (path.as_str(), id.as_str()));
        let page = bucket.list_uploads_page(marker, wanted).await?;
        let mut uploads: Vec<_> = page
            .uploads()
            .iter()
            .filter_map(|upload| {
                let path = upload.key()?.strip_prefix(&bucket.prefix)?.to_owned();
                Some(((path, upload.upload_id()?.to_owned()), timestamp(upload.initiated())))
            })
            .filter(|(place, _)| last.as_ref().is_none_or(|last| last < place))
            .collect();
        uploads.sort_by(|(one, _), (other, _)| one.cmp(other));
        let is_last = !page.is_truncated().unwrap_or(false) || uploads.is_empty();
        last = uploads.last().map(|(place, _)| place.clone()).or(last);
        for ((path, id), modified) in uploads {
            // S3 tells the length of an upload only part by part.
            found.push(Unfinished { name: format!("{path}{UPLOAD_ID}{id}"), bytes: 0, modified });
        }
        if is_last {
            break;
        }
    }
    Ok(found)
}

pub(super) async fn remove_unfinished(bucket: &Bucket, name: &str) -> Result<(), StoreError> {
    let (path, id) = parse_name(name)?;
    Ok(bucket.abort_upload(&path, &id).await?)
}

fn parse_name(name: &str) -> Result<(String, String), StoreError> {
    let (path, id) = name
        .rsplit_once(UPLOAD_ID)
        .ok_or_else(|| StoreError::permanent("this is not the name of an unfinished upload"))?;
    Ok((path.to_owned(), id.to_owned()))
}

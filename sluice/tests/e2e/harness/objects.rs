//! What is stored, as the store itself tells it: the judge does not ask the server.

use std::path::Path;
use std::sync::Arc;

use domain::{ObjectKey, S3Place};
use futures::TryStreamExt;
use store::{Crc64Nvme, Disk, S3, S3Access, S3Patience, Store};

use super::Backends;

pub struct Objects(Arc<dyn Store>);

impl Objects {
    const LISTED_MAX: usize = 1000;

    /// On S3 where the backends are, else in `disk`. `folder` is the test's own.
    pub async fn open(backends: &Backends, disk: &Path, folder: &Path) -> Objects {
        let of = |name: &str| backends.setting(name).unwrap();
        let Some(address) = backends.setting("SLUICE_STORE") else {
            return Objects(Arc::new(Disk::open(disk).unwrap()));
        };
        let address = address.strip_prefix("s3://").unwrap();
        let (bucket, prefix) = address.split_once('/').unwrap_or((address, ""));
        let place = S3Place {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            spool_dir: folder.join("spool"),
            force_path_style: None,
            part_bytes: 8 << 20,
            parts_in_flight_max: 4,
        };
        let access = S3Access::fixed(
            of("AWS_ENDPOINT_URL_S3"),
            of("AWS_REGION"),
            of("AWS_ACCESS_KEY_ID"),
            of("AWS_SECRET_ACCESS_KEY"),
        );
        Objects(Arc::new(S3::open(&place, &access, S3Patience::default()).await.unwrap()))
    }

    pub async fn of_video(&self, video: &str) -> Vec<String> {
        let page = self.0.list(&format!("videos/{video}/"), None, Objects::LISTED_MAX).await.unwrap();
        page.objects.into_iter().map(|(path, _)| path).collect()
    }

    /// Length and checksum of everything stored as an upload of the video, pieces included.
    pub async fn source_sums(&self, video: &str) -> Vec<(u64, Crc64Nvme)> {
        let mut sums = Vec::new();
        for path in self.of_video(video).await.into_iter().filter(|path| path.ends_with("/source")) {
            let key: ObjectKey = path.parse().unwrap();
            let Some(meta) = self.0.head(&key).await.unwrap() else { continue };
            // It may have been swept meanwhile.
            let Ok(blocks) = self.0.read(&key, 0..meta.bytes).await else { continue };
            sums.push((meta.bytes, Crc64Nvme::of(blocks).await.unwrap()));
        }
        sums
    }

    /// What is stored as the upload of a video are the bytes that were sent; also what was left behind by a try that
    /// was stored and not told, until it is swept.
    pub async fn has_source(&self, video: &str, sent: &[u8]) {
        let paths = self.of_video(video).await;
        let sources: Vec<_> = paths.iter().filter(|path| path.ends_with("/source")).collect();
        assert!(!sources.is_empty(), "{video} was acknowledged and has no source: {paths:?}");
        for path in sources {
            let key: ObjectKey = path.parse().unwrap();
            let bytes = self.0.head(&key).await.unwrap().unwrap().bytes;
            let blocks: Vec<_> = self.0.read(&key, 0..bytes).await.unwrap().try_collect().await.unwrap();
            assert!(blocks.concat() == sent, "{path} is not what was sent");
        }
    }

    /// As [`Objects::has_source`], where pieces may lie beside the whole.
    pub async fn has_among_sources(&self, video: &str, sent: &[u8]) {
        for path in self.of_video(video).await {
            let key: ObjectKey = path.parse().unwrap();
            // A piece may have been swept meanwhile.
            let Some(meta) = self.0.head(&key).await.unwrap() else { continue };
            let Ok(blocks) = self.0.read(&key, 0..meta.bytes).await else { continue };
            if blocks.try_collect::<Vec<_>>().await.is_ok_and(|blocks| blocks.concat() == sent) {
                return;
            }
        }
        panic!("nothing of {video} is what was sent: {:?}", self.of_video(video).await);
    }
}

//! An S3 in the test process, and the one that the environment names.
#![allow(dead_code, reason = "each test crate uses a part of it")]

pub mod mischief;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use domain::S3Place;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use store::{S3, S3Access, S3Patience};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use mischief::Mischief;

/// The smallest that S3 allows.
pub const PART_BYTES: u64 = 5 * 1024 * 1024;
pub const BUCKET: &str = "media";
pub const REGION: &str = "us-east-1";
pub const ACCESS_KEY: &str = "GKtest";
pub const SECRET_KEY: &str = "secret";

/// Short enough to be waited for, long enough for a busy machine.
pub fn hasty() -> S3Patience {
    const WAITS: &[Duration] =
        &[Duration::from_millis(10), Duration::from_millis(20), Duration::from_millis(30)];
    S3Patience {
        connect: Duration::from_secs(2),
        answer: Duration::from_secs(10),
        stall: Duration::from_secs(5),
        start_waits: WAITS,
        ..S3Patience::default()
    }
}

fn place(bucket: &str, prefix: &str, spool_dir: PathBuf) -> S3Place {
    S3Place {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        spool_dir,
        force_path_style: None,
        part_bytes: PART_BYTES,
        parts_in_flight_max: 8,
    }
}

/// s3s-fs with one bucket, on a port of its own. Ends when it is dropped.
pub struct S3sServer {
    pub endpoint: String,
    pub mischief: Arc<Mischief>,
    folder: TempDir,
    accepting: JoinHandle<()>,
}

impl S3sServer {
    pub async fn start() -> S3sServer {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("objects").join(BUCKET)).unwrap();
        let objects = s3s_fs::FileSystem::new(folder.path().join("objects")).unwrap();
        let mut builder = S3ServiceBuilder::new(objects);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let mischief = Arc::new(Mischief::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let accepting = tokio::spawn(accept(listener, service, mischief.clone()));
        S3sServer { endpoint, mischief, folder, accepting }
    }

    /// A store of the whole bucket.
    pub async fn open(&self) -> S3 {
        S3::open(&self.place(""), &self.access(), hasty()).await.unwrap()
    }

    pub fn access(&self) -> S3Access {
        S3Access::fixed(&self.endpoint, REGION, ACCESS_KEY, SECRET_KEY)
    }

    pub fn place(&self, prefix: &str) -> S3Place {
        place(BUCKET, prefix, self.spool_dir())
    }

    pub fn spool_dir(&self) -> PathBuf {
        self.folder.path().join("spool")
    }

    /// What the server keeps of an object, as a file; `""` for the whole bucket.
    pub fn object_file(&self, key: &str) -> PathBuf {
        self.folder.path().join("objects").join(BUCKET).join(key)
    }

    /// The paths of all files of the bucket.
    pub fn files(&self) -> Vec<String> {
        let (root, mut files) = (self.object_file(""), Vec::new());
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                match entry.file_type().unwrap().is_dir() {
                    true => folders.push(entry.path()),
                    false => {
                        files.push(entry.path().strip_prefix(&root).unwrap().to_string_lossy().into_owned())
                    }
                }
            }
        }
        files
    }
}

impl Drop for S3sServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, service: s3s::service::S3Service, mischief: Arc<Mischief>) {
    loop {
        let Ok((connection, _)) = listener.accept().await else { return };
        let (service, mischief) = (service.clone(), mischief.clone());
        tokio::spawn(async move {
            let answer = service_fn(move |request| mischief.clone().answer(service.clone(), request));
            // A connection that ends badly is what some of these tests are about.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(connection), answer)
                .await;
        });
    }
}

/// The server of `SLUICE_TEST_S3`, with a prefix of the test's own.
pub struct RealServer {
    pub endpoint: String,
    pub bucket: String,
    pub region: String,
    pub access_key: String,
    pub secret_key: String,
    folder: TempDir,
}

impl RealServer {
    /// `None`, aloud, where the environment names none.
    #[allow(clippy::disallowed_methods, reason = "the run chooses its servers from outside")]
    pub fn from_environment() -> Option<RealServer> {
        let variable = |name: &str| std::env::var(format!("SLUICE_TEST_S3{name}"));
        let Ok(endpoint) = variable("") else {
            eprintln!("left out: SLUICE_TEST_S3 is not set (make test-scale sets it)");
            return None;
        };
        Some(RealServer {
            endpoint,
            bucket: variable("_BUCKET").unwrap(),
            region: variable("_REGION").unwrap(),
            access_key: variable("_ACCESS_KEY").unwrap(),
            secret_key: variable("_SECRET_KEY").unwrap(),
            folder: tempfile::tempdir().unwrap(),
        })
    }

    pub fn access(&self) -> S3Access {
        S3Access::fixed(&self.endpoint, &self.region, &self.access_key, &self.secret_key)
    }

    pub fn place(&self) -> S3Place {
        // The name of the folder is unique on this machine.
        let prefix = self.folder.path().file_name().unwrap().to_string_lossy().replace('.', "");
        place(&self.bucket, &format!("test/{prefix}"), self.folder.path().join("spool"))
    }
}

//! A small S3 in this process: s3s-fs over a folder, on a port of its own.

use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;

/// Serves until it is dropped, on a thread of its own: a test that waits for a process must not stop it.
pub struct S3s {
    pub endpoint: String,
    reads: Reads,
    runtime: Option<tokio::runtime::Runtime>,
}

/// Path and range of each read that was asked for.
type Reads = Arc<Mutex<Vec<String>>>;

impl S3s {
    pub const BUCKET: &str = "films";
    pub const ACCESS_KEY: &str = "test-access-key";
    pub const SECRET_KEY: &str = "test-secret-key";

    /// With one empty bucket in `folder`.
    pub fn start(folder: &Path) -> S3s {
        std::fs::create_dir_all(folder.join(Self::BUCKET)).unwrap();
        let mut service = S3ServiceBuilder::new(FileSystem::new(folder).unwrap());
        service.set_auth(SimpleAuth::from_single(Self::ACCESS_KEY, Self::SECRET_KEY));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let reads = Reads::default();
        runtime.spawn(serve(listener, service.build(), reads.clone()));
        S3s { endpoint, reads, runtime: Some(runtime) }
    }

    /// Path and range of each read since the last time that this was asked.
    pub fn take_reads(&self) -> Vec<String> {
        std::mem::take(&mut *self.reads.lock().unwrap())
    }
}

async fn serve(listener: TcpListener, service: S3Service, reads: Reads) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let (service, reads) = (service.clone(), reads.clone());
        let service = service_fn(move |request| {
            note(&request, &reads);
            Service::call(&service, request)
        });
        tokio::spawn(async move {
            // A client that goes away in mid-request is no fault of ours.
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

fn note(request: &Request<Incoming>, reads: &Reads) {
    // A list is a GET of the bucket.
    if request.method() == Method::GET
        && request.uri().query().is_none_or(|query| !query.contains("list-type"))
    {
        let range = request.headers().get("range").map_or("", |range| range.to_str().unwrap());
        reads.lock().unwrap().push(format!("{} {range}", request.uri().path()));
    }
}

impl Drop for S3s {
    fn drop(&mut self) {
        // A runtime may not wait for its end within another.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

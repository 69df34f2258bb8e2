//! Uploads whose lines are cut at random bytes, over and over, to processes that die now and then: what was acknowledged
//! is kept, the rest is asked for again, and the store has what was sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::cluster::size;
use crate::harness::{Answer, Client, Cluster, Objects, Points, Service, Sizes};

/// Two streamservers: whoever goes on does so at another one as often as not.
const SIZES: Sizes = Sizes { apis: 1, streamservers: 2, schedulers: 0 };
const AT_ONCE: usize = 12;
/// Most uploads are small, some have several pieces.
const SMALL_BYTES_MAX: u64 = 96 * 1024;
const LARGE_BYTES_MAX: u64 = 20 << 20;
const CUTS_MAX: u64 = 4;
/// How long whoever goes on may be kept waiting by whoever was there before.
const HELD_MAX: Duration = Duration::from_secs(5);
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Some in every run; `make campaign-cuts` asks for twenty thousand, and five hundred kills.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_are_cut_anywhere_arrive_whole() {
    let (uploads, kills) = (size("SLUICE_TEST_CUTS", 60), size("SLUICE_TEST_CUT_KILLS", 3));
    let seed = size("SLUICE_TEST_SEED", 1);
    let settings = [("SLUICE_UPLOADS_MAX", "1000")];
    let cluster = Arc::new(Cluster::start(SIZES, &settings).await);
    let world = Arc::new(World {
        client: cluster.client("ada").await,
        objects: cluster.objects().await,
        next: AtomicU64::new(0),
        killed: AtomicU64::new(0),
        cuts: AtomicU64::new(0),
        held_ms_max: AtomicU64::new(0),
        cluster,
        uploads,
        seed,
    });
    let began = Instant::now();
    let workers: Vec<_> = (0..AT_ONCE).map(|_| tokio::spawn(world.clone().work())).collect();
    world.kill(kills).await;
    for worker in workers {
        worker.await.unwrap();
    }
    println!(
        "{uploads} uploads, {} cuts, {} kills, seed {seed}: all whole; nobody held longer than {} ms; {:.0} s",
        world.cuts.load(Ordering::SeqCst),
        world.killed.load(Ordering::SeqCst) / 2,
        world.held_ms_max.load(Ordering::SeqCst),
        began.elapsed().as_secs_f64()
    );
    let World { client, cluster, .. } = Arc::into_inner(world).unwrap();
    drop(client);
    Arc::into_inner(cluster).unwrap().finish();
}

struct World {
    client: Client,
    cluster: Arc<Cluster>,
    objects: Objects,
    uploads: u64,
    seed: u64,
    next: AtomicU64,
    /// Odd while somebody is dead.
    killed: AtomicU64,
    cuts: AtomicU64,
    held_ms_max: AtomicU64,
}

/// How a line ends.
enum End {
    Closed,
    Reset,
    /// Nobody hears of it.
    Silent,
}

impl World {
    async fn work(self: Arc<Self>) {
        loop {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            if number >= self.uploads {
                return;
            }
            self.upload(number).await;
        }
    }

    /// Spread over the uploads.
    async fn kill(&self, kills: u64) {
        let victims = self.cluster.of(Service::Streamserver);
        for kill in 0..kills {
            let due = (kill + 1) * self.uploads / (kills + 1);
            while self.next.load(Ordering::SeqCst) < due {
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
            }
            self.killed.fetch_add(1, Ordering::SeqCst);
            self.cluster.kill_and_restart(victims[kill as usize % victims.len()]).await;
            self.killed.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn upload(&self, number: u64) {
        let mut points = Points::new(self.seed.wrapping_mul(1_000_003) + number);
        let bytes_max = if number % 40 == 7 { LARGE_BYTES_MAX } else { SMALL_BYTES_MAX };
        let length = 1 + points.next_below(bytes_max);
        let film = Points::new(number).bytes(length as usize);
        let video = self.client.create("cut").await;
        let path = self.create(&video, length).await;
        let mut cuts_left = points.next_below(CUTS_MAX + 1);
        let (mut known, mut silent) = (0, Vec::new());
        loop {
            let offset = self.offset(&path, number).await;
            assert!((known..=length).contains(&offset), "{number}: {offset} after {known} of {length}");
            known = offset;
            if offset == length {
                break;
            }
            let rest = film.slice(offset as usize..);
            if cuts_left > 0 {
                cuts_left -= 1;
                self.cuts.fetch_add(1, Ordering::SeqCst);
                let sent = points.next_below(rest.len() as u64 + 1) as usize;
                let end = [End::Closed, End::Reset, End::Silent];
                let end = end.into_iter().nth(points.next_below(3) as usize).unwrap();
                silent.extend(self.patch_and_cut(&path, offset, &rest, sent, end).await);
            } else if let Some(answer) = self.patch(&path, offset, rest).await {
                match answer.status {
                    204 => assert_eq!(answer.header("upload-offset"), length.to_string(), "{number}"),
                    // What was sent before came through after all, or is being written down still.
                    409 | 423 | 503 => {}
                    _ => panic!("{number}: {answer:?}"),
                }
            }
        }
        // Where whoever was about to complete it died, somebody else does.
        self.client.until(&video, "uploaded").await;
        self.objects.has_among_sources(&video, &film).await;
    }

    /// Answers the path of the upload.
    async fn create(&self, video: &str, length: u64) -> String {
        let metadata = format!("video_id {}", BASE64_STANDARD.encode(video));
        let created = self.client.ask(Service::Streamserver, |http, base| {
            let request = http.post(format!("{base}/stream/uploads")).header("Tus-Resumable", "1.0.0");
            request.header("Upload-Length", length).header("Upload-Metadata", &metadata)
        });
        let created = created.await.answer.expect(201);
        created.header("location").to_owned()
    }

    /// However often it takes; while nobody dies, not for long.
    async fn offset(&self, path: &str, number: u64) -> u64 {
        loop {
            let (began, killed) = (Instant::now(), self.killed.load(Ordering::SeqCst));
            let asked = self.client.ask(Service::Streamserver, |http, base| {
                http.head(format!("{base}{path}")).header("Tus-Resumable", "1.0.0")
            });
            let answer = asked.await.answer;
            let held = began.elapsed();
            let calm = killed == self.killed.load(Ordering::SeqCst) && killed.is_multiple_of(2);
            if calm {
                assert!(held < HELD_MAX, "{number} was held for {held:?}: {answer:?}");
                self.held_ms_max.fetch_max(held.as_millis() as u64, Ordering::SeqCst);
            }
            match answer.status {
                200 | 204 => return answer.header("upload-offset").parse().unwrap(),
                // Whoever has it may have died a moment ago.
                423 if !calm => tokio::time::sleep(TRY_AGAIN_AFTER).await,
                _ => panic!("{number}: {answer:?}"),
            }
        }
    }

    /// `None`: nobody knows what came of it.
    async fn patch(&self, path: &str, offset: u64, rest: bytes::Bytes) -> Option<Answer> {
        let base = self.cluster.living(Service::Streamserver, offset as usize)?;
        let request = reqwest::Client::new().patch(format!("{base}{path}"));
        let request = request.header("Tus-Resumable", "1.0.0").header("Upload-Offset", offset);
        let request = request.header("Content-Type", "application/offset+octet-stream").body(rest);
        self.client.try_once(request).await.ok()
    }

    /// Sends so many bytes of the rest. Answers a line that nobody has closed.
    async fn patch_and_cut(
        &self,
        path: &str,
        offset: u64,
        rest: &[u8],
        sent: usize,
        end: End,
    ) -> Option<TcpStream> {
        let base = self.cluster.living(Service::Streamserver, sent)?;
        let host = base.trim_start_matches("http://");
        let head = format!(
            "PATCH {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {}\r\nTus-Resumable: 1.0.0\r\n\
             Content-Type: application/offset+octet-stream\r\nUpload-Offset: {offset}\r\n\
             Content-Length: {}\r\n\r\n",
            self.client.token(),
            rest.len()
        );
        // Where the process dies meanwhile, the line is cut as well.
        let mut line = TcpStream::connect(host).await.ok()?;
        line.write_all(head.as_bytes()).await.ok()?;
        line.write_all(&rest[..sent]).await.ok()?;
        match end {
            End::Closed => None,
            End::Reset => {
                line.set_zero_linger().ok()?;
                None
            }
            End::Silent => Some(line),
        }
    }
}

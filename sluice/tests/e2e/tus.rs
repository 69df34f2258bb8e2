//! Resumable uploads as people on trains have them: lines that break, processes that die, and the film is whole.

use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine};
use reqwest::{Method, RequestBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::backends::variable;
use crate::harness::{Answer, App, Backends, Persona, Points, Program, check, clips, probe};

/// What was left behind is swept soon.
const SETTINGS: [(&str, &str); 3] =
    [("SLUICE_LEASE_S", "2"), ("SLUICE_HEARTBEAT_S", "1"), ("SLUICE_SWEEP_S", "1")];
/// From a request that asks for the offset to its answer, whatever hangs on the upload.
const TAKEN_OVER_MAX: Duration = Duration::from_secs(2);

fn setting(name: &str, default: u64) -> u64 {
    variable(name).map_or(default, |value| value.parse().unwrap())
}

/// One upload of somebody.
#[derive(Clone)]
struct Tus {
    persona: Persona,
    path: String,
}

impl Tus {
    async fn create(persona: &Persona, video: &str, length: usize) -> Tus {
        let metadata = format!("video_id {}", BASE64_STANDARD.encode(video));
        let request = persona.request(Method::POST, "/stream/uploads").header("Tus-Resumable", "1.0.0");
        let request = request.header("Upload-Metadata", metadata).header("Upload-Length", length);
        let answer = persona.send(request).await.expect(201);
        Tus { persona: persona.clone(), path: answer.header("location").to_owned() }
    }

    fn at(&self, base: &str) -> Tus {
        Tus { persona: self.persona.at(base), path: self.path.clone() }
    }

    fn request(&self, method: Method) -> RequestBuilder {
        self.persona.request(method, &self.path).header("Tus-Resumable", "1.0.0")
    }

    fn patch(&self, offset: usize, bytes: &[u8]) -> RequestBuilder {
        let request = self.request(Method::PATCH).header("Upload-Offset", offset).body(bytes.to_vec());
        request.header("Content-Type", "application/offset+octet-stream")
    }

    async fn send(&self, offset: usize, bytes: &[u8]) -> Answer {
        self.persona.send(self.patch(offset, bytes)).await
    }

    async fn offset(&self) -> usize {
        let answer = self.persona.send(self.request(Method::HEAD)).await.expect(200);
        answer.header("upload-offset").parse().unwrap()
    }

    /// A PATCH of which only the first `bytes` are sent: the line is left as it is.
    async fn begin_patch(&self, offset: usize, announced: usize, bytes: &[u8]) -> TcpStream {
        let mut line = TcpStream::connect(self.persona.base.strip_prefix("http://").unwrap()).await.unwrap();
        let head = format!(
            "PATCH {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\n\
             Content-Type: application/offset+octet-stream\r\nContent-Length: {announced}\r\n\r\n",
            self.path,
            self.persona.token.as_deref().unwrap(),
        );
        line.write_all(head.as_bytes()).await.unwrap();
        // The server may end before it has all of it.
        let _ = line.write_all(bytes).await;
        line
    }
}

async fn create(persona: &Persona) -> String {
    persona.create("on a train").await["id"].as_str().unwrap().to_owned()
}

/// A film of so many bytes, most of which no player reads.
fn film(app: &App, bytes: usize) -> Vec<u8> {
    let clip = std::fs::read(clips::h264(app.folder.path(), "clip.mp4", "320x240", 1)).unwrap();
    let tail_bytes = bytes - clip.len();
    clips::with_tail(&clip, u32::try_from(tail_bytes).unwrap(), 7)
}

/// The film is ready, plays, and once the rest is swept all that is kept of the upload is what was sent.
async fn is_whole(app: &App, persona: &Persona, video: &str, sent: &[u8]) {
    persona.until(video, &["ready"], 60).await;
    let url = format!("{}/stream/videos/{video}", app.base());
    assert_eq!(probe::ffprobe(&url).frames(), 30);
    let objects = app.store().await;
    let asked = Instant::now();
    loop {
        let paths = objects.of_video(video).await;
        let sources = paths.iter().filter(|path| path.ends_with("/source")).count();
        if sources == 1 {
            break;
        }
        assert!(sources > 0 && asked.elapsed() < Duration::from_secs(30), "{paths:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    objects.has_source(video, sent).await;
}

#[tokio::test]
async fn a_film_in_three_pieces_becomes_ready() {
    let app = App::with(&SETTINGS).await;
    let alice = app.user("alice").await;
    let video = create(&alice).await;
    let film = film(&app, 21 << 20);
    let upload = Tus::create(&alice, &video, film.len()).await;
    let cuts = [0, 10 << 20, 15 << 20, film.len()];
    for cut in cuts.windows(2) {
        assert_eq!(upload.offset().await, cut[0]);
        let answer = upload.send(cut[0], &film[cut[0]..cut[1]]).await.expect(204);
        assert_eq!(answer.header("upload-offset"), cut[1].to_string());
    }
    is_whole(&app, &alice, &video, &film).await;
    assert_eq!(upload.offset().await, film.len());
    app.finish();
}

/// `reliability` F19. `SLUICE_TEST_CUTS` says how many uploads, `SLUICE_TEST_SEED` which.
#[tokio::test]
async fn cut_anywhere_and_gone_on_with_at_once() {
    let (uploads, seed) = (setting("SLUICE_TEST_CUTS", 12), setting("SLUICE_TEST_SEED", 1));
    let app = App::with(&SETTINGS).await;
    let alice = app.user("alice").await;
    let film = film(&app, 3 << 20);
    let mut points = Points::new(seed);
    let (mut cuts, mut slowest) = (0, Duration::ZERO);
    for number in 0..uploads {
        let video = create(&alice).await;
        let upload = Tus::create(&alice, &video, film.len()).await;
        // What a line brought may be read only after the offset was told, so that it moves once more.
        let (mut offset, mut furthest) = (0, 0);
        // Dead lines that the server does not know of stay open meanwhile.
        let mut dead = Vec::new();
        while offset < film.len() {
            let rest = &film[offset..];
            // At every 64 KiB and one beside it, and anywhere.
            let cut = match points.next_below(4) {
                0 => points.next_below(rest.len() as u64 + 1) as usize,
                1 => rest.len(),
                _ => {
                    let block = 64 * 1024 * (1 + points.next_below(rest.len() as u64 / 65536 + 1) as usize);
                    (block + points.next_below(3) as usize - 1).min(rest.len())
                }
            };
            furthest = furthest.max(offset + cut);
            if cut == rest.len() {
                let answer = upload.send(offset, rest).await;
                assert!([204, 409, 423].contains(&answer.status), "upload {number}: {answer:?}");
            } else {
                let line = upload.begin_patch(offset, rest.len(), &rest[..cut]).await;
                if points.next_below(2) == 0 {
                    dead.push(line);
                }
                cuts += 1;
            }
            let asked = Instant::now();
            let resumed = upload.offset().await;
            slowest = slowest.max(asked.elapsed());
            assert!(
                (offset..=furthest).contains(&resumed),
                "upload {number}: {resumed} after {offset}+{cut}"
            );
            offset = resumed;
        }
        let crc = crc_of_source(&app, &video).await;
        assert_eq!(crc, clips::crc64nvme(&film), "upload {number}");
        alice.delete(&format!("/api/videos/{video}")).await.expect(204);
    }
    println!(
        "{uploads} uploads, {cuts} cuts, seed {seed}: all whole; the offset was told within {slowest:?}"
    );
    assert!(slowest <= TAKEN_OVER_MAX, "{slowest:?}");
    app.finish();
}

/// Of the object that the ingest will read: the one that is as long as the film.
async fn crc_of_source(app: &App, video: &str) -> String {
    let sums = app.store().await.source_sums(video).await;
    let longest = sums.into_iter().max_by_key(|(bytes, _)| *bytes);
    clips::crc64nvme_text(&longest.unwrap().1)
}

/// `SLUICE_TEST_KILLS` says how many.
#[tokio::test]
async fn killed_while_it_is_sent_and_between() {
    let (kills, seed) = (setting("SLUICE_TEST_KILLS", 6), setting("SLUICE_TEST_SEED", 1));
    let mut app = App::with(&SETTINGS).await;
    let mut alice = app.user("alice").await;
    let film = film(&app, 24 << 20);
    let mut points = Points::new(seed ^ 0x7EA);
    let (mut done, mut slowest) = (0, Duration::ZERO);
    while done < kills {
        let video = create(&alice).await;
        let mut upload = Tus::create(&alice, &video, film.len()).await;
        let mut offset = 0;
        while offset < film.len() {
            let end = (offset + 1 + points.next_below(8 << 20) as usize).min(film.len());
            if done < kills && points.next_below(3) > 0 {
                let (sender, part) = (upload.clone(), film[offset..end].to_vec());
                let sending =
                    tokio::spawn(async move { sender.persona.try_send(sender.patch(offset, &part)).await });
                tokio::time::sleep(Duration::from_millis(points.next_below(120))).await;
                app.kill_and_restart();
                done += 1;
                alice = alice.at(app.base());
                upload = upload.at(app.base());
                let acknowledged = match sending.await.unwrap() {
                    Ok(answer) => answer.expect(204).header("upload-offset").parse().unwrap(),
                    Err(_) => offset,
                };
                let asked = Instant::now();
                let resumed = upload.offset().await;
                slowest = slowest.max(asked.elapsed());
                assert!((acknowledged..=end).contains(&resumed), "{resumed}, acknowledged {acknowledged}");
                offset = resumed;
            } else {
                upload.send(offset, &film[offset..end]).await.expect(204);
                offset = end;
            }
        }
        is_whole(&app, &alice, &video, &film).await;
    }
    println!(
        "{done} kills, seed {seed}: nothing acknowledged was lost; the offset was told within {slowest:?}"
    );
    assert!(slowest <= TAKEN_OVER_MAX, "{slowest:?}");
    app.finish();
}

#[tokio::test]
async fn another_process_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let backends = Backends::fresh(folder.path());
    let settings = backends.settings().to_vec();
    let start = |name: &str, log: &str| Program::start(name, folder.path(), log, &settings);
    let mut api = start("api", "log-api");
    let mut servers = [start("streamserver", "log-first"), start("streamserver", "log-second")];
    let alice = Persona::register(&api.base, "alice").await;
    let video = create(&alice).await;
    let bytes = Points::new(3).bytes(1 << 20);
    let first = Tus::create(&alice.at(&servers[0].base), &video, bytes.len()).await;
    let second = first.at(&servers[1].base);
    let mut hanging = first.begin_patch(0, bytes.len(), &bytes[..400_000]).await;
    let asked = Instant::now();
    let mut offset = second.offset().await;
    while offset == 0 {
        // Before the first byte was there: the other one was told to stop, and is asked again by nobody.
        drop(hanging);
        hanging = first.begin_patch(0, bytes.len(), &bytes[..400_000]).await;
        offset = second.offset().await;
    }
    println!("the offset was told by another process within {:?}", asked.elapsed());
    assert!(offset <= 400_000, "{offset}");
    let mut answer = [0; 12];
    hanging.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 423");
    // One that is dead holds on to nothing.
    let hanging = second.begin_patch(offset, bytes.len() - offset, &bytes[offset..offset + 1000]).await;
    servers[1].kill();
    let asked = Instant::now();
    let offset = first.offset().await;
    assert!(asked.elapsed() < TAKEN_OVER_MAX, "{:?}", asked.elapsed());
    drop(hanging);
    first.send(offset, &bytes[offset..]).await.expect(204);
    assert_eq!(alice.video(&video).await["state"], "uploaded");
    for program in [&mut api, &mut servers[0]] {
        assert!(program.terminate().success());
    }
    check(folder.path(), &settings);
}

/// A deletion does not wait for an upload that nobody goes on with.
#[tokio::test]
async fn a_video_that_is_half_uploaded_is_purged_soon() {
    let app = App::with(&SETTINGS).await;
    let (alice, root) = (app.user("alice").await, app.admin().await);
    let video = create(&alice).await;
    let upload = Tus::create(&alice, &video, 2000).await;
    upload.send(0, &[7; 1000]).await.expect(204);
    let hanging = upload.begin_patch(1000, 1000, &[7; 500]).await;
    alice.delete(&format!("/api/videos/{video}")).await.expect(204);
    let asked = Instant::now();
    loop {
        let deletions = root.get("/scheduler/deletions").await.expect(200).json();
        if deletions["items"][0]["state"] == "done" {
            break;
        }
        assert!(asked.elapsed() < Duration::from_secs(90), "{deletions:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("purged after {:?}", asked.elapsed());
    drop(hanging);
    assert_eq!(upload.persona.send(upload.request(Method::HEAD)).await.status, 404);
    assert_eq!(app.objects(), [""; 0]);
    app.finish();
}

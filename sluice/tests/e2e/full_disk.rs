//! A disk that is full to the last byte, database and log included: uploads are told so, everything else goes on, and
//! when there is space again nobody has to do anything.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::prelude::{BASE64_STANDARD, Engine};
use reqwest::Method;

use crate::harness::{Answer, App, Persona, clips};

const DISK_MIB: u64 = 64;
/// More than is left once the film is there.
const TOO_LARGE_BYTES: usize = 60 << 20;
const UPLOAD_BYTES: usize = 3 << 20;

/// A small file system of its own.
struct LoopDisk {
    at: PathBuf,
}

impl LoopDisk {
    /// `None` where mounts are not allowed.
    fn mount(folder: &Path) -> Option<LoopDisk> {
        let (image, at) = (folder.join("disk.img"), folder.join("disk"));
        std::fs::create_dir(&at).unwrap();
        std::fs::File::create(&image).unwrap().set_len(DISK_MIB << 20).unwrap();
        // Nothing is kept back for root.
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image)).ok()?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at)).ok()?;
        Some(LoopDisk { at })
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }

    fn free_bytes(&self) -> u64 {
        let disk = rustix::fs::statvfs(&self.at).unwrap();
        disk.f_bavail * disk.f_frsize
    }

    /// To the last byte.
    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.ballast()).unwrap();
        let mut block = vec![1; 1 << 20];
        while !block.is_empty() {
            match file.write(&block) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                    block.truncate(block.len() / 2)
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.at));
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(error.to_string()),
    }
}

async fn create_upload(persona: &Persona, video: &str, length: usize) -> Answer {
    let metadata = format!("video_id {}", BASE64_STANDARD.encode(video));
    let request = persona.request(Method::POST, "/stream/uploads").header("Tus-Resumable", "1.0.0");
    persona.send(request.header("Upload-Metadata", metadata).header("Upload-Length", length)).await
}

async fn patch(persona: &Persona, path: &str, bytes: &[u8]) -> Answer {
    let request = persona.request(Method::PATCH, path).header("Tus-Resumable", "1.0.0");
    let request = request.header("Upload-Offset", 0).body(bytes.to_vec());
    persona.send(request.header("Content-Type", "application/offset+octet-stream")).await
}

async fn video(persona: &Persona) -> String {
    persona.create("on a full disk").await["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_to_the_last_byte_stops_nobody_but_uploads() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = LoopDisk::mount(folder.path()) else {
        eprintln!("SKIPPED: a full disk needs a loop mount, which is not allowed here; nothing was tested");
        return;
    };
    let data = disk.at.join("data");
    // Uploads may go to the last byte: what the margin saves us from is what is to be seen.
    let settings = [("SLUICE_DATA_DIR", data.to_str().unwrap()), ("SLUICE_FREE_BYTES_MIN", "0")];
    let app = App::with(&settings).await;
    if app.setting("SLUICE_STORE").is_some() {
        eprintln!("SKIPPED: these objects are not on a disk of ours");
        return app.finish();
    }
    let ada = app.user("ada").await;
    let film = ada.upload(&clips::h264(folder.path(), "film.mp4", "320x240", 2)).await;
    ada.until(&film, &["ready"], 120).await;
    let (large, whole, resumed) = (video(&ada).await, video(&ada).await, video(&ada).await);

    assert!(disk.free_bytes() < TOO_LARGE_BYTES as u64);
    create_upload(&ada, &large, TOO_LARGE_BYTES).await.problem(507, "/problems/out-of-space");
    let path = create_upload(&ada, &resumed, UPLOAD_BYTES).await.expect(201).header("location").to_owned();

    disk.fill();
    let bytes = vec![7; UPLOAD_BYTES];
    for answer in [ada.send_bytes(&whole, bytes.clone()).await, patch(&ada, &path, &bytes).await] {
        // 503 where the database has no room for the row of it.
        assert!([507, 503].contains(&answer.status), "{answer:?}");
        assert!(!answer.header("retry-after").is_empty());
    }
    // Others watch on.
    let bob = app.anonymous();
    for _ in 0..5 {
        bob.get(&format!("/stream/videos/{film}")).await.expect(200);
        bob.get(&format!("/stream/videos/{film}/master.m3u8")).await.expect(200);
        bob.get("/api/videos").await.expect(200);
    }

    disk.empty();
    let head = ada.request(Method::HEAD, &path).header("Tus-Resumable", "1.0.0");
    assert_eq!(ada.send(head).await.expect(200).header("upload-offset"), "0");
    patch(&ada, &path, &bytes).await.expect(204);
    ada.send_bytes(&whole, bytes).await.expect(201);
    // No films, as it turns out.
    for video in [&whole, &resumed] {
        ada.until(video, &["rejected"], 60).await;
    }
    app.finish();
}

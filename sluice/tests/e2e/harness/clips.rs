//! Clips that tests need everywhere, made by FFmpeg.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::prelude::{BASE64_STANDARD, Engine};

use super::Points;

/// The folder of real files, when there is one: `SLUICE_MEDIA_DIR`, else `../shared/media` beside the project.
#[allow(clippy::disallowed_methods, reason = "tests may be told where the files are")]
pub fn media_dir() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/media");
    let folder = std::env::var_os("SLUICE_MEDIA_DIR").map_or(beside, PathBuf::from);
    let found = folder.join("MANIFEST.tsv").exists();
    if !found {
        eprintln!("SKIPPED: no real media files at {} (set SLUICE_MEDIA_DIR)", folder.display());
    }
    found.then_some(folder)
}

pub fn ffmpeg(arguments: &[&str], output: &Path) {
    let status = Command::new("ffmpeg")
        .args(["-hide_banner", "-v", "error", "-y"])
        .args(arguments)
        .arg(output)
        .status()
        .expect("ffmpeg is installed (make setup)");
    assert!(status.success(), "ffmpeg {arguments:?}");
}

/// H.264 High with B-frames and AAC: what browsers play as it is. The picture moves and the tone is audible.
pub fn h264(folder: &Path, name: &str, size: &str, seconds: u32) -> PathBuf {
    let path = folder.join(name);
    let picture = format!("testsrc2=size={size}:rate=30:duration={seconds}");
    let tone = format!("sine=frequency=440:sample_rate=48000:duration={seconds}");
    ffmpeg(
        &[
            "-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &tone, "-c:v", "libx264", "-preset",
            "veryfast", "-pix_fmt", "yuv420p", "-g", "60", "-bf", "2", "-c:a", "aac", "-b:a", "128k", "-ac",
            "2",
        ],
        &path,
    );
    path
}

/// HEVC and AAC, as phones send it: not every browser plays it.
pub fn hevc(folder: &Path, name: &str, size: &str, seconds: u32) -> PathBuf {
    let path = folder.join(name);
    let picture = format!("testsrc2=size={size}:rate=30:duration={seconds}");
    let tone = format!("sine=frequency=440:sample_rate=48000:duration={seconds}");
    ffmpeg(
        &[
            "-f",
            "lavfi",
            "-i",
            &picture,
            "-f",
            "lavfi",
            "-i",
            &tone,
            "-c:v",
            "libx265",
            "-preset",
            "ultrafast",
            "-x265-params",
            "log-level=none:keyint=60",
            "-pix_fmt",
            "yuv420p",
            "-tag:v",
            "hvc1",
            "-c:a",
            "aac",
        ],
        &path,
    );
    path
}

/// The film with a box of `tail_bytes` behind it that no player reads, full of what `seed` makes.
pub fn with_tail(film: &[u8], tail_bytes: u32, seed: u64) -> Vec<u8> {
    let mut bytes = film.to_vec();
    bytes.extend(u32::to_be_bytes(tail_bytes));
    bytes.extend(b"free");
    bytes.extend(Points::new(seed).bytes(tail_bytes as usize - 8));
    bytes
}

/// As an upload's answer says it.
pub fn crc64nvme(bytes: &[u8]) -> String {
    let mut crc = store::Crc64Nvme::default();
    crc.update(bytes);
    crc64nvme_text(&crc)
}

pub fn crc64nvme_text(crc: &store::Crc64Nvme) -> String {
    BASE64_STANDARD.encode(crc.value().to_be_bytes())
}

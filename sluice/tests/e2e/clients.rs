//! Uploads with clients that other people made: tus-js-client, Uppy in a browser, and tuspy.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{App, clips, probe};

/// Several pieces of an upload.
const TAIL_BYTES: u32 = 10 << 20;
const S_MAX: u64 = 120;

#[tokio::test(flavor = "multi_thread")]
async fn tus_js_client_uploads_in_every_way_it_knows() {
    assert_eq!(walk(node("tus.mjs")).await, 9);
}

/// By the IETF's draft, as far as it goes without a 104.
#[tokio::test(flavor = "multi_thread")]
async fn tus_js_client_speaks_the_draft_too() {
    assert_eq!(walk(node("draft.mjs")).await, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn uppy_uploads_from_a_page_elsewhere() {
    assert_eq!(walk(node("uppy.mjs")).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn tuspy_uploads_with_checksums_and_without_metadata() {
    let mut python = Command::new(installed("venv/bin/python"));
    python.arg("-B").arg(installed("walks/tuspy_walk.py"));
    assert_eq!(walk(python).await, 3);
}

/// Packages are looked for beside the link to a walk, not beside the walk.
pub fn node(name: &str) -> Command {
    let mut node = Command::new("node");
    node.args(["--preserve-symlinks", "--preserve-symlinks-main"]);
    node.arg(installed("walks").join(name)).current_dir(installed("node_modules").join(".."));
    node
}

fn installed(path: &str) -> PathBuf {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients").join(path);
    assert!(place.exists(), "{} is not there: the clients are installed by `make setup`", place.display());
    place
}

/// Answers how many videos were uploaded. All of them arrive whole.
async fn walk(mut program: Command) -> usize {
    let app = App::start().await;
    let ada = app.user("ada").await;
    let clip = clips::h264(app.folder.path(), "short.mp4", "320x180", 2);
    let film = app.folder.path().join("clip.mp4");
    std::fs::write(&film, clips::with_tail(&std::fs::read(clip).unwrap(), TAIL_BYTES, 3)).unwrap();
    program.args([app.base(), ada.token.as_deref().unwrap()]).arg(&film);
    let lines = run(program).await;
    let sent = std::fs::read(&film).unwrap();
    let store = app.store().await;
    for line in &lines {
        let id = line["video"].as_str().unwrap();
        let video = ada.until(id, &["ready"], S_MAX).await;
        assert_eq!(
            probe::ffprobe(&format!("{}/stream/videos/{id}", app.base())).frames(),
            60,
            "{line} {video}"
        );
        store.has_among_sources(id, &sent).await;
    }
    app.finish();
    lines.len()
}

/// The lines of JSON that it prints.
pub async fn run(mut program: Command) -> Vec<Value> {
    let output = tokio::task::spawn_blocking(move || program.output()).await.unwrap().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

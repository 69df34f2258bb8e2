//! The README's commands, run as they stand.

use std::path::Path;
use std::process::Command;

use crate::harness::{App, Persona, clips};

const README: &str = include_str!("../../../README.md");

/// The code block that follows this line.
fn block_after(line: &str) -> &'static str {
    let (_, rest) = README.split_once(line).unwrap_or_else(|| panic!("README.md has the line {line:?}"));
    let (_, rest) = rest.split_once("```sh\n").expect("a block follows");
    rest.split_once("\n```").expect("the block ends").0
}

/// What a command that must succeed says, while the test goes on.
async fn run(mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[tokio::test]
async fn the_demo_makes_three_videos_that_can_be_watched() {
    let app = App::start().await;
    let mut demo = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/demo"));
    demo.env("BASE", app.base());
    let said = run(demo).await;
    let admin = app.admin().await;
    let videos: Vec<&str> =
        said.lines().filter_map(|line| line.rsplit_once("/#/v/")).map(|(_, id)| id).collect();
    assert_eq!(videos.len(), 3, "{said}");
    for video in videos {
        admin.until(video, &["playable", "ready"], 120).await;
    }
    app.finish();
}

#[tokio::test]
async fn the_walk_with_curl_works_as_written() {
    let app = App::start().await;
    let clip = clips::h264(app.folder.path(), "clip.mp4", "1280x720", 6);
    let script = block_after("<!-- walk -->")
        .replace("http://localhost:8000", app.base())
        .replace("the-admin-password", Persona::PASSWORD);
    assert!(clip.starts_with(app.folder.path()));
    let mut walk = Command::new("bash");
    walk.args(["-euo", "pipefail", "-c", &script]).current_dir(app.folder.path());
    let said = run(walk).await;
    for expected in ["\"ready\"", "200", "206", "#EXTM3U", "404", "\"checked_empty\": true"] {
        assert!(said.contains(expected), "{expected} is missing in:\n{said}");
    }
    assert!(app.objects().is_empty(), "{:?}", app.objects());
    app.finish();
}

#[test]
fn the_files_it_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let links = README.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(link, _)| link));
    for link in links.filter(|link| !link.starts_with("http") && !link.starts_with('#')) {
        let file = link.split('#').next().unwrap();
        assert!(root.join(file).exists(), "README.md names {file}");
    }
}

//! The page in a real browser: upload through it, and see the film move.

use std::path::Path;
use std::process::Command;

use crate::harness::{App, clips};

#[tokio::test]
async fn the_page_uploads_and_plays() {
    let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("../web");
    assert!(web.join("node_modules/playwright-core").exists(), "the page's tools are installed (make setup)");
    let app = App::start().await;
    let clip = clips::h264(app.folder.path(), "A walk by the sea.mp4", "1280x720", 8);
    let screenshot = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page.png");
    let output = tokio::task::spawn_blocking({
        let (base, clip, screenshot) = (app.base().to_owned(), clip.clone(), screenshot.clone());
        move || {
            Command::new("node")
                .arg(web.join("test/browser.mjs"))
                .args([
                    "--base",
                    &base,
                    "--clip",
                    clip.to_str().unwrap(),
                    "--screenshot",
                    screenshot.to_str().unwrap(),
                ])
                .output()
        }
    })
    .await
    .unwrap()
    .expect("node is installed (make setup)");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    println!("{said}\nscreenshot: {}", screenshot.display());
    app.finish();
}

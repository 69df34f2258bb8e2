//! `sluice put`, as somebody at a terminal has it.

use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{App, Persona, Proxy, Weather, clips};

/// Enough that it is on its way for a while on a slow line.
const TAIL_BYTES: u32 = 6 << 20;
const SLOW_BYTES_A_SECOND: usize = 200 << 10;
/// A moment, in which part of the film comes through.
const CARRIED_FOR: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(60);

/// A server whose uploads go through a line that the test has in hand.
struct Afar {
    app: App,
    line: Proxy,
    ada: Persona,
    film: PathBuf,
}

impl Afar {
    async fn start() -> Afar {
        let mut app = App::start().await;
        let address = app.base().trim_start_matches("http://").to_owned();
        let line = Proxy::before(&address);
        app.set("SLUICE_LISTEN", Some(&address));
        app.set("SLUICE_STREAM_URL", Some(&format!("http://{}", line.address)));
        app.kill_and_restart();
        let ada = app.user("ada").await;
        let folder = app.folder.path();
        std::fs::write(folder.join("password"), format!("{}\n", Persona::PASSWORD)).unwrap();
        let clip = clips::h264(folder, "short.mp4", "320x180", 2);
        let film = folder.join("holiday.mp4");
        std::fs::write(&film, clips::with_tail(&std::fs::read(clip).unwrap(), TAIL_BYTES, 5)).unwrap();
        Afar { app, line, ada, film }
    }

    fn put(&self, film: &Path) -> Child {
        let password = self.app.folder.path().join("password");
        let mut command = self.app.command(&["put", "--username", "ada"]);
        command.arg("--to").arg(self.app.base()).arg("--password-file").arg(password).arg(film);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn note(&self) -> PathBuf {
        self.film.with_file_name("holiday.mp4.sluice-upload")
    }

    async fn videos(&self) -> Vec<Value> {
        let answer = self.ada.get(&format!("/api/users/{}/videos", self.ada.id)).await.expect(200).json();
        answer["items"].as_array().unwrap().clone()
    }

    /// Cuts a slow line until something came through it. One that is cut too early brings nothing.
    async fn cut_after_some(&self) {
        until(async || self.note().exists()).await;
        until(async || {
            tokio::time::sleep(CARRIED_FOR).await;
            self.line.cut();
            self.videos().await[0]["state"] == "uploading"
        })
        .await;
    }

    /// The one video there is, all of it.
    async fn is_whole(&self, said: Output) {
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let videos = self.videos().await;
        assert_eq!(videos.len(), 1);
        let id = videos[0]["id"].as_str().unwrap();
        let told = String::from_utf8(said.stdout).unwrap();
        assert_eq!(told, format!("{}/#/v/{id}\n", self.app.base()));
        assert_eq!((&videos[0]["state"], &videos[0]["title"]), (&"ready".into(), &"holiday.mp4".into()));
        assert!(!self.note().exists());
    }

    fn finish(self) {
        drop(self.line);
        self.app.finish();
    }
}

async fn until(what: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !what().await {
        assert!(begun.elapsed() < PATIENCE, "it never comes to that");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_is_put_and_its_address_told() {
    let afar = Afar::start().await;
    let said = afar.put(&afar.film).wait_with_output().unwrap();
    afar.is_whole(said).await;
    afar.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_breaks_off_is_taken_up_again() {
    let afar = Afar::start().await;
    afar.line.weather(Weather::Trickling(SLOW_BYTES_A_SECOND));
    let put = afar.put(&afar.film);
    afar.cut_after_some().await;
    afar.line.cut();
    afar.line.weather(Weather::Clear);
    afar.is_whole(put.wait_with_output().unwrap()).await;
    afar.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_command_goes_on_with_what_was_broken_off() {
    let afar = Afar::start().await;
    afar.line.weather(Weather::Trickling(SLOW_BYTES_A_SECOND));
    let mut put = afar.put(&afar.film);
    afar.cut_after_some().await;
    put.kill().unwrap();
    put.wait().unwrap();
    afar.line.weather(Weather::Clear);
    afar.is_whole(afar.put(&afar.film).wait_with_output().unwrap()).await;
    afar.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_in_one_line() {
    let afar = Afar::start().await;
    let text = afar.app.folder.path().join("text.mp4");
    std::fs::write(&text, "no film at all, only words, but enough of them to be looked at").unwrap();
    let gone = afar.app.folder.path().join("gone.mp4");
    for (film, code, word) in [(&text, 1, "rejected"), (&gone, 70, "gone.mp4")] {
        let said = afar.put(film).wait_with_output().unwrap();
        let error = String::from_utf8(said.stderr).unwrap();
        assert_eq!(said.status.code(), Some(code), "{error}");
        assert!(error.contains(word) && error.lines().count() == 1, "{error}");
    }
    let password = afar.app.folder.path().join("password");
    std::fs::write(&password, "something else").unwrap();
    let said = afar.put(&afar.film).wait_with_output().unwrap();
    let error = String::from_utf8(said.stderr).unwrap();
    assert!(!said.status.success() && error.contains("password"), "{error}");
    afar.finish();
}

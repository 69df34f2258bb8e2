//! `sluice put`: uploads a film so that it can be broken off and gone on with, waits until it can be watched, and prints
//! where.

mod server;
mod sidecar;
mod upload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Url;

use server::{Server, Video};
use sidecar::{Begun, Sidecar};

/// How often the state of the film is asked for.
const ASKED_EVERY: Duration = Duration::from_millis(500);
const BAR_REDRAWN_EVERY: Duration = Duration::from_millis(100);
/// As the service has it.
const TITLE_CHARS_MAX: usize = 128;

/// What is put, and where.
#[derive(Args)]
pub struct Put {
    /// The film.
    #[arg(value_name = "FILM")]
    film: PathBuf,
    /// The service.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000")]
    to: Url,
    /// Who uploads it.
    #[arg(long, value_name = "NAME")]
    username: String,
    /// The first line of this file is the password; without it you are asked.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The file's name, where it is left out.
    #[arg(long)]
    title: Option<String>,
    /// `public`, `unlisted` or `private`.
    #[arg(long, default_value = "public")]
    visibility: String,
}

/// The exit code is 1 where the film was not taken, or cannot be watched.
pub async fn put(put: &Put) -> anyhow::Result<ExitCode> {
    let film = Film::open(&put.film)?;
    let server = Server::log_in(&put.to, &put.username, &password(put)?).await?;
    let sidecar = Sidecar::beside(&put.film);
    let begun = match sidecar.of(&film, put.to.as_str()) {
        Some(begun) if begun.username == put.username => begun,
        _ => begin(put, &server, &film, &sidecar).await?,
    };
    let bar = bar("{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left", film.bytes);
    let sent = upload::send(&server, &film, &begun.upload, &bar).await;
    bar.abandon();
    match sent {
        Ok(()) => {}
        Err(error) if error.is::<upload::Ended>() => {
            sidecar.remove();
            return Err(error.context("the upload has ended there; put it again to begin anew"));
        }
        Err(error) => return Err(error.context("broken off; put it again to go on from there")),
    }
    let video =
        wait(&server, &begun.video).await.context("it was uploaded; put it again to go on waiting")?;
    sidecar.remove();
    Ok(tell(&put.to, &video))
}

/// The file as it was when it was first looked at.
struct Film {
    path: PathBuf,
    name: String,
    bytes: u64,
    /// Milliseconds since the epoch.
    modified_ms: u64,
}

impl Film {
    fn open(path: &Path) -> anyhow::Result<Film> {
        let about = || format!("{} cannot be read", path.display());
        let data = std::fs::metadata(path).with_context(about)?;
        if !data.is_file() || data.len() == 0 {
            bail!("{} is not a file with a film in it", path.display());
        }
        let since = data.modified().with_context(about)?.duration_since(std::time::UNIX_EPOCH);
        let modified_ms = since.map_or(0, |since| since.as_millis() as u64);
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Ok(Film { path: path.to_owned(), name, bytes: data.len(), modified_ms })
    }
}

fn password(put: &Put) -> anyhow::Result<String> {
    match &put.password_file {
        Some(file) => {
            let text = std::fs::read_to_string(file);
            let text =
                text.with_context(|| format!("{} (--password-file) cannot be read", file.display()))?;
            Ok(text.lines().next().unwrap_or_default().to_owned())
        }
        None => {
            let asked = rpassword::prompt_password(format!("Password of {}: ", put.username));
            asked.context("there is no terminal to ask for the password on: use --password-file")
        }
    }
}

async fn begin(put: &Put, server: &Server, film: &Film, sidecar: &Sidecar) -> anyhow::Result<Begun> {
    let title = put.title.clone().unwrap_or_else(|| film.name.clone());
    let title: String = title.chars().take(TITLE_CHARS_MAX).collect();
    let video = server.create_video(&title, &put.visibility).await?;
    let place = video.upload.context("the service says nothing of where to upload to")?;
    if film.bytes > place.max_bytes {
        bail!("{} has {} bytes; the service takes {}", film.path.display(), film.bytes, place.max_bytes);
    }
    let upload = match upload::create(server, film, &video.id, &place.tus_url).await {
        Ok(upload) => upload,
        Err(error) => {
            // Nobody comes back for it.
            let _ = server.delete_video(&video.id).await;
            return Err(error);
        }
    };
    let (server, username) = (put.to.to_string(), put.username.clone());
    let begun = Begun { server, username, video: video.id, upload };
    if let Err(error) = sidecar.write(film, &begun) {
        eprintln!("{error:#}; if this program ends, the upload begins anew.");
    }
    Ok(begun)
}

/// Until the film is what it will be.
async fn wait(server: &Server, id: &str) -> anyhow::Result<Video> {
    const PARTS: u64 = 1000;
    let bar = bar("{wide_bar} {percent} % {msg}", PARTS);
    let mut delays = upload::delays();
    loop {
        let video = match server.video(id).await {
            Ok(video) => video,
            Err(error) => {
                tokio::time::sleep(delays.next().ok_or(error)?).await;
                continue;
            }
        };
        delays = upload::delays();
        bar.set_message(video.state.clone());
        bar.set_position((video.progress * PARTS as f64) as u64);
        if matches!(video.state.as_str(), "ready" | "rejected" | "failed" | "expired" | "deleted") {
            bar.abandon();
            return Ok(video);
        }
        tokio::time::sleep(ASKED_EVERY).await;
    }
}

fn tell(server: &Url, video: &Video) -> ExitCode {
    if video.state == "ready" {
        // The page is the service's own root.
        println!("{server}#/v/{}", video.id);
        return ExitCode::SUCCESS;
    }
    let reason = video.error.as_ref().map_or("", |error| &error.detail);
    eprintln!("The film is {}. {reason}", video.state);
    ExitCode::FAILURE
}

/// Nothing is drawn where there is no terminal.
fn bar(template: &str, length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(BAR_REDRAWN_EVERY);
    bar
}

//! One upload by tus 1.0.0: what the service has is asked for, and the rest is sent, until it has all of it.

use std::io::SeekFrom;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use backon::{BackoffBuilder, ExponentialBuilder};
use base64::prelude::{BASE64_STANDARD, Engine};
use futures::TryStreamExt;
use indicatif::ProgressBar;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Body, Method, Response, StatusCode};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::Film;
use super::server::{Server, refusal};

const VERSION: (&str, &str) = ("Tus-Resumable", "1.0.0");
const READ_BYTES: usize = 256 * 1024;
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Without a byte taken. Whoever lost the line without being told would wait for a quarter of an hour.
const STALL_MAX: Duration = Duration::from_secs(60);
/// The service puts together what came in parts before it answers to the last of them.
const LAST_ANSWER_MAX: Duration = Duration::from_secs(15 * 60);
/// Between tries that bring nothing forward.
const AGAIN_AFTER_MIN: Duration = Duration::from_millis(500);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(30);
/// About five minutes.
const TRIES_MAX: usize = 16;

/// The service does not know the upload any more.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Ended(String);

/// Asking again would bring the same answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// Answers the address of the upload; tries for a while where the service is busy, full or away.
pub async fn create(server: &Server, film: &Film, video: &str, address: &str) -> anyhow::Result<String> {
    let mut left = delays();
    loop {
        let error = match try_create(server, film, video, address).await {
            Ok(upload) => return Ok(upload),
            Err(error) if error.is::<Refused>() => return Err(error),
            Err(error) => error,
        };
        let Some(delay) = left.next() else { return Err(error) };
        eprintln!("{error:#}; again in {:.1} s", delay.as_secs_f64());
        tokio::time::sleep(delay).await;
    }
}

async fn try_create(server: &Server, film: &Film, video: &str, address: &str) -> anyhow::Result<String> {
    let encode = |text: &str| BASE64_STANDARD.encode(text);
    let metadata = format!("video_id {},filename {}", encode(video), encode(&film.name));
    let request = server.request(Method::POST, address)?.header(VERSION.0, VERSION.1);
    let request = request.header("Upload-Length", film.bytes).header("Upload-Metadata", metadata);
    let answer = request.header(CONTENT_LENGTH, 0).timeout(ANSWER_MAX).send().await?;
    match answer.status() {
        StatusCode::CREATED => {}
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            bail!("{}", refusal(answer).await)
        }
        _ => return Err(Refused(refusal(answer).await).into()),
    }
    let location = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    let location = location.context("the service says nothing of where the upload is")?;
    // It is told relative to where it was asked for.
    Ok(answer.url().join(location)?.into())
}

/// Sends what is missing, over and over, while it gets forward.
pub async fn send(server: &Server, film: &Film, upload: &str, bar: &ProgressBar) -> anyhow::Result<()> {
    let mut left = delays();
    let mut there = 0;
    loop {
        let error = match send_rest(server, film, upload, bar, &mut there).await {
            Ok(Sent::All) => return Ok(()),
            Ok(Sent::Some) => {
                left = delays();
                continue;
            }
            Err(error) if error.is::<Ended>() || error.is::<Refused>() => return Err(error),
            Err(error) => error,
        };
        let Some(delay) = left.next() else { return Err(error) };
        bar.suspend(|| eprintln!("{error:#}; again in {:.1} s", delay.as_secs_f64()));
        tokio::time::sleep(delay).await;
    }
}

/// Of tries one after the other that bring nothing forward.
pub fn delays() -> impl Iterator<Item = Duration> {
    let delays = ExponentialBuilder::default().with_jitter().with_max_times(TRIES_MAX);
    delays.with_min_delay(AGAIN_AFTER_MIN).with_max_delay(AGAIN_AFTER_MAX).build()
}

enum Sent {
    All,
    /// More than was there before.
    Some,
}

/// `there`: bytes that the service had when it was last asked.
async fn send_rest(
    server: &Server,
    film: &Film,
    upload: &str,
    bar: &ProgressBar,
    there: &mut u64,
) -> anyhow::Result<Sent> {
    let asked = server.request(Method::HEAD, upload)?.header(VERSION.0, VERSION.1).timeout(ANSWER_MAX);
    let offset = offset(asked.send().await.context("the service does not answer")?).await?;
    bar.set_position(offset);
    bar.reset_eta();
    if offset >= film.bytes {
        return Ok(Sent::All);
    }
    let forward = offset > std::mem::replace(there, offset);
    let rest = film.bytes - offset;
    let mut file = File::open(&film.path).await?;
    file.seek(SeekFrom::Start(offset)).await?;
    let counted = bar.clone();
    let bytes = ReaderStream::with_capacity(file.take(rest), READ_BYTES);
    let bytes = bytes.inspect_ok(move |bytes| counted.inc(bytes.len() as u64));
    let request = server.request(Method::PATCH, upload)?.header(VERSION.0, VERSION.1);
    let request = request.header(CONTENT_TYPE, "application/offset+octet-stream");
    let request = request.header("Upload-Offset", offset).header(CONTENT_LENGTH, rest);
    let sent = tokio::select! {
        answer = request.body(Body::wrap_stream(bytes)).send() => match answer {
            Ok(answer) => self::offset(answer).await,
            Err(error) => Err(anyhow::Error::new(error).context("the line broke off")),
        },
        () = stalled(bar, film.bytes) => Err(anyhow!("nothing went through for {} s", STALL_MAX.as_secs())),
    };
    match sent {
        Ok(now) if now >= film.bytes => Ok(Sent::All),
        Ok(now) if now > offset => Ok(Sent::Some),
        Ok(_) => bail!("the service took nothing"),
        // What came through shows when it is asked for.
        Err(error) if forward && !error.is::<Ended>() && !error.is::<Refused>() => {
            bar.suspend(|| eprintln!("{error:#}"));
            Ok(Sent::Some)
        }
        Err(error) => Err(error),
    }
}

/// Ends when nothing was taken for too long.
async fn stalled(bar: &ProgressBar, bytes: u64) {
    loop {
        let before = bar.position();
        let patience = if before >= bytes { LAST_ANSWER_MAX } else { STALL_MAX };
        tokio::time::sleep(patience).await;
        if bar.position() == before {
            return;
        }
    }
}

/// What the service has, in bytes.
async fn offset(answer: Response) -> anyhow::Result<u64> {
    let status = answer.status();
    if status.is_success() {
        let offset = answer.headers().get("Upload-Offset").and_then(|offset| offset.to_str().ok());
        return offset.and_then(|offset| offset.parse().ok()).context("the service does not say what it has");
    }
    let text = refusal(answer).await;
    match status {
        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE => Err(Ended(text).into()),
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::CONFLICT
        | StatusCode::LOCKED
        | StatusCode::TOO_MANY_REQUESTS => bail!("{text}"),
        _ if status.is_client_error() => Err(Refused(text).into()),
        _ => bail!("{text}"),
    }
}

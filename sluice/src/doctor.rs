//! `sluice doctor`: looks at what the program stands on, before trouble does.

use std::fmt;
use std::path::Path;

use chassis::{Clock, Settings, Shared};
use sql::Catalog;

use crate::start;

/// Below this much free space an upload of the size that is allowed cannot be kept, with its renditions.
const FREE_BYTES_MIN: u64 = 1 << 30;
/// A clock before this was never set: 2026-01-01.
const CLOCK_UNIX_MS_MIN: i64 = 1_767_225_600_000;

/// Machines that keep their time are apart by less.
const CLOCKS_APART_S_MAX: i64 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Good,
    Warning,
    Bad,
}

/// One line of the report.
#[derive(Debug)]
pub struct Finding {
    pub part: &'static str,
    pub verdict: Verdict,
    /// What was found and, where it is not good, what to do.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.verdict {
            Verdict::Good => "ok  ",
            Verdict::Warning => "warn",
            Verdict::Bad => "BAD ",
        };
        write!(f, "[{mark}] {:<9} {}", self.part, self.text)
    }
}

fn finding(part: &'static str, verdict: Verdict, text: impl Into<String>) -> Finding {
    Finding { part, verdict, text: text.into() }
}

/// Everything, in a fixed order.
pub async fn examine(settings: &Settings, clock: &Clock) -> Vec<Finding> {
    let mut findings = ffmpeg(settings);
    if let Err(failure) = settings.make_data_dir() {
        findings.push(finding("data", Verdict::Bad, failure.text()));
    }
    findings.push(sandbox(settings).await);
    findings.extend(database(settings, clock).await);
    findings.push(objects(settings).await);
    findings.extend(redis(settings).await);
    findings.push(disk(settings));
    findings.push(time(clock));
    findings.push(file_handles());
    findings
}

fn ffmpeg(settings: &Settings) -> Vec<Finding> {
    let found = transcoder::capabilities::capabilities(&settings.encode.codecs);
    let mut findings = vec![finding("ffmpeg", Verdict::Good, format!("FFmpeg {}", found.version))];
    if found.missing_encoders.is_empty() {
        findings.push(finding("encoders", Verdict::Good, found.encoders.join(", ")));
    } else {
        let missing = found.missing_encoders.join(", ");
        let advice = format!("this FFmpeg has no {missing}; on Debian: apt install libavcodec59");
        findings.push(finding("encoders", Verdict::Bad, advice));
    }
    for name in found.missing_decoders {
        findings.push(finding("decoders", Verdict::Warning, format!("this FFmpeg cannot read {name}")));
    }
    for (name, what_for) in found.missing_filters {
        findings.push(finding("filters", Verdict::Warning, format!("no {name}: {what_for} come out wrong")));
    }
    findings
}

/// What keeps a hostile file inside the transcoder.
async fn sandbox(settings: &Settings) -> Finding {
    let report = match start::transcoder(settings) {
        Ok(transcoder) => transcoder.sandbox().await.map_err(|error| format!("{error:#}")),
        Err(failure) => Err(failure.text().to_owned()),
    };
    let missing = match report {
        Ok(report) if report.missing.is_empty() => {
            return finding("sandbox", Verdict::Good, report.holds.join("; "));
        }
        Ok(report) => report.missing.join("; "),
        Err(error) => error,
    };
    if settings.unsafe_no_sandbox {
        let text = format!("missing, as SLUICE_UNSAFE_NO_SANDBOX allows: {missing}");
        return finding("sandbox", Verdict::Warning, text);
    }
    let text = format!("{missing}: nothing starts without, unless SLUICE_UNSAFE_NO_SANDBOX=1");
    finding("sandbox", Verdict::Bad, text)
}

/// Whether it answers, and whether its clock and ours agree: its time counts, but a person reads both.
async fn database(settings: &Settings, clock: &Clock) -> Vec<Finding> {
    let catalog = match Catalog::open(&settings.database_place()).await {
        Ok(catalog) => catalog,
        Err(error) => return vec![finding("database", Verdict::Bad, error.text)],
    };
    let now = catalog.now().await;
    catalog.close().await;
    let Ok(now) = now else { return vec![finding("database", Verdict::Bad, "it does not tell the time")] };
    let apart_s = now.ms_since(clock.now()) / 1000;
    if apart_s.abs() > CLOCKS_APART_S_MAX {
        let text =
            format!("its clock is {apart_s} s ahead of this machine's: set both (timedatectl set-ntp true)");
        return vec![finding("database", Verdict::Warning, text)];
    }
    vec![finding("database", Verdict::Good, "it answers, and its schema is ours")]
}

async fn objects(settings: &Settings) -> Finding {
    let store = match store::open(&settings.store_place()).await {
        Ok(store) => store,
        Err(error) => return finding("store", Verdict::Bad, error.text),
    };
    match store.probe().await {
        Ok(()) => finding("store", Verdict::Good, format!("{}: write, read and delete work", settings.store)),
        Err(error) => finding("store", Verdict::Bad, format!("write, read and delete: {error}")),
    }
}

/// Nothing where none is wanted.
async fn redis(settings: &Settings) -> Option<Finding> {
    let shared = match Shared::of(settings).transpose()? {
        Ok(shared) => shared,
        Err(failure) => return Some(finding("redis", Verdict::Bad, failure.text())),
    };
    Some(if shared.answers().await {
        finding("redis", Verdict::Good, "it answers: limits and ended sessions are shared")
    } else {
        let advice = "it does not answer: until it does, each process counts for itself. See REDIS_URL";
        finding("redis", Verdict::Warning, advice)
    })
}

fn disk(settings: &Settings) -> Finding {
    let Some(free) = free_bytes(&settings.data_dir) else {
        return finding("disk", Verdict::Warning, format!("{}: no answer", settings.data_dir.display()));
    };
    let text = format!("{} free in {}", gigabytes(free), settings.data_dir.display());
    if free < FREE_BYTES_MIN {
        return finding("disk", Verdict::Warning, format!("{text}: make room, or set SLUICE_DATA_DIR"));
    }
    finding("disk", Verdict::Good, text)
}

/// Free to an ordinary user, in bytes; of the closest folder above that exists.
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let folder = std::path::absolute(folder).ok()?;
    let existing = folder.ancestors().find(|folder| folder.exists())?;
    let stat = rustix::fs::statvfs(existing).ok()?;
    Some(stat.f_bavail * stat.f_frsize)
}

pub fn gigabytes(bytes: u64) -> String {
    format!("{:.0} GB", bytes as f64 / 1e9)
}

fn time(clock: &Clock) -> Finding {
    let now = clock.now();
    if now.unix_ms() < CLOCK_UNIX_MS_MIN {
        let text = format!("{} cannot be right: set it (timedatectl set-ntp true)", now.to_rfc3339());
        return finding("clock", Verdict::Bad, text);
    }
    finding("clock", Verdict::Good, now.to_rfc3339())
}

fn file_handles() -> Finding {
    const ADVISED: u64 = 65_536;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    match limit {
        Some(limit) if limit < ADVISED => finding(
            "handles",
            Verdict::Warning,
            format!("ulimit -n is {limit}; {ADVISED} advised for streaming"),
        ),
        Some(limit) => finding("handles", Verdict::Good, format!("ulimit -n is {limit}")),
        None => finding("handles", Verdict::Good, "ulimit -n is unlimited"),
    }
}

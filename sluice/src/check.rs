//! `sluice check`: walks rows and objects side by side and tells every violation.

use std::fmt;

use anyhow::Context;
use domain::{ObjectKey, Timestamp};
use sql::{AttemptState, Catalog, StoredObject};
use store::Store;

use crate::walk::{Objects, Rows};

const PAGE_ROWS: usize = 1000;
/// What a writer left unfinished is its own business this long; then the sweeper should have removed it.
const UNFINISHED_S_MAX: i64 = 3600;

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A rule among rows; the id or path of the row that breaks it.
    Row { rule: &'static str, row: String },
    /// A row shows an object that is not there.
    Missing { path: String },
    /// The object is there, but not as long as its row says.
    WrongSize { path: String, row_bytes: u64, store_bytes: u64 },
    /// No row explains the object.
    Unexplained { path: String, bytes: u64 },
    /// A writer that is long gone left it.
    Unfinished { name: String, bytes: u64 },
}

/// What was looked at.
#[derive(Debug, Default)]
pub struct Report {
    pub rows: u64,
    pub objects: u64,
    pub bytes: u64,
    pub violations: Vec<Violation>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Row { rule, row } => write!(f, "{row}: breaks the rule that {rule}"),
            Violation::Missing { path } => {
                write!(f, "{path}: a row shows it, but the store does not have it")
            }
            Violation::WrongSize { path, row_bytes, store_bytes } => {
                write!(f, "{path}: {store_bytes} bytes in the store, {row_bytes} in its row")
            }
            Violation::Unexplained { path, bytes } => write!(f, "{path}: {bytes} bytes that no row explains"),
            Violation::Unfinished { name, bytes } => write!(f, "{name}: {bytes} bytes left by a dead writer"),
        }
    }
}

/// Looks at everything. It may run beside a server at work: what changes under its eyes is looked at twice.
pub async fn check(catalog: &Catalog, store: &dyn Store, now: Timestamp) -> anyhow::Result<Report> {
    let broken = catalog.violations().await.context("ask the rows about themselves")?;
    let violations = broken.into_iter().map(|v| Violation::Row { rule: v.rule, row: v.row }).collect();
    let mut report = Report { violations, ..Report::default() };
    compare(catalog, store, &mut report).await?;
    unfinished(store, now, &mut report).await?;
    Ok(report)
}

/// Both sides come in the order of their paths, so one pass is enough.
async fn compare(catalog: &Catalog, store: &dyn Store, report: &mut Report) -> anyhow::Result<()> {
    let (mut rows, mut objects) = (Rows::new(catalog), Objects::new(store));
    let (mut row, mut object) = (rows.next().await?, objects.next().await?);
    loop {
        match (&row, &object) {
            (None, None) => return Ok(()),
            (Some((path, expected)), Some((found, bytes))) if path == found => {
                report.rows += 1;
                report.objects += 1;
                report.bytes += bytes;
                if expected.bytes != *bytes {
                    let (path, row_bytes) = (path.clone(), expected.bytes);
                    report.violations.push(Violation::WrongSize { path, row_bytes, store_bytes: *bytes });
                }
                (row, object) = (rows.next().await?, objects.next().await?);
            }
            (Some((path, expected)), found) if found.as_ref().is_none_or(|(found, _)| path < found) => {
                report.rows += 1;
                if still_missing(catalog, store, expected).await? {
                    report.violations.push(Violation::Missing { path: path.clone() });
                }
                row = rows.next().await?;
            }
            (_, Some((path, bytes))) => {
                report.objects += 1;
                report.bytes += bytes;
                if !explained(catalog, store, path).await? {
                    report.violations.push(Violation::Unexplained { path: path.clone(), bytes: *bytes });
                }
                object = objects.next().await?;
            }
            (Some(_), None) => unreachable!("the arm before takes every row that has no object beside it"),
        }
    }
}

/// Its row may have gone, or its attempt retired, since the row was read.
async fn still_missing(catalog: &Catalog, store: &dyn Store, object: &StoredObject) -> anyhow::Result<bool> {
    let attempt = catalog.attempt(object.key.attempt).await.context("look up an attempt")?;
    let counts = attempt.is_some_and(|attempt| attempt.state == AttemptState::Committed);
    Ok(counts && store.head(&object.key).await.context("look up an object")?.is_none())
}

/// By an attempt that may still write, or whose objects are on their way out, or by a row made meanwhile.
pub async fn explained(catalog: &Catalog, store: &dyn Store, path: &str) -> anyhow::Result<bool> {
    let Ok(key) = path.parse::<ObjectKey>() else { return Ok(false) };
    let attempt = catalog.attempt(key.attempt).await.context("look up an attempt")?;
    if attempt.is_some_and(|attempt| attempt.video == key.video && attempt.state != AttemptState::Committed) {
        return Ok(true);
    }
    let committed_meanwhile = catalog.object(&key).await.context("look up an object's row")?.is_some();
    Ok(committed_meanwhile || store.head(&key).await.context("look up an object")?.is_none())
}

async fn unfinished(store: &dyn Store, now: Timestamp, report: &mut Report) -> anyhow::Result<()> {
    let mut after: Option<String> = None;
    loop {
        let page =
            store.list_unfinished(after.as_deref(), PAGE_ROWS).await.context("list unfinished objects")?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.name.clone());
        for left in page {
            if left.modified.is_some_and(|modified| now.ms_since(modified) > UNFINISHED_S_MAX * 1000) {
                report.violations.push(Violation::Unfinished { name: left.name, bytes: left.bytes });
            }
        }
    }
}

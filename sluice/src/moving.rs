//! `sluice move --to-store`: brings every object to another store, beside a server at work.
//!
//! It may be stopped and started again at any moment: an object appears in the new store whole or not at all, and
//! what is there already is not copied again. Nothing is removed from the old store.

use std::fmt;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail, ensure};
use domain::ObjectKey;
use futures::{TryStreamExt, stream};
use sql::{AttemptState, Catalog, StoredObject};
use store::{Crc64Nvme, Store};

use crate::check;
use crate::walk::{Objects, Rows};

/// Objects copied at once.
const COPIES_MAX: usize = 4;
/// A server at work adds objects while we copy; after so many rounds the next run goes on.
const ROUNDS_MAX: usize = 10;
const DELETE_PATHS_MAX: usize = 1000;
/// Of unexplained objects in the new store this many are removed, or one in twenty.
const REMOVED_ALWAYS_MAX: usize = 100;
const REMOVED_SHARE_MAX: usize = 20;

/// What a run did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    pub copied: u64,
    pub copied_bytes: u64,
    /// Were there before.
    pub found: u64,
    /// Copies of what was deleted meanwhile, removed again.
    pub removed: u64,
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Moved { copied, copied_bytes, found, removed } = self;
        write!(
            f,
            "{copied} objects copied ({copied_bytes} bytes), {found} were there, {removed} removed again"
        )
    }
}

/// How much to believe of what a run before this one left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Every object that is there already is read and compared with its checksum.
    Nothing,
    /// Its length is enough.
    Lengths,
}

/// Copies until a round finds nothing to copy, then removes what was deleted meanwhile.
pub async fn move_objects(
    catalog: &Catalog,
    from: &dyn Store,
    to: &dyn Store,
    trust: Trust,
) -> anyhow::Result<Moved> {
    let mut total = Moved::default();
    for round in 0..ROUNDS_MAX {
        // What a round has seen, the next one need not read again.
        let moved = copy_all(catalog, from, to, if round == 0 { trust } else { Trust::Lengths }).await?;
        total.copied += moved.copied;
        total.copied_bytes += moved.copied_bytes;
        if round == 0 {
            total.found = moved.found;
        }
        if moved.copied == 0 {
            total.removed = remove_unexplained(catalog, to).await?;
            return Ok(total);
        }
    }
    bail!("the server makes objects as fast as they are copied; run this again when it is calmer")
}

async fn copy_all(
    catalog: &Catalog,
    from: &dyn Store,
    to: &dyn Store,
    trust: Trust,
) -> anyhow::Result<Moved> {
    let (copied, copied_bytes, found) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let rows = stream::try_unfold(Rows::new(catalog), async |mut rows| {
        Ok::<_, anyhow::Error>(rows.next().await?.map(|(_, row)| (row, rows)))
    });
    rows.map_ok(async |row| {
        if is_there(to, &row, trust).await? {
            found.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        if copy(catalog, from, to, &row).await? {
            let bytes = copied_bytes.fetch_add(row.bytes, Ordering::Relaxed) + row.bytes;
            tell(copied.fetch_add(1, Ordering::Relaxed) + 1, bytes, &row.key);
        }
        Ok(())
    })
    .try_buffer_unordered(COPIES_MAX)
    .try_collect::<()>()
    .await?;
    Ok(Moved {
        copied: copied.into_inner(),
        copied_bytes: copied_bytes.into_inner(),
        found: found.into_inner(),
        removed: 0,
    })
}

/// Something that is there and wrong is removed, so that it is copied again.
async fn is_there(to: &dyn Store, row: &StoredObject, trust: Trust) -> anyhow::Result<bool> {
    let path = row.key.path();
    let Some(meta) = to.head(&row.key).await.with_context(|| format!("look for {path}"))? else {
        return Ok(false);
    };
    let right = meta.bytes == row.bytes
        && (trust == Trust::Lengths
            || row.crc64nvme.is_none()
            || Some(checksum(to, row).await?) == row.crc64nvme);
    if !right {
        remove(to, &[path]).await?;
    }
    Ok(right)
}

/// Whether it still had to be copied when the copy was done.
async fn copy(
    catalog: &Catalog,
    from: &dyn Store,
    to: &dyn Store,
    row: &StoredObject,
) -> anyhow::Result<bool> {
    let path = row.key.path();
    if !is_wanted(catalog, &row.key).await? {
        return Ok(false);
    }
    match copy_bytes(from, to, row).await {
        Ok(()) => {}
        // Deleted since its row was read.
        Err(_) if !is_wanted(catalog, &row.key).await? => return Ok(false),
        Err(error) => return Err(error.context(format!("copy {path}"))),
    }
    if !is_wanted(catalog, &row.key).await? {
        // Deleted while we copied, and whoever deleted it may not have seen the copy.
        remove(to, &[path]).await?;
        return Ok(false);
    }
    Ok(true)
}

async fn copy_bytes(from: &dyn Store, to: &dyn Store, row: &StoredObject) -> anyhow::Result<()> {
    let mut blocks = from.read(&row.key, 0..row.bytes).await.context("read")?;
    let mut writer = to.create(&row.key).await.context("begin to write")?;
    while let Some(block) = blocks.try_next().await.context("read on")? {
        writer.write(block).await.context("write")?;
    }
    let stored = writer.finish().await.context("finish writing")?;
    let read_back = checksum(to, row).await?;
    let as_expected = stored.bytes == row.bytes
        && read_back == stored.crc64nvme
        && row.crc64nvme.is_none_or(|expected| expected == read_back);
    if !as_expected {
        remove(to, &[row.key.path()]).await?;
    }
    ensure!(as_expected, "the copy differs from what its row says; the old store's object may be damaged");
    Ok(())
}

async fn checksum(store: &dyn Store, row: &StoredObject) -> anyhow::Result<u64> {
    let blocks = store.read(&row.key, 0..row.bytes).await.context("read back")?;
    Ok(Crc64Nvme::of(blocks).await.context("read back")?.value())
}

async fn is_wanted(catalog: &Catalog, key: &ObjectKey) -> anyhow::Result<bool> {
    let attempt = catalog.attempt(key.attempt).await.context("look up an attempt")?;
    Ok(attempt.is_some_and(|attempt| attempt.state == AttemptState::Committed))
}

/// Copies of a run that was stopped, of videos that have been deleted since. What no key of ours spells is left alone.
async fn remove_unexplained(catalog: &Catalog, to: &dyn Store) -> anyhow::Result<u64> {
    let mut objects = Objects::new(to);
    let (mut unexplained, mut seen) = (Vec::new(), 0);
    while let Some((path, _)) = objects.next().await? {
        seen += 1;
        if path.parse::<ObjectKey>().is_ok() && !check::explained(catalog, to, &path).await? {
            unexplained.push(path);
        }
    }
    // So many were not deleted meanwhile: this is another library's store, or another library's database.
    ensure!(
        unexplained.len() <= REMOVED_ALWAYS_MAX.max(seen / REMOVED_SHARE_MAX),
        "{} of {seen} objects in the new store belong to no row of this database. If they are another library's, \
         move to an empty place; if they are rubbish, remove them by hand. Nothing was removed",
        unexplained.len()
    );
    for paths in unexplained.chunks(DELETE_PATHS_MAX) {
        remove(to, paths).await?;
    }
    Ok(unexplained.len() as u64)
}

async fn remove(store: &dyn Store, paths: &[String]) -> anyhow::Result<()> {
    for (path, removed) in store.delete(paths).await {
        removed.with_context(|| format!("remove {path}"))?;
    }
    Ok(())
}

/// On a terminal one line that moves along, else one now and then.
fn tell(copied: u64, bytes: u64, key: &ObjectKey) {
    const EVERY: u64 = 100;
    if std::io::stderr().is_terminal() {
        eprint!("\r{copied} objects, {bytes} bytes: {}", key.path());
    } else if copied.is_multiple_of(EVERY) {
        eprintln!("{copied} objects, {bytes} bytes so far");
    }
}

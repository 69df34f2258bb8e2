//! Listings in byte order of the whole path, in memory bounded by the page.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::modified;
use super::root::{Root, check_path};
use crate::{ListPage, StoreError, Unfinished};

pub(super) fn list(
    root: &Root,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<ListPage, StoreError> {
    let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
    if !folder.is_empty() {
        check_path(folder)?;
    }
    let start = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let mut walk =
        Walk { root, prefix, limit, after: after.unwrap_or_default().to_owned(), found: Vec::new() };
    walk.folder(&start)?;
    let more = walk.found.len() > limit;
    walk.found.truncate(limit);
    Ok(ListPage { objects: walk.found, more })
}

pub(super) fn list_unfinished(
    root: &Root,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<Unfinished>, StoreError> {
    let mut found = Vec::new();
    for (name, _) in names_after(root.unfinished(), after.unwrap_or_default(), limit, |_| true)? {
        match rustix::fs::statat(root.unfinished(), &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                found.push(Unfinished { name, bytes: stat.st_size as u64, modified: Some(modified(&stat)) });
            }
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(found)
}

struct Walk<'a> {
    root: &'a Root,
    prefix: &'a str,
    /// One more is looked for, to know whether there is more.
    limit: usize,
    after: String,
    found: Vec<(String, u64)>,
}

impl Walk<'_> {
    /// Visits the folder whose path, with its final `/`, is `path` (`""` for the root of all objects).
    fn folder(&mut self, path: &str) -> io::Result<()> {
        let folder = match self.root.open_objects_folder(path.trim_end_matches('/')) {
            Ok(folder) => folder,
            // Deleted while we walk, or never there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut after = String::new();
        loop {
            let wanted = |name: &str| self.may_hold(path, name);
            let names = names_after(&folder, &after, self.limit + 1, wanted)?;
            let Some(last) = names.keys().next_back() else { return Ok(()) };
            after.clone_from(last);
            for (name, kind) in names {
                if self.found.len() > self.limit {
                    return Ok(());
                }
                match kind {
                    FileType::Directory => self.folder(&format!("{path}{name}"))?,
                    _ => self.object(&folder, path, &name)?,
                }
            }
        }
    }

    fn object(&mut self, folder: &OwnedFd, path: &str, name: &str) -> io::Result<()> {
        match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => self.found.push((format!("{path}{name}"), stat.st_size as u64)),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    /// Whether `path` + `name` is, or as a folder (a name that ends in `/`) may hold, what is asked for.
    fn may_hold(&self, path: &str, name: &str) -> bool {
        let full = format!("{path}{name}");
        if !name.ends_with('/') {
            return full.starts_with(self.prefix) && full > self.after;
        }
        let explained = full.starts_with(self.prefix) || self.prefix.starts_with(&full);
        explained && (full > self.after || self.after.starts_with(&full))
    }
}

/// The first `limit` names of a folder after `after`, in byte order. Folders carry a final `/`, which puts them
/// where their content sorts among the whole paths: `a-b` comes before what is in `a/`.
fn names_after(
    folder: &OwnedFd,
    after: &str,
    limit: usize,
    wanted: impl Fn(&str) -> bool,
) -> io::Result<BTreeMap<String, FileType>> {
    let mut names = BTreeMap::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let mut name = entry.file_name().to_string_lossy().into_owned();
        if name == "." || name == ".." {
            continue;
        }
        let kind = kind_of(folder, entry.file_type(), &name)?;
        if kind == FileType::Directory {
            name.push('/');
        }
        if name.as_str() > after && wanted(&name) {
            names.insert(name, kind);
            if names.len() > limit {
                names.pop_last();
            }
        }
    }
    Ok(names)
}

/// Some file systems do not say it in the listing.
fn kind_of(folder: &OwnedFd, listed: FileType, name: &str) -> io::Result<FileType> {
    if listed != FileType::Unknown {
        return Ok(listed);
    }
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode)),
        Err(Errno::NOENT) => Ok(FileType::Unknown),
        Err(errno) => Err(errno.into()),
    }
}

//! The two folders of a disk store, reached only beneath their open handles: no path, however it came about, and
//! no symbolic link leads out.
//!
//! `objects/` holds what is finished, at its path. `unfinished/` holds what writers are at, on the same file
//! system, so that a finished file is linked, never copied, into place.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::StoreError;

pub(super) struct Root {
    objects: OwnedFd,
    unfinished: OwnedFd,
}

/// Objects are never written again: the mode says so too.
const OBJECT_MODE: Mode = Mode::from_raw_mode(0o440);
const UNFINISHED_MODE: Mode = Mode::from_raw_mode(0o640);
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o750);

/// A folder can vanish between being opened and being linked into, when the last object beside ours is deleted.
const COMMIT_TRIES_MAX: u32 = 64;

/// The folders above may have been made a moment ago: without this a power cut could take the first uploads along
/// with them. One that we may not open was not made by us.
fn sync_ancestors(root: &Path) {
    let above = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
    for folder in above.ancestors().skip(1) {
        if let Ok(folder) = File::open(folder) {
            // Some file systems of the system cannot be synced; ours can, and says so below.
            let _ = folder.sync_all();
        }
    }
}

impl Root {
    pub(super) fn open(root: &Path) -> io::Result<Root> {
        std::fs::create_dir_all(root)?;
        sync_ancestors(root);
        let root = rustix::fs::open(root, folder_flags() - OFlags::NOFOLLOW, Mode::empty())?;
        let opened =
            Root { objects: make_folder(&root, "objects")?, unfinished: make_folder(&root, "unfinished")? };
        rustix::fs::fsync(&root)?;
        Ok(opened)
    }

    /// A finished object, for reading.
    pub(super) fn open_object(&self, path: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = rustix::fs::openat2(&self.objects, path, flags, Mode::empty(), beneath())?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(File::from(file))
    }

    /// Gives the object a second name outside the store; `false` where the file system cannot.
    pub(super) fn link_object(&self, path: &str, to: &Path) -> io::Result<bool> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let folder = self.open_objects_folder(folder)?;
        match rustix::fs::linkat(&folder, name, CWD, to, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::XDEV | Errno::PERM | Errno::MLINK | Errno::OPNOTSUPP) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// A folder under `objects/`, for listing; `""` is `objects/` itself.
    pub(super) fn open_objects_folder(&self, path: &str) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { "." } else { path };
        Ok(rustix::fs::openat2(&self.objects, path, folder_flags(), Mode::empty(), beneath())?)
    }

    pub(super) fn unfinished(&self) -> &OwnedFd {
        &self.unfinished
    }

    /// A new file for the object at `path`, named so that a person can tell whose it was. A second writer of the
    /// same key gets a name of its own.
    pub(super) fn create_unfinished(&self, path: &str) -> io::Result<(String, File)> {
        let stem = path.replace('/', "~");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        for number in 0_u32.. {
            let name = format!("{stem}~{number}");
            match rustix::fs::openat(&self.unfinished, &name, flags, UNFINISHED_MODE) {
                Ok(file) => return Ok((name, File::from(file))),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    pub(super) fn remove_unfinished(&self, name: &str) -> io::Result<()> {
        check_path(name)?;
        ignore_missing(rustix::fs::unlinkat(&self.unfinished, name, AtFlags::empty()))
    }

    /// Makes the content of `file`, which is `from` in folder `from_folder`, durable, then visible at `path`, then
    /// that durable too. The order is the whole point: a crash in between leaves either nothing or everything.
    pub(super) fn publish(
        &self,
        file: &File,
        from_folder: &OwnedFd,
        from: &Path,
        path: &str,
    ) -> Result<(), StoreError> {
        check_path(path)?;
        rustix::fs::fchmod(file, OBJECT_MODE)?;
        rustix::fs::fsync(file)?;
        for _ in 0..COMMIT_TRIES_MAX {
            let (chain, name) = match self.open_chain(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            let folder = chain.last().unwrap_or(&self.objects);
            match rustix::fs::linkat(from_folder, from, folder, name, AtFlags::empty()) {
                Ok(()) => return self.sync_chain(&chain),
                Err(Errno::NOENT) if is_there(from_folder, from)? => continue,
                Err(Errno::NOENT) => return Err(StoreError::transient("the unfinished file was swept away")),
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(StoreError::transient("the folder of the object kept vanishing"))
    }

    /// Removes an object, and the folders that it leaves empty. Durable when it returns: a receipt is no receipt
    /// if a power cut brings the object back.
    pub(super) fn remove_object(&self, path: &str) -> io::Result<()> {
        check_path(path)?;
        let mut path = path;
        let mut flags = AtFlags::empty();
        loop {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            let folder = match self.open_objects_folder(parent) {
                Ok(folder) => folder,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            match rustix::fs::unlinkat(&folder, name, flags) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST) if flags == AtFlags::REMOVEDIR => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
            rustix::fs::fsync(&folder)?;
            if parent.is_empty() {
                return Ok(());
            }
            (path, flags) = (parent, AtFlags::REMOVEDIR);
        }
    }

    /// The folders above `path`, outermost first, made where they are missing; and the last part of `path`.
    fn open_chain<'p>(&self, path: &'p str) -> io::Result<(Vec<OwnedFd>, &'p str)> {
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut chain: Vec<OwnedFd> = Vec::new();
        for folder in folders.split('/').filter(|folder| !folder.is_empty()) {
            let next = make_folder(chain.last().unwrap_or(&self.objects), folder)?;
            chain.push(next);
        }
        Ok((chain, name))
    }

    /// Every folder of the chain, also those that were there: another writer may have made one a moment ago and
    /// not have come to its own sync. Where nothing changed this costs next to nothing.
    fn sync_chain(&self, chain: &[OwnedFd]) -> Result<(), StoreError> {
        for folder in chain.iter().rev().chain([&self.objects]) {
            rustix::fs::fsync(folder)?;
        }
        Ok(())
    }
}

/// A relative path of plain parts; what keys spell and listings return always is one.
pub(super) fn check_path(path: &str) -> io::Result<()> {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    if path.split('/').all(plain) { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

fn is_there(folder: &OwnedFd, name: &Path) -> io::Result<bool> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a folder, after making it where it is missing. Another process may remove it in between: then again.
fn make_folder(parent: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    for _ in 0..COMMIT_TRIES_MAX {
        match rustix::fs::openat(parent, name, folder_flags(), Mode::empty()) {
            Err(Errno::NOENT) => {}
            opened => return Ok(opened?),
        }
        match rustix::fs::mkdirat(parent, name, FOLDER_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

fn folder_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW
}

fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
}

fn ignore_missing(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

//! Local files of runs: `<scratch>/<worker>/<attempt>/`. A worker's folder is locked while it lives, so that
//! what a dead one left behind can be told from what is in use, whatever became of its process number.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use domain::AttemptId;
use rustix::fs::{FlockOperation, flock};

use crate::sources::Sources;

const LOCK: &str = "lock";
const SOURCES: &str = "sources";
const TAKE_TRIES_MAX: u32 = 5;
const REMOVE_TRIES_MAX: u32 = 5;

/// The folder of this process.
pub struct Scratch {
    folder: PathBuf,
    /// What runs read, fetched once for all of them.
    pub sources: Sources,
    /// Held as long as we live; the kernel lets go of it when we die.
    _lock: File,
}

/// The folder of one run, removed when it ends.
pub struct ScratchDir {
    path: PathBuf,
}

impl Scratch {
    /// Removes what dead workers left, and takes a folder of its own.
    pub fn open(root: &Path, worker: &str) -> io::Result<Scratch> {
        fs::create_dir_all(root)?;
        // The child has a working directory of its own, so its paths must not depend on ours.
        let root = fs::canonicalize(root)?;
        remove_leftovers(&root)?;
        let folder = root.join(worker);
        // Another that starts at the same time may take a folder without its lock for a dead one's.
        let mut tries = 0;
        loop {
            match take(&folder) {
                Ok(lock) => {
                    let sources = folder.join(SOURCES);
                    fs::create_dir(&sources)?;
                    return Ok(Scratch { folder, sources: Sources::new(sources), _lock: lock });
                }
                Err(error) if tries == TAKE_TRIES_MAX => return Err(error),
                Err(_) => tries += 1,
            }
        }
    }

    pub fn attempt(&self, attempt: AttemptId) -> io::Result<ScratchDir> {
        let path = self.folder.join(attempt.to_string());
        fs::create_dir(&path)?;
        let made = ScratchDir { path };
        fs::create_dir(made.input())?;
        fs::create_dir(made.output())?;
        Ok(made)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

impl ScratchDir {
    /// What the child reads.
    pub fn input(&self) -> PathBuf {
        self.path.join("in")
    }

    /// What the child writes.
    pub fn output(&self) -> PathBuf {
        self.path.join("out")
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn take(folder: &Path) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    let path = folder.join(LOCK);
    let lock = File::create(&path)?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    // What we hold is what others will find.
    if path.exists() { Ok(lock) } else { Err(io::ErrorKind::NotFound.into()) }
}

fn remove_leftovers(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let folder = entry?.path();
        if !is_in_use(&folder) {
            remove(&folder);
        }
    }
    Ok(())
}

fn is_in_use(folder: &Path) -> bool {
    // Without a lock: its owner died between making the two, or is just about to and will try again.
    let Ok(lock) = File::open(folder.join(LOCK)) else { return false };
    flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
}

/// A fetch whose run was dropped may still be making a file; once the folder is gone it cannot.
fn remove(folder: &Path) {
    for tries_left in (0..REMOVE_TRIES_MAX).rev() {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && tries_left > 0 => continue,
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(folder = %folder.display(), %error, "scratch files stay until the next start");
            }
            _ => {}
        }
        return;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{IdParts, Timestamp};

    #[test]
    fn what_the_dead_left_goes_and_what_the_living_use_stays() {
        let root = tempfile::tempdir().unwrap();
        let attempt = AttemptId::from(IdParts { now: Timestamp::from_unix_ms(1), random: [1; 10] });
        let living = Scratch::open(root.path(), "living").unwrap();
        let run = living.attempt(attempt).unwrap();
        fs::write(run.output().join("file"), b"x").unwrap();
        fs::create_dir_all(root.path().join("dead/some/files")).unwrap();
        fs::write(root.path().join("dead").join(LOCK), b"").unwrap();

        let other = Scratch::open(root.path(), "other").unwrap();
        assert!(!root.path().join("dead").exists());
        assert!(run.output().join("file").exists());

        drop(run);
        assert!(root.path().join("living").exists());
        drop(living);
        drop(other);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}

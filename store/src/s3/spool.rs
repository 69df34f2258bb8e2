//! Bytes that wait to be sent lie in files without a name: memory stays small whatever the network does, and
//! nothing is left over when the process dies.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use md5::{Digest, Md5};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::piece::Piece;
use crate::Crc64Nvme;

pub(super) struct Spool {
    file: File,
    written: u64,
    md5: Md5,
    crc: Crc64Nvme,
}

impl Spool {
    pub fn create(folder: &Path) -> io::Result<Spool> {
        Ok(Spool { file: nameless(folder)?, written: 0, md5: Md5::new(), crc: Crc64Nvme::default() })
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.md5.update(bytes);
        self.crc.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    pub fn bytes(&self) -> u64 {
        self.written
    }

    pub fn into_piece(self) -> Piece {
        Piece::new(Arc::new(self.file), 0..self.written, self.md5, self.crc)
    }
}

/// A file that vanishes with its last handle.
fn nameless(folder: &Path) -> io::Result<File> {
    let (flags, mode) = (OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
    match rustix::fs::openat(CWD, folder, flags | OFlags::TMPFILE, mode) {
        Ok(file) => return Ok(file.into()),
        // Not every file system can.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
        Err(errno) => return Err(errno.into()),
    }
    static FILES: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{}-{number}", std::process::id()));
        match rustix::fs::openat(CWD, &path, flags | OFlags::CREATE | OFlags::EXCL, mode) {
            Ok(file) => {
                rustix::fs::unlinkat(CWD, &path, rustix::fs::AtFlags::empty())?;
                return Ok(file.into());
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

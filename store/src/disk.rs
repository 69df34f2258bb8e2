//! Objects as files.

mod listing;
mod reader;
mod root;
mod writer;

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use domain::{ObjectKey, Timestamp};
use filemap::FileMap;
use rustix::fs::{CWD, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::{
    ByteStream, Crc64Nvme, ListPage, ObjectMeta, ObjectWriter, READ_BLOCK_BYTES_MAX, Store, StoreError,
    Stored, Unfinished, check_range,
};
pub use reader::file_blocks;
use root::Root;
use writer::DiskWriter;

/// A store in a folder of the local file system. Cheap to clone. Several processes may share one folder.
#[derive(Clone)]
pub struct Disk {
    root: Arc<Root>,
}

impl Disk {
    /// Opens the folder, after making it where it is missing.
    pub fn open(root: &Path) -> Result<Disk, StoreError> {
        Ok(Disk { root: Arc::new(Root::open(root)?) })
    }

    /// Runs `work` on the blocking pool.
    async fn with_root<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Root>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let root = self.root.clone();
        blocking(move || work(&root)).await
    }
}

#[async_trait]
impl Store for Disk {
    async fn create(&self, key: &ObjectKey) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let path = key.path();
        let writer = self.with_root(move |root| DiskWriter::start(root.clone(), path)).await?;
        Ok(Box::new(writer))
    }

    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<ByteStream, StoreError> {
        let path = key.path();
        let (file, bytes) = self
            .with_root(move |root| {
                let file = root.open_object(&path)?;
                let bytes = file.metadata()?.len();
                Ok((file, bytes))
            })
            .await?;
        check_range(&range, bytes)?;
        Ok(file_blocks(Arc::new(file), range))
    }

    async fn open(&self, key: &ObjectKey) -> Result<Option<FileMap>, StoreError> {
        let path = key.path();
        self.with_root(move |root| Ok(Some(FileMap::new(root.open_object(&path)?)?))).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        let path = key.path();
        let head = self.with_root(move |root| Ok(rustix::fs::fstat(root.open_object(&path)?)?)).await;
        match head {
            Ok(stat) => Ok(Some(ObjectMeta { bytes: stat.st_size as u64, modified: Some(modified(&stat)) })),
            Err(StoreError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.with_root(move |root| listing::list(root, &prefix, after.as_deref(), limit)).await
    }

    async fn list_unfinished(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Unfinished>, StoreError> {
        let after = after.map(str::to_owned);
        self.with_root(move |root| listing::list_unfinished(root, after.as_deref(), limit)).await
    }

    async fn remove_unfinished(&self, name: &str) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.with_root(move |root| Ok(root.remove_unfinished(&name)?)).await
    }

    async fn delete(&self, paths: &[String]) -> Vec<(String, Result<(), StoreError>)> {
        let mut answers = Vec::with_capacity(paths.len());
        for path in paths {
            let to_remove = path.clone();
            let result = self.with_root(move |root| Ok(root.remove_object(&to_remove)?)).await;
            answers.push((path.clone(), result));
        }
        answers
    }

    fn is_local(&self) -> bool {
        true
    }

    async fn fetch(&self, key: &ObjectKey, to: &Path) -> Result<u64, StoreError> {
        let (path, to) = (key.path(), to.to_owned());
        self.with_root(move |root| fetch(root, &path, &to)).await
    }

    async fn put_file(&self, key: &ObjectKey, from: &Path) -> Result<Stored, StoreError> {
        let (path, from) = (key.path(), from.to_owned());
        self.with_root(move |root| put_file(root, &path, &from)).await
    }

    async fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        self.with_root(|root| {
            let disk = rustix::fs::fstatvfs(root.unfinished())?;
            Ok(Some(disk.f_bavail.saturating_mul(disk.f_frsize)))
        })
        .await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.with_root(probe).await
    }
}

/// A hard link where it can be, else a copy.
fn fetch(root: &Root, path: &str, to: &Path) -> Result<u64, StoreError> {
    let mut object = root.open_object(path)?;
    let bytes = object.metadata()?.len();
    if root.link_object(path, to)? {
        return Ok(bytes);
    }
    let mut copy = File::create_new(to)?;
    Ok(io::copy(&mut object, &mut copy)?)
}

/// Links the file itself into place where it lies on our file system, else copies it.
fn put_file(root: &Arc<Root>, path: &str, from: &Path) -> Result<Stored, StoreError> {
    let mut file = File::open(from)?;
    let (folder, name) = folder_and_name(from)?;
    let folder =
        rustix::fs::openat(CWD, folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let stored = checksum(&mut file)?;
    match root.publish(&file, &folder, name, path) {
        Err(error) if is_other_file_system(&error) => copy_in(root, path, from),
        result => result.map(|()| stored),
    }
}

fn copy_in(root: &Arc<Root>, path: &str, from: &Path) -> Result<Stored, StoreError> {
    let (name, mut copy) = root.create_unfinished(path)?;
    let copied = (|| {
        io::copy(&mut File::open(from)?, &mut copy)?;
        copy.rewind()?;
        let stored = checksum(&mut copy)?;
        root.publish(&copy, root.unfinished(), Path::new(&name), path)?;
        Ok(stored)
    })();
    root.remove_unfinished(&name)?;
    copied
}

fn is_other_file_system(error: &StoreError) -> bool {
    let StoreError::Permanent(source) = error else { return false };
    let errno = source.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    errno == Some(Errno::XDEV.raw_os_error())
}

fn folder_and_name(path: &Path) -> Result<(PathBuf, &Path), StoreError> {
    let name = path.file_name().ok_or_else(|| StoreError::permanent("the path names no file"))?;
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((folder.to_owned(), Path::new(name)))
}

fn checksum(file: &mut File) -> io::Result<Stored> {
    let mut crc = Crc64Nvme::default();
    let mut block = vec![0; READ_BLOCK_BYTES_MAX];
    let mut bytes = 0;
    loop {
        match file.read(&mut block)? {
            0 => return Ok(Stored { bytes, crc64nvme: crc.value() }),
            read => {
                crc.update(&block[..read]);
                bytes += read as u64;
            }
        }
    }
}

fn probe(root: &Arc<Root>) -> Result<(), StoreError> {
    const CONTENT: &[u8] = b"the store can be written and read";
    let (name, mut file) = root.create_unfinished("probe")?;
    let outcome = (|| {
        file.write_all(CONTENT)?;
        file.sync_all()?;
        file.rewind()?;
        let mut read = Vec::new();
        file.read_to_end(&mut read)?;
        Ok::<_, io::Error>(read)
    })();
    root.remove_unfinished(&name)?;
    if outcome? == CONTENT {
        Ok(())
    } else {
        Err(StoreError::permanent("the store reads other bytes than were written"))
    }
}

/// Runs `work` on the blocking pool. A panic in it is an error of the call, not the end of the process.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(StoreError::Permanent(error.into())))
}

/// The arithmetic is in i128 because the file system may say anything.
fn modified(stat: &Stat) -> Timestamp {
    let unix_ms = i128::from(stat.st_mtime) * 1000 + i128::from(stat.st_mtime_nsec) / 1_000_000;
    Timestamp::from_unix_ms(i64::try_from(unix_ms).unwrap_or(0))
}

//! Whose fault it is: the file's (no retry) or ours (another attempt may succeed).

use std::fs::File;
use std::io;
use std::path::Path;
use std::thread::ScopedJoinHandle;

use domain::MediaProblem;
use domain::task::Part;
use ffmpeg_next as ffmpeg;

#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// `detail` is one sentence for the uploader that names the offending value.
    #[error("{problem}: {detail}")]
    Rejected { problem: MediaProblem, detail: String },
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl TaskError {
    pub fn rejected(problem: MediaProblem, detail: impl Into<String>) -> Self {
        TaskError::Rejected { problem, detail: detail.into() }
    }
}

/// What our own doing runs into (disk, memory, encoder): a failure, never a judgement on the file.
impl From<ffmpeg::Error> for TaskError {
    fn from(error: ffmpeg::Error) -> Self {
        TaskError::Failed(anyhow::Error::new(error).context("run FFmpeg"))
    }
}

impl From<std::io::Error> for TaskError {
    fn from(error: std::io::Error) -> Self {
        TaskError::Failed(anyhow::Error::new(error).context("read or write a file"))
    }
}

impl TaskError {
    /// The disk or the memory, not the file: the same work may succeed at another time.
    pub fn is_of_the_machine(&self) -> bool {
        matches!(self, TaskError::Failed(error) if is_of_the_machine(error))
    }
}

fn is_of_the_machine(error: &anyhow::Error) -> bool {
    use ffmpeg::util::error::{EACCES, EIO, EMFILE, ENOMEM, ENOSPC, EROFS};
    let by_ffmpeg = |error: &ffmpeg::Error| {
        matches!(error, ffmpeg::Error::Other { errno: EACCES | EIO | EMFILE | ENOMEM | ENOSPC | EROFS })
    };
    error.chain().any(|cause| {
        cause.is::<std::io::Error>() || cause.downcast_ref::<ffmpeg::Error>().is_some_and(by_ffmpeg)
    })
}

/// A context: what of the encode a fault points at. Made anew, it may be right; joined again, it is not.
#[derive(Debug, Clone)]
pub struct Unsound(pub Vec<Part>);

impl std::fmt::Display for Unsound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_slice() {
            [] => f.write_str("nothing"),
            [only] => only.fmt(f),
            [first, .., last] => write!(f, "{first} to {last}"),
        }
    }
}

/// Empty where it points at nothing, or the machine may be at fault.
pub fn unsound(error: &anyhow::Error) -> Vec<Part> {
    let parts = error.downcast_ref().filter(|_| !is_of_the_machine(error));
    parts.map(|Unsound(parts)| parts.clone()).unwrap_or_default()
}

/// What a thread made. `work`: what it was at, for the error where it panicked.
pub fn joined<T>(thread: ScopedJoinHandle<'_, Result<T, TaskError>>, work: &str) -> Result<T, TaskError> {
    thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("{work} panicked").into()))
}

/// The process was refused memory: by its own bound, or by the machine.
pub fn is_out_of_memory(error: &anyhow::Error) -> bool {
    use ffmpeg::util::error::ENOMEM;
    error.chain().any(|cause| {
        let by_ffmpeg = cause.downcast_ref() == Some(&ffmpeg::Error::Other { errno: ENOMEM });
        let by_kernel = cause.downcast_ref::<std::io::Error>();
        by_ffmpeg || by_kernel.is_some_and(|error| error.kind() == std::io::ErrorKind::OutOfMemory)
    })
}

/// An error met while reading the uploader's file: the machine's where it is about memory or the disk,
/// the file's in every other case.
pub fn reading(error: ffmpeg::Error, path: &Path, what: &str) -> TaskError {
    use ffmpeg::util::error::{EACCES, EIO, EMFILE, ENOENT, ENOMEM};
    let is_of_the_machine = match error {
        ffmpeg::Error::Other { errno: EACCES | ENOENT | EMFILE } => true,
        // A number that counts what is not there asks for more than there can be.
        ffmpeg::Error::Other { errno: ENOMEM } => !has_memory(),
        // Demuxers say so too, of a file that ends in the middle of something.
        ffmpeg::Error::Other { errno: EIO } => !can_be_read(path),
        _ => false,
    };
    if is_of_the_machine {
        return TaskError::Failed(anyhow::Error::new(error).context(format!("read the {what}")));
    }
    let why = match error {
        ffmpeg::Error::Other { errno: ENOMEM } => {
            "it counts more tracks or pictures than there can be".to_owned()
        }
        error => error.to_string(),
    };
    TaskError::rejected(MediaProblem::Unreadable, format!("The {what} cannot be read: {why}."))
}

/// More than the head of any film takes, or one of its packets.
pub fn has_memory() -> bool {
    const HEAD_BYTES_MAX: usize = 256 << 20;
    Vec::<u8>::new().try_reserve_exact(HEAD_BYTES_MAX).is_ok()
}

/// To its last byte.
fn can_be_read(path: &Path) -> bool {
    File::open(path).and_then(|mut file| io::copy(&mut file, &mut io::sink())).is_ok()
}

//! Signs of life. Whoever started us ends a child that says nothing for half a minute, so work that takes long is
//! heard even where nobody can say how far it is; a loop that brings nothing is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::progress::Progress;

const PAUSE: Duration = Duration::from_secs(2);

/// Pieces of work done by this process: the one thing about a task that all its threads and layers share.
static BEATS: AtomicU64 = AtomicU64::new(0);

/// Calls of [`during`] that have not ended.
static SILENT_WORKS: AtomicU64 = AtomicU64::new(0);

/// A frame was decoded or encoded, a packet read or written.
pub fn beat() {
    BEATS.fetch_add(1, Ordering::Relaxed);
}

/// Work on our own files that says nothing in between, and ends by itself: its length is theirs.
pub fn during<T>(work: impl FnOnce() -> T) -> T {
    SILENT_WORKS.fetch_add(1, Ordering::Relaxed);
    let done = work();
    SILENT_WORKS.fetch_sub(1, Ordering::Relaxed);
    done
}

/// Repeats the last progress as long as there is some work between two looks; until the process ends.
pub fn keep_telling(progress: Arc<Progress>) -> std::io::Result<()> {
    let tell = move || {
        let mut told = BEATS.load(Ordering::Relaxed);
        loop {
            thread::sleep(PAUSE);
            let done = BEATS.load(Ordering::Relaxed);
            if done != told || SILENT_WORKS.load(Ordering::Relaxed) > 0 {
                // It never falls.
                progress.report(0.0);
            }
            told = done;
        }
    };
    thread::Builder::new().name("pulse".to_owned()).spawn(tell).map(drop)
}

//! A child that was started before there is a task for it: whoever uploads does not wait until FFmpeg's libraries are
//! linked. It waits at its standard input, has opened nothing, and ends with us.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::child::Running;

/// At most one child. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Spare(Arc<Mutex<Option<Running>>>);

impl Spare {
    /// The child that waits; `None` also where it has died meanwhile.
    pub fn take(&self) -> Option<Running> {
        let mut child = self.lock().take()?;
        child.is_alive().then_some(child)
    }

    /// From here on one waits, unless it cannot be started: then whoever needs one is told.
    pub fn keep(&self, start: impl FnOnce() -> io::Result<Running>) {
        let mut spare = self.lock();
        if !spare.as_mut().is_some_and(Running::is_alive) {
            *spare = start().ok();
        }
    }

    #[cfg(test)]
    pub fn pid(&self) -> Option<rustix::process::Pid> {
        self.lock().as_ref().and_then(Running::pid)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

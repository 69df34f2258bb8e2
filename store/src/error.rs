//! Why the store could not, sorted by what the caller does about it.

use std::io;

type Source = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("no such object")]
    NotFound,
    /// Keys are write-once, and this one is taken.
    #[error("the object exists already")]
    Exists,
    /// Goes away when space is made, not by trying at once again.
    #[error("the store has no space left")]
    OutOfSpace,
    /// The same call may succeed later.
    #[error("the store is disturbed")]
    Transient(#[source] Source),
    /// The same call will fail again: a fault of the caller, of the set-up or of the medium.
    #[error("the store failed")]
    Permanent(#[source] Source),
}

impl StoreError {
    /// Whether the same call may succeed after a while.
    pub fn is_retryable(&self) -> bool {
        matches!(self, StoreError::Transient(_) | StoreError::OutOfSpace)
    }

    pub(crate) fn permanent(reason: &'static str) -> Self {
        StoreError::Permanent(reason.into())
    }

    pub(crate) fn transient(reason: &'static str) -> Self {
        StoreError::Transient(reason.into())
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::*;
        use rustix::io::Errno;

        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        match (error.kind(), errno) {
            (NotFound, _) => StoreError::NotFound,
            (AlreadyExists, _) => StoreError::Exists,
            (StorageFull | QuotaExceeded, _) => StoreError::OutOfSpace,
            // Too many open files, no memory, no more threads: gone when the load is.
            (_, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN)) => {
                StoreError::Transient(error.into())
            }
            (
                Interrupted | WouldBlock | TimedOut | OutOfMemory | ResourceBusy | StaleNetworkFileHandle,
                _,
            ) => StoreError::Transient(error.into()),
            _ => StoreError::Permanent(error.into()),
        }
    }
}

impl From<rustix::io::Errno> for StoreError {
    fn from(errno: rustix::io::Errno) -> Self {
        io::Error::from(errno).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn errors_know_whether_to_retry() {
        assert!(matches!(StoreError::from(Errno::NOENT), StoreError::NotFound));
        assert!(matches!(StoreError::from(Errno::EXIST), StoreError::Exists));
        assert!(matches!(StoreError::from(Errno::NOSPC), StoreError::OutOfSpace));
        assert!(matches!(StoreError::from(Errno::DQUOT), StoreError::OutOfSpace));
        for retryable in [Errno::MFILE, Errno::NOMEM, Errno::NOSPC, Errno::TIMEDOUT] {
            assert!(StoreError::from(retryable).is_retryable(), "{retryable}");
        }
        for final_one in [Errno::IO, Errno::ROFS, Errno::ACCESS, Errno::NOENT, Errno::EXIST] {
            assert!(!StoreError::from(final_one).is_retryable(), "{final_one}");
        }
    }
}

//! The one attempt that no safe wrapper offers.
#![allow(unsafe_code)]

use std::io;

use rustix::process::Pid;

/// Takes hold of a process without stopping it; ends with us.
pub fn seize(process: Pid) -> io::Result<()> {
    // SAFETY: the call takes numbers, and changes nothing in our memory.
    let result = unsafe { libc::ptrace(libc::PTRACE_SEIZE, process.as_raw_nonzero().get(), 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

//! What the kernel is told about a child: before its program starts, and before it hears of its task. The only `unsafe`
//! of this crate.

use std::io;

use rustix::process::{
    Pid, Resource, Rlimit, Signal, getppid, getpriority_process, prlimit, setpriority_process, setrlimit,
};
use tokio::process::Command;

use crate::run_limits::RunLimits;

/// After standard input, output and error.
const FIRST_UNKNOWN_FILE: libc::c_long = 3;
const OPEN_FILES_MAX: u64 = 256;
/// Between the signal that says that processor time is over and the end without a word.
const CPU_S_GRACE: u64 = 5;

/// Makes the child die with its parent.
pub fn apply(command: &mut Command) {
    let parent = Pid::from_raw(i32::try_from(std::process::id()).unwrap_or(0));
    let before_exec = move || {
        // Bound to the thread that spawned it: a worker of the runtime, which lives as long as the runtime.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before that took effect.
        if getppid() != parent {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        hide_open_files()?;
        setrlimit(Resource::Nofile, at_most(OPEN_FILES_MAX))?;
        Ok(setrlimit(Resource::Core, at_most(0))?)
    };
    #[allow(unsafe_code, reason = "the standard library offers no other way to run code before exec")]
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. The closure makes four kinds of
    // system calls, directly, and builds errors from numbers: it takes no lock and allocates nothing.
    unsafe {
        command.pre_exec(before_exec)
    };
}

/// Bounds what a child may take that has not heard of its task, and has one thread.
pub fn bound(child: Pid, limits: RunLimits) -> io::Result<()> {
    let limit = |resource, limit| prlimit(Some(child), resource, limit).map(drop);
    limit(Resource::As, at_most(limits.memory_bytes_max))?;
    // Of one file; the sum of them is watched from outside.
    limit(Resource::Fsize, at_most(limits.output_bytes_max))?;
    let cpu_s = (Some(limits.cpu_s_max), Some(limits.cpu_s_max + CPU_S_GRACE));
    limit(Resource::Cpu, Rlimit { current: cpu_s.0, maximum: cpu_s.1 })?;
    Ok(setpriority_process(Some(child), getpriority_process(Some(child))? + limits.niceness)?)
}

/// What somebody left open who started us, and we do not know of, is closed when the program starts.
fn hide_open_files() -> io::Result<()> {
    #[allow(unsafe_code, reason = "no safe wrapper has this call")]
    // SAFETY: the call takes numbers and marks files; it closes none that is in use here.
    let result = unsafe {
        let (first, last) = (FIRST_UNKNOWN_FILE, libc::c_long::from(u32::MAX));
        libc::syscall(libc::SYS_close_range, first, last, libc::c_long::from(libc::CLOSE_RANGE_CLOEXEC))
    };
    // A kernel that is too old for it has no Landlock either, and whoever goes on there was told so.
    if result == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn at_most(maximum: u64) -> Rlimit {
    Rlimit { current: Some(maximum), maximum: Some(maximum) }
}

//! Gives up what the process may do more than anybody.

use std::fs;
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use domain::task::Task;
use rustix::process::{self, DumpableBehavior, Signal};
use rustix::thread::{self, CapabilitySet, CapabilitySets};

/// `nobody`, by convention everywhere.
const UNPRIVILEGED: u32 = 65_534;

const OTHERS_READ: u32 = 0o004;
const OTHERS_SEARCH: u32 = 0o001;

/// What is given up is given up by one thread, and inherited by those it starts; a library that started one of its
/// own would keep it outside.
pub fn is_single_threaded() -> Result<String, String> {
    let threads = fs::read_dir("/proc/self/task").map_err(|error| format!("/proc: {error}"))?.count();
    match threads {
        1 => Ok("when it was locked in".to_owned()),
        threads => Err(format!("a library started {} more", threads - 1)),
    }
}

/// Root becomes nobody; capabilities go in any case. The files of the task are handed over before.
pub fn drop_all(task: &mut Task) -> Result<String, String> {
    let parent = process::getppid();
    if process::geteuid().is_root() {
        hand_over(task).map_err(|error| format!("files cannot be handed to uid {UNPRIVILEGED}: {error}"))?;
        become_nobody()
            .map_err(|error| format!("root cannot be given up ({error}): run it as an ordinary user"))?;
        // Changing who we are made the kernel forget it.
        process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| error.to_string())?;
        if process::getppid() != parent {
            return Err("whoever started it is gone".to_owned());
        }
    }
    thread::set_capabilities(None, none()).map_err(|error| format!("capabilities stay: {error}"))?;
    // Others of the same user neither trace it nor look into its memory.
    process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| error.to_string())?;
    let uid = process::getuid().as_raw();
    if uid == 0 { Err("it is still root".to_owned()) } else { Ok(format!("uid {uid}, no capabilities")) }
}

fn become_nobody() -> io::Result<()> {
    let (uid, gid) = (process::Uid::from_raw(UNPRIVILEGED), process::Gid::from_raw(UNPRIVILEGED));
    thread::set_thread_groups(&[])?;
    thread::set_thread_res_gid(gid, gid, gid)?;
    Ok(thread::set_thread_res_uid(uid, uid, uid)?)
}

fn none() -> CapabilitySets {
    let none = CapabilitySet::empty();
    CapabilitySets { effective: none, permitted: none, inheritable: none }
}

/// Makes the files usable for nobody, wherever they lie: folders above them may be closed to others, so paths start
/// at the folder itself, which is held open until the process ends.
fn hand_over(task: &mut Task) -> io::Result<()> {
    let mut held: Vec<(PathBuf, PathBuf)> = Vec::new();
    for input in task.inputs_mut() {
        allow(input, OTHERS_READ)?;
        *input = through_folder(input, &mut held)?;
    }
    if let Some(output) = task.output_mut() {
        chown(&*output, Some(UNPRIVILEGED), Some(UNPRIVILEGED))?;
        *output = hold(output)?;
    }
    Ok(())
}

fn through_folder(file: &Path, held: &mut Vec<(PathBuf, PathBuf)>) -> io::Result<PathBuf> {
    let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    if let Some((_, door)) = held.iter().find(|(known, _)| known == folder) {
        return Ok(door.join(name));
    }
    allow(folder, OTHERS_SEARCH)?;
    let door = hold(folder)?;
    held.push((folder.to_owned(), door.clone()));
    Ok(door.join(name))
}

/// A path to an open folder that nobody has to walk to.
fn hold(folder: &Path) -> io::Result<PathBuf> {
    let open = fs::File::open(folder)?;
    Ok(PathBuf::from(format!("/proc/self/fd/{}", open.into_raw_fd())))
}

/// A file in a scratch folder may be a link to an object, and is as closed as the process mask made it; what
/// protects objects is the folder they lie in.
fn allow(path: &Path, bit: u32) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & bit == bit {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode | bit))
}

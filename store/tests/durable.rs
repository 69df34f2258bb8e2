//! What a store in a folder answers for is on the disk before it answers: its system calls are read, and a power cut
//! is imagined at each answer. Taking any `fsync` away turns this red. (`reliability` F3)
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod objects;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use domain::ObjectKey;
use objects::key;
use store::{Disk, Store};

/// Looked at under this name, a path tells the trace that it was answered for.
const STORED: &str = "/answered/stored";
const DELETED: &str = "/answered/deleted";
const FOLDER: &str = "SLUICE_TEST_TRACED_FOLDER";

#[test]
fn what_was_answered_survives_a_power_cut() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let calls = "trace=write,pwrite64,copy_file_range,sendfile,fsync,fdatasync,mkdir,mkdirat,linkat,renameat,renameat2,unlinkat,statx";
    let traced = Command::new("strace")
        .args(["-f", "-y", "-s", "4096", "-e", calls, "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "a_life_of_some_objects", "--ignored", "--test-threads=1"])
        .env(FOLDER, folder.path().canonicalize().unwrap())
        .output()
        .expect("strace is installed (make setup)");
    assert!(traced.status.success(), "{}", String::from_utf8_lossy(&traced.stdout));
    let mut disk = Model::default();
    let mut answers = 0;
    for line in std::fs::read_to_string(&trace).unwrap().lines() {
        answers += usize::from(disk.see(line));
    }
    assert_eq!(answers, 5, "every answer was seen");
}

/// Runs under the eyes of the test above.
#[tokio::test]
#[ignore = "it is only watched"]
async fn a_life_of_some_objects() {
    #[expect(clippy::disallowed_methods, reason = "the test that watches says where")]
    let Ok(folder) = std::env::var(FOLDER).map(PathBuf::from) else { return };
    let store = Disk::open(&folder.join("store")).unwrap();
    let objects = folder.join("store/objects");
    let answered = |what: &str, key: &ObjectKey| {
        // Nothing is there; the question is the message.
        assert!(std::fs::metadata(format!("{what}{}", objects.join(key.path()).display())).is_err());
    };
    let mut writer = store.create(&key(1)).await.unwrap();
    for _ in 0..3 {
        writer.write(Bytes::from_static(b"uploaded")).await.unwrap();
    }
    writer.finish().await.unwrap();
    answered(STORED, &key(1));

    let file = folder.join("made");
    std::fs::write(&file, b"made").unwrap();
    store.put_file(&key(2), &file).await.unwrap();
    answered(STORED, &key(2));

    // From another file system it cannot be linked.
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = elsewhere.path().join("made");
    std::fs::write(&file, b"made").unwrap();
    store.put_file(&key(3), &file).await.unwrap();
    answered(STORED, &key(3));

    for number in [1, 3] {
        store.delete(&[key(number).path()]).await.remove(0).1.unwrap();
        answered(DELETED, &key(number));
    }
}

/// What a power cut would leave, by absolute path.
#[derive(Default)]
struct Model {
    /// Files with content that was not synced.
    written: BTreeSet<PathBuf>,
    /// Names that came into folders or went, and were not synced.
    changed: BTreeSet<PathBuf>,
    /// What a name was linked to.
    links: BTreeMap<PathBuf, PathBuf>,
}

impl Model {
    /// Takes one line of the trace in; whether it is an answer.
    fn see(&mut self, line: &str) -> bool {
        let Some((call, arguments)) = call_of(line) else { return false };
        match call {
            "write" | "pwrite64" => drop(self.written.insert(handle(arguments, 0))),
            "copy_file_range" => drop(self.written.insert(handle(arguments, 1))),
            "sendfile" => drop(self.written.insert(handle(arguments, 0))),
            "fsync" | "fdatasync" => self.sync(&handle(arguments, 0)),
            "mkdir" => drop(self.changed.insert(quoted(arguments, 0))),
            "mkdirat" | "unlinkat" => {
                self.changed.insert(handle(arguments, 0).join(quoted(arguments, 0)));
            }
            "linkat" => {
                let from = handle(arguments, 0).join(quoted(arguments, 0));
                let to = handle(arguments, 1).join(quoted(arguments, 1));
                self.changed.insert(to.clone());
                self.links.insert(to, from);
            }
            "renameat" | "renameat2" => panic!("the model knows no renames: {line}"),
            "statx" => return self.answer(&quoted(arguments, 0)),
            other => panic!("{other} was not asked for"),
        }
        false
    }

    fn sync(&mut self, path: &Path) {
        self.written.remove(path);
        self.changed.retain(|changed| changed.parent() != Some(path));
    }

    fn answer(&self, told: &Path) -> bool {
        let stored = told.starts_with(STORED);
        let Ok(path) = told.strip_prefix(if stored { STORED } else { DELETED }) else { return false };
        let path = Path::new("/").join(path);
        for part in path.ancestors() {
            assert!(
                !self.changed.contains(part),
                "{} is answered for, not the name {}",
                told.display(),
                part.display()
            );
        }
        if stored {
            let content = &self.links[&path];
            assert!(!self.written.contains(content), "the content of {} is not on the disk", path.display());
        }
        true
    }
}

/// `123 fsync(7</folder>) = 0`; calls that failed changed nothing, but a question is one also without an answer.
fn call_of(line: &str) -> Option<(&str, &str)> {
    let (_, call) = line.split_once(char::is_whitespace)?;
    let (name, arguments) = call.trim_start().split_once('(')?;
    let asks = name == "statx";
    // Threads wake each other by writing, beside whatever else is going on.
    let entangled = arguments.ends_with("<unfinished ...>") && !asks && name != "write";
    assert!(!entangled, "one call was made while another was not over: {line}");
    let resumed = name.starts_with("<...");
    (asks || !resumed && !arguments.contains(") = -1 ")).then_some((name, arguments))
}

/// The path behind the n-th descriptor.
fn handle(arguments: &str, n: usize) -> PathBuf {
    let path = arguments.split('<').nth(n + 1).and_then(|rest| rest.split('>').next());
    PathBuf::from(path.unwrap_or_default())
}

/// The n-th text in quotes.
fn quoted(arguments: &str, n: usize) -> PathBuf {
    PathBuf::from(arguments.split('"').nth(2 * n + 1).unwrap_or_default())
}

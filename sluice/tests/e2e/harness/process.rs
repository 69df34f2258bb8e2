use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::backends::variable;
use super::{Backends, Objects, Persona};

const START_S_MAX: u64 = 30;
const STOP_S_MAX: u64 = 40;

/// One running process of ours, on ports it picked itself. Dropping it kills it.
pub struct Program {
    child: Child,
    log: PathBuf,
    /// `http://127.0.0.1:<port>`
    pub base: String,
    pub ops: String,
}

/// `sluice` on a fresh data directory, and the personas who use it.
pub struct App {
    // Before what it stands on, and the folder, which holds the log: fields are dropped in this order.
    pub program: Program,
    backends: Backends,
    more_backends: Vec<Backends>,
    pub folder: TempDir,
    settings: Vec<(String, String)>,
    starts: u32,
}

/// The binary under test with an empty environment and `folder/data` as its data directory.
pub fn sluice_command(folder: &Path) -> Command {
    program_command("sluice", folder)
}

/// As [`sluice_command`], of a program that lies beside it. `SLUICE_TEST_PROGRAMS_DIR` has others than those that were
/// built with the tests, for times that are promised of the release build.
pub fn program_command(name: &str, folder: &Path) -> Command {
    let built = Path::new(env!("CARGO_BIN_EXE_sluice"));
    let binary = match variable("SLUICE_TEST_PROGRAMS_DIR") {
        Some(programs) => Path::new(&programs).join(name),
        None => built.with_file_name(name),
    };
    assert!(binary.exists(), "{} is not built; run cargo build --workspace --bins", binary.display());
    binary_command(&binary, folder)
}

fn binary_command(binary: &Path, folder: &Path) -> Command {
    let mut command = Command::new(binary);
    command
        .env_clear()
        .env("SLUICE_DATA_DIR", folder.join("data"))
        .env("SLUICE_LISTEN", "127.0.0.1:0")
        .env("SLUICE_OPS_LISTEN", "127.0.0.1:0")
        // Tests poll; what the limits do is tested where they are made.
        .env("SLUICE_REQUESTS_PER_S_PER_CLIENT", "0")
        .env("SLUICE_REQUESTS_PER_S_PER_USER", "0")
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

impl Program {
    /// What `/metrics` says of a series, by its name and labels; none of it is there before it was counted once.
    pub async fn metric(&self, series: &str) -> u64 {
        let metrics = Persona::anonymous(&self.ops).get("/metrics").await.expect(200).text();
        let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse::<f64>().unwrap() as u64)
    }

    /// Starts `name`, which lies beside the `sluice` binary, and waits until it says where it listens.
    pub fn start(name: &str, folder: &Path, log_name: &str, settings: &[(String, String)]) -> Program {
        let log = folder.join(log_name);
        let output = File::create(&log).unwrap();
        let mut command = program_command(name, folder);
        command.envs(settings.iter().map(|(k, v)| (k, v)));
        command.stdout(output.try_clone().unwrap()).stderr(output).process_group(0);
        let child = command.spawn().unwrap();
        let mut program = Program { child, log, base: String::new(), ops: String::new() };
        program.wait_until_listening();
        program
    }

    fn wait_until_listening(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(START_S_MAX);
        loop {
            let (public, ops) =
                (self.logged("listening", "address"), self.logged("ops listening", "address"));
            if let (Some(public), Some(ops)) = (public, ops) {
                self.base = format!("http://{public}");
                self.ops = format!("http://{ops}");
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("ended with {status} before it listened:\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "not listening within {START_S_MAX} s:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A field of the first log line with this message.
    pub fn logged(&self, message: &str, field: &str) -> Option<String> {
        self.log().lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).find_map(
            |line| (line["message"] == message).then(|| line[field].as_str().map(str::to_owned)).flatten(),
        )
    }

    pub fn log(&self) -> String {
        let mut text = String::new();
        File::open(&self.log).and_then(|mut log| log.read_to_string(&mut text)).unwrap();
        text
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in KiB, of the process alone.
    pub fn resident_kib(&self) -> u64 {
        resident_kib(self.pid())
    }

    /// `kill -9`, as a power cut would, of this process alone: its children have to notice by themselves.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGSTOP: it keeps what it has in hand and does nothing with it until [`Program::resume`]. `and_children`: theirs
    /// stand still as well.
    pub fn pause(&self, and_children: bool) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::STOP).unwrap();
        for child in if and_children { self.children() } else { Vec::new() } {
            // It may have ended just now.
            let _ = kill_process(child, Signal::STOP);
        }
    }

    pub fn resume(&self) {
        let pid = Pid::from_child(&self.child);
        for child in self.children() {
            let _ = kill_process(child, Signal::CONT);
        }
        kill_process(pid, Signal::CONT).unwrap();
    }

    /// The processes it started, of which some may have ended just now.
    pub fn children(&self) -> Vec<Pid> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let of = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("children"));
        let lists: Vec<String> = threads.flatten().flat_map(of).collect();
        let pids = lists.iter().flat_map(|list| list.split_whitespace());
        pids.filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
    }

    /// SIGTERM, and the status it ends with.
    pub fn terminate(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let deadline = Instant::now() + Duration::from_secs(STOP_S_MAX);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > deadline {
                let log = self.log();
                self.kill();
                panic!("still running {STOP_S_MAX} s after SIGTERM:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Whether there is a process of this number that has not ended.
pub fn is_running(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, state)| !state.starts_with(" Z"))
}

/// Resident memory of a process in KiB; 0 when it has ended.
pub fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()).map_or(0, |kib| kib.parse().unwrap())
}

/// The highest resident memory of a process, in KiB, sampled until it is asked for.
pub struct Peak {
    kib: Arc<AtomicU64>,
    sampling: tokio::task::JoinHandle<()>,
}

impl Peak {
    pub fn of(pid: u32) -> Peak {
        let kib = Arc::new(AtomicU64::new(0));
        let highest = kib.clone();
        let sampling = tokio::spawn(async move {
            loop {
                highest.fetch_max(resident_kib(pid), Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Peak { kib, sampling }
    }

    pub fn end(self) -> u64 {
        self.sampling.abort();
        self.kib.load(Ordering::SeqCst)
    }
}

/// Of a long run nobody reads more.
const LOG_LINES_SHOWN_MAX: usize = 400;

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN_MAX)..];
            eprintln!("--- log of pid {}, {} ---\n{}", self.child.id(), self.log.display(), end.join("\n"));
        }
    }
}

impl App {
    pub async fn start() -> App {
        App::with(&[]).await
    }

    /// With settings beside those that give it a place of its own. There is always an admin, `root`.
    pub async fn with(settings: &[(&str, &str)]) -> App {
        let folder = tempfile::tempdir().unwrap();
        let backends = Backends::fresh(folder.path());
        let mut all = backends.settings().to_vec();
        all.extend([
            ("SLUICE_ADMIN_USERNAME".to_owned(), "root".to_owned()),
            ("SLUICE_ADMIN_PASSWORD".to_owned(), Persona::PASSWORD.to_owned()),
        ]);
        all.extend(settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let program = Program::start("sluice", folder.path(), "log-0", &all);
        App { program, backends, more_backends: Vec::new(), folder, settings: all, starts: 1 }
    }

    pub fn base(&self) -> &str {
        &self.program.base
    }

    /// Registers somebody new and logs in.
    pub async fn user(&self, name: &str) -> Persona {
        Persona::register(self.base(), name).await
    }

    pub async fn admin(&self) -> Persona {
        Persona::log_in(self.base(), "root").await
    }

    pub fn anonymous(&self) -> Persona {
        Persona::anonymous(self.base())
    }

    /// `kill -9` and a new start on the same data; personas have to move over with [`Persona::at`].
    pub fn kill_and_restart(&mut self) {
        self.program.kill();
        self.start_again();
    }

    pub fn start_again(&mut self) {
        let log_name = format!("log-{}", self.starts);
        self.starts += 1;
        self.program = Program::start("sluice", self.folder.path(), &log_name, &self.settings);
    }

    /// The address of another store of this kind (`s3s`, `garage`), which the settings then also know how to reach.
    pub fn add_store(&mut self, kind: &str) -> String {
        let more = Backends::of("sqlite", kind, self.folder.path());
        let (address, rest): (Vec<_>, Vec<_>) =
            more.settings().iter().cloned().partition(|(name, _)| name == "SLUICE_STORE");
        self.settings.extend(rest);
        self.more_backends.push(more);
        address[0].1.clone()
    }

    /// The address of an empty PostgreSQL database.
    pub fn add_database(&mut self) -> String {
        let more = Backends::of("postgres", "disk", self.folder.path());
        let url = more.settings()[0].1.clone();
        self.more_backends.push(more);
        url
    }

    /// A setting of every later start and command; nothing takes it away.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        self.settings.retain(|(known, _)| known != name);
        self.settings.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }

    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A command of the binary under test on what this server stands on, ready to run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = sluice_command(self.folder.path());
        command.envs(self.settings.iter().map(|(name, value)| (name, value))).args(arguments);
        command
    }

    /// Ends the server as an operator would, and has `sluice check` look over what it left.
    pub fn finish(mut self) {
        let status = self.program.terminate();
        assert!(status.success(), "SIGTERM ends with {status}:\n{}", self.program.log());
        self.check();
    }

    /// `sluice check` finds nothing.
    pub fn check(&self) {
        check(self.folder.path(), &self.settings);
    }

    /// The object store, without the server in between.
    pub async fn store(&self) -> Objects {
        Objects::open(&self.backends, &self.folder.path().join("data/objects"), self.folder.path()).await
    }

    /// Paths in the object store.
    pub fn objects(&self) -> Vec<String> {
        let output = sluice(self.folder.path(), &self.settings, "objects");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap();
        lines.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }
}

/// `sluice check` finds nothing.
pub fn check(folder: &Path, settings: &[(String, String)]) {
    let output = sluice(folder, settings, "check");
    assert!(
        output.status.success(),
        "sluice check: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A command of the binary under test, run to its end on what a server of these settings stands on.
pub fn sluice(folder: &Path, settings: &[(String, String)], command: &str) -> Output {
    let settings = settings.iter().map(|(name, value)| (name, value));
    sluice_command(folder).envs(settings).args(command.split(' ')).output().unwrap()
}

//! A PostgreSQL server of a test's own, which it may stop and start.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use domain::DatabasePlace;

pub struct Cluster {
    folder: tempfile::TempDir,
    programs: PathBuf,
    port: u16,
}

impl Cluster {
    /// `None`, aloud: PostgreSQL is not installed here, or not asked for.
    pub fn start() -> Option<Cluster> {
        crate::database::postgres_for_tests()?;
        let Some(programs) = programs() else {
            eprintln!("initdb is not installed: no server can be stopped and started");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("sluice-cluster-").tempdir().unwrap();
        // Freed before it is used again, by a server on this machine alone: nobody else is likely to take it.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let cluster = Cluster { folder, programs, port };
        std::fs::create_dir(cluster.data()).unwrap();
        if is_root() {
            for path in [cluster.folder.path().to_owned(), cluster.data()] {
                std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let data = cluster.data();
        let data = data.to_str().unwrap();
        cluster.run("initdb", &["-D", data, "-A", "trust", "-U", "sluice", "-E", "UTF8", "--locale=C", "-N"]);
        cluster.control("start", &[]);
        Some(cluster)
    }

    pub fn place(&self) -> DatabasePlace {
        DatabasePlace { connections_max: 4, ..DatabasePlace::at(self.url("postgres")) }
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://sluice@127.0.0.1:{}/{database}", self.port)
    }

    /// `fast` ends every connection; `immediate` is a crash.
    pub fn stop(&self, mode: &str) {
        self.control("stop", &["-m", mode]);
    }

    pub fn resume(&self) {
        self.control("start", &[]);
    }

    pub fn require_password_of(&self, user: &str) {
        let rules =
            format!("host all {user} all scram-sha-256\nhost all all all trust\nlocal all all trust\n");
        std::fs::write(self.data().join("pg_hba.conf"), rules).unwrap();
        self.control("reload", &[]);
    }

    fn control(&self, action: &str, more: &[&str]) {
        let (data, log) = (self.data(), self.folder.path().join("data/log"));
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories={} -c max_connections=40",
            self.port,
            self.folder.path().display()
        );
        let mut arguments = vec!["-D", data.to_str().unwrap(), "-w", "-l", log.to_str().unwrap(), action];
        if action == "start" {
            arguments.extend(["-o", &options]);
        }
        arguments.extend(more);
        self.run("pg_ctl", &arguments);
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let program = self.programs.join(program);
        // It refuses to run as root.
        let mut command = match is_root() {
            true => {
                let mut command = Command::new("setpriv");
                command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")]);
                command.arg("--clear-groups").arg(&program);
                command
            }
            false => Command::new(&program),
        };
        // Not piped: the server would hold the other end.
        command.args(arguments).current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().unwrap();
        assert!(status.success(), "{} {arguments:?}: {status}", program.display());
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.data().join("postmaster.pid").exists() {
            self.stop("immediate");
        }
    }
}

const NOBODY: u32 = 65534;

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    folders.filter(|folder| folder.join("initdb").exists()).max()
}

/// Waits until something is so, as a test has to that watches a server come back.
pub async fn until(what: &str, limit: Duration, so: impl AsyncFn() -> bool) -> Duration {
    let began = tokio::time::Instant::now();
    while !so().await {
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

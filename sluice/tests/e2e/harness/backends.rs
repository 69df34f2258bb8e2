//! What a test's server stands on: `SLUICE_TEST_BACKENDS=postgres+garage`, say; without it a SQLite file and a folder.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::proxy::Proxy;
use super::s3s::S3s;

/// A database and a store that nobody else uses; removed when dropped.
pub struct Backends {
    settings: Vec<(String, String)>,
    database: Option<PostgresDatabase>,
    /// Where the S3 server itself is, when there is one.
    s3_endpoint: Option<String>,
    /// The proxy before the database, and the one before the store, where a test asked for them.
    database_proxy: Option<Proxy>,
    store_proxy: Option<Proxy>,
    // Serves as long as it lives.
    s3s: Option<S3s>,
}

/// The database and the store that the environment asks for.
pub fn asked() -> (String, String) {
    let asked = variable("SLUICE_TEST_BACKENDS").unwrap_or_else(|| "sqlite+disk".to_owned());
    let (database, store) = asked.split_once('+').unwrap_or_else(|| unknown(&asked));
    (database.to_owned(), store.to_owned())
}

/// Whether this run has a database on the network; a test that needs one says so where there is none.
pub fn has_postgres(test: &str) -> bool {
    let has = asked().0 == "postgres";
    if !has {
        eprintln!("SKIPPED: {test} needs PostgreSQL (make test-scale)");
    }
    has
}

impl Backends {
    /// As the environment asks. `folder` is the test's own.
    pub fn fresh(folder: &Path) -> Backends {
        let (database, store) = asked();
        Backends::of(&database, &store, folder)
    }

    /// As the environment asks, if that is S3; else SQLite and an S3 server in the test.
    pub fn on_s3(folder: &Path) -> Backends {
        match asked() {
            (_, store) if store == "disk" => Backends::of("sqlite", "s3s", folder),
            (database, store) => Backends::of(&database, &store, folder),
        }
    }

    /// `sqlite` or `postgres`; `disk`, `s3s` or `garage`.
    pub fn of(database: &str, store: &str, folder: &Path) -> Backends {
        let mut backends = Backends {
            settings: Vec::new(),
            database: None,
            s3_endpoint: None,
            database_proxy: None,
            store_proxy: None,
            s3s: None,
        };
        match database {
            "sqlite" => {}
            "postgres" => {
                let database = PostgresDatabase::create();
                backends.set("DATABASE_URL", &database.url);
                backends.database = Some(database);
            }
            other => unknown(other),
        }
        match store {
            "disk" => {}
            "s3s" => {
                let server = S3s::start(&folder.join("s3"));
                let keys = (S3s::ACCESS_KEY.to_owned(), S3s::SECRET_KEY.to_owned());
                backends.set_s3(&format!("s3://{}", S3s::BUCKET), &server.endpoint, "us-east-1", keys);
                backends.s3s = Some(server);
            }
            "garage" => {
                let of = |name: &str| required(&format!("SLUICE_TEST_S3{name}"));
                // The bucket is everybody's; below its prefix a test is alone.
                let address = format!("s3://{}/{}", of("_BUCKET"), unique());
                backends.set_s3(&address, &of(""), &of("_REGION"), (of("_ACCESS_KEY"), of("_SECRET_KEY")));
            }
            other => unknown(other),
        }
        backends
    }

    /// Reached through proxies from here on, as far as they are on the network.
    pub fn behind_proxies(mut self) -> Backends {
        if let Some(url) = self.setting("DATABASE_URL").map(str::to_owned) {
            let (before, rest) = url.split_once('@').unwrap();
            let (server, name) = rest.split_once('/').unwrap();
            let proxy = Proxy::before(server);
            self.set("DATABASE_URL", &format!("{before}@{}/{name}", proxy.address));
            self.database_proxy = Some(proxy);
        }
        if let Some(endpoint) = self.s3_endpoint.clone() {
            let proxy = Proxy::before(endpoint.strip_prefix("http://").unwrap());
            self.set("AWS_ENDPOINT_URL_S3", &format!("http://{}", proxy.address));
            self.store_proxy = Some(proxy);
        }
        self
    }

    /// What a process needs to find them.
    pub fn settings(&self) -> &[(String, String)] {
        &self.settings
    }

    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn database_proxy(&self) -> &Proxy {
        self.database_proxy.as_ref().expect("the database is behind a proxy")
    }

    pub fn store_proxy(&self) -> &Proxy {
        self.store_proxy.as_ref().expect("the store is behind a proxy")
    }

    /// Path and range of each read from the store since the last time that this was asked; only `s3s` can tell.
    pub fn take_reads(&self) -> Option<Vec<String>> {
        self.s3s.as_ref().map(S3s::take_reads)
    }

    /// What a statement answers, without a process of ours in between: lines of columns with `|` between them.
    pub fn psql(&self, statement: &str) -> String {
        psql(&self.database.as_ref().expect("the database is PostgreSQL").url, statement)
    }

    /// `psql` of a statement that takes its time, at work until it is dropped or waited for.
    pub fn psql_at_work(&self, statement: &str) -> Child {
        let url = &self.database.as_ref().expect("the database is PostgreSQL").url;
        Command::new("psql").args([url, "-qc", statement]).stdout(Stdio::null()).spawn().unwrap()
    }

    fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    fn set_s3(&mut self, store: &str, endpoint: &str, region: &str, keys: (String, String)) {
        self.set("SLUICE_STORE", store);
        self.s3_endpoint = Some(endpoint.to_owned());
        self.set("AWS_ENDPOINT_URL_S3", endpoint);
        self.set("AWS_REGION", region);
        self.set("AWS_ACCESS_KEY_ID", &keys.0);
        self.set("AWS_SECRET_ACCESS_KEY", &keys.1);
    }
}

fn unknown(asked: &str) -> ! {
    panic!("{asked}: SLUICE_TEST_BACKENDS is sqlite or postgres, then +, then disk, s3s or garage")
}

#[allow(clippy::disallowed_methods, reason = "the run chooses its servers from outside")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn required(name: &str) -> String {
    variable(name).unwrap_or_else(|| panic!("{name} is not set; scripts/servers starts what it names"))
}

/// A word that nobody else uses.
fn unique() -> String {
    let folder = tempfile::Builder::new().prefix("t").rand_bytes(12).tempdir().unwrap();
    folder.path().file_name().unwrap().to_string_lossy().to_lowercase()
}

/// A database of its own in the cluster that `SLUICE_TEST_POSTGRES` names.
struct PostgresDatabase {
    name: String,
    url: String,
}

impl PostgresDatabase {
    fn create() -> PostgresDatabase {
        let (admin, name) = (required("SLUICE_TEST_POSTGRES"), unique());
        psql(&admin, &format!("CREATE DATABASE {name}"));
        let (server, _) = admin.rsplit_once('/').unwrap();
        PostgresDatabase { url: format!("{server}/{name}"), name }
    }
}

impl Drop for PostgresDatabase {
    fn drop(&mut self) {
        psql(&required("SLUICE_TEST_POSTGRES"), &format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}

fn psql(url: &str, statement: &str) -> String {
    let output = Command::new("psql").args([url, "-qAtc", statement]).output().unwrap();
    assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

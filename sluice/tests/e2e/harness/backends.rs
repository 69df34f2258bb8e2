//! What a test's server stands on: `SLUICE_TEST_BACKENDS=postgres+garage`, say; without it a SQLite file and a folder.

use std::path::Path;
use std::process::Command;

use super::s3s::S3s;

/// A database and a store that nobody else uses; removed when dropped.
pub struct Backends {
    settings: Vec<(String, String)>,
    database: Option<PostgresDatabase>,
    // Serves as long as it lives.
    _s3s: Option<S3s>,
}

impl Backends {
    /// As the environment asks. `folder` is the test's own.
    pub fn fresh(folder: &Path) -> Backends {
        let asked = variable("SLUICE_TEST_BACKENDS").unwrap_or_else(|| "sqlite+disk".to_owned());
        let (database, store) = asked.split_once('+').unwrap_or_else(|| unknown(&asked));
        Backends::of(database, store, folder)
    }

    /// `sqlite` or `postgres`; `disk`, `s3s` or `garage`.
    pub fn of(database: &str, store: &str, folder: &Path) -> Backends {
        let mut backends = Backends { settings: Vec::new(), database: None, _s3s: None };
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
                backends._s3s = Some(server);
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

    /// What a process needs to find them.
    pub fn settings(&self) -> &[(String, String)] {
        &self.settings
    }

    fn set(&mut self, name: &str, value: &str) {
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    fn set_s3(&mut self, store: &str, endpoint: &str, region: &str, keys: (String, String)) {
        self.set("SLUICE_STORE", store);
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

fn psql(url: &str, statement: &str) {
    let output = Command::new("psql").args([url, "-qc", statement]).output().unwrap();
    assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
}

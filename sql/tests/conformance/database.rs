//! The databases that the suite runs on. `both!(name)` makes of the function `name` one test for each.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use domain::DatabasePlace;
use futures::FutureExt as _;
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _};

use crate::world::World;

/// Tests `name`, a function of a [`World`] or a [`Database`], as `name::sqlite` and `name::postgres`.
#[macro_export]
macro_rules! both {
    ($name:ident) => {
        mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn sqlite() {
                $crate::database::on_sqlite(super::$name).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn postgres() {
                $crate::database::on_postgres(super::$name).await;
            }
        }
    };
}

/// One of a test's own, gone when the test is over.
#[derive(Clone)]
pub struct Database {
    pub place: DatabasePlace,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Sqlite { _folder: Arc<tempfile::TempDir> },
    Postgres { admin_url: String, name: String },
    Elsewhere,
}

/// What a test is given.
pub trait Given {
    async fn on(database: Database) -> Self;
}

impl Given for Database {
    async fn on(database: Database) -> Database {
        database
    }
}

impl Given for World {
    async fn on(database: Database) -> World {
        World::on(database).await
    }
}

pub async fn on_sqlite<G: Given>(test: impl AsyncFnOnce(G)) {
    test(G::on(Database::sqlite()).await).await;
}

pub async fn on_postgres<G: Given>(test: impl AsyncFnOnce(G)) {
    let Some(admin_url) = postgres_for_tests() else { return };
    let database = Database::postgres(admin_url).await;
    let outcome = AssertUnwindSafe(async { test(G::on(database.clone()).await).await }).catch_unwind().await;
    database.remove().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// The address of a cluster where tests may make and drop databases.
pub fn postgres_for_tests() -> Option<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "only chassis reads the environment of a program; this is a test's"
    )]
    let url = std::env::var("SLUICE_TEST_POSTGRES").ok();
    if url.is_none() {
        static TOLD: std::sync::Once = std::sync::Once::new();
        TOLD.call_once(|| eprintln!("SLUICE_TEST_POSTGRES is not set: nothing is tested on PostgreSQL"));
    }
    url
}

impl Database {
    pub fn sqlite() -> Database {
        let folder = tempfile::tempdir().unwrap();
        let place = DatabasePlace::sqlite(&folder.path().join("sluice.db"));
        Database { place, kind: Kind::Sqlite { _folder: Arc::new(folder) } }
    }

    pub async fn postgres(admin_url: String) -> Database {
        let unique = tempfile::Builder::new().prefix("").rand_bytes(12).tempfile().unwrap();
        let name = format!("sluice_{}", unique.path().file_name().unwrap().to_str().unwrap().to_lowercase());
        // Ordered by the rules of a language: a column that is not told otherwise comes in a wrong order.
        let icu = "TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en-US'";
        admin(&admin_url, format!("CREATE DATABASE {name} {icu}")).await;
        let place = DatabasePlace { connections_max: 8, ..DatabasePlace::at(beside(&admin_url, &name)) };
        Database { place, kind: Kind::Postgres { admin_url, name } }
    }

    /// One that goes with the server it is on.
    pub fn somewhere(place: DatabasePlace) -> Database {
        Database { place, kind: Kind::Elsewhere }
    }

    pub fn is_postgres(&self) -> bool {
        !matches!(self.kind, Kind::Sqlite { .. })
    }

    /// A connection past the catalog.
    pub async fn connect(&self) -> AnyConnection {
        Database::connect_to(&self.place).await
    }

    pub async fn connect_to(place: &DatabasePlace) -> AnyConnection {
        sqlx::any::install_default_drivers();
        // The address is of a file that may not be there yet.
        let url = place.url.replace("sqlite://", "sqlite:");
        let made = if url.starts_with("sqlite:") { "?mode=rwc" } else { "" };
        AnyConnection::connect(&format!("{url}{made}")).await.unwrap()
    }

    /// As it is at this moment, to which no catalog is open; what a replica that lags far behind looks like.
    pub async fn copy(&self) -> Database {
        match &self.kind {
            Kind::Sqlite { .. } => {
                let copy = Database::sqlite();
                let file = |place: &DatabasePlace| place.url.strip_prefix("sqlite://").unwrap().to_owned();
                std::fs::copy(file(&self.place), file(&copy.place)).unwrap();
                copy
            }
            Kind::Postgres { admin_url, name } => {
                let copy = format!("{name}_copy");
                admin(admin_url, format!("CREATE DATABASE {copy} TEMPLATE {name}")).await;
                let place = DatabasePlace { url: beside(admin_url, &copy), ..self.place.clone() };
                Database { place, kind: Kind::Postgres { admin_url: admin_url.clone(), name: copy } }
            }
            Kind::Elsewhere => panic!("no test needs it"),
        }
    }

    pub async fn remove(self) {
        if let Kind::Postgres { admin_url, name } = self.kind {
            admin(&admin_url, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
        }
    }
}

/// The address of another database in the same cluster.
pub fn beside(url: &str, database: &str) -> String {
    let (address, query) = url.split_once('?').map_or((url, String::new()), |(a, q)| (a, format!("?{q}")));
    let (server, _) = address.rsplit_once('/').unwrap();
    format!("{server}/{database}{query}")
}

async fn admin(url: &str, statement: String) {
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(url).await.unwrap();
    connection.execute(AssertSqlSafe(statement)).await.unwrap();
    connection.close().await.unwrap();
}

//! What a world's rows are in, and a witness of the queue that does not believe its rows.

use std::path::Path;

use domain::DatabasePlace;
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _, Row as _};

/// A database of a test's own.
pub struct Database {
    pub place: DatabasePlace,
    /// Where PostgreSQL is told to throw it away.
    admin: Option<(String, String)>,
}

/// What the database itself noted: each time a job changed hands or was done, a video went live, a deletion ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    pub what: String,
    pub subject: String,
    /// Of a job.
    pub token: i64,
}

impl Database {
    pub fn sqlite(folder: &Path) -> Database {
        Database { place: DatabasePlace::sqlite(&folder.join("sluice.db")), admin: None }
    }

    /// In the cluster that `SLUICE_TEST_POSTGRES` names.
    pub async fn postgres() -> Option<Database> {
        #[expect(clippy::disallowed_methods, reason = "the run chooses its servers from outside")]
        let Ok(admin) = std::env::var("SLUICE_TEST_POSTGRES") else {
            eprintln!("SLUICE_TEST_POSTGRES is not set: nothing is tested on PostgreSQL");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("flow_").rand_bytes(12).tempdir().unwrap();
        let name = folder.path().file_name().unwrap().to_str().unwrap().to_lowercase();
        run(&admin, format!("CREATE DATABASE {name}")).await;
        let (server, _) = admin.rsplit_once('/').unwrap();
        // Several processes' worth of connections come together here.
        let place = DatabasePlace { connections_max: 4, ..DatabasePlace::at(format!("{server}/{name}")) };
        Some(Database { place, admin: Some((admin, name)) })
    }

    /// A test that fails leaves it to be looked at.
    pub async fn remove(&self) {
        if let Some((admin, name)) = &self.admin {
            run(admin, format!("DROP DATABASE {name} WITH (FORCE)")).await;
        }
    }

    async fn connect(&self) -> AnyConnection {
        sqlx::any::install_default_drivers();
        AnyConnection::connect(&self.place.url).await.unwrap()
    }

    /// From now on the database takes notes. Its schema is there already.
    pub async fn take_notes(&self) {
        let mut connection = self.connect().await;
        let note = "CREATE TABLE notes (what TEXT NOT NULL, subject TEXT NOT NULL, token BIGINT NOT NULL)";
        connection.execute(note).await.unwrap();
        let watched = [
            (
                "jobs",
                "UPDATE OF state",
                "NEW.state IN ('running', 'done') AND OLD.state <> NEW.state",
                "NEW.kind || ' ' || NEW.state, NEW.id, NEW.token",
            ),
            (
                "deletions",
                "UPDATE OF state",
                "OLD.state <> NEW.state",
                "'deletion ' || NEW.state, NEW.video_id, 0",
            ),
            ("publications", "INSERT", "0 = 0", "'publication', NEW.video_id, 0"),
        ];
        for (table, change, when, values) in watched {
            let insert = format!("INSERT INTO notes (what, subject, token) VALUES ({values})");
            let statements = if self.admin.is_some() {
                vec![
                    format!(
                        "CREATE FUNCTION note_{table}() RETURNS trigger LANGUAGE plpgsql AS \
                             $$ BEGIN {insert}; RETURN NULL; END $$"
                    ),
                    format!(
                        "CREATE TRIGGER note_{table} AFTER {change} ON {table} FOR EACH ROW WHEN ({when}) \
                             EXECUTE FUNCTION note_{table}()"
                    ),
                ]
            } else {
                vec![format!(
                    "CREATE TRIGGER note_{table} AFTER {change} ON {table} WHEN {when} BEGIN {insert}; END"
                )]
            };
            for statement in statements {
                connection.execute(AssertSqlSafe(statement)).await.unwrap();
            }
        }
        connection.close().await.unwrap();
    }

    pub async fn notes(&self) -> Vec<Event> {
        let mut connection = self.connect().await;
        let rows =
            sqlx::query("SELECT what, subject, token FROM notes").fetch_all(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        rows.iter().map(|row| Event { what: row.get(0), subject: row.get(1), token: row.get(2) }).collect()
    }

    /// How often it noted this.
    pub async fn noted(&self, what: &str) -> usize {
        let mut connection = self.connect().await;
        let counted = sqlx::query("SELECT count(*) FROM notes WHERE what = $1").bind(what);
        let row = counted.fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        usize::try_from(row.get::<i64, _>(0)).unwrap()
    }
}

async fn run(url: &str, statement: String) {
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(url).await.unwrap();
    connection.execute(AssertSqlSafe(statement)).await.unwrap();
    connection.close().await.unwrap();
}

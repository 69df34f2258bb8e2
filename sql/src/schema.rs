//! Bringing the schema up to date, or finding out that it is not.

use sqlx::migrate::{Migrate as _, MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AnyConnection, AssertSqlSafe, SqlSafeStr as _};

use crate::SqlError;
use crate::dialect::Dialect;
use crate::row::text;

/// One set of files for every database; each dialect reads them in its way.
static FILES: Migrator = sqlx::migrate!("./migrations");

const TABLE: &str = "_sqlx_migrations";

/// Applies what is missing, each migration in a transaction together with the note that it was applied: one
/// that is cut short leaves nothing behind. On PostgreSQL the migrator holds an advisory lock of the session
/// meanwhile, so that of several processes one migrates and the others wait; closing the connection lets go
/// of it, whatever happened.
pub(crate) async fn migrate(dialect: Dialect, connection: &mut AnyConnection) -> Result<(), SqlError> {
    match migrator(dialect).run_direct(None, connection, false).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(migration)) => Err(newer(connection, migration).await?),
        Err(error) => Err(refusal(error)),
    }
}

/// Refuses a schema that is older or newer than this program.
pub(crate) async fn require_current(
    dialect: Dialect,
    connection: &mut AnyConnection,
) -> Result<(), SqlError> {
    let migrated = sqlx::query(dialect.find_migrations()).fetch_optional(&mut *connection).await?;
    let applied = match migrated {
        Some(_) => connection.list_applied_migrations(TABLE).await.map_err(refusal)?,
        None => Vec::new(),
    };
    let applied: Vec<i64> = applied.iter().map(|migration| migration.version).collect();
    if let Some(&migration) = applied.iter().find(|&&version| !FILES.version_exists(version)) {
        return Err(newer(connection, migration).await?);
    }
    match FILES.iter().find(|migration| !applied.contains(&migration.version)) {
        Some(missing) => Err(SqlError::OlderSchema { migration: missing.version }),
        None => Ok(()),
    }
}

/// A migration that this program does not know.
async fn newer(connection: &mut AnyConnection, migration: i64) -> Result<SqlError, SqlError> {
    let row = sqlx::query(
        "-- schema.upgraded_on
         SELECT substr(CAST(installed_on AS TEXT), 1, 10) AS upgraded_on FROM _sqlx_migrations WHERE version = $1",
    )
    .bind(migration)
    .fetch_one(connection)
    .await?;
    let known = FILES.iter().map(|file| file.version).max().unwrap_or_default();
    Ok(SqlError::NewerSchema { migration, known, upgraded_on: text(&row, "upgraded_on")? })
}

fn migrator(dialect: Dialect) -> Migrator {
    let migrations = FILES.iter().map(|file| match dialect {
        Dialect::Sqlite => file.clone(),
        Dialect::Postgres => {
            let text = AssertSqlSafe(dialect.migration(file.sql.as_str())).into_sql_str();
            Migration::new(file.version, file.description.clone(), MigrationType::Simple, text, file.no_tx)
        }
    });
    Migrator::with_migrations(migrations.collect())
}

fn refusal(error: MigrateError) -> SqlError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
        other => SqlError::Migration(other),
    }
}

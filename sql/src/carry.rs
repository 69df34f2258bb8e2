//! Carries every row of a SQLite file to another database, beside a server at work.
//!
//! A pass reads one snapshot of the source and makes the target equal to it, table by table and page by page, writing
//! only what differs. So a run may be stopped at any moment, and the next one goes on. The last pass holds the
//! source's write lock: writers wait, and when nothing differs any more the source is closed to them for good.

use std::collections::BTreeMap;

use domain::{DatabasePlace, StartError, Timestamp};
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Executor as _, Row as _};

use crate::dialect::Dialect;
use crate::row::{placeholders, storable};
use crate::{Catalog, Patience, SqlError};

const PAGE_ROWS: usize = 200;
/// Passes under the lock until the last one finds nothing to do; the second one is the proof.
const LOCKED_PASSES_MAX: usize = 3;

/// Every table with its primary key, parents before children.
const TABLES: [(&str, &[&str]); 16] = [
    ("users", &["id"]),
    ("idempotency_keys", &["user_id", "key"]),
    ("sessions", &["id"]),
    ("videos", &["id"]),
    ("video_tags", &["tag", "video_id"]),
    ("rungs", &["video_id", "name"]),
    ("uploads", &["id"]),
    ("attempts", &["id"]),
    ("objects", &["path"]),
    ("publications", &["id"]),
    ("renditions", &["publication_id", "name"]),
    ("jobs", &["id"]),
    ("deletions", &["id"]),
    ("comments", &["id"]),
    ("watching", &["video_id"]),
    ("views", &["video_id", "viewer"]),
];

/// What a run did to the target.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Carried {
    /// Rows in the source at the end.
    pub rows: u64,
    pub written: u64,
    pub removed: u64,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CarryOutcome {
    Carried(Carried),
    /// A run before this one ended it; there, without a password.
    AlreadyAt(String),
}

#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Sql(#[from] SqlError),
    #[error("the two databases still differ after {LOCKED_PASSES_MAX} passes; nothing was switched")]
    NeverEqual,
}

/// Makes `to` hold what `from` holds, then closes `from` to every writer. `tell` hears what is being done.
pub async fn carry(
    from: &DatabasePlace,
    to: &DatabasePlace,
    now: Timestamp,
    tell: impl Fn(&str, u64),
) -> Result<CarryOutcome, CarryError> {
    if Dialect::of(&from.url)? != Dialect::Sqlite {
        return Err(StartError::settings("Only a SQLite database can be moved; see DATABASE_URL.").into());
    }
    let source = Catalog::open_even_moved(from, Patience::default()).await?;
    if let Some(place) = source.moved_to().await? {
        return Ok(CarryOutcome::AlreadyAt(place));
    }
    let target = Catalog::open(&DatabasePlace { migrate: true, ..to.clone() }).await?;
    let mut carried = Carried::default();
    // Most of it without holding anybody up.
    let mut snapshot = source.readers.get().await.map_err(SqlError::from)?;
    snapshot.execute("BEGIN").await.map_err(SqlError::from)?;
    pass(&mut snapshot, &target, &mut carried, &tell).await?;
    // Closed, it ends its transaction.
    drop(snapshot);

    let mut locked = source.begin().await?;
    for _ in 0..LOCKED_PASSES_MAX {
        let before = carried;
        pass(&mut locked, &target, &mut carried, &tell).await?;
        if (carried.written, carried.removed) == (before.written, before.removed) {
            close(&mut locked, &Dialect::describe(&to.url), now).await?;
            locked.commit().await.map_err(SqlError::from)?;
            source.close().await;
            target.close().await;
            return Ok(CarryOutcome::Carried(carried));
        }
    }
    Err(CarryError::NeverEqual)
}

/// What a target has too much goes first, children before parents; then parents come before children.
async fn pass(
    source: &mut AnyConnection,
    target: &Catalog,
    carried: &mut Carried,
    tell: &impl Fn(&str, u64),
) -> Result<(), SqlError> {
    carried.rows = 0;
    for (name, key) in TABLES.iter().rev() {
        let table = Table::of(source, name, key).await?;
        carried.removed += remove_extra(source, target, &table).await?;
    }
    for (name, key) in TABLES {
        let table = Table::of(source, name, key).await?;
        let (rows, written) = write_differing(source, target, &table).await?;
        carried.rows += rows;
        carried.written += written;
        tell(name, rows);
    }
    Ok(())
}

/// Page by page of the target: what the source does not have.
async fn remove_extra(source: &mut AnyConnection, target: &Catalog, table: &Table) -> Result<u64, SqlError> {
    let (mut after, mut removed) = (None, 0);
    loop {
        let mut connection = target.writer.get().await?;
        let page = table.page(&mut connection, after.as_ref()).await?;
        connection.rest(None);
        drop(connection);
        let Some(last) = page.keys().next_back().cloned() else { return Ok(removed) };
        let there = table.between(source, after.as_ref(), &last).await?;
        let extra: Vec<_> = page.into_keys().filter(|key| !there.contains_key(key)).collect();
        if !extra.is_empty() {
            let mut tx = target.begin().await?;
            for key in &extra {
                table.delete(&mut tx, key).await?;
            }
            tx.commit().await?;
        }
        removed += extra.len() as u64;
        after = Some(last);
    }
}

/// Page by page of the source: what the target does not have, or has differently. Rows seen, rows written.
async fn write_differing(
    source: &mut AnyConnection,
    target: &Catalog,
    table: &Table,
) -> Result<(u64, u64), SqlError> {
    let (mut after, mut seen, mut written) = (None, 0, 0);
    loop {
        let page = table.page(source, after.as_ref()).await?;
        let Some(last) = page.keys().next_back().cloned() else { return Ok((seen, written)) };
        seen += page.len() as u64;
        let mut tx = target.begin().await?;
        let there = table.between(&mut tx, after.as_ref(), &last).await?;
        let differing: Vec<_> = page.into_iter().filter(|(key, row)| there.get(key) != Some(row)).collect();
        if !differing.is_empty() {
            table.make_way(&mut tx, differing.iter().map(|(key, _)| key)).await?;
            table.upsert(&mut tx, differing.iter().map(|(_, row)| row)).await?;
        }
        tx.commit().await?;
        written += differing.len() as u64;
        after = Some(last);
    }
}

/// From now on every write is refused, whoever tries and with whichever version.
async fn close(source: &mut AnyConnection, place: &str, now: Timestamp) -> Result<(), SqlError> {
    sqlx::query("-- moved.insert\nINSERT INTO moved (place, at) VALUES ($1, $2)")
        .bind(place)
        .bind(now.unix_ms())
        .execute(&mut *source)
        .await?;
    for (table, _) in TABLES {
        for verb in ["INSERT", "UPDATE", "DELETE"] {
            let trigger = format!(
                "-- moved.close
                 CREATE TRIGGER moved_{table}_{verb} BEFORE {verb} ON {table}
                 BEGIN SELECT RAISE(ABORT, '{MOVED}'); END"
            );
            sqlx::query(AssertSqlSafe(trigger)).execute(&mut *source).await?;
        }
    }
    Ok(())
}

/// What a closed database says to a writer.
pub(crate) const MOVED: &str = "this database was moved; set DATABASE_URL to where it is now";

impl Catalog {
    /// Where these rows were carried to, if they were.
    pub(crate) async fn moved_to(&self) -> Result<Option<String>, SqlError> {
        let row =
            sqlx::query("-- moved.place\nSELECT place FROM moved").fetch_optional(&self.readers).await?;
        row.as_ref().map(|row| crate::row::text(row, "place")).transpose()
    }
}

/// A value of one of the three types that columns have.
#[derive(Debug, Clone, PartialEq, PartialOrd)]
enum Value {
    Text(Option<String>),
    Int(Option<i64>),
    Float(Option<f64>),
}

/// The primary key; every part of it is text.
type Key = Vec<String>;
type Rows = BTreeMap<Key, Vec<Value>>;
type Statement<'q> = Query<'q, Any, AnyArguments>;

#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Int,
    Float,
}

struct Table {
    name: &'static str,
    key: &'static [&'static str],
    columns: Vec<(String, Kind)>,
}

impl Table {
    async fn of(
        source: &mut AnyConnection,
        name: &'static str,
        key: &'static [&'static str],
    ) -> Result<Table, SqlError> {
        let rows = sqlx::query("-- carry.columns\nSELECT name, type FROM pragma_table_info($1) ORDER BY cid")
            .bind(name)
            .fetch_all(source)
            .await?;
        let column = |row: &AnyRow| {
            let (name, declared): (String, String) = (row.try_get("name")?, row.try_get("type")?);
            let kind = match declared.as_str() {
                "TEXT" => Kind::Text,
                "BIGINT" => Kind::Int,
                "DOUBLE PRECISION" => Kind::Float,
                _ => return Err(SqlError::Meaningless { column: "type", value: declared }),
            };
            Ok((name, kind))
        };
        Ok(Table { name, key, columns: rows.iter().map(column).collect::<Result<_, _>>()? })
    }

    /// The rows that follow `after`.
    async fn page(&self, connection: &mut AnyConnection, after: Option<&Key>) -> Result<Rows, SqlError> {
        let beyond = after.map_or_else(String::new, |key| format!("WHERE {}", self.compared(">", 1, key)));
        let statement = format!(
            "-- carry.page\nSELECT {} FROM {} {beyond} ORDER BY {} LIMIT {PAGE_ROWS}",
            self.names(),
            self.name,
            self.key.join(", ")
        );
        let rows = sqlx::query(AssertSqlSafe(statement));
        let rows = bind_key(rows, after).fetch_all(connection).await?;
        rows.iter().map(|row| self.row(row)).collect()
    }

    /// The rows after `after` up to `last`.
    async fn between(
        &self,
        connection: &mut AnyConnection,
        after: Option<&Key>,
        last: &Key,
    ) -> Result<Rows, SqlError> {
        let mut within = self.compared("<=", 1, last);
        if let Some(after) = after {
            within = format!("{within} AND {}", self.compared(">", 1 + last.len(), after));
        }
        let statement =
            format!("-- carry.between\nSELECT {} FROM {} WHERE {within}", self.names(), self.name);
        let rows = bind_key(sqlx::query(AssertSqlSafe(statement)), Some(last));
        let rows = bind_key(rows, after).fetch_all(connection).await?;
        rows.iter().map(|row| self.row(row)).collect()
    }

    /// Rows that change give up what must be unique, so that they can take it from each other.
    async fn make_way(
        &self,
        target: &mut AnyConnection,
        keys: impl Iterator<Item = &Key>,
    ) -> Result<(), SqlError> {
        if self.name != "users" {
            return Ok(());
        }
        for key in keys {
            let statement = sqlx::query("-- carry.make_way\nUPDATE users SET email = NULL WHERE id = $1");
            bind_key(statement, Some(key)).execute(&mut *target).await?;
        }
        Ok(())
    }

    async fn upsert(
        &self,
        target: &mut AnyConnection,
        rows: impl ExactSizeIterator<Item = &Vec<Value>>,
    ) -> Result<(), SqlError> {
        let width = self.columns.len();
        let values: Vec<_> =
            (0..rows.len()).map(|row| format!("({})", placeholders(1 + row * width, width))).collect();
        let others =
            self.columns.iter().map(|(name, _)| name).filter(|name| !self.key.contains(&name.as_str()));
        let set: Vec<_> = others.map(|name| format!("{name} = excluded.{name}")).collect();
        let change =
            if set.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", set.join(", ")) };
        let statement = format!(
            "-- carry.upsert\nINSERT INTO {} ({}) VALUES {} ON CONFLICT ({}) DO {change}",
            self.name,
            self.names(),
            values.join(", "),
            self.key.join(", ")
        );
        // Prepared anew each time: the Any driver gets the type of a NULL wrong that is a floating-point number,
        // and PostgreSQL would keep it for the numbers of the next page.
        let statement = sqlx::query(AssertSqlSafe(statement)).persistent(false);
        let bound = rows.flatten().fold(statement, |query, value| match value {
            Value::Text(text) => query.bind(text.as_deref()),
            Value::Int(int) => query.bind(*int),
            Value::Float(float) => query.bind(*float),
        });
        bound.execute(target).await?;
        Ok(())
    }

    async fn delete(&self, target: &mut AnyConnection, key: &Key) -> Result<(), SqlError> {
        let statement =
            format!("-- carry.delete\nDELETE FROM {} WHERE {}", self.name, self.compared("=", 1, key));
        bind_key(sqlx::query(AssertSqlSafe(statement)), Some(key)).execute(target).await?;
        Ok(())
    }

    fn row(&self, row: &AnyRow) -> Result<(Key, Vec<Value>), SqlError> {
        let value = |(name, kind): &(String, Kind)| {
            Ok::<_, sqlx::Error>(match kind {
                Kind::Text => {
                    let text: Option<String> = row.try_get(name.as_str())?;
                    Value::Text(text.as_deref().map(storable))
                }
                Kind::Int => Value::Int(row.try_get(name.as_str())?),
                Kind::Float => Value::Float(row.try_get(name.as_str())?),
            })
        };
        let values = self.columns.iter().map(value).collect::<Result<Vec<_>, _>>()?;
        let key = self.key.iter().map(|column| row.try_get(*column)).collect::<Result<_, _>>()?;
        Ok((key, values))
    }

    fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// `(a, b) > ($1, $2)`
    fn compared(&self, operator: &str, from: usize, key: &Key) -> String {
        format!("({}) {operator} ({})", self.key.join(", "), placeholders(from, key.len()))
    }
}

fn bind_key<'q>(statement: Statement<'q>, key: Option<&'q Key>) -> Statement<'q> {
    key.into_iter().flatten().fold(statement, |statement, part| statement.bind(part.as_str()))
}

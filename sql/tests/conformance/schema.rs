use domain::{DatabasePlace, StartFault};
use sql::Catalog;
use sqlx::{Connection as _, Executor as _, Row as _};

use crate::both;
use crate::cluster::until;
use crate::database::Database;
use crate::world::World;

both!(opening_again_keeps_everything);
async fn opening_again_keeps_everything(mut world: World) {
    let video = world.ready().await;
    world.catalog.close().await;
    world.catalog = Catalog::open(&world.database.place).await.unwrap();
    world.catalog.ping().await.unwrap();
    assert!(world.seen(video).await.publication.is_some());
    world.check().await;
}

both!(a_newer_schema_is_refused_with_a_sentence_that_helps);
async fn a_newer_schema_is_refused_with_a_sentence_that_helps(database: Database) {
    let catalog = Catalog::open(&database.place).await.unwrap();
    catalog.close().await;
    let mut connection = database.connect().await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time)
         SELECT 9999, 'of a later day', '2036-11-03 10:00:00', success, checksum, 0
         FROM _sqlx_migrations WHERE version = 1",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
    let newer = database.place;
    for place in [DatabasePlace { migrate: false, ..newer.clone() }, newer] {
        let error = Catalog::open(&place).await.err().unwrap();
        assert_eq!(error.fault, StartFault::Settings);
        for words in
            ["upgraded on 2036-11-03 by a newer Sluice", "migration 9999", "Start the newer one, or restore"]
        {
            assert!(error.text.contains(words), "{error}");
        }
    }
}

both!(an_older_schema_is_refused_where_nobody_may_change_it);
async fn an_older_schema_is_refused_where_nobody_may_change_it(database: Database) {
    let place = DatabasePlace { migrate: false, ..database.place };
    let error = Catalog::open(&place).await.err().unwrap();
    assert_eq!(error.fault, StartFault::Settings);
    assert!(error.to_string().contains("sluice migrate"), "{error}");
    Catalog::migrate(&place).await.unwrap();
    Catalog::open(&place).await.unwrap().ping().await.unwrap();
    let mut connection = Database::connect_to(&place).await;
    let forget = "DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations) \
                  RETURNING version";
    let newest: i64 = sqlx::query_scalar(forget).fetch_one(&mut connection).await.unwrap();
    let error = Catalog::open(&place).await.err().unwrap();
    assert!(error.to_string().contains(&format!("has no migration {newest})")), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_several_processes_that_start_at_once_one_migrates() {
    crate::database::on_postgres(async |database: Database| {
        // Whoever migrates is held up at its first table.
        let mut holder = database.connect().await;
        sqlx::raw_sql("BEGIN; CREATE TABLE users (id TEXT)").execute(&mut holder).await.unwrap();
        let place = DatabasePlace { connections_max: 1, ..database.place.clone() };
        let starts: Vec<_> = (0..10)
            .map(|_| {
                let place = place.clone();
                tokio::spawn(async move { Catalog::open(&place).await })
            })
            .collect();
        let waiting = async |granted: bool| {
            let statement =
                "SELECT count(*) AS n FROM pg_locks JOIN pg_database d ON d.oid = pg_locks.database
                 WHERE locktype = 'advisory' AND granted::int = $1 AND d.datname = current_database()";
            let row = sqlx::query(statement)
                .bind(i32::from(granted))
                .fetch_one(&mut database.connect().await)
                .await;
            row.unwrap().get::<i64, _>("n")
        };
        let limit = std::time::Duration::from_secs(20);
        until("nine wait for one", limit, async || waiting(false).await == 9).await;
        assert_eq!(waiting(true).await, 1);
        sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
        for start in starts {
            let catalog = start.await.unwrap().unwrap();
            catalog.ping().await.unwrap();
            catalog.close().await;
        }
    })
    .await;
}

both!(a_migration_that_fails_half_way_leaves_nothing_behind);
async fn a_migration_that_fails_half_way_leaves_nothing_behind(database: Database) {
    let mut connection = database.connect().await;
    // Something is in the way of one of the last tables.
    connection.execute("CREATE TABLE comments (id TEXT)").await.unwrap();
    let error = Catalog::open(&database.place).await.err().unwrap();
    assert!(error.text.contains("comments"), "{error}");
    sqlx::query("SELECT id FROM users")
        .execute(&mut connection)
        .await
        .expect_err("the first table is gone again");
    connection.execute("DROP TABLE comments").await.unwrap();
    Catalog::open(&database.place).await.unwrap().ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_migration_whose_process_is_killed_is_done_by_the_next() {
    crate::database::on_postgres(async |database: Database| {
        let mut holder = database.connect().await;
        sqlx::raw_sql("BEGIN; CREATE TABLE comments (id TEXT)").execute(&mut holder).await.unwrap();
        let place = database.place.clone();
        let starting = tokio::spawn(async move { Catalog::open(&place).await.err() });
        let limit = std::time::Duration::from_secs(20);
        until("it is half-way through", limit, async || {
            let statement = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'sluice migrate'
                             AND datname = current_database() AND wait_event_type = 'Lock'";
            sqlx::query(statement).fetch_optional(&mut database.connect().await).await.unwrap().is_some()
        })
        .await;
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE application_name = 'sluice migrate' AND datname = current_database()";
        sqlx::raw_sql(kill).execute(&mut holder).await.unwrap();
        let error = starting.await.unwrap().unwrap();
        assert_eq!(error.fault, StartFault::Unavailable, "{error}");
        sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
        Catalog::open(&database.place).await.unwrap().ping().await.unwrap();
    })
    .await;
}

/// Tables, columns, types, indexes, references and checks, a line for each.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn both_databases_have_the_same_schema() {
    crate::database::on_postgres(async |postgres: Database| {
        let sqlite = Database::sqlite();
        let mut lines = Vec::new();
        for database in [&sqlite, &postgres] {
            Catalog::open(&database.place).await.unwrap().close().await;
            let statements = if database.is_postgres() { POSTGRES } else { SQLITE };
            let (mut connection, mut of_this) = (database.connect().await, Vec::new());
            for statement in statements {
                let rows = sqlx::query(*statement).fetch_all(&mut connection).await.unwrap();
                of_this.extend(rows.iter().map(|row| row.get::<String, _>("line")));
            }
            of_this.sort();
            lines.push(of_this);
        }
        let [sqlite, postgres] = &lines[..] else { unreachable!("two databases") };
        assert!(sqlite.len() > 150, "{sqlite:#?}");
        let only = |here: &[String], there: &[String]| {
            here.iter().filter(|line| !there.contains(line)).cloned().collect::<Vec<_>>()
        };
        assert_eq!((only(sqlite, postgres), only(postgres, sqlite)), (Vec::new(), Vec::new()));
    })
    .await;
}

const SQLITE: &[&str] = &[
    "SELECT 'column ' || t.name || '.' || c.name || ' ' || c.type
       || CASE WHEN c.\"notnull\" = 1 OR c.pk > 0 THEN ' NOT NULL' ELSE '' END AS line
     FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table' AND t.name NOT LIKE '\\_%' ESCAPE '\\'",
    "SELECT 'index ' || t.name || ' (' || (SELECT group_concat(name, ', ') FROM
         (SELECT name FROM pragma_index_info(i.name) ORDER BY seqno)) || ')'
       || CASE WHEN i.\"unique\" = 1 THEN ' unique' ELSE '' END || CASE WHEN i.partial = 1 THEN ' partial' ELSE '' END
       || CASE WHEN i.origin = 'c' THEN ' ' || i.name ELSE '' END AS line
     FROM sqlite_schema t, pragma_index_list(t.name) i WHERE t.type = 'table' AND t.name NOT LIKE '\\_%' ESCAPE '\\'",
    "SELECT 'reference ' || t.name || '.' || f.\"from\" || ' ' || f.\"table\" || '.' || f.\"to\" || ' ' || f.on_delete
       AS line FROM sqlite_schema t, pragma_foreign_key_list(t.name) f WHERE t.type = 'table'",
    "SELECT 'checks ' || name || ' ' || ((length(sql) - length(replace(sql, 'CHECK (', ''))) / length('CHECK (')) AS line
     FROM sqlite_schema WHERE type = 'table' AND sql LIKE '%CHECK (%'",
];

const POSTGRES: &[&str] = &[
    // Text that is compared otherwise than byte by byte is of another type.
    "SELECT 'column ' || table_name || '.' || column_name || ' ' || upper(data_type)
       || CASE WHEN data_type = 'text' AND collation_name IS DISTINCT FROM 'C' THEN ' in a language' ELSE '' END
       || CASE WHEN is_nullable = 'NO' THEN ' NOT NULL' ELSE '' END AS line
     FROM information_schema.columns WHERE table_schema = 'public' AND table_name NOT LIKE '\\_%'",
    "SELECT 'index ' || t.relname || ' (' || (SELECT string_agg(a.attname::text, ', ' ORDER BY k.position)
         FROM unnest(i.indkey::int[]) WITH ORDINALITY k (number, position)
         JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.number) || ')'
       || CASE WHEN i.indisunique THEN ' unique' ELSE '' END
       || CASE WHEN i.indpred IS NOT NULL THEN ' partial' ELSE '' END
       || CASE WHEN c.oid IS NULL THEN ' ' || n.relname ELSE '' END AS line
     FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_class n ON n.oid = i.indexrelid
     LEFT JOIN pg_constraint c ON c.conindid = n.oid AND c.contype IN ('p', 'u')
     WHERE t.relnamespace = 'public'::regnamespace AND t.relname NOT LIKE '\\_%'",
    "SELECT 'reference ' || t.relname || '.' || a.attname || ' ' || f.relname || '.' || b.attname
       || CASE c.confdeltype WHEN 'c' THEN ' CASCADE' ELSE ' NO ACTION' END AS line
     FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid JOIN pg_class f ON f.oid = c.confrelid
     JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = c.conkey[1]
     JOIN pg_attribute b ON b.attrelid = f.oid AND b.attnum = c.confkey[1] WHERE c.contype = 'f'",
    "SELECT 'checks ' || t.relname || ' ' || count(*) AS line
     FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid
     WHERE c.contype = 'c' AND t.relnamespace = 'public'::regnamespace GROUP BY t.relname",
];

both!(the_database_knows_what_time_it_is);
async fn the_database_knows_what_time_it_is(world: World) {
    #[expect(
        clippy::disallowed_methods,
        reason = "the machine's clock is what the database's is compared with"
    )]
    let machine = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let database = world.catalog.now().await.unwrap().unix_ms();
    let apart_ms = database - i64::try_from(machine.as_millis()).unwrap();
    assert!((-2..5000).contains(&apart_ms), "{apart_ms} ms apart");
}

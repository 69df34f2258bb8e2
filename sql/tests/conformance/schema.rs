use domain::{DatabasePlace, StartFault};
use sql::Catalog;
use sqlx::Connection as _;

use crate::both;
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
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         SELECT 9999, 'of a later day', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
    let newer = database.place;
    for place in [DatabasePlace { migrate: false, ..newer.clone() }, newer] {
        let error = Catalog::open(&place).await.err().unwrap();
        assert_eq!(error.fault, StartFault::Settings);
        assert!(error.to_string().contains("newer version"), "{error}");
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
}

#[tokio::test]
async fn an_unknown_database_is_named_without_its_password() {
    let error = Catalog::open(&DatabasePlace::at("mysql://user:secret@host/db")).await.err().unwrap();
    assert_eq!(error.fault, StartFault::Settings);
    assert!(error.to_string().contains("mysql:") && !error.to_string().contains("secret"), "{error}");
}

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

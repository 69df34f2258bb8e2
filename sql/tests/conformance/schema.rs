use domain::{DatabasePlace, StartFault};
use sql::Catalog;

use crate::world::{Database, World};

#[tokio::test]
async fn opening_again_keeps_everything() {
    let mut world = World::new().await;
    let video = world.ready().await;
    world.catalog.close().await;
    world.catalog = Catalog::open(&world.database.place()).await.unwrap();
    world.catalog.ping().await.unwrap();
    assert!(world.seen(video).await.publication.is_some());
    world.check().await;
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_a_sentence_that_helps() {
    let database = Database::new();
    let catalog = Catalog::open(&database.place()).await.unwrap();
    catalog.close().await;
    let pool = sqlx::AnyPool::connect(&database.place().url).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'of a later day', 1, x'00', 0)",
    )
    .execute(&pool)
    .await
    .unwrap();
    pool.close().await;
    let error = Catalog::open(&database.place()).await.err().unwrap();
    assert_eq!(error.fault, StartFault::Settings);
    assert!(error.to_string().contains("newer version"), "{error}");
}

#[tokio::test]
async fn an_unknown_database_is_named_without_its_password() {
    let error = Catalog::open(&DatabasePlace::at("mysql://user:secret@host/db")).await.err().unwrap();
    assert_eq!(error.fault, StartFault::Settings);
    assert!(error.to_string().contains("mysql:") && !error.to_string().contains("secret"), "{error}");
}

//! What a start says when the database is not as it should be.

use std::time::{Duration, Instant};

use domain::{DatabasePlace, StartError, StartFault};
use sql::{Catalog, Patience};

use crate::cluster::Cluster;
use crate::database::{Database, beside, postgres_for_tests};

const HASTE: Patience = Patience { tries: 3, pause: Duration::from_millis(300) };

async fn refusal(url: &str) -> StartError {
    let place = DatabasePlace { origin: "env DATABASE_URL".to_owned(), ..DatabasePlace::at(url) };
    let error = Catalog::open_patiently(&place, HASTE).await.err().expect("it cannot be opened");
    assert!(!error.text.contains("secret"), "{error}");
    assert!(error.text.contains("DATABASE_URL from: env DATABASE_URL."), "{error}");
    error
}

#[tokio::test]
async fn an_unknown_database_is_named_without_its_password() {
    let error = refusal("mysql://user:secret@host/db").await;
    assert_eq!(error.fault, StartFault::Settings);
    assert!(error.text.contains("mysql:"), "{error}");
    let error = refusal("postgres://user:secret@host:99999/db").await;
    assert_eq!(error.fault, StartFault::Settings);
    assert!(error.text.contains("DATABASE_URL is no address"), "{error}");
}

#[tokio::test]
async fn a_server_that_refuses_is_tried_again_and_then_named() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let began = Instant::now();
    let error = refusal(&format!("postgres://user:secret@127.0.0.1:{port}/db")).await;
    assert_eq!(error.fault, StartFault::Unavailable);
    let words = format!("PostgreSQL at 127.0.0.1:{port} refused the connection (3 tries in ");
    assert!(error.text.contains(&words), "{error}");
    let pauses = HASTE.pause * (HASTE.tries - 1);
    assert!((pauses..pauses + Duration::from_secs(2)).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for_for_ever() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let began = Instant::now();
    let error = refusal(&format!("postgres://user:secret@127.0.0.1:{port}/db")).await;
    assert_eq!(error.fault, StartFault::Unavailable);
    assert!(error.text.contains("does not answer (3 tries in "), "{error}");
    assert!(began.elapsed() < HASTE.pause * HASTE.tries + Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_host_without_an_address_cannot_be_reached() {
    let error = refusal("postgres://user:secret@no-such-host.invalid/db").await;
    assert_eq!(error.fault, StartFault::Unavailable);
    assert!(error.text.contains("PostgreSQL at no-such-host.invalid:5432 cannot be reached"), "{error}");
}

#[tokio::test]
async fn a_missing_database_is_a_setting() {
    let Some(url) = postgres_for_tests() else { return };
    let began = Instant::now();
    let error = refusal(&beside(&url, "sluice_nowhere")).await;
    assert_eq!(error.fault, StartFault::Settings);
    assert!(error.text.contains("has no database \"sluice_nowhere\". Make it (CREATE DATABASE"), "{error}");
    assert!(began.elapsed() < HASTE.pause, "waiting does not help");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_not_come_in_is_told_so() {
    let Some(cluster) = Cluster::start() else { return };
    cluster.require_password_of("guarded");
    let mut connection = Database::connect_to(&cluster.place()).await;
    let roles = "CREATE ROLE guarded LOGIN PASSWORD 'right'; CREATE ROLE guest LOGIN";
    sqlx::raw_sql(roles).execute(&mut connection).await.unwrap();
    let as_user = |user: &str| cluster.url("postgres").replace("sluice@", &format!("{user}@"));

    let error = refusal(&as_user("guarded:secret")).await;
    assert_eq!(error.fault, StartFault::Settings);
    assert!(error.text.contains("refused the password of the user \"guarded\""), "{error}");

    let error = refusal(&as_user("nobody")).await;
    assert_eq!(error.fault, StartFault::Settings);
    assert!(error.text.contains("does not let \"nobody\" in"), "{error}");

    let error = refusal(&as_user("guest")).await;
    assert_eq!(error.fault, StartFault::Settings);
    assert!(error.text.contains("ALTER DATABASE \"postgres\" OWNER TO \"guest\""), "{error}");

    let error = refusal(&format!("{}?sslmode=require", cluster.url("postgres"))).await;
    assert_eq!(error.fault, StartFault::Settings);
    assert!(error.text.contains("sslmode"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_late_is_waited_for() {
    let Some(cluster) = Cluster::start() else { return };
    cluster.stop("fast");
    let place = cluster.place();
    let patience = Patience { tries: 50, pause: Duration::from_millis(200) };
    let starting = tokio::spawn(async move { Catalog::open_patiently(&place, patience).await });
    cluster.resume();
    starting.await.unwrap().unwrap().ping().await.unwrap();
}

#[tokio::test]
async fn a_replica_is_of_the_same_kind() {
    let sqlite = Database::sqlite();
    let place =
        DatabasePlace { read_url: Some("postgres://u:secret@h/d".to_owned()), ..sqlite.place.clone() };
    let error = Catalog::open_patiently(&place, HASTE).await.err().unwrap();
    assert_eq!(error.fault, StartFault::Settings);
    assert!(
        error.text.contains("DATABASE_READ_URL is of another kind") && !error.text.contains("secret"),
        "{error}"
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_made_is_told_apart() {
    let place = DatabasePlace::sqlite(std::path::Path::new("/proc/nowhere/sluice.db"));
    let error = Catalog::open_patiently(&place, HASTE).await.err().unwrap();
    assert_eq!(error.fault, StartFault::CannotCreate, "{error}");
}

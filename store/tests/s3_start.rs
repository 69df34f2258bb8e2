//! What is found out before a bucket is relied on, and how it is said.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod s3_server;

use domain::{S3Place, StartError, StartFault};
use s3_server::mischief::{Call, Deed};
use s3_server::{ACCESS_KEY, REGION, RealServer, S3sServer, SECRET_KEY, hasty};
use store::{S3, S3Access, Store};

async fn refused(place: &S3Place, access: &S3Access) -> StartError {
    match S3::open(place, access, hasty()).await {
        Ok(_) => panic!("it opens"),
        Err(error) => {
            eprintln!("{:?}: {}", error.fault, error.text);
            error
        }
    }
}

fn assert_says(error: &StartError, fault: StartFault, words: &[&str]) {
    assert_eq!(error.fault, fault, "{error}");
    for words in words {
        assert!(error.text.contains(words), "`{words}` is not in: {error}");
    }
    assert!(!error.text.contains('\n'));
}

/// With a server that does the deed to every such call.
async fn refused_when(operation: &'static str, deed: Deed) -> StartError {
    let server = S3sServer::start().await;
    server.mischief.set(move |call| if call.operation == operation { deed.clone() } else { Deed::Pass });
    let error = refused(&server.place("p"), &server.access()).await;
    server.mischief.set(|_| Deed::Pass);
    error
}

#[tokio::test]
async fn a_start_leaves_nothing_and_stays_below_its_prefix() {
    let server = S3sServer::start().await;
    let store = S3::open(&server.place("some/prefix"), &server.access(), hasty()).await.unwrap();
    assert_eq!(server.files(), Vec::<String>::new());
    for call in server.mischief.all_calls() {
        let below = call.target.starts_with("/media/some/prefix/.probe/")
            || call.target.contains("prefix=some%2Fprefix%2F")
            || matches!(call.operation, "DeleteObjects" | "HeadBucket");
        assert!(below, "{call:?}");
    }
    assert_eq!(std::fs::read_dir(server.spool_dir()).unwrap().count(), 0);
    server.mischief.set(|_| Deed::Pass);
    store.probe().await.unwrap();
    assert_eq!(server.mischief.all_calls().len(), 1, "readiness costs one call");
}

#[tokio::test]
async fn a_start_that_died_is_cleared_away_after_an_hour() {
    let server = S3sServer::start().await;
    let (old, young) = (server.object_file("p/.probe/old"), server.object_file("p/.probe/young"));
    std::fs::create_dir_all(old.parent().unwrap()).unwrap();
    std::fs::write(&young, "left").unwrap();
    std::fs::write(&old, "left").unwrap();
    let file = std::fs::File::options().write(true).open(&old).unwrap();
    let written = file.metadata().unwrap().modified().unwrap();
    file.set_modified(written - std::time::Duration::from_secs(3700)).unwrap();
    let store = S3::open(&server.place("p"), &server.access(), hasty()).await.unwrap();
    assert!(young.exists() && !old.exists());
    assert!(store.list("", None, 10).await.unwrap().objects.is_empty(), "it is no part of the library");
}

#[tokio::test]
async fn wrong_credentials() {
    let server = S3sServer::start().await;
    let wrong_secret = S3Access::fixed(&server.endpoint, REGION, ACCESS_KEY, "guessed-secret");
    let error = refused(&server.place(""), &wrong_secret).await;
    assert_says(&error, StartFault::Settings, &["refused the credentials", ACCESS_KEY, REGION, "\"media\""]);
    assert_says(
        &error,
        StartFault::Settings,
        &["SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"],
    );
    assert!(!error.text.contains("guessed-secret"));

    let unknown_key = S3Access::fixed(&server.endpoint, REGION, "GKnobody", SECRET_KEY);
    let error = refused(&server.place(""), &unknown_key).await;
    assert_says(&error, StartFault::Settings, &["refused the credentials", "GKnobody"]);

    let denied = refused_when("PutObject", Deed::Refuse(403, "AccessDenied")).await;
    assert_says(
        &denied,
        StartFault::Settings,
        &["refused the credentials", "PutObject", "no right to this bucket"],
    );
    let ended = refused_when("ListObjectsV2", Deed::Refuse(400, "ExpiredToken")).await;
    assert_says(&ended, StartFault::Settings, &["AWS_SESSION_TOKEN"]);
}

#[tokio::test]
async fn a_missing_bucket() {
    let server = S3sServer::start().await;
    let place = S3Place { bucket: "nowhere".to_owned(), ..server.place("") };
    let error = refused(&place, &server.access()).await;
    assert_says(
        &error,
        StartFault::Settings,
        &["Bucket \"nowhere\" does not exist", &server.endpoint, "SLUICE_STORE"],
    );
}

#[tokio::test]
async fn nobody_there() {
    let server = S3sServer::start().await;
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cases = [
        (format!("http://{free}"), "connection refused"),
        ("http://s3.invalid:9000".to_owned(), "not known to DNS"),
        (server.endpoint.replace("http://", "https://"), "TLS"),
    ];
    for (endpoint, reason) in cases {
        let access = S3Access::fixed(&endpoint, REGION, ACCESS_KEY, SECRET_KEY);
        let error = refused(&server.place(""), &access).await;
        assert_says(&error, StartFault::Unavailable, &[&endpoint, reason, "4 tries", "AWS_ENDPOINT_URL_S3"]);
    }
}

#[tokio::test]
async fn a_server_that_comes_up_meanwhile_is_waited_for() {
    let server = S3sServer::start().await;
    server.mischief.set(|call| match call.number {
        0 => Deed::Refuse(503, "SlowDown"),
        1 => Deed::Cut,
        2 => Deed::Refuse(500, ""),
        _ => Deed::Pass,
    });
    S3::open(&server.place("p"), &server.access(), hasty()).await.unwrap();
    server.mischief.set(|_| Deed::Refuse(503, "SlowDown"));
    let error = refused(&server.place("p"), &server.access()).await;
    assert_says(&error, StartFault::Unavailable, &["is there and cannot work", "503 SlowDown", "4 tries"]);
    assert_eq!(server.mischief.all_calls().len(), 4);
}

#[tokio::test]
async fn a_wrong_clock() {
    // The date is the server's; ours is later by some decades.
    let deed = Deed::Date(403, "RequestTimeTooSkewed", "Sun, 06 Nov 1994 08:49:37 GMT");
    let error = refused_when("ListObjectsV2", deed).await;
    assert_says(
        &error,
        StartFault::Settings,
        &["This machine's clock is", " h ahead of the S3 server's", "timedatectl"],
    );
}

#[tokio::test]
async fn the_bucket_in_the_host() {
    let server = S3sServer::start().await;
    let endpoint = server.endpoint.replace("127.0.0.1", "localhost");
    let access = S3Access::fixed(&endpoint, REGION, ACCESS_KEY, SECRET_KEY);
    let place = S3Place { force_path_style: Some(false), ..server.place("") };
    let error = refused(&place, &access).await;
    assert!(error.text.contains("S3_FORCE_PATH_STYLE=true"), "{error}");
    let error = refused_when("ListObjectsV2", Deed::Refuse(403, "SecondLevelDomainForbidden")).await;
    assert_says(&error, StartFault::Settings, &["S3_FORCE_PATH_STYLE=false"]);
}

#[tokio::test]
async fn refused_checksums() {
    let error = refused_when("UploadPart", Deed::Refuse(400, "XAmzContentSHA256Mismatch")).await;
    assert_says(
        &error,
        StartFault::Settings,
        &["checksums", "AWS_REQUEST_CHECKSUM_CALCULATION=when_required"],
    );
}

#[tokio::test]
async fn a_bucket_elsewhere() {
    let error = refused_when("ListObjectsV2", Deed::Refuse(400, "AuthorizationHeaderMalformed")).await;
    assert_says(&error, StartFault::Settings, &["region \"us-east-1\"", "AWS_REGION=garage"]);
}

#[tokio::test]
async fn other_bytes_than_were_put() {
    let error = refused_when("GetObject", Deed::FlipAnswer(3)).await;
    assert_says(&error, StartFault::Settings, &["cannot be relied on", "other bytes"]);

    let server = S3sServer::start().await;
    server.mischief.set(|call| match call.operation {
        "DeleteObjects" | "DeleteObject" => Deed::BodyInstead(String::new()),
        _ => Deed::Pass,
    });
    let error = refused(&server.place("p"), &server.access()).await;
    assert_says(&error, StartFault::Settings, &["cannot be relied on", "still has an object"]);
}

#[tokio::test]
async fn what_a_server_lacks_is_done_without() {
    let server = S3sServer::start().await;
    let lacks = |call: &Call| match call.operation {
        "DeleteObjects" => Deed::Refuse(501, "NotImplemented"),
        _ => Deed::OpaqueETag,
    };
    server.mischief.set(lacks);
    let store = S3::open(&server.place("p"), &server.access(), hasty()).await.unwrap();
    server.mischief.set(lacks);
    let paths = ["videos/a".to_owned(), "videos/b".to_owned()];
    assert!(store.delete(&paths).await.into_iter().all(|(_, result)| result.is_ok()));
    assert_eq!((server.mischief.calls("DeleteObjects"), server.mischief.calls("DeleteObject")), (0, 2));
    assert!(store.list_unfinished(None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_spool_that_cannot_be_made() {
    let server = S3sServer::start().await;
    let place = S3Place { spool_dir: "/proc/nowhere".into(), ..server.place("") };
    let error = refused(&place, &server.access()).await;
    assert_says(&error, StartFault::CannotCreate, &["/proc/nowhere", "SLUICE_DATA_DIR"]);
}

#[tokio::test]
async fn a_real_server_refuses_in_words() {
    let Some(server) = RealServer::from_environment() else { return };
    let RealServer { endpoint, region, access_key, secret_key, .. } = &server;
    let wrong_secret = "0".repeat(secret_key.len());
    let access = S3Access::fixed(endpoint, region, access_key, &wrong_secret);
    let error = refused(&server.place(), &access).await;
    assert_says(
        &error,
        StartFault::Settings,
        &["refused the credentials", access_key, "AWS_SECRET_ACCESS_KEY"],
    );

    let access = S3Access::fixed(endpoint, region, "GK000000000000000000000000", secret_key);
    let error = refused(&server.place(), &access).await;
    assert_says(&error, StartFault::Settings, &["refused the credentials", "GK000000000000000000000000"]);

    let access = S3Access::fixed(endpoint, "elsewhere-1", access_key, secret_key);
    let error = refused(&server.place(), &access).await;
    assert_says(&error, StartFault::Settings, &["\"elsewhere-1\"", "AWS_REGION"]);

    let place = S3Place { bucket: "no-such-bucket".to_owned(), ..server.place() };
    let error = refused(&place, &server.access()).await;
    assert_says(&error, StartFault::Settings, &["\"no-such-bucket\""]);
}

/// What a process does with the environment it is given; run by the test below.
#[tokio::test]
#[ignore = "the other half of a test"]
#[allow(clippy::disallowed_methods, reason = "the parent tells where the bucket is")]
async fn open_as_the_environment_says() {
    let place = S3Place {
        bucket: s3_server::BUCKET.to_owned(),
        prefix: String::new(),
        spool_dir: std::env::var("TEST_SPOOL_DIR").unwrap().into(),
        force_path_style: None,
        part_bytes: s3_server::PART_BYTES,
        parts_in_flight_max: 1,
    };
    match S3::open(&place, &S3Access::from_environment().await, hasty()).await {
        Ok(_) => println!("outcome: opens"),
        Err(error) => println!("outcome: {:?} {}", error.fault, error.text),
    }
}

async fn outcome(server: &S3sServer, variables: &[(&str, &str)]) -> String {
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "open_as_the_environment_says", "--ignored", "--nocapture"]);
    child.env_clear().env("TEST_SPOOL_DIR", server.spool_dir()).env("AWS_EC2_METADATA_DISABLED", "true");
    child.env("HOME", server.spool_dir());
    let output = child.envs(variables.iter().copied()).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.split_once("outcome: ")).expect(&text).1.to_owned()
}

#[tokio::test]
async fn the_environment_is_read_as_everybody_reads_it() {
    let server = S3sServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (config, keys) = (folder.path().join("config"), folder.path().join("credentials"));
    std::fs::write(&config, "[profile films]\nregion = us-east-1\n").unwrap();
    let text = format!("[films]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
    std::fs::write(&keys, text).unwrap();
    let endpoint = ("AWS_ENDPOINT_URL_S3", server.endpoint.as_str());
    let (key, secret) = (("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY));
    let region = ("AWS_REGION", REGION);

    assert_eq!(outcome(&server, &[endpoint, key, secret, region]).await, "opens");
    assert!(
        server
            .mischief
            .all_calls()
            .iter()
            .all(|call| call.operation == "DeleteObjects" || !call.has_checksum)
    );
    // The name that is for S3 goes before the one for everything.
    let elsewhere = ("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    assert_eq!(outcome(&server, &[endpoint, elsewhere, key, secret, region]).await, "opens");
    let everything = ("AWS_ENDPOINT_URL", server.endpoint.as_str());
    assert_eq!(outcome(&server, &[everything, key, secret, region]).await, "opens");
    let profile = [
        endpoint,
        ("AWS_PROFILE", "films"),
        ("AWS_CONFIG_FILE", config.to_str().unwrap()),
        ("AWS_SHARED_CREDENTIALS_FILE", keys.to_str().unwrap()),
    ];
    assert_eq!(outcome(&server, &profile).await, "opens");

    server.mischief.set(|_| Deed::Pass);
    let checksums = ("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported");
    assert_eq!(outcome(&server, &[endpoint, key, secret, region, checksums]).await, "opens");
    let calls = server.mischief.all_calls();
    assert!(calls.iter().any(|call| call.operation == "PutObject" && call.has_checksum), "{calls:?}");

    let text = outcome(&server, &[endpoint, region]).await;
    assert!(
        text.starts_with("Settings There are no credentials for S3") && text.contains("AWS_PROFILE"),
        "{text}"
    );
    let text = outcome(&server, &[endpoint, key, secret]).await;
    assert!(text.starts_with("Settings S3 needs a region") && text.contains("AWS_REGION"), "{text}");
}

//! What a program stands on is not there, or not as it should be, when it starts: one block that says what, why and
//! how to mend, and the exit code that a service manager goes by.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use crate::harness::backends::{Backends, variable};
use crate::harness::proxy::Proxy;
use crate::harness::{Weather, program_command};

/// It may come back: start me again.
const UNAVAILABLE: i32 = 69;
/// A person has to change something first.
const SETTINGS: i32 = 78;

const ALL: [&str; 4] = ["sluice", "api", "streamserver", "scheduler"];
/// `api` never touches an object.
const WITH_STORE: [&str; 3] = ["sluice", "streamserver", "scheduler"];

/// A service manager would give up long after this.
const START_MAX: Duration = Duration::from_secs(45);

const PASSWORD: &str = "never-to-be-shown";

/// Starts every program with the same settings at once; each ends with this code, and says all of these words and
/// none of its secrets.
fn refuse(programs: &[&str], settings: &[(String, String)], code: i32, words: &[&str]) {
    let began = Instant::now();
    let started: Vec<_> = programs
        .iter()
        .map(|name| {
            let folder = tempfile::tempdir().unwrap();
            let mut command = program_command(name, folder.path());
            command.envs(settings.iter().map(|(name, value)| (name, value)));
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            (name, command.spawn().unwrap(), folder)
        })
        .collect();
    for (name, child, _folder) in started {
        let pid = child.id();
        // One that serves after all would be waited for without end.
        let ended = std::thread::spawn(move || child.wait_with_output().unwrap());
        while !ended.is_finished() {
            if began.elapsed() > START_MAX {
                let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let Output { status, stdout, stderr } = ended.join().unwrap();
        let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
        let block = block(&stderr);
        assert_eq!(status.code(), Some(code), "{name}: {stderr}{stdout}");
        for word in words {
            assert!(block.contains(word), "{name} does not say `{word}`:\n{stderr}");
        }
        assert!(
            !stderr.contains(PASSWORD) && !stdout.contains(PASSWORD),
            "{name} tells a secret:\n{stderr}{stdout}"
        );
        assert!(!stderr.contains("panicked") && !block.contains("Error {"), "{name}: {stderr}");
        if *name == "sluice" {
            println!("exit {code} after {:.1?}: {block}", began.elapsed());
        }
    }
}

/// What was said for a person: everything that is no line of the log.
fn block(stderr: &str) -> String {
    stderr.lines().filter(|line| !line.starts_with('{')).collect::<Vec<_>>().join("\n")
}

fn with(settings: &[(String, String)], more: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut all = settings.to_vec();
    for (name, value) in more {
        all.retain(|(known, _)| known != name);
        all.push(((*name).to_owned(), (*value).to_owned()));
    }
    all
}

/// An address at which nobody listens.
fn nobody() -> String {
    let proxy = Proxy::before("127.0.0.1:1");
    proxy.address.to_string()
}

fn postgres(folder: &Path) -> Option<Backends> {
    if variable("SLUICE_TEST_POSTGRES").is_none() {
        eprintln!("SKIPPED: starts on PostgreSQL (make test-scale)");
        return None;
    }
    Some(Backends::of("postgres", "disk", folder))
}

#[test]
fn nobody_listens_where_the_database_should_be() {
    let address = nobody();
    let url = format!("postgres://sluice:{PASSWORD}@{address}/sluice");
    refuse(&ALL, &with(&[], &[("DATABASE_URL", &url)]), UNAVAILABLE, &[&address, "refused", "DATABASE_URL"]);
}

#[test]
fn the_database_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let Some(backends) = postgres(folder.path()) else { return };
    let backends = backends.behind_proxies();
    backends.database_proxy().weather(Weather::Stalled);
    refuse(&ALL, backends.settings(), UNAVAILABLE, &["answer", "DATABASE_URL"]);
}

#[test]
fn the_database_knows_neither_us_nor_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let Some(backends) = postgres(folder.path()) else { return };
    let url = backends.setting("DATABASE_URL").unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    let elsewhere = format!("{server}/nowhere_at_all");
    refuse(&ALL, &with(&[], &[("DATABASE_URL", &elsewhere)]), SETTINGS, &["nowhere_at_all", "DATABASE_URL"]);
    let stranger = url.replace("postgres@", &format!("stranger:{PASSWORD}@"));
    refuse(&ALL, &with(&[], &[("DATABASE_URL", &stranger)]), SETTINGS, &["stranger", "DATABASE_URL"]);
}

#[test]
fn the_schema_is_older_or_newer() {
    let folder = tempfile::tempdir().unwrap();
    let Some(backends) = postgres(folder.path()) else { return };
    let as_is = with(backends.settings(), &[("SLUICE_DATABASE_MIGRATE", "false")]);
    refuse(&ALL, &as_is, SETTINGS, &["older", "sluice migrate"]);
    let migrate = |settings: &[(String, String)]| {
        let mut command = program_command("sluice", folder.path());
        command.envs(settings.iter().map(|(name, value)| (name, value))).arg("migrate");
        command.output().unwrap()
    };
    assert!(migrate(&as_is).status.success());
    backends.psql(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'of tomorrow', true, '\\x00', 0)",
    );
    for settings in [&as_is, &backends.settings().to_vec()] {
        refuse(&ALL, settings, SETTINGS, &["newer"]);
        assert_eq!(migrate(settings).status.code(), Some(SETTINGS));
    }
}

#[test]
fn the_bucket_is_not_as_it_should_be() {
    let folder = tempfile::tempdir().unwrap();
    let backends = Backends::of("sqlite", "s3s", folder.path());
    let settings = backends.settings();
    let wrong_key = with(settings, &[("AWS_SECRET_ACCESS_KEY", PASSWORD)]);
    refuse(&WITH_STORE, &wrong_key, SETTINGS, &["credentials", "films"]);
    let no_key: Vec<_> =
        settings.iter().filter(|(name, _)| name != "AWS_SECRET_ACCESS_KEY").cloned().collect();
    // Nor is there a machine that would lend us one.
    let no_key = with(&no_key, &[("AWS_EC2_METADATA_DISABLED", "true")]);
    refuse(&WITH_STORE, &no_key, SETTINGS, &["credentials", "AWS_ACCESS_KEY_ID"]);
    let no_bucket = with(settings, &[("SLUICE_STORE", "s3://nowhere/at-all")]);
    refuse(&WITH_STORE, &no_bucket, SETTINGS, &["nowhere", "does not exist"]);
    let address = nobody();
    let refused = with(settings, &[("AWS_ENDPOINT_URL_S3", &format!("http://{address}"))]);
    refuse(&WITH_STORE, &refused, UNAVAILABLE, &[&address, "refused", "AWS_ENDPOINT_URL_S3"]);
}

#[test]
fn the_store_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let backends = Backends::of("sqlite", "s3s", folder.path()).behind_proxies();
    backends.store_proxy().weather(Weather::Stalled);
    refuse(&WITH_STORE, backends.settings(), UNAVAILABLE, &["timed out", "AWS_ENDPOINT_URL_S3"]);
}

#[test]
fn garage_says_what_is_wrong() {
    if variable("SLUICE_TEST_S3").is_none() {
        eprintln!("SKIPPED: starts on Garage (make test-scale)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let backends = Backends::of("sqlite", "garage", folder.path());
    let settings = backends.settings();
    let wrong_key = with(settings, &[("AWS_SECRET_ACCESS_KEY", PASSWORD)]);
    refuse(&WITH_STORE, &wrong_key, SETTINGS, &["credentials"]);
    let wrong_region = with(settings, &[("AWS_REGION", "us-east-1")]);
    refuse(&WITH_STORE, &wrong_region, SETTINGS, &["us-east-1", "AWS_REGION"]);
    let no_bucket = with(settings, &[("SLUICE_STORE", "s3://nowhere/at-all")]);
    refuse(&WITH_STORE, &no_bucket, SETTINGS, &["nowhere"]);
}

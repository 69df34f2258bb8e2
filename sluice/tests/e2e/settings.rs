//! Bad settings stop the start with one clear line.

use crate::harness::sluice_command;

#[track_caller]
fn refused(settings: &[(&str, &str)], needles: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let output = sluice_command(folder.path()).envs(settings.iter().copied()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert_eq!(said.trim().lines().count(), 1, "one line: {said}");
    for needle in needles {
        assert!(said.contains(needle), "{needle:?} is missing in: {said}");
    }
}

#[test]
fn unknown_and_wrong_settings_are_named() {
    refused(&[("SLUICE_LISTN", "127.0.0.1:0")], &["SLUICE_LISTN", "SLUICE_LISTEN"]);
    refused(&[("SLUICE_LISTEN", "here")], &["SLUICE_LISTEN", "here"]);
    refused(&[("SLUICE_UPLOAD_BYTES_MAX", "ten")], &["SLUICE_UPLOAD_BYTES_MAX", "ten"]);
    refused(&[("SLUICE_JOB_KINDS", "ingest,dance")], &["SLUICE_JOB_KINDS", "dance", "encode"]);
    refused(
        &[("SLUICE_ENCODE_RUNGS", "medium:7")],
        &["SLUICE_ENCODE_RUNGS", "medium:7", "name:shorter side"],
    );
    refused(&[("SLUICE_ENCODE_CODECS", "vvc")], &["SLUICE_ENCODE_CODECS", "vvc", "hevc", "av1"]);
}

#[test]
fn effective_settings_show_their_origin_and_hide_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let output = sluice_command(folder.path())
        .env("SLUICE_ADMIN_PASSWORD", "do-not-show-this")
        .arg("settings")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    let listen = said
        .lines()
        .find(|line| line.contains("SLUICE_LISTEN ") || line.contains("listen "))
        .expect("a line");
    assert!(listen.contains("127.0.0.1:0") && listen.contains("env"), "{listen}");
    assert!(!said.contains("do-not-show-this"), "{said}");
}

#[test]
fn the_doctor_finds_what_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let output = sluice_command(folder.path()).arg("doctor").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    for part in ["ffmpeg", "libx264", "database", "store", "disk", "clock"] {
        assert!(said.to_lowercase().contains(part), "{part} is missing in:\n{said}");
    }
}

#[test]
fn the_doctor_goes_on_past_what_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    let mut doctor = sluice_command(folder.path());
    doctor.arg("doctor").env("SLUICE_STORE", "disk:/proc/nowhere").env("REDIS_URL", "redis://127.0.0.1:1");
    let output = doctor.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["[BAD ] store", "[warn] redis", "[ok  ] database", "[ok  ] clock"] {
        assert!(said.contains(part), "{part} is missing in:\n{said}");
    }
}

#[test]
fn a_port_in_use_is_told_with_exit_69() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = sluice_command(folder.path()).env("SLUICE_LISTEN", &address).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains(&address) && said.contains("in use"), "{said}");
}

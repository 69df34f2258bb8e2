use super::*;

fn load(env: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Settings::load(ServiceName::AllInOne, None, env)
}

fn load_file(text: &str) -> Result<Settings, SettingsError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Settings::load(ServiceName::AllInOne, Some(file.path()), [])
}

fn refusal(loaded: Result<Settings, SettingsError>) -> String {
    loaded.err().expect("refused").to_string()
}

#[test]
fn defaults_are_the_documented_ones() {
    let settings = load(&[]).unwrap();
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8000");
    assert_eq!(settings.limits.upload_bytes_max, 10 << 30);
    assert_eq!(settings.job_kinds, JobKind::ALL);
    assert_eq!(settings.origin("listen"), Origin::Default);
    let ports = |service| Settings::defaults(service).ops_listen.port();
    assert_eq!([ports(ServiceName::Api), ports(ServiceName::Streamserver)], [8010, 9010]);
}

#[test]
fn the_environment_wins_over_the_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "poll_ms = 10\njob_kinds = [\"encode\", \"purge\"]\n[media]\npixels_max = 9\n[jobs]\nlease_s = 60\n",
    )
    .unwrap();
    let env = [("SLUICE_LEASE_S".to_owned(), "30".to_owned())];
    let settings = Settings::load(ServiceName::Scheduler, Some(file.path()), env).unwrap();
    assert_eq!((settings.jobs.lease_s, settings.jobs.poll_ms, settings.media.pixels_max), (30, 10, 9));
    assert_eq!(settings.job_kinds, [JobKind::Encode, JobKind::Purge]);
    assert_eq!(settings.origin("jobs.lease_s").to_string(), "env SLUICE_LEASE_S");
    assert_eq!(settings.origin("jobs.poll_ms"), Origin::File(file.path().to_owned()));
}

#[test]
fn the_sections_limits_and_jobs_may_be_left_out() {
    let settings = load(&[("SLUICE_UPLOAD_BYTES_MAX", "5"), ("SLUICE_JOBS_LEASE_S", "50")]).unwrap();
    assert_eq!((settings.limits.upload_bytes_max, settings.jobs.lease_s), (5, 50));
    assert_eq!(load_file("lease_s = 40").unwrap().jobs.lease_s, 40);
    let said = refusal(load(&[("SLUICE_LEASE_S", "50"), ("SLUICE_JOBS_LEASE_S", "50")]));
    assert!(said.contains("SLUICE_LEASE_S") && said.contains("SLUICE_JOBS_LEASE_S"), "{said}");
}

#[test]
fn unknown_names_are_refused_with_a_suggestion() {
    let said = refusal(load(&[("SLUICE_LIMITS_UPLOD_BYTES_MAX", "1")]));
    assert!(
        said.contains("SLUICE_LIMITS_UPLOD_BYTES_MAX")
            && said.contains("did you mean SLUICE_LIMITS_UPLOAD_BYTES_MAX?"),
        "{said}"
    );
    let said = refusal(load_file("[media]\npixel_max = 1"));
    assert!(said.contains("media.pixel_max") && said.contains("did you mean media.pixels_max?"), "{said}");
    assert!(!refusal(load(&[("SLUICE_QQQQ", "1")])).contains("did you mean"));
    assert!(load(&[("PATH", "/bin"), ("SLUICE_TEST_ANYTHING", "1"), ("DATABASE_URL", "sqlite:x")]).is_ok());
}

#[test]
fn wrong_values_are_refused_and_named() {
    for (name, value) in [
        ("SLUICE_LISTEN", "8000"),
        ("SLUICE_CONNECTIONS_MAX", "0"),
        ("SLUICE_UPLOAD_BYTES_MAX", "10GB"),
        ("SLUICE_JOB_KINDS", "encode,paint"),
        ("SLUICE_JOB_KINDS", ""),
        ("SLUICE_PUBLIC_URL", "video.example"),
        ("SLUICE_TRUSTED_PROXIES", "10.0.0.0/99"),
        ("SLUICE_ENCODE_CRF", "52"),
        ("SLUICE_ENCODE_QUALITY", "101"),
        ("SLUICE_ENCODE_QUALITY", "nan"),
        ("SLUICE_ENCODE_CONTENT_AWARE", "often"),
        ("SLUICE_ENCODE_X264_PRESET", "warp"),
        ("SLUICE_ENCODE_SVTAV1_PRESET", "14"),
        ("SLUICE_ENCODE_CODECS", "av1,vvc"),
        ("SLUICE_ENCODE_CODECS", "h264"),
        ("SLUICE_ENCODE_RUNGS", "huge:9000"),
        ("SLUICE_ENCODE_RUNGS", "low:360,medium:720"),
        ("SLUICE_MEDIA_DURATION_S_MAX", "inf"),
        ("SLUICE_LOG_FORMAT", "xml"),
        ("SLUICE_SESSION_S", "99999999999"),
    ] {
        let said = refusal(load(&[(name, value)]));
        assert!(
            said.contains(name) && said.contains(&format!("\"{value}\"")) && said.contains("allowed is"),
            "{said}"
        );
    }
    assert!(refusal(load_file("lease_s = \"soon\"")).contains("lease_s"));
    assert!(refusal(load_file("lease_s = ")).contains("not TOML"));
}

#[test]
fn values_are_checked_against_each_other() {
    assert!(refusal(load(&[("SLUICE_ADMIN_USERNAME", "root")])).contains("admin_password is missing"));
    assert!(
        refusal(load(&[("SLUICE_ADMIN_USERNAME", "root"), ("SLUICE_ADMIN_PASSWORD", "short")]))
            .contains("8 to 128")
    );
    assert!(refusal(load(&[("SLUICE_LEASE_S", "5")])).contains("heartbeat_s"));
}

#[test]
fn secrets_come_from_files_and_are_never_shown() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "correct horse\n").unwrap();
    let path = file.path().to_str().unwrap();
    let settings = load(&[("SLUICE_ADMIN_USERNAME", "root"), ("SLUICE_ADMIN_PASSWORD_FILE", path)]).unwrap();
    assert_eq!(settings.admin_password.as_deref(), Some("correct horse"));
    let row = settings.table().into_iter().find(|(key, ..)| *key == "admin_password").unwrap();
    assert_eq!(row.1, "(hidden)");
    assert!(
        refusal(load(&[("SLUICE_ADMIN_PASSWORD_FILE", "/nonexistent")]))
            .contains("SLUICE_ADMIN_PASSWORD_FILE")
    );
    assert!(
        refusal(load(&[("SLUICE_ADMIN_PASSWORD_FILE", path), ("SLUICE_ADMIN_PASSWORD", "x")]))
            .contains("both")
    );
    assert!(refusal(load(&[("SLUICE_LISTEN_FILE", path)])).contains("no such setting"));
}

fn sample_path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../sluice.sample.toml"))
}

#[test]
#[ignore = "writes sluice.sample.toml; for after a change of the table"]
fn write_the_sample() {
    std::fs::write(sample_path(), Settings::sample()).unwrap();
}

#[test]
fn the_committed_sample_is_the_generated_one_and_loads() {
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../sluice.sample.toml");
    let committed = std::fs::read_to_string(committed).unwrap_or_default();
    assert!(
        committed == Settings::sample(),
        "write it anew: cargo nextest run -p chassis --run-ignored only write_the_sample"
    );
    load_file(&committed).unwrap();
}

#[test]
fn the_sample_with_everything_uncommented_is_the_defaults() {
    let uncommented: Vec<_> = Settings::sample()
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned())
        // Without a default there is nothing to set.
        .filter(|line| !line.ends_with("= \"\""))
        .collect();
    let settings = load_file(&uncommented.join("\n")).unwrap();
    let values = |settings: &Settings| settings.table().into_iter().map(|row| row.1).collect::<Vec<_>>();
    assert_eq!(values(&settings), values(&load(&[]).unwrap()));
}

#[test]
fn urls_start_where_a_client_can_reach_us() {
    let bound: SocketAddr = "0.0.0.0:8123".parse().unwrap();
    let urls = load(&[]).unwrap().urls(bound);
    assert_eq!(
        (urls.public.as_str(), urls.stream.as_str()),
        ("http://localhost:8123", "http://localhost:8123")
    );
    let urls =
        load(&[("SLUICE_PUBLIC_URL", "https://v.example/"), ("SLUICE_STREAM_URL", "https://cdn.example")]);
    let urls = urls.unwrap().urls(bound);
    assert_eq!((urls.public.as_str(), urls.stream.as_str()), ("https://v.example", "https://cdn.example"));
    let api = Settings::defaults(ServiceName::Api).urls("127.0.0.1:8000".parse().unwrap());
    assert_eq!(api.stream, "http://127.0.0.1:9000");
}

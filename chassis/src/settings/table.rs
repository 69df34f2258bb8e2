//! The one list of all settings.

use super::Settings;
use super::value::{Url, Value};
use crate::LinkKeys;

/// A row of the table.
pub struct Setting {
    /// As in the file: `listen`, or `media.pixels_max` for `pixels_max` in section `[media]`.
    pub key: &'static str,
    /// `None`: unset.
    pub default: Option<&'static str>,
    /// What it means; units and the default's reason included.
    pub doc: &'static str,
    /// Never printed; `…_FILE` in the environment reads it from a file.
    pub secret: bool,
    pub(super) set: fn(&mut Settings, &str) -> Result<(), String>,
    pub(super) get: fn(&Settings) -> String,
}

impl Setting {
    /// The environment's name for it.
    pub fn env(&self) -> String {
        env_of(self.key)
    }

    /// `[limits]` and `[jobs]` are only there to bring order into the file: their settings are known without them too.
    pub(super) fn short_key(&self) -> Option<&'static str> {
        self.key.strip_prefix("limits.").or_else(|| self.key.strip_prefix("jobs."))
    }

    pub(super) fn short_env(&self) -> Option<String> {
        self.short_key().map(env_of)
    }
}

fn env_of(key: &str) -> String {
    let name = key.to_ascii_uppercase().replace('.', "_");
    // The world's own names stay as everybody knows them.
    let known = key.starts_with("database_") || key.starts_with("redis_") || key.starts_with("s3.");
    if known { name } else { format!("SLUICE_{name}") }
}

macro_rules! setting {
    ($key:literal, $($field:ident).+, $default:expr, $doc:literal $(, check $check:expr)? $(; $secret:ident)?) => {
        Setting {
            key: $key,
            default: $default,
            doc: $doc,
            secret: setting!(@secret $($secret)?),
            set: |settings, text| {
                $( if !text.is_empty() { $check(text)?; } )?
                settings.$($field).+ = Value::parse(text)?;
                Ok(())
            },
            get: |settings| settings.$($field).+.write(),
        }
    };
    (@secret secret) => { true };
    (@secret) => { false };
}

/// `text` is a number of at least 1.
fn positive(text: &str) -> Result<(), String> {
    let number = text.replace('_', "").parse::<f64>();
    if number.is_ok_and(|number| number >= 1.0) { Ok(()) } else { Err("a number of at least 1".to_owned()) }
}

/// Each of its blocks is an open file.
fn four_gib_or_less(text: &str) -> Result<(), String> {
    const BYTES_MAX: u64 = 4 << 30;
    let number = text.replace('_', "").parse::<u64>();
    if number.is_ok_and(|number| number <= BYTES_MAX) {
        Ok(())
    } else {
        Err(format!("a number of bytes, at most {BYTES_MAX}"))
    }
}

fn crf(text: &str) -> Result<(), String> {
    let number = text.parse::<f64>();
    if number.is_ok_and(|n| (0.0..=51.0).contains(&n)) {
        Ok(())
    } else {
        Err("a number from 0 to 51".to_owned())
    }
}

fn above_zero(text: &str) -> Result<(), String> {
    if text.parse::<f64>().is_ok_and(|n| n > 0.0) { Ok(()) } else { Err("a number above 0".to_owned()) }
}

fn quality(text: &str) -> Result<(), String> {
    let number = text.parse::<f64>();
    if number.is_ok_and(|n| (60.0..=98.0).contains(&n)) {
        Ok(())
    } else {
        Err("a number from 60 to 98".to_owned())
    }
}

fn part_bytes(text: &str) -> Result<(), String> {
    let bytes = text.replace('_', "").parse::<u64>();
    let allowed = "a whole number of bytes from 5242880 (5 MiB) to 5368709120 (5 GiB)";
    if bytes.is_ok_and(|bytes| (5 << 20..=5 << 30).contains(&bytes)) {
        Ok(())
    } else {
        Err(allowed.to_owned())
    }
}

fn x264_preset(text: &str) -> Result<(), String> {
    let presets =
        ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"];
    if presets.contains(&text) { Ok(()) } else { Err(format!("one of {}", presets.join(", "))) }
}

fn svtav1_preset(text: &str) -> Result<(), String> {
    if text.parse().is_ok_and(|preset: u32| preset <= 13) {
        Ok(())
    } else {
        Err("a whole number from 0 to 13".to_owned())
    }
}

/// A JWT's and a timer's times stay far from overflow.
fn duration_s(text: &str) -> Result<(), String> {
    let seconds = text.replace('_', "").parse::<u64>();
    let allowed = "a whole number of seconds from 1 to 315360000 (ten years)";
    if seconds.is_ok_and(|s| (1..=315_360_000).contains(&s)) { Ok(()) } else { Err(allowed.to_owned()) }
}

/// Nobody can take back a link before its time.
fn link_s(text: &str) -> Result<(), String> {
    let seconds = text.replace('_', "").parse::<u64>();
    let allowed = "a whole number of seconds from 60 to 604800 (a week)";
    if seconds.is_ok_and(|s| (60..=604_800).contains(&s)) { Ok(()) } else { Err(allowed.to_owned()) }
}

/// Slower, a block would come after the lease of its upload.
fn pace(text: &str) -> Result<(), String> {
    let number = text.replace('_', "").parse::<u64>();
    let allowed = "0, or a number of at least 65536";
    if number.is_ok_and(|n| n == 0 || n >= 65_536) { Ok(()) } else { Err(allowed.to_owned()) }
}

/// Longer than whoever writes stays silent, and than uploads with all their bytes wait to be finished.
fn five_minutes_or_more(text: &str) -> Result<(), String> {
    let seconds = text.replace('_', "").parse::<u64>();
    let allowed = "a whole number of seconds from 300 to 315360000 (ten years)";
    if seconds.is_ok_and(|s| (300..=315_360_000).contains(&s)) { Ok(()) } else { Err(allowed.to_owned()) }
}

/// Every setting there is, in the order of the sample.
pub static TABLE: &[Setting] = &[
    setting!(
        "listen",
        listen,
        None,
        "Public address. Port 0 picks a free one and prints it. Default: 127.0.0.1:8000 for sluice and api, :9000 for streamserver, :9001 for scheduler."
    ),
    setting!(
        "ops_listen",
        ops_listen,
        None,
        "Address of /livez, /readyz and /metrics; keep it private. Default: 127.0.0.1:8010 for sluice and api, :9010 for streamserver, :9011 for scheduler."
    ),
    setting!("public_url", public_url, None,
        "What links in answers start with, e.g. https://video.example. Default: the address we listen on.", check Url::check),
    setting!("stream_url", stream_url, None,
        "What links to the streamserver start with. Default: public_url; for a separate api without one, port 9000 of its host.", check Url::check),
    setting!(
        "data_dir",
        data_dir,
        Some("./data"),
        "Folder of the database, objects, keys and scratch files of the embedded defaults."
    ),
    setting!(
        "database_url",
        database_url,
        None,
        "sqlite://<path>, or postgres://user:password@host/database. Default: a SQLite file in data_dir. In the environment its name is DATABASE_URL."; secret),
    setting!(
        "database_read_url",
        database_read_url,
        None,
        "A replica of PostgreSQL for reads that may lag. Default: database_url. In the environment its name is DATABASE_READ_URL."; secret),
    setting!(
        "store",
        store,
        Some("disk"),
        "Where objects are: `disk` (in data_dir), `disk:/path`, or `s3://bucket/prefix`, for which credentials, region and endpoint come from the usual AWS_* variables."
    ),
    setting!(
        "store_from",
        store_from,
        None,
        "Where objects were, while `sluice move` brings them to `store`: what is not there yet is read from here."
    ),
    setting!(
        "redis_url",
        redis_url,
        None,
        "Redis, or what speaks its protocol: limits and ended sessions are then shared between processes. Default: each process counts for itself. In the environment its name is REDIS_URL."; secret),
    setting!(
        "admin_username",
        admin_username,
        None,
        "Name of the admin that admin_password makes. Default: admin."
    ),
    setting!("admin_password", admin_password, None, "With it an admin is created or updated at every start; without it the first start prints a one-time link. 8 to 128 characters."; secret),
    setting!(
        "signing_key",
        signing_key,
        None,
        "Ed25519 private key (PKCS#8 PEM) that signs tokens; only api needs it. Default: made in data_dir/keys at the first start."; secret),
    setting!(
        "verifying_key",
        verifying_key,
        None,
        "Ed25519 public key (PEM) for streamserver and scheduler. Default: read from data_dir/keys, where api wrote it."; secret),
    setting!("link_keys", link_keys, None,
        "Keys of the links that open a private video for a while, for api and streamserver: <id>:<secret>, several separated by commas. The first signs, each of them verifies: a new key comes second everywhere before it comes first, and an old one goes when its links have expired. Secrets have at least 32 characters (`openssl rand -hex 32`). Default: made in data_dir/keys by api at the first start.", check LinkKeys::check; secret),
    setting!(
        "cache_tag_header",
        cache_tag_header,
        None,
        "Header that tells a CDN which video an answer is of, as the tag `video-<id>`, so that it can purge all of one: cache-tag (Cloudflare), surrogate-key (Fastly), edge-cache-tag (Akamai) or cache-groups. Default: none."
    ),
    setting!(
        "job_kinds",
        job_kinds,
        Some("all"),
        "Which jobs this scheduler runs: `all`, or a list of ingest, encode, assemble, cover, purge."
    ),
    setting!(
        "trusted_proxies",
        trusted_proxies,
        None,
        "Addresses and networks of proxies whose X-Forwarded-For is believed, separated by commas. Default: none."
    ),
    setting!(
        "log_format",
        log_format,
        Some("auto"),
        "`text`, `json`, or `auto`: text on a terminal, JSON otherwise. What is logged is chosen by RUST_LOG."
    ),
    setting!(
        "transcoder",
        transcoder,
        None,
        "Program started for media work. Default: this program itself, or `transcoder` beside it."
    ),
    setting!(
        "unsafe_no_sandbox",
        unsafe_no_sandbox,
        Some("false"),
        "Work also where the kernel cannot lock the transcoder in (Landlock, seccomp, another user than root); without, nothing starts there. Hostile files may then reach what this program can reach. What the kernel has is still used."
    ),
    setting!("media_dir", media_dir, None, "For tests: a folder of real files with a MANIFEST.tsv."),
    setting!("session_s", session_s, Some("2592000"), "A login lasts this long, in seconds.", check duration_s),
    setting!("upload_token_s", upload_token_s, Some("86400"),
        "An upload may begin this long after its video was created, in seconds; then the video expires.", check duration_s),
    setting!("setup_token_s", setup_token_s, Some("1800"), "The first start's one-time link lasts this long, in seconds.", check duration_s),
    setting!("link_s", link_s, Some("14400"),
        "A link that opens a private video lasts this long, in seconds, from 60 to 604800 (a week); longer than its film, or players break off.", check link_s),
    setting!("limits.upload_bytes_max", limits.upload_bytes_max, Some("10737418240"), "Largest upload, in bytes.", check positive),
    setting!("limits.json_bytes_max", limits.json_bytes_max, Some("65536"), "Largest JSON body, in bytes.", check positive),
    setting!("limits.uri_bytes_max", limits.uri_bytes_max, Some("8192"), "Longest request target, in bytes.", check positive),
    setting!("limits.header_bytes_max", limits.header_bytes_max, Some("16384"), "Largest request head, in bytes.", check positive),
    setting!("limits.header_read_s_max", limits.header_read_s_max, Some("10"),
        "A request head must be complete this soon after its first byte, in seconds.", check duration_s),
    setting!("limits.first_byte_s_max", limits.first_byte_s_max, Some("10"),
        "A new connection must send its first byte this soon, in seconds.", check duration_s),
    setting!("limits.idle_s_max", limits.idle_s_max, Some("75"),
        "A connection may wait this long for its next request, in seconds; longer than proxies keep theirs.", check duration_s),
    setting!("limits.connections_max", limits.connections_max, Some("10000"),
        "Open connections at once; one address has half of them at most, a trusted proxy all.", check positive),
    setting!("limits.body_stall_s_max", limits.body_stall_s_max, Some("30"), "A request body may pause this long, in seconds.", check duration_s),
    setting!(
        "limits.body_bytes_per_s_min",
        limits.body_bytes_per_s_min,
        Some("1024"),
        "A request body must keep up this rate on average while we wait for it, in bytes a second. 0: any."
    ),
    setting!("limits.write_stall_s_max", limits.write_stall_s_max, Some("30"),
        "A client must take some of its answer this often, in seconds.", check duration_s),
    setting!(
        "limits.drain_s_max",
        limits.drain_s_max,
        Some("30"),
        "At shutdown, requests in flight get this long to finish, in seconds."
    ),
    setting!("limits.streams_max", limits.streams_max, Some("2000"),
        "Media answers at once; one client address has half of them at most, so name the proxies before us in trusted_proxies.", check positive),
    setting!("limits.block_cache_bytes_max", limits.block_cache_bytes_max, Some("268435456"),
        "What is watched much is kept in memory up to this, in bytes, at most 4 GiB; only of objects on S3.", check four_gib_or_less),
    setting!("limits.uploads_max", limits.uploads_max, Some("200"), "Uploads at once.", check positive),
    setting!(
        "limits.upload_bytes_per_s_max",
        limits.upload_bytes_per_s_max,
        Some("0"),
        "Bytes a second of one upload, at least 65536. 0: any.",
        check pace
    ),
    setting!("limits.upload_expires_s", limits.upload_expires_s, Some("86400"),
        "A resumable upload that nobody goes on with is kept this long, in seconds, at least 300.", check five_minutes_or_more),
    setting!(
        "limits.free_bytes_min",
        limits.free_bytes_min,
        Some("268435456"),
        "No upload begins that would leave less than this on the store's disk, in bytes; uploads that have begun count in full."
    ),
    setting!(
        "limits.user_bytes_max",
        limits.user_bytes_max,
        Some("0"),
        "Bytes of all files of one user, as they were uploaded. 0: any. This and the next two can be set for each user."
    ),
    setting!("limits.user_videos_max", limits.user_videos_max, Some("0"), "Videos of one user. 0: any."),
    setting!(
        "limits.user_uploads_max",
        limits.user_uploads_max,
        Some("100"),
        "Videos of one user that are being uploaded, broken off ones included. 0: any."
    ),
    setting!("limits.event_streams_max", limits.event_streams_max, Some("500"), "Open progress streams (server-sent events) at once; one client address has half of them at most.", check positive),
    setting!(
        "limits.requests_per_s_per_client",
        limits.requests_per_s_per_client,
        Some("50"),
        "Requests a second of one client address in the long run; watching does not count. 0: any."
    ),
    setting!("limits.requests_burst_per_client", limits.requests_burst_per_client, Some("200"),
        "Requests of one client address at once.", check positive),
    setting!(
        "limits.requests_per_s_per_user",
        limits.requests_per_s_per_user,
        Some("50"),
        "Requests a second of one user in the long run; watching does not count. 0: any."
    ),
    setting!("limits.requests_burst_per_user", limits.requests_burst_per_user, Some("200"), "Requests of one user at once.", check positive),
    setting!(
        "limits.logins_per_minute_per_client",
        limits.logins_per_minute_per_client,
        Some("30"),
        "Logins a minute of one client address, failed ones included. 0: any."
    ),
    setting!(
        "limits.registrations_per_hour_per_client",
        limits.registrations_per_hour_per_client,
        Some("100"),
        "New accounts an hour of one client address. 0: any."
    ),
    setting!("views.window_s", views.window_s, Some("1800"),
        "A viewer of a video counts once in this time, in seconds. A viewer is a user, or an address with a browser; kept as a keyed hash, and only for this long.", check duration_s),
    setting!("views.flush_s", views.flush_s, Some("10"),
        "Views and bytes are told to the database this often, in seconds; a crash loses what was not.", check duration_s),
    setting!("jobs.lease_s", jobs.lease_s, Some("20"),
        "A job belongs to its worker this long without a heartbeat, in seconds.", check duration_s),
    setting!("jobs.heartbeat_s", jobs.heartbeat_s, Some("5"), "A worker renews its leases this often, in seconds.", check duration_s),
    setting!("jobs.attempts_max", jobs.attempts_max, Some("5"), "A job is tried this often before it is given up.", check positive),
    setting!("jobs.retry_base_ms", jobs.retry_base_ms, Some("1000"), "Wait before the second attempt at most, in milliseconds; doubled for each further one.", check positive),
    setting!("jobs.retry_max_ms", jobs.retry_max_ms, Some("60000"), "Longest wait between attempts, in milliseconds.", check positive),
    setting!("jobs.encode_slots", jobs.encode_slots, None,
        "Chunks encoded at once. Default: one for every core.", check positive),
    setting!("jobs.ingest_slots", jobs.ingest_slots, Some("2"),
        "Other jobs at once: they are short, and nothing playable waits behind an encode.", check positive),
    setting!("jobs.poll_ms", jobs.poll_ms, Some("200"), "The dispatcher looks for due jobs this often, in milliseconds.", check positive),
    setting!("jobs.task_s_max", jobs.task_s_max, Some("14400"), "One run of the transcoder may take this long at most, in seconds; its processor time is bounded by the length of the film.", check duration_s),
    setting!("jobs.task_memory_bytes_max", jobs.task_memory_bytes_max, Some("4294967296"),
        "Address space of one run of the transcoder at most, in bytes; a run gets what its pictures need.", check positive),
    setting!("jobs.sweep_s", jobs.sweep_s, Some("30"), "Abandoned uploads and lost attempts are looked for this often, in seconds.", check duration_s),
    setting!("database.connections_max", database.connections_max, Some("16"),
        "PostgreSQL: connections of a process that write, and as many again that read.", check positive),
    setting!("database.statement_s_max", database.statement_s_max, Some("30"),
        "PostgreSQL: a statement that takes longer is given up, in seconds.", check duration_s),
    setting!("database.idle_in_transaction_s_max", database.idle_in_transaction_s_max, Some("30"),
        "PostgreSQL: a transaction that says nothing for longer is given up, in seconds.", check duration_s),
    setting!(
        "database.migrate",
        database.migrate,
        Some("true"),
        "Whether a start brings the schema up to date; with false, `sluice migrate` has to."
    ),
    setting!(
        "s3.force_path_style",
        s3.force_path_style,
        None,
        "Whether the bucket stands in the path of a URL and not in its host. Default: yes where AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL is set. In the environment its name is S3_FORCE_PATH_STYLE."
    ),
    setting!("s3.part_bytes", s3.part_bytes, Some("8388608"),
        "Length of a part of an upload to S3, in bytes, from 5 MiB to 5 GiB; with 10,000 parts at most it bounds the largest object. In the environment its name is S3_PART_BYTES.", check part_bytes),
    setting!("s3.parts_in_flight_max", s3.parts_in_flight_max, Some("16"),
        "Parts that a process sends to S3 at once. In the environment its name is S3_PARTS_IN_FLIGHT_MAX.", check positive),
    setting!("media.duration_s_max", media.duration_s_max, Some("7200"), "Longest film, in seconds.", check above_zero),
    setting!("media.pixels_max", media.pixels_max, Some("35389440"), "Largest picture, in pixels (8K is 33,177,600).", check positive),
    setting!("media.streams_max", media.streams_max, Some("16"), "Most streams in one file.", check positive),
    setting!("encode.crf", encode.crf, Some("23"), "Constant rate factor of x264, 0 to 51; smaller is better and larger.", check crf),
    setting!(
        "encode.rungs",
        encode.rungs,
        None,
        "Rungs below `original`, best first, as name:shorter side in pixels[:crf[:cap in bit/s]], e.g. [\"high:1080:22:5000000\", \"medium:720\", \"low:360\"]; each for sources at least as large. Names: highest, high, medium, low, lowest. Default: 720 and 360 for sources from 1080 on, 480 and 360 from 720 on, 360 and 240 from 480 on, 240 from 360 on."
    ),
    setting!(
        "encode.codecs",
        encode.codecs,
        None,
        "Codecs in which every rung is made besides H.264: hevc, av1. Players choose; the progressive file stays H.264. They take several times as long to encode."
    ),
    setting!("encode.x264_preset", encode.x264_preset, Some("veryfast"), "Speed of x264 against size.", check x264_preset),
    setting!("encode.x265_preset", encode.x265_preset, Some("veryfast"), "Speed of x265 against size, for hevc.", check x264_preset),
    setting!("encode.svtav1_preset", encode.svtav1_preset, Some("10"), "Speed of SVT-AV1 against size, for av1: 0 is smallest, 13 quickest.", check svtav1_preset),
    setting!("encode.gop_s_max", encode.gop_s_max, Some("2"), "Longest distance of keyframes, in seconds.", check above_zero),
    setting!("encode.chunk_s", encode.chunk_s, Some("10"),
        "Films are encoded in chunks of about this length, in seconds, side by side.", check above_zero),
    setting!(
        "encode.content_aware",
        encode.content_aware,
        Some("false"),
        "Choose the factor of the rungs by a look at the film, so that they have encode.quality; a rung that names its own keeps it, the cap always holds. Films below 20 s are encoded at encode.crf, and of those that browsers cannot play the rung that is watched first. It costs about a twelfth of the encode of a minute, less of a longer film; what it brings stands in bench/results/rates.md."
    ),
    setting!("encode.quality", encode.quality, Some("85"),
        "VMAF that content_aware aims at, 60 to 98: all but the worst twentieth of the pictures should have it, at the size of the rung.", check quality),
];

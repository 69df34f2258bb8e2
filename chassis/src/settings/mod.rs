//! Settings: one file and the environment, which wins; everything checked before anything starts.

mod error;
mod load;
mod sample;
mod table;
mod value;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use domain::{DatabasePlace, JobKind, Quota, RungSettings, S3Place, StorePlace, VideoCodec};

use crate::{Failure, Network};

pub use error::SettingsError;
pub use table::{Setting, TABLE};

/// Which program these settings are for; it decides the default addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceName {
    AllInOne,
    Api,
    Streamserver,
    Scheduler,
}

impl ServiceName {
    pub fn as_str(self) -> &'static str {
        match self {
            ServiceName::AllInOne => "sluice",
            ServiceName::Api => "api",
            ServiceName::Streamserver => "streamserver",
            ServiceName::Scheduler => "scheduler",
        }
    }

    fn port(self) -> u16 {
        match self {
            ServiceName::AllInOne | ServiceName::Api => 8000,
            ServiceName::Streamserver => 9000,
            ServiceName::Scheduler => 9001,
        }
    }

    fn ops_port(self) -> u16 {
        match self {
            ServiceName::AllInOne | ServiceName::Api => 8010,
            ServiceName::Streamserver => 9010,
            ServiceName::Scheduler => 9011,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    Text,
    Json,
}

/// The header that a CDN reads tags from, to purge what has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheTagHeader {
    /// Cloudflare.
    CacheTag,
    /// Akamai.
    EdgeCacheTag,
    /// Fastly.
    SurrogateKey,
    /// Of draft-ietf-httpbis-cache-groups.
    CacheGroups,
}

impl CacheTagHeader {
    pub const ALL: &[CacheTagHeader] = &[
        CacheTagHeader::CacheTag,
        CacheTagHeader::EdgeCacheTag,
        CacheTagHeader::SurrogateKey,
        CacheTagHeader::CacheGroups,
    ];

    pub fn name(self) -> &'static str {
        match self {
            CacheTagHeader::CacheTag => "cache-tag",
            CacheTagHeader::EdgeCacheTag => "edge-cache-tag",
            CacheTagHeader::SurrogateKey => "surrogate-key",
            CacheTagHeader::CacheGroups => "cache-groups",
        }
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(PathBuf),
    /// The name of the variable.
    Env(String),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "file {}", path.display()),
            Origin::Env(name) => write!(f, "env {name}"),
        }
    }
}

/// Every setting of every service. What each means stands in [`TABLE`].
#[derive(Clone)]
pub struct Settings {
    pub service: ServiceName,
    pub listen: SocketAddr,
    pub ops_listen: SocketAddr,
    pub public_url: Option<String>,
    pub stream_url: Option<String>,
    pub data_dir: PathBuf,
    pub database_url: Option<String>,
    pub database_read_url: Option<String>,
    pub store: StoreAddress,
    pub store_from: Option<StoreAddress>,
    pub redis_url: Option<String>,
    pub admin_username: Option<String>,
    pub admin_password: Option<String>,
    pub signing_key: Option<String>,
    pub verifying_key: Option<String>,
    pub link_keys: Option<String>,
    pub cache_tag_header: Option<CacheTagHeader>,
    pub job_kinds: Vec<JobKind>,
    pub trusted_proxies: Vec<Network>,
    pub log_format: LogFormat,
    /// The program that is started for media work; `None`: this program itself, or `transcoder` beside it.
    pub transcoder: Option<PathBuf>,
    pub unsafe_no_sandbox: bool,
    pub media_dir: Option<PathBuf>,
    pub session_s: u64,
    pub upload_token_s: u64,
    pub setup_token_s: u64,
    pub link_s: u64,
    pub limits: Limits,
    pub views: Views,
    pub media: Media,
    pub encode: Encode,
    pub jobs: Jobs,
    pub database: Database,
    pub s3: S3,
    origins: BTreeMap<&'static str, Origin>,
}

/// Bounds of what clients may ask of a process.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    pub upload_bytes_max: u64,
    pub json_bytes_max: u64,
    pub uri_bytes_max: usize,
    pub header_bytes_max: usize,
    pub header_read_s_max: u64,
    pub first_byte_s_max: u64,
    pub idle_s_max: u64,
    pub connections_max: usize,
    pub body_stall_s_max: u64,
    pub body_bytes_per_s_min: u64,
    pub write_stall_s_max: u64,
    pub drain_s_max: u64,
    pub streams_max: usize,
    pub block_cache_bytes_max: u64,
    pub uploads_max: usize,
    pub upload_bytes_per_s_max: u64,
    pub upload_expires_s: u64,
    pub free_bytes_min: u64,
    pub user_bytes_max: u64,
    pub user_videos_max: u64,
    pub user_uploads_max: u64,
    pub event_streams_max: usize,
    pub requests_per_s_per_client: u32,
    pub requests_burst_per_client: u32,
    pub requests_per_s_per_user: u32,
    pub requests_burst_per_user: u32,
    pub logins_per_minute_per_client: u32,
    pub registrations_per_hour_per_client: u32,
}

impl Limits {
    /// Of users that have no bounds of their own.
    pub fn quota(&self) -> Quota {
        let bound = |max: u64| (max > 0).then_some(max);
        Quota {
            bytes_max: bound(self.user_bytes_max),
            videos_max: bound(self.user_videos_max),
            uploads_max: bound(self.user_uploads_max),
        }
    }
}

/// How views are counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Views {
    pub window_s: u64,
    pub flush_s: u64,
}

/// What a source file may be.
#[derive(Debug, Clone, Default)]
pub struct Media {
    pub duration_s_max: f64,
    pub pixels_max: u64,
    pub streams_max: u32,
}

/// How rungs are encoded.
#[derive(Debug, Clone, Default)]
pub struct Encode {
    pub crf: f64,
    /// Empty: the built-in ones.
    pub rungs: RungSettings,
    /// Besides H.264.
    pub codecs: Vec<VideoCodec>,
    pub x264_preset: String,
    pub x265_preset: String,
    pub svtav1_preset: u32,
    pub gop_s_max: f64,
    pub chunk_s: f64,
    pub content_aware: bool,
    /// VMAF.
    pub quality: f64,
}

/// How the scheduler works.
#[derive(Debug, Clone, Default)]
pub struct Jobs {
    pub lease_s: u64,
    pub heartbeat_s: u64,
    pub attempts_max: u32,
    pub retry_base_ms: u64,
    pub retry_max_ms: u64,
    /// `None`: one for every two cores, at least one.
    pub encode_slots: Option<u32>,
    pub ingest_slots: u32,
    pub poll_ms: u64,
    pub task_s_max: u64,
    pub task_memory_bytes_max: u64,
    pub sweep_s: u64,
}

/// Bounds that only PostgreSQL knows.
#[derive(Debug, Clone, Default)]
pub struct Database {
    pub connections_max: u32,
    pub statement_s_max: u64,
    pub idle_in_transaction_s_max: u64,
    pub migrate: bool,
}

/// How objects get to S3; where it is stands in `store` and in the `AWS_*` variables.
#[derive(Debug, Clone, Default)]
pub struct S3 {
    /// `None`: yes where an endpoint is set.
    pub force_path_style: Option<bool>,
    pub part_bytes: u64,
    pub parts_in_flight_max: usize,
}

/// Where objects are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreAddress {
    /// `None`: in the data directory.
    Disk(Option<PathBuf>),
    /// The prefix is empty, or has no slash at either end.
    S3 { bucket: String, prefix: String },
}

impl std::fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreAddress::Disk(None) => f.write_str("disk"),
            StoreAddress::Disk(Some(folder)) => write!(f, "disk:{}", folder.display()),
            StoreAddress::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            StoreAddress::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

/// What URLs in answers start with; no slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Urls {
    pub public: String,
    pub stream: String,
}

impl Settings {
    /// Before any value is set: zero and nothing, which [`TABLE`]'s defaults then fill.
    fn blank(service: ServiceName) -> Settings {
        let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        Settings {
            service,
            listen: local(service.port()),
            ops_listen: local(service.ops_port()),
            public_url: None,
            stream_url: None,
            data_dir: PathBuf::new(),
            database_url: None,
            database_read_url: None,
            store: StoreAddress::Disk(None),
            store_from: None,
            redis_url: None,
            database: Database::default(),
            s3: S3::default(),
            admin_username: None,
            admin_password: None,
            signing_key: None,
            verifying_key: None,
            link_keys: None,
            cache_tag_header: None,
            job_kinds: JobKind::ALL.to_vec(),
            trusted_proxies: Vec::new(),
            log_format: LogFormat::Auto,
            transcoder: None,
            unsafe_no_sandbox: false,
            media_dir: None,
            session_s: 0,
            upload_token_s: 0,
            setup_token_s: 0,
            link_s: 0,
            limits: Limits::default(),
            views: Views::default(),
            media: Media::default(),
            encode: Encode::default(),
            jobs: Jobs::default(),
            origins: BTreeMap::new(),
        }
    }

    /// Everything at its default, for tests.
    pub fn defaults(service: ServiceName) -> Settings {
        Settings::load(service, None, []).expect("a test loads the defaults")
    }

    /// The URLs that answers are made of, once it is known where we listen.
    pub fn urls(&self, bound: SocketAddr) -> Urls {
        let bound_url = format!("http://{}", reachable(bound));
        let trimmed = |url: &Option<String>| url.as_ref().map(|url| url.trim_end_matches('/').to_owned());
        let public = trimmed(&self.public_url);
        let stream = trimmed(&self.stream_url);
        match self.service {
            ServiceName::Streamserver => {
                let stream = stream.or_else(|| public.clone()).unwrap_or(bound_url);
                Urls { public: public.unwrap_or_else(|| stream.clone()), stream }
            }
            ServiceName::AllInOne | ServiceName::Scheduler => {
                let public = public.unwrap_or(bound_url);
                Urls { stream: stream.unwrap_or_else(|| public.clone()), public }
            }
            ServiceName::Api => {
                // Behind one address a proxy shares it out by path; without one the streamserver has its own port.
                let neighbour = SocketAddr::new(bound.ip(), ServiceName::Streamserver.port());
                let stream = stream.or_else(|| public.clone());
                let stream = stream.unwrap_or_else(|| format!("http://{}", reachable(neighbour)));
                Urls { public: public.unwrap_or(bound_url), stream }
            }
        }
    }

    /// Where rows are.
    pub fn database_place(&self) -> DatabasePlace {
        let embedded = DatabasePlace::sqlite(&self.data_dir.join("sluice.db"));
        let Database { connections_max, statement_s_max, idle_in_transaction_s_max, migrate } = self.database;
        DatabasePlace {
            url: self.database_url.clone().unwrap_or(embedded.url),
            read_url: self.database_read_url.clone(),
            origin: self.origin("database_url").to_string(),
            connections_max,
            statement_s_max,
            idle_in_transaction_s_max,
            migrate,
        }
    }

    /// Where objects are.
    pub fn store_place(&self) -> StorePlace {
        let to = self.store_place_at(&self.store);
        match &self.store_from {
            Some(from) => StorePlace::Moving { to: Box::new(to), from: Box::new(self.store_place_at(from)) },
            None => to,
        }
    }

    /// Where objects would be at another address.
    pub fn store_place_at(&self, address: &StoreAddress) -> StorePlace {
        match address {
            StoreAddress::Disk(folder) => {
                let folder = folder.clone().unwrap_or_else(|| self.data_dir.join("objects"));
                StorePlace::Disk { folder }
            }
            StoreAddress::S3 { bucket, prefix } => StorePlace::S3(S3Place {
                bucket: bucket.clone(),
                prefix: prefix.clone(),
                spool_dir: self.data_dir.join("spool"),
                force_path_style: self.s3.force_path_style,
                part_bytes: self.s3.part_bytes,
                parts_in_flight_max: self.s3.parts_in_flight_max,
            }),
        }
    }

    /// A data directory that we cannot write to is told at the start, once, and not by whoever trips over it first.
    pub fn make_data_dir(&self) -> Result<(), Failure> {
        let refused = |error: std::io::Error| {
            let uid = rustix::process::getuid().as_raw();
            let folder = self.data_dir.display();
            Failure::cannot_create(format!(
                "Cannot write {folder} (we are uid {uid}): {error}. Run chown {uid} {folder}, or set SLUICE_DATA_DIR."
            ))
        };
        std::fs::create_dir_all(&self.data_dir).map_err(refused)?;
        rustix::fs::access(&self.data_dir, rustix::fs::Access::WRITE_OK)
            .map_err(|error| refused(error.into()))
    }

    /// The key pair of the embedded default.
    pub fn keys_dir(&self) -> PathBuf {
        self.data_dir.join("keys")
    }

    /// Files that media work needs while it runs; nothing in it survives a start.
    pub fn scratch_dir(&self) -> PathBuf {
        self.data_dir.join("scratch")
    }

    /// Where the value of `key` came from.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// Key, value as text (secrets hidden) and origin of every setting, in the order of [`TABLE`].
    pub fn table(&self) -> Vec<(&'static str, String, Origin)> {
        let row = |setting: &'static Setting| {
            let value = (setting.get)(self);
            let value = if setting.secret && !value.is_empty() { "(hidden)".to_owned() } else { value };
            (setting.key, value, self.origin(setting.key))
        };
        TABLE.iter().map(row).collect()
    }

    /// A documented sample in TOML: every setting with its default, commented out.
    pub fn sample() -> String {
        sample::write()
    }
}

/// An address that a browser on the same machine can open.
fn reachable(bound: SocketAddr) -> String {
    if bound.ip().is_unspecified() { format!("localhost:{}", bound.port()) } else { bound.to_string() }
}

#[cfg(test)]
mod tests;

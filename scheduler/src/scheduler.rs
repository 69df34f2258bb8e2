//! What the service is made of.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chassis::settings::{Encode, Jobs, Media};
use chassis::{Clock, Ids, Settings};
use domain::task::{EncodeSettings, EncodeSettingsPlanned, MediaLimits};
use domain::{JobKind, LadderSettings, Timestamp};
use sql::Catalog;
use store::Store;

use crate::Transcoder;

/// What a job needs may be disturbed or full for so long; a day is time for whoever has to make room.
const POSTPONED_MS_MAX: i64 = 24 * 3_600_000;

/// What the service is given, once.
#[derive(Clone)]
pub struct Deps {
    pub catalog: Catalog,
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    pub ids: Ids,
    pub transcoder: Transcoder,
}

/// The part of the settings that this service goes by.
#[derive(Debug, Clone)]
pub struct Config {
    pub kinds: Vec<JobKind>,
    pub jobs: Jobs,
    pub media: Media,
    pub encode: Encode,
    pub upload_token_s: u64,
    pub drain_s_max: u64,
    /// A job that was disturbed for longer is dead.
    pub postponed_ms_max: i64,
    /// Where runs keep their files; a folder of its own for each process.
    pub scratch_dir: PathBuf,
}

/// Cheap to clone; every handler and every executor gets one.
#[derive(Clone)]
pub struct Scheduler {
    pub(crate) catalog: Catalog,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    pub(crate) ids: Ids,
    pub(crate) transcoder: Transcoder,
    pub(crate) config: Arc<Config>,
    /// Names this process in the rows it leases.
    pub(crate) worker: Arc<str>,
}

impl Config {
    pub fn new(settings: &Settings) -> Config {
        Config {
            kinds: settings.job_kinds.clone(),
            jobs: settings.jobs.clone(),
            media: settings.media.clone(),
            encode: settings.encode.clone(),
            upload_token_s: settings.upload_token_s,
            drain_s_max: settings.limits.drain_s_max,
            postponed_ms_max: POSTPONED_MS_MAX,
            scratch_dir: settings.scratch_dir(),
        }
    }

    pub(crate) fn lease_ms(&self) -> i64 {
        seconds_as_ms(self.jobs.lease_s)
    }

    /// Somebody else who has nothing to do has looked twice by then.
    pub(crate) fn left_to_others_ms(&self) -> i64 {
        i64::try_from(self.jobs.poll_ms.saturating_mul(2)).unwrap_or(i64::MAX)
    }

    pub(crate) fn upload_token_ms(&self) -> i64 {
        seconds_as_ms(self.upload_token_s)
    }

    pub(crate) fn heartbeat(&self) -> Duration {
        Duration::from_secs(self.jobs.heartbeat_s)
    }

    pub(crate) fn media_limits(&self) -> MediaLimits {
        MediaLimits {
            duration_s_max: self.media.duration_s_max,
            pixels_max: self.media.pixels_max,
            streams_max: self.media.streams_max,
        }
    }

    pub(crate) fn encode_settings(&self) -> EncodeSettings {
        let encode = &self.encode;
        EncodeSettings {
            ladder: LadderSettings {
                crf: encode.crf,
                rungs: encode.rungs.clone(),
                codecs: encode.codecs.clone(),
            },
            planned: EncodeSettingsPlanned {
                x264_preset: encode.x264_preset.clone(),
                x265_preset: encode.x265_preset.clone(),
                svtav1_preset: encode.svtav1_preset,
                gop_s_max: encode.gop_s_max,
                quality: encode.content_aware.then_some(encode.quality),
            },
            chunk_s: Some(encode.chunk_s),
        }
    }
}

impl Scheduler {
    pub fn new(deps: Deps, config: Config) -> Scheduler {
        let Deps { catalog, store, clock, ids, transcoder } = deps;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let start = u32::from_le_bytes(ids.bytes());
        let worker = format!("{host}-{}-{start:08x}", std::process::id()).into();
        Scheduler { catalog, store, clock, ids, transcoder, config: Arc::new(config), worker }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A new id of any noun.
    pub(crate) fn id<T: From<domain::IdParts>>(&self) -> T {
        self.ids.next(self.now())
    }
}

fn seconds_as_ms(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000)
}

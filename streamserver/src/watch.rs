//! What may be watched, from caches: a short one for the row that decides, long ones for what never changes.
//!
//! **Invariant:** whether a video is there is asked of the database at most [`WATCHABLE_CACHE`] ago; everything
//! else here is immutable under an id.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chassis::{Clock, Problem};
use domain::{ObjectFile, ObjectKey, PublicationId, RenditionIndex, VideoId};
use futures::TryStreamExt;
use http::StatusCode;
use moka::Expiry;
use moka::future::Cache;
use sql::{Catalog, Publication, Watchable};
use store::{Store, StoreError};

use crate::failure::{self, LoadError};
use crate::package::Package;
use crate::sheet::Sheet;
use crate::viewer::Viewer;

/// A deleted video is invisible everywhere within a second; this, and the time of one query, is what it takes.
const WATCHABLE_CACHE: Duration = Duration::from_millis(800);
/// Whoever asks for what is known for this long has it asked for anew, and does not wait: a crowd never stands still because
/// the database is slow for once.
const ASKED_ANEW_AFTER: Duration = Duration::from_millis(300);
/// The edge repeats answers for this long, so that there is time to ask anew.
const REPEATED_FOR: Duration = Duration::from_millis(500);
const WATCHABLE_ENTRIES_MAX: u64 = 100_000;
const PACKAGES_CACHE_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// An index is read whole. That of a two-hour film by reference has some ten megabytes.
const INDEX_BYTES_MAX: u64 = 64 * 1024 * 1024;
const PICTURES_CACHE_BYTES_MAX: u64 = 64 * 1024 * 1024;
const PICTURE_BYTES_MAX: u64 = 4 * 1024 * 1024;
const SHEETS_CACHE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// A request waits this long for what it needs from the store.
const LOAD_WAIT_MAX: Duration = Duration::from_secs(5);

/// What the database said of a video a moment ago.
#[derive(Clone)]
pub struct Known {
    row: Arc<Watchable>,
    asked: Instant,
    /// Somebody has it asked for anew.
    is_being_asked: Arc<AtomicBool>,
}

impl Known {
    /// Until when what rests on it may be said again without asking; `None` of a video that may end before.
    pub fn until(&self) -> Option<Instant> {
        self.row.gone_at.is_none().then(|| self.asked + REPEATED_FOR)
    }

    /// True once, when it is time.
    fn is_to_be_asked_anew(&self) -> bool {
        self.asked.elapsed() > ASKED_ANEW_AFTER && !self.is_being_asked.swap(true, Ordering::Relaxed)
    }
}

/// A row holds from when it was asked for, however late the answer came.
struct FromTheQuestion;

impl FromTheQuestion {
    fn left(known: &Known) -> Duration {
        WATCHABLE_CACHE.saturating_sub(known.asked.elapsed())
    }
}

impl Expiry<VideoId, Known> for FromTheQuestion {
    fn expire_after_create(&self, _: &VideoId, known: &Known, _: Instant) -> Option<Duration> {
        Some(FromTheQuestion::left(known))
    }

    fn expire_after_update(
        &self,
        _: &VideoId,
        known: &Known,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(FromTheQuestion::left(known))
    }
}

impl Deref for Known {
    type Target = Watchable;

    fn deref(&self) -> &Watchable {
        &self.row
    }
}

#[derive(Clone)]
pub struct Watch {
    catalog: Catalog,
    store: Arc<dyn Store>,
    clock: Clock,
    watchable: Cache<VideoId, Known>,
    packages: Cache<PublicationId, Arc<Package>>,
    pictures: Cache<ObjectKey, Bytes>,
    /// By their cues.
    sheets: Cache<ObjectKey, Arc<Sheet>>,
}

impl Watch {
    pub fn new(catalog: Catalog, store: Arc<dyn Store>, clock: Clock) -> Watch {
        let weigh = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        Watch {
            catalog,
            store,
            clock,
            watchable: Cache::builder()
                .max_capacity(WATCHABLE_ENTRIES_MAX)
                .expire_after(FromTheQuestion)
                .build(),
            packages: Cache::builder()
                .max_capacity(PACKAGES_CACHE_BYTES_MAX)
                .weigher(move |_, package: &Arc<Package>| weigh(package.weight_bytes()))
                .build(),
            pictures: Cache::builder()
                .max_capacity(PICTURES_CACHE_BYTES_MAX)
                .weigher(move |_, bytes: &Bytes| weigh(bytes.len()))
                .build(),
            sheets: Cache::builder()
                .max_capacity(SHEETS_CACHE_BYTES_MAX)
                .weigher(move |_, sheet: &Arc<Sheet>| weigh(sheet.weight_bytes()))
                .build(),
        }
    }

    /// The live video, if it can be watched by this viewer; 404 in every other case, but to who had a link that has
    /// expired.
    pub async fn watchable(&self, video: VideoId, viewer: &Viewer) -> Result<Known, Problem> {
        let known =
            self.watchable.try_get_with(video, self.load_watchable(video)).await.map_err(failure::load)?;
        if known.is_to_be_asked_anew() {
            let watch = self.clone();
            tokio::spawn(async move { watch.ask_anew(video).await });
        }
        self.admit(&known, viewer).map(|()| known)
    }

    /// Where nobody answers, what is known holds for as long as it would have.
    async fn ask_anew(&self, video: VideoId) {
        match self.load_watchable(video).await {
            Ok(known) => self.watchable.insert(video, known).await,
            Err(LoadError::NotFound) => self.watchable.invalidate(&video).await,
            Err(_) => {}
        }
    }

    fn admit(&self, watchable: &Watchable, viewer: &Viewer) -> Result<(), Problem> {
        // A scheduled deletion comes due while the row is cached.
        if watchable.gone_at.is_some_and(|gone_at| gone_at <= self.clock.now()) {
            return Err(Problem::not_found());
        }
        viewer.admit(watchable)
    }

    /// What [`Watch::is_gone`] would say, where the cache knows it.
    pub async fn is_known_gone(&self, video: VideoId, viewer: &Viewer) -> Option<bool> {
        self.watchable.get(&video).await.map(|watchable| self.admit(&watchable, viewer).is_err())
    }

    /// Whether the video was deleted, or is no longer this viewer's to see; not where nobody can say.
    pub async fn is_gone(&self, video: VideoId, viewer: &Viewer) -> bool {
        self.watchable(video, viewer).await.is_err_and(|problem| problem.status() == StatusCode::NOT_FOUND)
    }

    /// The publication under that id, which need not be the live one: whoever began to watch may go on.
    pub async fn package(
        &self,
        video: VideoId,
        id: PublicationId,
        viewer: &Viewer,
    ) -> Result<Arc<Package>, Problem> {
        let found = match self.packages.get(&id).await {
            Some(package) => Ok(package),
            None => {
                let watch = self.clone();
                wait(async move { watch.packages.try_get_with(id, watch.load_package(id)).await }).await
            }
        };
        let package = match found {
            Ok(package) => package,
            Err(error) => return Err(self.explain(video, viewer, error).await),
        };
        if package.video == video { Ok(package) } else { Err(Problem::not_found()) }
    }

    /// A small object, whole.
    pub async fn picture(&self, key: ObjectKey, viewer: &Viewer) -> Result<Bytes, Problem> {
        if let Some(picture) = self.pictures.get(&key).await {
            return Ok(picture);
        }
        let (watch, video) = (self.clone(), key.video);
        let load = async move {
            let read = watch.read(&key, PICTURE_BYTES_MAX);
            watch.pictures.try_get_with(key.clone(), read).await
        };
        match wait(load).await {
            Ok(picture) => Ok(picture),
            Err(error) => Err(self.explain(video, viewer, error).await),
        }
    }

    /// What the cues of a storyboard say.
    pub async fn sheet(&self, cues: ObjectKey, viewer: &Viewer) -> Result<Arc<Sheet>, Problem> {
        if let Some(sheet) = self.sheets.get(&cues).await {
            return Ok(sheet);
        }
        let text = self.picture(cues.clone(), viewer).await?;
        let sheet = str::from_utf8(&text).ok().and_then(Sheet::parse).map(Arc::new);
        let corrupt = || failure::load(Arc::new(LoadError::Corrupt(cues.path())));
        let sheet = sheet.ok_or_else(corrupt)?;
        self.sheets.insert(cues, sheet.clone()).await;
        Ok(sheet)
    }

    /// A missing object is 404 if the video was deleted a moment ago, else it is our fault.
    pub async fn explain(&self, video: VideoId, viewer: &Viewer, error: Arc<LoadError>) -> Problem {
        if let LoadError::Store(StoreError::NotFound) = *error {
            self.watchable.invalidate(&video).await;
            if let Err(problem) = self.watchable(video, viewer).await {
                return problem;
            }
        }
        failure::load(error)
    }

    /// Absence is not cached: a video that becomes watchable is there at once.
    async fn load_watchable(&self, video: VideoId) -> Result<Known, LoadError> {
        let asked = Instant::now();
        let found = self.catalog.watchable(video, self.clock.now()).await?;
        let row = found.map(Arc::new).ok_or(LoadError::NotFound)?;
        Ok(Known { row, asked, is_being_asked: Arc::default() })
    }

    async fn load_package(&self, id: PublicationId) -> Result<Arc<Package>, LoadError> {
        let publication = self.catalog.publication(id).await?.ok_or(LoadError::NotFound)?;
        let mut indexes = Vec::with_capacity(publication.renditions.len());
        for rendition in &publication.renditions {
            let file = ObjectFile::Index(rendition.name);
            let key = ObjectKey { video: publication.video, attempt: rendition.attempt, file };
            indexes.push(self.read(&key, INDEX_BYTES_MAX).await?);
        }
        unpack(publication, indexes).await.map(Arc::new)
    }

    async fn read(&self, key: &ObjectKey, bytes_max: u64) -> Result<Bytes, LoadError> {
        let bytes = self.store.head(key).await?.ok_or(StoreError::NotFound)?.bytes;
        if bytes > bytes_max {
            return Err(LoadError::Corrupt(format!("{} has {bytes} bytes", key.path())));
        }
        let blocks: Vec<Bytes> = self.store.read(key, 0..bytes).await?.try_collect().await?;
        Ok(blocks.concat().into())
    }
}

/// What takes longer goes on loading, for those who come later.
async fn wait<T: Send + 'static>(
    load: impl Future<Output = Result<T, Arc<LoadError>>> + Send + 'static,
) -> Result<T, Arc<LoadError>> {
    match tokio::time::timeout(LOAD_WAIT_MAX, tokio::spawn(load)).await {
        Ok(Ok(loaded)) => loaded,
        Ok(Err(panic)) => Err(Arc::new(LoadError::Corrupt(panic.to_string()))),
        Err(_) => Err(Arc::new(LoadError::Slow)),
    }
}

/// Megabytes of JSON are parsed where they hold up nobody.
async fn unpack(publication: Publication, indexes: Vec<Bytes>) -> Result<Package, LoadError> {
    let unpack = move || {
        let parse = |json: Bytes| serde_json::from_slice::<RenditionIndex>(&json);
        let indexes: Result<Vec<_>, _> = indexes.into_iter().map(parse).collect();
        let indexes = indexes.map_err(|error| error.to_string())?;
        Package::new(publication, indexes)
    };
    let unpacked = tokio::task::spawn_blocking(unpack).await;
    unpacked.map_err(|panic| LoadError::Corrupt(panic.to_string()))?.map_err(LoadError::Corrupt)
}

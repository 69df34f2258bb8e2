//! What is watched: views, bytes, and what players tell of it. Every answer leaves a note when it ends and goes on; a task
//! gathers them and tells the database now and then.
//!
//! **Invariant:** no request waits for any of this. Notes that find no place are lost, and counted as that.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chassis::Clock;
use chassis::settings::Views;
use domain::{Timestamp, VideoId, ViewerHash};
use sql::{Catalog, SqlError, Watched};
use tokio::sync::{Mutex, mpsc};

use crate::cmcd::{Said, Sessions};

/// Of answers that ended since they were gathered last.
const NOTES_MAX: usize = 65_536;
const GATHER_EVERY: Duration = Duration::from_millis(250);
/// What waits to be told, while the database is away or slow.
const VIDEOS_MAX: usize = 20_000;
const VIEWERS_MAX: usize = 20_000;
/// Viewers of whom the database need not hear again in their window.
const COUNTED_MAX: usize = 100_000;
/// Told in one transaction.
const VIDEOS_AT_ONCE: usize = 200;
/// Rows that are forgotten after each telling.
const FORGOTTEN_AT_ONCE: u32 = 10_000;

/// Of an answer that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Note {
    pub video: VideoId,
    pub came_at: Timestamp,
    pub served_bytes: u64,
    /// Whoever has now watched it.
    pub viewer: Option<ViewerHash>,
    pub said: Option<Said>,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Statistics {
    notes: mpsc::Sender<Note>,
    /// Taken by the task alone, and by tests.
    gathered: Arc<Mutex<Gathered>>,
    views: Views,
}

struct Gathered {
    notes: mpsc::Receiver<Note>,
    watched: BTreeMap<VideoId, Watched>,
    viewers: usize,
    counted: HashMap<(VideoId, ViewerHash), Timestamp>,
    sessions: Sessions,
}

impl Statistics {
    pub fn new(views: Views) -> Statistics {
        let (sender, notes) = mpsc::channel(NOTES_MAX);
        let gathered = Gathered {
            notes,
            watched: BTreeMap::new(),
            viewers: 0,
            counted: HashMap::new(),
            sessions: Sessions::default(),
        };
        Statistics { notes: sender, gathered: Arc::new(Mutex::new(gathered)), views }
    }

    pub fn note(&self, note: Note) {
        if self.notes.try_send(note).is_err() {
            lost(1);
        }
    }

    /// Never ends by itself, and may be dropped at any moment.
    pub async fn work(&self, catalog: &Catalog, clock: &Clock) {
        let flush_ms = i64::try_from(self.views.flush_s.saturating_mul(1000)).unwrap_or(i64::MAX);
        let mut told_at = clock.now();
        loop {
            tokio::time::sleep(GATHER_EVERY).await;
            let now = clock.now();
            self.gathered.lock().await.gather(self.window_ms(), now);
            if now.ms_since(told_at) >= flush_ms {
                told_at = now;
                self.flush(catalog, now).await;
                self.forget(catalog, now).await;
            }
        }
    }

    /// Tells the database what was gathered. What it does not take is told the next time.
    pub async fn flush(&self, catalog: &Catalog, now: Timestamp) {
        let mut gathered = self.gathered.lock().await;
        gathered.gather(self.window_ms(), now);
        if let Err(error) = gathered.tell(catalog, self.window_ms(), now).await {
            tracing::warn!(%error, "views cannot be told to the database; they are kept for the next time");
        }
        gathered.forget_old(self.window_ms(), now);
    }

    /// Who may be counted again is nobody's business any more.
    async fn forget(&self, catalog: &Catalog, now: Timestamp) {
        let counted_before = now.plus_ms(-self.window_ms());
        if let Err(error) = catalog.forget_views(counted_before, FORGOTTEN_AT_ONCE).await {
            tracing::debug!(%error, "viewers of long ago cannot be forgotten yet");
        }
    }

    fn window_ms(&self) -> i64 {
        i64::try_from(self.views.window_s.saturating_mul(1000)).unwrap_or(i64::MAX)
    }
}

impl Gathered {
    fn gather(&mut self, window_ms: i64, now: Timestamp) {
        // As many as there were at most: more may come while these are read.
        for _ in 0..NOTES_MAX {
            let Ok(note) = self.notes.try_recv() else { return };
            self.take(note, window_ms, now);
        }
    }

    fn take(&mut self, note: Note, window_ms: i64, now: Timestamp) {
        if let Some(said) = &note.said {
            self.hear(said, note.came_at);
        }
        metrics::counter!("streamserver_served_bytes_total").increment(note.served_bytes);
        if !self.watched.contains_key(&note.video) && self.watched.len() >= VIDEOS_MAX {
            return lost(1);
        }
        let watched = self.watched.entry(note.video).or_default();
        watched.served_bytes = watched.served_bytes.saturating_add(note.served_bytes);
        let Some(viewer) = note.viewer else { return };
        let counted = self.counted.get(&(note.video, viewer));
        if counted.is_some_and(|at| now.ms_since(*at) < window_ms) {
            return;
        }
        if self.viewers >= VIEWERS_MAX {
            return lost(1);
        }
        self.viewers += usize::from(watched.viewers.insert(viewer));
    }

    fn hear(&mut self, said: &Said, at: Timestamp) {
        metrics::counter!("streamserver_cmcd_requests_total").increment(1);
        if said.starved {
            metrics::counter!("streamserver_cmcd_starved_requests_total").increment(1);
        }
        if let Some(took_ms) = self.sessions.hear(said, at) {
            metrics::histogram!("streamserver_cmcd_startup_seconds").record(took_ms as f64 / 1000.0);
        }
    }

    async fn tell(&mut self, catalog: &Catalog, window_ms: i64, now: Timestamp) -> Result<(), SqlError> {
        let counted_before = now.plus_ms(-window_ms);
        while !self.watched.is_empty() {
            let some: BTreeMap<VideoId, Watched> = self
                .watched
                .iter()
                .take(VIDEOS_AT_ONCE)
                .map(|(id, watched)| (*id, watched.clone()))
                .collect();
            let views = catalog.add_watched(&some, counted_before, now).await?;
            metrics::counter!("streamserver_views_total").increment(views);
            for (video, watched) in some {
                self.watched.remove(&video);
                self.viewers -= watched.viewers.len();
                self.remember(video, &watched, now);
            }
        }
        Ok(())
    }

    /// For as long as they count once.
    fn remember(&mut self, video: VideoId, watched: &Watched, now: Timestamp) {
        if self.counted.len() + watched.viewers.len() > COUNTED_MAX {
            // The database knows them still.
            self.counted.clear();
        }
        self.counted.extend(watched.viewers.iter().map(|viewer| ((video, *viewer), now)));
    }

    fn forget_old(&mut self, window_ms: i64, now: Timestamp) {
        self.counted.retain(|_, at| now.ms_since(*at) < window_ms);
        self.sessions.forget_old(now);
    }
}

fn lost(notes: u64) {
    metrics::counter!("streamserver_statistics_lost_total").increment(notes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use chassis::Ids;

    #[test]
    fn notes_that_find_no_place_are_lost_and_nobody_waits() {
        let now = Timestamp::from_unix_ms(1_790_000_000_000);
        let video: VideoId = Ids::seeded(1).next(now);
        let statistics = Statistics::new(Views { window_s: 60, flush_s: 10 });
        let viewer = |n: usize| {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&n.to_be_bytes());
            Some(ViewerHash::of(&digest))
        };
        for n in 0..NOTES_MAX + 10 {
            statistics.note(Note { video, came_at: now, served_bytes: 1, viewer: viewer(n), said: None });
        }
        let mut gathered = statistics.gathered.try_lock().unwrap();
        gathered.gather(60_000, now);
        let watched = &gathered.watched[&video];
        assert_eq!(watched.served_bytes, NOTES_MAX as u64);
        assert_eq!((watched.viewers.len(), gathered.viewers), (VIEWERS_MAX, VIEWERS_MAX), "and no more");
    }
}

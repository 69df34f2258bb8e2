//! Progress as server-sent events. The database is asked again and again: processes meet nowhere else.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use chassis::{Caller, ClientAddress, Clock, FairPermit, Path, Problem};
use domain::{RenditionName, RenditionState, Stage, VideoId, VideoState};
use futures::Stream;
use http::{HeaderName, HeaderValue};
use moka::future::Cache;
use serde::Serialize;
use sql::{Catalog, Progress, SqlError};
use tokio::time::Instant;

use crate::{Api, view};

/// How often a video is looked at while somebody follows it.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const COMMENT_EVERY: Duration = Duration::from_secs(15);
const RECONNECT_AFTER: Duration = Duration::from_secs(3);
/// Then the client connects again, and is asked again who it is.
const STREAM_MAX: Duration = Duration::from_secs(15 * 60);
const VIDEOS_WATCHED_MAX: u64 = 10_000;

/// One look serves all who follow the same video.
#[derive(Clone)]
pub(crate) struct Watcher {
    catalog: Catalog,
    clock: Clock,
    looks: Cache<VideoId, Option<Arc<Progress>>>,
}

impl Watcher {
    pub fn new(catalog: Catalog, clock: Clock) -> Self {
        let looks = Cache::builder().max_capacity(VIDEOS_WATCHED_MAX).time_to_live(LOOK_EVERY / 2).build();
        Watcher { catalog, clock, looks }
    }

    async fn look(&self, video: VideoId) -> Result<Option<Arc<Progress>>, Arc<SqlError>> {
        let ask = async {
            let progress = self.catalog.progress(video, self.clock.now()).await?;
            Ok(progress.map(Arc::new))
        };
        self.looks.try_get_with(video, ask).await
    }
}

/// Follow a video: `state`, `progress` and `rendition` events, each with the whole of what it tells; `progress` comes
/// with `stage`, `eta_s` and the `progress` of each pending rendition, as the video has them. The first events
/// say how things stand. The stream ends at a terminal state; it may also end earlier, then connect again.
#[utoipa::path(get, path = "/api/videos/{vid}/events", tag = "videos", params(("vid" = String, Path)), responses(
    (status = 200, content_type = "text/event-stream", body = String), (status = 400, description = "Not an id"),
    (status = 404, description = "Unknown"), (status = 503, description = "Too many followers; poll the video instead"),
))]
pub(crate) async fn follow(
    State(api): State<Arc<Api>>,
    caller: Caller,
    client: ClientAddress,
    Path(id): Path<VideoId>,
) -> Result<Response, Problem> {
    let video = api.visible_video(id, &caller).await?;
    let permit = api.event_streams.acquire(client.limit_key())?;
    let events = Follower::new(api, video.id, permit).events();
    let keep_alive = KeepAlive::new().interval(COMMENT_EVERY).text("still here");
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    // nginx would hold events back otherwise.
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response.headers_mut().extend([unbuffered]);
    Ok(response)
}

/// Who follows a video, and what they know already.
struct Follower {
    api: Arc<Api>,
    video: VideoId,
    known: Known,
    pending: VecDeque<Event>,
    last_id: i64,
    ended: bool,
    ends_at: Instant,
    _permit: FairPermit<IpAddr>,
}

#[derive(Default)]
struct Known {
    state: Option<VideoState>,
    progress: Option<(f64, Option<Stage>)>,
    renditions: Vec<(RenditionName, RenditionState)>,
}

/// Something to tell.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum News {
    State {
        state: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<view::Failure>,
    },
    Progress {
        progress: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        stage: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        eta_s: Option<f64>,
        /// Those that are being made.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        renditions: Vec<Pending>,
    },
    Rendition {
        name: &'static str,
        state: &'static str,
    },
}

/// A rendition on its way.
#[derive(Debug, PartialEq, Serialize)]
struct Pending {
    name: &'static str,
    progress: f64,
}

impl News {
    fn progress(now: &Progress) -> News {
        let pending = now.renditions.iter().filter(|rendition| rendition.state == RenditionState::Pending);
        News::Progress {
            progress: now.progress,
            stage: now.stage.map(Stage::as_str),
            eta_s: now.eta_s,
            renditions: pending.map(|r| Pending { name: r.name.as_str(), progress: r.progress }).collect(),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            News::State { .. } => "state",
            News::Progress { .. } => "progress",
            News::Rendition { .. } => "rendition",
        }
    }
}

impl Known {
    /// What of `now` is new; then it is known. A state comes last, so that whoever stops there has the rest.
    fn learn(&mut self, now: &Progress) -> Vec<News> {
        let mut news = Vec::new();
        let renditions: Vec<_> = now.renditions.iter().map(|r| (r.name, r.state)).collect();
        for &(name, state) in &renditions {
            if !self.renditions.contains(&(name, state)) {
                news.push(News::Rendition { name: name.as_str(), state: state.as_str() });
            }
        }
        self.renditions = renditions;
        // The time that is left changes all the time; it is told with the rest.
        if self.progress != Some((now.progress, now.stage)) {
            self.progress = Some((now.progress, now.stage));
            news.push(News::progress(now));
        }
        if self.state != Some(now.state) {
            self.state = Some(now.state);
            let error = view::Failure::of(now.state, now.failure.clone());
            news.push(News::State { state: now.state.as_str(), error });
        }
        news
    }
}

impl Follower {
    fn new(api: Arc<Api>, video: VideoId, permit: FairPermit<IpAddr>) -> Self {
        Follower {
            api,
            video,
            known: Known::default(),
            pending: VecDeque::new(),
            last_id: 0,
            ended: false,
            ends_at: Instant::now() + STREAM_MAX,
            _permit: permit,
        }
    }

    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> + Send {
        futures::stream::unfold(self, async |mut follower| {
            let event = follower.next().await?;
            Some((Ok(event), follower))
        })
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if self.ended || Instant::now() >= self.ends_at {
                return None;
            }
            if self.known.state.is_some() {
                let shutdown = self.api.shutdown.clone();
                shutdown.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await?;
            }
            self.look().await;
        }
    }

    async fn look(&mut self) {
        match self.api.watcher.look(self.video).await {
            Ok(Some(progress)) => {
                self.ended = progress.state.is_terminal();
                for news in self.known.learn(&progress) {
                    self.tell(&news);
                }
            }
            Ok(None) => {
                self.ended = true;
                self.tell(&News::State { state: VideoState::Deleted.as_str(), error: None });
            }
            Err(error) => {
                // The client connects again, and then learns more.
                tracing::warn!(video.id = %self.video, %error, "an event stream ends early");
                self.ended = true;
            }
        }
    }

    /// Ids go up, also over connections: they are the time, or one more than the last.
    fn tell(&mut self, news: &News) {
        self.last_id = self.api.now().unix_ms().max(self.last_id + 1);
        let json = serde_json::to_string(news).expect("words and numbers always serialize");
        let event = Event::default().id(self.last_id.to_string()).event(news.name()).data(json);
        self.pending.push_back(event.retry(RECONNECT_AFTER));
    }
}

#[cfg(test)]
mod tests {
    use domain::{MediaProblem, Size};

    use super::*;

    fn at(state: VideoState, progress: f64) -> Progress {
        Progress { state, progress, stage: None, eta_s: None, renditions: Vec::new(), failure: None }
    }

    fn low(state: RenditionState, progress: f64) -> sql::Rendition {
        sql::Rendition {
            name: RenditionName::Low,
            state,
            size: Size { width: 640, height: 360 },
            progress,
            size_bytes: None,
            bitrate_bps: None,
            codecs: None,
            engine: None,
        }
    }

    #[test]
    fn only_what_is_new_is_told() {
        let mut known = Known::default();
        let names = |news: Vec<News>| news.iter().map(News::name).collect::<Vec<_>>();
        assert_eq!(names(known.learn(&at(VideoState::Uploaded, 0.0))), ["progress", "state"]);
        assert_eq!(names(known.learn(&at(VideoState::Uploaded, 0.0))), [""; 0]);
        assert_eq!(names(known.learn(&at(VideoState::Processing, 0.5))), ["progress", "state"]);
        let pending = low(RenditionState::Pending, 0.0);
        let planned = Progress { renditions: vec![pending], ..at(VideoState::Processing, 0.5) };
        assert_eq!(names(known.learn(&planned)), ["rendition"]);
        let sooner = Progress { eta_s: Some(3.0), ..planned.clone() };
        assert_eq!(names(known.learn(&sooner)), [""; 0], "the clock alone is no news");
        let encoding = Progress { stage: Some(Stage::Encoding), ..planned };
        assert_eq!(names(known.learn(&encoding)), ["progress"]);
        let ready = low(RenditionState::Ready, 1.0);
        let done = Progress { renditions: vec![ready], ..at(VideoState::Ready, 1.0) };
        assert_eq!(names(known.learn(&done)), ["rendition", "progress", "state"]);
    }

    #[test]
    fn progress_tells_the_stage_the_time_left_and_each_rendition() {
        let json = |now: &Progress| serde_json::to_value(News::progress(now)).unwrap();
        assert_eq!(json(&at(VideoState::Ready, 1.0)), serde_json::json!({ "progress": 1.0 }));
        let encoding = Progress {
            stage: Some(Stage::Encoding),
            eta_s: Some(12.0),
            renditions: vec![low(RenditionState::Pending, 0.25)],
            ..at(VideoState::Playable, 0.5)
        };
        let expected = serde_json::json!({ "progress": 0.5, "stage": "encoding", "eta_s": 12.0,
            "renditions": [{ "name": "low", "progress": 0.25 }] });
        assert_eq!(json(&encoding), expected);
    }

    #[test]
    fn a_rejection_says_why() {
        let failure = sql::Failure { problem: Some(MediaProblem::NotMedia), detail: "It is a text.".into() };
        let rejected = Progress { failure: Some(failure), ..at(VideoState::Rejected, 0.0) };
        let news = Known::default().learn(&rejected);
        let json = serde_json::to_value(news.last().unwrap()).unwrap();
        assert_eq!(json["error"]["type"], "/problems/media-not-media");
    }
}

//! Who watches: somebody with a token, or whoever has a link.

use std::net::IpAddr;

use axum::extract::{FromRequestParts, RawPathParams};
use chassis::{Caller, ClientAddress, Link, Problem};
use domain::{Timestamp, VideoId, ViewerHash, Visibility};
use http::header::USER_AGENT;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use ring::hmac;
use sql::Watchable;

use crate::StreamServer;
use crate::answer::Caching;
use crate::cmcd::Said;
use crate::statistics::{Note, Statistics};
use crate::suffix::Suffix;

/// An extractor for the routes of a video.
#[derive(Debug, Clone)]
pub struct Viewer {
    caller: Caller,
    /// Signed by us for this video. A wrong one is none.
    link: Option<Link>,
    /// When the request came: what was begun with a link may go on when that has expired.
    came_at: Timestamp,
    address: IpAddr,
    /// Somebody may never look at what is fetched in advance.
    is_prefetch: bool,
    said: Option<Said>,
    /// From this byte of the answer on it is being watched; `None`: it is not.
    watched_from: Option<u64>,
}

/// What lets somebody watch a video.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access<'a> {
    Open,
    Own,
    Link(&'a Link),
    Expired(&'a Link),
    None,
}

impl Viewer {
    fn access(&self, watchable: &Watchable) -> Access<'_> {
        match (watchable.visibility, &self.link) {
            (Visibility::Public | Visibility::Unlisted, _) => Access::Open,
            _ if self.caller.is(watchable.owner) || self.caller.is_admin() => Access::Own,
            (Visibility::Private, Some(link)) if link.has_expired(self.came_at) => Access::Expired(link),
            (Visibility::Private, Some(link)) => Access::Link(link),
            (Visibility::Private, None) => Access::None,
        }
    }

    /// That a link has expired is told to who had it; to everybody else a private video is not there.
    pub fn admit(&self, watchable: &Watchable) -> Result<(), Problem> {
        match self.access(watchable) {
            Access::Open | Access::Own | Access::Link(_) => Ok(()),
            Access::Expired(link) => Err(expired(link, watchable.video, self.came_at)),
            Access::None => Err(Problem::not_found()),
        }
    }

    /// What limits count by.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How long an answer may be kept that would be kept as `public` if the video were public.
    pub fn caching(&self, watchable: &Watchable, public: Caching) -> Caching {
        match self.access(watchable) {
            Access::Open => public,
            Access::Link(link) => public.signed(link.left_s(self.came_at)),
            Access::Own | Access::Expired(_) | Access::None => Caching::Private,
        }
    }

    /// Of an answer that is a part of the film: whoever gets more of it than so many bytes from its beginning has watched it.
    pub fn watching_from(self, byte: u64) -> Viewer {
        Viewer { watched_from: Some(byte), ..self }
    }

    /// What will be noted of an answer, as far as it is known when it begins; `first_byte` is where it begins.
    pub fn watch(
        &self,
        server: &StreamServer,
        video: VideoId,
        first_byte: u64,
        headers: &HeaderMap,
    ) -> Watching {
        let watched_from = self.watched_from.filter(|_| !self.is_prefetch);
        let viewer = watched_from.map(|from| (from, self.hash(&server.viewers_key, headers)));
        let note = Note { video, came_at: self.came_at, served_bytes: 0, viewer: None, said: self.said };
        Watching { statistics: server.statistics.clone(), note, viewer, at: first_byte }
    }

    fn hash(&self, key: &hmac::Key, headers: &HeaderMap) -> ViewerHash {
        let mut context = hmac::Context::with_key(key);
        match self.caller.user() {
            Some(user) => context.update(format!("user {user}").as_bytes()),
            None => {
                context.update(format!("address {} ", self.address).as_bytes());
                context.update(headers.get(USER_AGENT).map_or(b"".as_slice(), |agent| agent.as_bytes()));
            }
        }
        let digest = context.sign();
        ViewerHash::of(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// What goes behind every address that an answer names.
    pub fn suffix(&self, watchable: &Watchable) -> Suffix {
        match self.access(watchable) {
            Access::Link(link) => Suffix::of(link),
            // Of a public video everybody gets the same answer, and caches keep it.
            Access::Open | Access::Own | Access::Expired(_) | Access::None => Suffix::default(),
        }
    }
}

impl FromRequestParts<StreamServer> for Viewer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, server: &StreamServer) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, server).await?;
        let link = match parts.uri.query().map(str::to_owned) {
            Some(query) => {
                video(parts, server).await.and_then(|video| server.link_keys.verify(video, &query))
            }
            None => None,
        };
        let Ok(address) = ClientAddress::from_request_parts(parts, server).await;
        Ok(Viewer {
            caller,
            link,
            came_at: server.clock.now(),
            address: address.limit_key(),
            is_prefetch: is_prefetch(&parts.headers),
            said: Said::of(parts),
            watched_from: None,
        })
    }
}

/// That of the route, if it is an id.
async fn video(parts: &mut Parts, server: &StreamServer) -> Option<VideoId> {
    let params = RawPathParams::from_request_parts(parts, server).await.ok()?;
    params.iter().find(|(name, _)| *name == "vid")?.1.parse().ok()
}

fn is_prefetch(headers: &HeaderMap) -> bool {
    let says = |name| headers.get(name).is_some_and(|value| value.as_bytes().starts_with(b"prefetch"));
    says("sec-purpose") || says("purpose")
}

/// An answer that flows. When it ends, however it ends, it leaves its note.
pub struct Watching {
    statistics: Statistics,
    note: Note,
    /// Who has watched the film once they were sent more than so many bytes from its beginning.
    viewer: Option<(u64, ViewerHash)>,
    /// Of the film, what is sent next.
    at: u64,
}

impl Watching {
    pub fn sent(&mut self, bytes: usize) {
        self.at += bytes as u64;
        self.note.served_bytes += bytes as u64;
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if self.note.served_bytes > 0 {
            self.note.viewer = self.viewer.filter(|(from, _)| self.at > *from).map(|(_, viewer)| viewer);
            self.statistics.note(self.note);
        }
    }
}

fn expired(link: &Link, video: VideoId, now: Timestamp) -> Problem {
    let (expired_at, server_time) = (link.expires_at.to_rfc3339(), now.to_rfc3339());
    let minutes = now.ms_since(link.expires_at) / 60_000;
    let detail = format!(
        "The link expired {minutes} min ago, at {expired_at}; here it is {server_time}. Who gave it to you can make a \
         new one with GET /api/videos/{video}/playback."
    );
    Problem::new(StatusCode::FORBIDDEN, "/problems/link-expired", "The link has expired", detail)
        .with_member("expired_at", expired_at)
        .with_member("server_time", server_time)
}

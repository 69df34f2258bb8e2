//! The shapes that clients see.

use chassis::{Caller, UploadToken};
use domain::{MediaProblem, RenditionState, Stage, VideoState, Visibility};
use serde::Serialize;
use utoipa::ToSchema;

use crate::Api;

/// What everyone may know of a person.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Author {
    id: String,
    username: String,
    display_name: String,
    avatar_url: Option<String>,
}

/// A person; what is private is there for the person alone.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct User {
    id: String,
    username: String,
    display_name: String,
    avatar_url: Option<String>,
    bio: String,
    #[schema(format = DateTime)]
    created_at: String,
    #[serde(flatten)]
    own: Option<Own>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Own {
    email: Option<String>,
    phone: Option<String>,
    /// `YYYY-MM-DD`
    date_of_birth: Option<String>,
    /// `user` or `admin`
    role: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Session {
    /// Send it as `Authorization: Bearer …`.
    pub token: String,
    #[schema(format = DateTime)]
    pub expires_at: String,
    pub user: User,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Video {
    id: String,
    author: Author,
    title: String,
    description: String,
    tags: Vec<String>,
    /// `public`, `unlisted` (whoever has the link) or `private`
    visibility: &'static str,
    /// `awaiting_upload`, `uploading`, `uploaded`, `processing`, `playable`, `ready`; or the end: `expired`,
    /// `rejected`, `failed`
    state: &'static str,
    /// Of the processing, 0 to 1, weighed by what each part of it costs. It never falls, and is 1 when the video is
    /// `ready`.
    progress: f64,
    /// What is being done for it: `waiting` for its turn, `checking`, `encoding` or `assembling`; null when nothing is.
    stage: Option<&'static str>,
    /// Seconds until it is `ready`, learnt from what is done already; null while nobody can tell.
    eta_s: Option<f64>,
    duration_s: Option<f64>,
    /// As shown, in pixels.
    width: Option<u32>,
    height: Option<u32>,
    frame_rate: Option<f64>,
    /// A plain MP4. This and the other addresses are there once the video is `playable`.
    play_url: Option<String>,
    hls_url: Option<String>,
    dash_url: Option<String>,
    cover_url: Option<String>,
    /// WebVTT: small pictures from all over the film. There a moment after the video is `ready`.
    storyboard_url: Option<String>,
    /// Base64.
    thumbhash: Option<String>,
    renditions: Vec<Rendition>,
    counts: Counts,
    /// For the owner and admins: bytes of the film that were sent, some seconds late.
    #[serde(skip_serializing_if = "Option::is_none")]
    served_bytes: Option<u64>,
    liked: bool,
    error: Option<Failure>,
    /// One sentence each, e.g. that the file was cut off.
    warnings: Vec<String>,
    /// For the owner, while `awaiting_upload`.
    #[serde(skip_serializing_if = "Option::is_none")]
    upload: Option<Upload>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    published_at: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Rendition {
    /// `original`, `medium` or `low`; where the operator wants them also `highest`, `high` and `lowest`, and each of them
    /// but `original` with `-hevc` or `-av1`
    name: &'static str,
    /// `pending` or `ready`
    state: &'static str,
    width: u32,
    height: u32,
    /// 0 to 1. Renditions that are encoded are made all at once, from the same pictures; where `original` is among them,
    /// the smallest is made before.
    progress: f64,
    /// This and what follows is there once it is `ready`.
    size_bytes: Option<u64>,
    bitrate_bps: Option<u64>,
    /// RFC 6381
    codecs: Option<String>,
    url: Option<String>,
    /// For admins: the versions, settings and chunks that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<String>,
}

/// Addresses that a player opens as they are. What playlists and cues name from there is signed too.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Playback {
    hls_url: String,
    dash_url: String,
    /// A plain MP4; `rendition=` may be added to its query.
    play_url: String,
    /// `w=` may be added to its query.
    cover_url: Option<String>,
    /// WebVTT. There a moment after the video is `ready`.
    storyboard_url: Option<String>,
    /// Null: never.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Counts {
    /// Each viewer once in a while, whoever got more than the beginning of the film; some seconds late.
    views: u64,
    likes: u64,
    comments: u64,
}

/// Why a video is `rejected` or `failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Failure {
    /// `/problems/media-…`: the fault is in the file. `/problems/processing-failed`: it is ours.
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    detail: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Upload {
    /// `POST` or `PUT` the file here.
    url: String,
    /// For tus 1.0.0 clients.
    tus_url: String,
    /// Opens this one upload and nothing else.
    token: String,
    #[schema(format = DateTime)]
    expires_at: String,
    max_bytes: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Comment {
    id: String,
    author: Author,
    content: String,
    #[schema(format = DateTime)]
    created_at: String,
}

impl From<sql::Author> for Author {
    fn from(author: sql::Author) -> Self {
        Author {
            id: author.id.to_string(),
            username: author.username.as_str().to_owned(),
            display_name: author.display_name,
            avatar_url: None,
        }
    }
}

impl User {
    /// With what is private.
    pub fn own(user: sql::User) -> User {
        let sql::User { email, phone, date_of_birth, role, .. } = user.clone();
        User { own: Some(Own { email, phone, date_of_birth, role: role.as_str() }), ..User::public(user) }
    }

    pub fn public(user: sql::User) -> User {
        User {
            id: user.id.to_string(),
            username: user.username.as_str().to_owned(),
            display_name: user.display_name,
            avatar_url: None,
            bio: user.bio,
            created_at: user.created_at.to_rfc3339(),
            own: None,
        }
    }
}

impl From<sql::Comment> for Comment {
    fn from(comment: sql::Comment) -> Self {
        Comment {
            id: comment.id.to_string(),
            author: comment.author.into(),
            content: comment.content,
            created_at: comment.created_at.to_rfc3339(),
        }
    }
}

impl Failure {
    pub fn of(state: VideoState, failure: Option<sql::Failure>) -> Option<Failure> {
        match (state, failure) {
            (VideoState::Rejected, Some(sql::Failure { problem: Some(problem), detail })) => {
                Some(Failure::rejected(problem, detail))
            }
            // What went wrong with us is for the operator's log.
            (VideoState::Failed | VideoState::Rejected, _) => Some(Failure {
                kind: "/problems/processing-failed".to_owned(),
                title: "The video could not be processed",
                detail: "Something went wrong here, not with your file; the operator can try again."
                    .to_owned(),
            }),
            _ => None,
        }
    }

    fn rejected(problem: MediaProblem, detail: String) -> Failure {
        Failure { kind: problem.problem_type(), title: problem.title(), detail }
    }
}

impl Api {
    pub(crate) fn video_view(&self, video: sql::Video, caller: &Caller) -> Video {
        let at = Addresses::of(&self.urls.stream, &video);
        let watchable = video.state.is_watchable();
        let is_own = caller.is(video.author.id) || caller.is_admin();
        Video {
            upload: self.upload_view(&video, caller, &at),
            id: video.id.to_string(),
            author: video.author.into(),
            title: video.title,
            description: video.description,
            tags: video.tags,
            visibility: video.visibility.as_str(),
            state: video.state.as_str(),
            progress: video.progress,
            stage: video.stage.map(Stage::as_str),
            eta_s: video.eta_s,
            duration_s: video.duration_s,
            width: video.size.map(|size| size.width),
            height: video.size.map(|size| size.height),
            frame_rate: video.frame_rate,
            hls_url: watchable.then(|| format!("{}/master.m3u8", at.play)),
            dash_url: watchable.then(|| format!("{}/manifest.mpd", at.play)),
            cover_url: video.cover_attempt.filter(|_| watchable).map(|_| format!("{}/cover.jpg", at.play)),
            storyboard_url: video
                .storyboard_attempt
                .filter(|_| watchable)
                .map(|_| format!("{}/storyboard.vtt", at.play)),
            thumbhash: video.thumbhash,
            renditions: video
                .renditions
                .into_iter()
                .map(|rendition| at.rendition(rendition, caller))
                .collect(),
            play_url: watchable.then_some(at.play),
            served_bytes: is_own.then_some(video.served_bytes),
            counts: Counts { views: video.views_count, likes: 0, comments: video.comments_count },
            liked: false,
            error: Failure::of(video.state, video.failure),
            warnings: video.warnings,
            created_at: video.created_at.to_rfc3339(),
            published_at: video.published_at.map(domain::Timestamp::to_rfc3339),
        }
    }

    /// `None` before it is `playable`.
    pub(crate) fn playback_view(&self, video: &sql::Video) -> Option<Playback> {
        if !video.state.is_watchable() {
            return None;
        }
        let is_private = video.visibility == Visibility::Private;
        let link = is_private.then(|| self.link_keys.sign(video.id, self.now(), self.link_s));
        let query = link.as_ref().map(|link| format!("?{}", link.query())).unwrap_or_default();
        let at = Addresses::of(&self.urls.stream, video);
        let address = |path: &str| format!("{}{path}{query}", at.play);
        Some(Playback {
            hls_url: address("/master.m3u8"),
            dash_url: address("/manifest.mpd"),
            play_url: address(""),
            cover_url: video.cover_attempt.map(|_| address("/cover.jpg")),
            storyboard_url: video.storyboard_attempt.map(|_| address("/storyboard.vtt")),
            expires_at: link.map(|link| link.expires_at.to_rfc3339()),
        })
    }

    /// The token lives as long as the video waits, however often it is asked for.
    fn upload_view(&self, video: &sql::Video, caller: &Caller, at: &Addresses) -> Option<Upload> {
        if video.state != VideoState::AwaitingUpload || !caller.is(video.author.id) {
            return None;
        }
        let now = self.now();
        let ends_at = video.created_at.plus_s(i64::try_from(self.upload_token_s).unwrap_or(i64::MAX));
        let left_s = u64::try_from(ends_at.ms_since(now) / 1000).unwrap_or(0);
        let UploadToken { token, expires_at } =
            self.signing_key.upload_token(video.author.id, video.id, now, left_s);
        Some(Upload {
            url: at.play.clone(),
            tus_url: at.tus.clone(),
            token,
            expires_at: expires_at.to_rfc3339(),
            max_bytes: self.upload_bytes_max,
        })
    }
}

struct Addresses {
    play: String,
    tus: String,
}

impl Addresses {
    fn of(stream_url: &str, video: &sql::Video) -> Addresses {
        Addresses {
            play: format!("{stream_url}/stream/videos/{}", video.id),
            tus: format!("{stream_url}/stream/uploads"),
        }
    }

    fn rendition(&self, rendition: sql::Rendition, caller: &Caller) -> Rendition {
        let ready = rendition.state == RenditionState::Ready;
        Rendition {
            name: rendition.name.as_str(),
            state: rendition.state.as_str(),
            width: rendition.size.width,
            height: rendition.size.height,
            progress: rendition.progress,
            size_bytes: rendition.size_bytes,
            bitrate_bps: rendition.bitrate_bps,
            codecs: rendition.codecs,
            engine: rendition.engine.filter(|_| caller.is_admin()),
            url: ready.then(|| format!("{}?rendition={}", self.play, rendition.name)),
        }
    }
}

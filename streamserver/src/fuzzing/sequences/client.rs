//! Requests as a tus client sends them, straight into the router.

use axum::body::Body;
use axum::response::Response;
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use domain::VideoId;
use futures::channel::mpsc;
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body::Frame;
use http_body_util::StreamBody;
use ring::digest;

use super::world::World;

/// What was answered, as far as a client of tus looks at it.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub offset: Option<u64>,
    pub length: Option<u64>,
    pub location: Option<String>,
}

impl Answer {
    fn of(response: &Response) -> Answer {
        let text =
            |name: &str| response.headers().get(name).map(|value| value.to_str().expect("plain ASCII"));
        Answer {
            status: response.status().as_u16(),
            offset: text("upload-offset").map(|offset| offset.parse().expect("a number")),
            length: text("upload-length").map(|length| length.parse().expect("a number")),
            location: text("location").map(str::to_owned),
        }
    }
}

/// A request of which the test decides the body.
pub struct Asking<'a> {
    world: &'a World,
    server: usize,
    request: http::request::Builder,
}

impl<'a> Asking<'a> {
    pub fn new(world: &'a World, server: usize, method: Method, path: &str) -> Asking<'a> {
        let request = Request::builder().method(method).uri(path).header("tus-resumable", "1.0.0");
        let request = request.header("authorization", format!("Bearer {}", world.token));
        Asking { world, server, request }
    }

    pub fn creation(world: &'a World, server: usize, video: VideoId) -> Asking<'a> {
        let metadata = format!("video_id {}", BASE64_STANDARD.encode(video.to_string()));
        Asking::new(world, server, Method::POST, "/stream/uploads").with("upload-metadata", metadata)
    }

    pub fn patch(world: &'a World, server: usize, path: &str, offset: u64) -> Asking<'a> {
        Asking::new(world, server, Method::PATCH, path).with("upload-offset", offset).of_bytes()
    }

    pub fn with(self, name: &str, value: impl ToString) -> Asking<'a> {
        Asking { request: self.request.header(name, value.to_string()), ..self }
    }

    pub fn of_bytes(self) -> Asking<'a> {
        self.with("content-type", "application/offset+octet-stream")
    }

    pub async fn send(self, body: Body) -> Answer {
        let request = self.request.body(body).expect("a request");
        let app = &self.world.apps[self.server % self.world.apps.len()];
        Answer::of(&app.ask(request).await)
    }

    pub async fn ask(self) -> Answer {
        self.send(Body::empty()).await
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    None,
    Right,
    Wrong,
    RightBehind,
    WrongBehind,
    /// Announced as a trailer that does not come.
    NeverCame,
}

impl Sum {
    pub fn of(choice: u8) -> Sum {
        match choice % 10 {
            0 => Sum::Right,
            1 => Sum::Wrong,
            2 => Sum::RightBehind,
            3 => Sum::WrongBehind,
            4 => Sum::NeverCame,
            _ => Sum::None,
        }
    }

    /// The status of a request that is right but for it.
    pub fn refusal(self) -> Option<u16> {
        match self {
            Sum::None | Sum::Right | Sum::RightBehind => None,
            Sum::Wrong | Sum::WrongBehind => Some(460),
            Sum::NeverCame => Some(400),
        }
    }

    fn is_behind(self) -> bool {
        matches!(self, Sum::RightBehind | Sum::WrongBehind | Sum::NeverCame)
    }

    fn header(self, bytes: &[u8]) -> Option<HeaderValue> {
        let sum = |algorithm, bytes: &[u8]| BASE64_STANDARD.encode(digest::digest(algorithm, bytes));
        let sha1 = &digest::SHA1_FOR_LEGACY_USE_ONLY;
        let text = match self {
            Sum::None | Sum::NeverCame => return None,
            Sum::Right => format!("sha1 {}", sum(sha1, bytes)),
            Sum::RightBehind => format!("sha256 {}", sum(&digest::SHA256, bytes)),
            Sum::Wrong => format!("sha256 {}", sum(&digest::SHA256, b"other")),
            Sum::WrongBehind => format!("sha1 {}", sum(sha1, b"other")),
        };
        Some(text.parse().expect("plain ASCII"))
    }

    /// The request with the sum before the body, or announced; and the body with it behind.
    pub fn dress<'a>(self, asking: Asking<'a>, bytes: &[u8], pieces: usize) -> (Asking<'a>, Body) {
        let header = self.header(bytes);
        let mut frames = frames(bytes, pieces);
        if !self.is_behind() {
            let asking = match &header {
                Some(sum) => asking.with("upload-checksum", sum.to_str().expect("plain ASCII")),
                None => asking,
            };
            return (asking, body(frames));
        }
        if let Some(sum) = header {
            let trailers = HeaderMap::from_iter([("upload-checksum".parse().expect("a name"), sum)]);
            frames.push(Ok(Frame::trailers(trailers)));
        }
        (asking.with("trailer", "Upload-Checksum"), body(frames))
    }
}

type Frames = Vec<Result<Frame<Bytes>, Broken>>;

/// The line.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the line broke")]
pub struct Broken;

fn frames(bytes: &[u8], pieces: usize) -> Frames {
    let chunk = bytes.len().div_ceil(pieces.max(1)).max(1);
    bytes.chunks(chunk).map(|chunk| Ok(Frame::data(Bytes::copy_from_slice(chunk)))).collect()
}

fn body(frames: Frames) -> Body {
    Body::new(StreamBody::new(stream::iter(frames)))
}

/// In so many pieces, without a length.
pub fn whole(bytes: &[u8], pieces: usize) -> Body {
    if pieces == 0 { Body::from(bytes.to_vec()) } else { body(frames(bytes, pieces)) }
}

/// And then the line breaks.
pub fn broken(bytes: &[u8], pieces: usize) -> Body {
    let mut frames = frames(bytes, pieces);
    frames.push(Err(Broken));
    body(frames)
}

/// A body that goes on when it is told to.
pub fn hanging() -> (mpsc::UnboundedSender<Bytes>, Body) {
    let (sender, receiver) = mpsc::unbounded();
    (sender, Body::from_stream(receiver.map(Ok::<Bytes, Broken>)))
}

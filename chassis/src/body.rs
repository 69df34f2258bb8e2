//! Request bodies that may not stall, and what their errors mean to a client.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::{Limits, Problem};

/// The client let us wait too long for its body.
#[derive(Debug, thiserror::Error)]
#[error("the body stalled or was slower than allowed")]
pub struct BodyTooSlow;

/// The body grew past its bound while it was read.
#[derive(Debug, thiserror::Error)]
#[error("the body is larger than {bytes_max} bytes")]
pub struct BodyTooLarge {
    pub bytes_max: u64,
}

/// A body that fails with [`BodyTooSlow`] when nothing arrives for `stall_max`, or when the client stays below
/// `bytes_per_s_min` over the time we waited for it. Time in which we ourselves did not read does not count.
pub struct TimedBody {
    inner: Incoming,
    stall_max: Duration,
    bytes_per_s_min: u64,
    received_bytes: u64,
    waited: Duration,
    waiting_since: Option<Instant>,
    stall: Option<Pin<Box<Sleep>>>,
}

impl TimedBody {
    pub(crate) fn new(inner: Incoming, limits: &Limits) -> Self {
        TimedBody {
            inner,
            stall_max: Duration::from_secs(limits.body_stall_s_max),
            bytes_per_s_min: limits.body_bytes_per_s_min,
            received_bytes: 0,
            waited: Duration::ZERO,
            waiting_since: None,
            stall: None,
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.waiting_since.get_or_insert_with(Instant::now);
        let stall_max = self.stall_max;
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall_max)));
        stall.as_mut().poll(cx)
    }

    fn received(&mut self, bytes: usize) {
        self.received_bytes += bytes as u64;
        self.waited += self.waiting_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.stall = None;
    }

    /// Everyone may take `stall_max` in all before the rate counts, so that a short body over a slow line passes.
    fn is_too_slow(&self) -> bool {
        let required_bytes = self.waited.as_secs_f64() * self.bytes_per_s_min as f64;
        self.waited > self.stall_max && (self.received_bytes as f64) < required_bytes
    }
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
            ready!(self.wait(cx));
            return Poll::Ready(Some(Err(BodyTooSlow.into())));
        };
        let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
        self.received(bytes);
        if frame.is_some() && self.is_too_slow() {
            return Poll::Ready(Some(Err(BodyTooSlow.into())));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// What to answer when reading a body failed: 408 for a slow one, 413 for a large one, else 400 (the client broke
/// off; it will hardly read the answer).
pub fn problem(error: &(dyn Error + 'static)) -> Problem {
    let mut causes = std::iter::successors(Some(error), |&e| e.source());
    let known = causes.find_map(|cause| {
        if cause.is::<BodyTooSlow>() {
            return Some(Problem::request_timeout());
        }
        cause.downcast_ref::<BodyTooLarge>().map(|too_large| Problem::too_large(too_large.bytes_max))
    });
    known.unwrap_or_else(|| {
        Problem::bad_request("The body broke off before its end; nothing of it was kept. Send it again.")
    })
}

/// The whole body, at most `bytes_max`: refused before it is read when its length is declared.
pub async fn read(body: axum::body::Body, bytes_max: u64) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > bytes_max {
        return Err(Problem::too_large(bytes_max));
    }
    let mut body = http_body_util::BodyStream::new(body);
    let mut bytes = bytes::BytesMut::new();
    while let Some(frame) = futures::StreamExt::next(&mut body).await {
        let Ok(data) = frame.map_err(|e| problem(&e))?.into_data() else { continue };
        if bytes.len() as u64 + data.len() as u64 > bytes_max {
            return Err(Problem::too_large(bytes_max));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

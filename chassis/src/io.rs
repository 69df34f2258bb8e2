//! A connection's bytes with deadlines: first byte, request head, idle time, stalled writes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use filemap::Extent;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};

use crate::Limits;
use crate::unsent::Unsent;

/// What a connection waits for; shared by its bytes and its requests.
#[derive(Clone)]
pub(crate) struct Phase(Arc<AtomicU8>);

const FIRST_BYTE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;
const IDLE: u8 = 3;

impl Phase {
    pub fn new() -> Self {
        Phase(Arc::new(AtomicU8::new(FIRST_BYTE)))
    }

    /// A request is being answered until the guard is dropped; its body has deadlines of its own.
    pub fn busy(&self) -> Busy {
        self.0.store(BUSY, Ordering::Relaxed);
        Busy(self.clone())
    }

    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(crate) struct Busy(Phase);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.store(IDLE, Ordering::Relaxed);
    }
}

/// A `TcpStream` that fails with `TimedOut` instead of waiting for ever.
pub(crate) struct TimedIo {
    stream: TcpStream,
    phase: Phase,
    read_deadline: Deadline,
    write_deadline: Option<Pin<Box<Sleep>>>,
    unsent: Unsent,
    /// Bytes of a file are on their way from the disk into the page cache.
    warming: Option<JoinHandle<io::Result<()>>>,
    first_byte_max: Duration,
    head_max: Duration,
    idle_max: Duration,
    write_stall_max: Duration,
}

impl TimedIo {
    pub fn new(stream: TcpStream, phase: Phase, limits: &Limits) -> Self {
        TimedIo {
            unsent: Unsent::of(&stream),
            stream,
            phase,
            read_deadline: Deadline::default(),
            write_deadline: None,
            warming: None,
            first_byte_max: Duration::from_secs(limits.first_byte_s_max),
            head_max: Duration::from_secs(limits.header_read_s_max),
            idle_max: Duration::from_secs(limits.idle_s_max),
            write_stall_max: Duration::from_secs(limits.write_stall_s_max),
        }
    }

    pub fn into_inner(self) -> TcpStream {
        self.stream
    }

    /// Nothing to read now: how long may this go on?
    fn wait_to_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let phase = self.phase.get();
        let allowed = match phase {
            FIRST_BYTE => self.first_byte_max,
            HEAD => self.head_max,
            IDLE => self.idle_max,
            _ => return Poll::Pending,
        };
        self.read_deadline.wait(phase, allowed, cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// The first bytes of a head start its clock; more of them do not set it back.
    fn have_read(&mut self) {
        if matches!(self.phase.get(), FIRST_BYTE | IDLE) {
            self.phase.0.store(HEAD, Ordering::Relaxed);
            self.read_deadline.begin(HEAD);
        }
    }

    /// Bytes of files by `sendfile`, without touching them; what comes before them in the same packet.
    fn poll_send(&mut self, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let found = slices.iter().enumerate().find_map(|(at, slice)| Some((at, filemap::find(slice)?)));
        let Some((ordinary, of_file)) = found else {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        };
        let head = &slices[..ordinary];
        let head_bytes = head.iter().map(|slice| slice.len()).sum();
        let mut sent = 0;
        if head_bytes > 0 {
            sent = ready!(self.poll_writable(cx, head_bytes, |stream| send_more(stream, head)))?;
            if sent < head_bytes {
                return Poll::Ready(Ok(sent));
            }
        }
        match self.poll_send_file(cx, of_file) {
            Poll::Ready(Ok(more)) => Poll::Ready(Ok(sent + more)),
            _ if sent > 0 => Poll::Ready(Ok(sent)),
            none => none,
        }
    }

    /// What is not in memory is brought there first, by a thread that may wait.
    fn poll_send_file(&mut self, cx: &mut Context<'_>, extent: Extent) -> Poll<io::Result<usize>> {
        if self.warming.is_none() {
            if let Some(warm) = extent.warm_part() {
                return self.poll_writable(cx, warm.bytes(), |stream| warm.send_to(stream));
            }
            let cold = extent.clone().first_chunk();
            self.warming = Some(tokio::task::spawn_blocking(move || cold.warm()));
        }
        if let Some(warming) = &mut self.warming {
            let warmed = ready!(Pin::new(warming).poll(cx));
            self.warming = None;
            warmed.map_err(io::Error::other)??;
        }
        let warm = extent.first_chunk();
        self.poll_writable(cx, warm.bytes(), |stream| warm.send_to(stream))
    }

    /// `send` says how many of these `bytes` it has sent.
    fn poll_writable(
        &self,
        cx: &mut Context<'_>,
        bytes: usize,
        mut send: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let mut sent = None;
            let tried = self.stream.try_io(Interest::WRITABLE, || {
                let some = *sent.insert(send(&self.stream)?);
                // Not all: the socket is full (or the file cannot be read: then this waits as for a stalled reader).
                // Said here, the kernel tells when there is room, and is not asked before.
                if some < bytes { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match (sent, tried) {
                (Some(sent), _) => return Poll::Ready(Ok(sent)),
                (None, Err(error)) if is_for_now(&error) => {}
                (None, tried) => return Poll::Ready(tried.map(|()| 0)),
            }
        }
    }

    fn after_write(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            if let Some(deadline) = self.write_deadline.take() {
                let began = deadline.deadline() - self.write_stall_max;
                self.unsent.waited(&self.stream, began.elapsed());
            }
            self.read_deadline.forget(IDLE);
            return written;
        }
        let stall_max = self.write_stall_max;
        let deadline = self.write_deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall_max)));
        ready!(deadline.as_mut().poll(cx));
        // Else the kernel keeps what was not taken, and goes on offering it.
        let _ = self.stream.set_zero_linger();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// When a phase has lasted for too long. Most end at once, so the timer runs on from one to the next, and only when it
/// rings is it asked whether that is due.
#[derive(Default)]
struct Deadline {
    phase: Option<(u8, Instant)>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    fn begin(&mut self, phase: u8) -> Instant {
        let since = Instant::now();
        self.phase = Some((phase, since));
        since
    }

    /// It begins anew when it comes again.
    fn forget(&mut self, phase: u8) {
        self.phase = self.phase.filter(|(of, _)| *of != phase);
    }

    /// Ready when `phase`, which begins now if it has not yet, has lasted for `allowed`.
    fn wait(&mut self, phase: u8, allowed: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let began = self.phase.filter(|(of, _)| *of == phase).map(|(_, since)| since);
        let due = began.unwrap_or_else(|| self.begin(phase)) + allowed;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}

fn is_for_now(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// The kernel keeps them until what they belong to follows.
fn send_more(stream: &TcpStream, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
    let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
    Ok(rustix::net::sendmsg(stream, slices, &mut SendAncillaryBuffer::default(), flags)?)
}

impl AsyncRead for TimedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Pending => self.wait_to_read(cx),
            ready => {
                if buffer.filled().len() > before {
                    self.have_read();
                }
                ready
            }
        }
    }
}

impl AsyncWrite for TimedIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.poll_send(cx, bytes);
        self.after_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// After an answer this comes last: the time between requests begins, although nobody has asked for the next.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.phase.get() == IDLE
            && let Poll::Ready(late) = self.wait_to_read(cx)
        {
            return Poll::Ready(late);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

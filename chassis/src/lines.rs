//! Lines of the log on their way out: gathered by whoever has one, written by a thread of their own, many at a time. Nobody
//! waits for a `write` of others, and the thread is not woken for each line.

use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Where whoever reads them is slower than this, requests wait.
const GATHERED_BYTES_MAX: usize = 1 << 20;
/// What comes within this after others is written with the next.
const GATHERED_FOR: Duration = Duration::from_millis(5);

/// A process ends after this, although nobody takes its last lines.
const ENDED_WITHIN: Duration = Duration::from_secs(1);

/// Takes lines; each `write` is one. Cheap to clone.
#[derive(Clone)]
pub struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    gathered: Mutex<Gathered>,
    /// There is a line, or no more will come.
    more: Condvar,
    /// There is room for lines.
    room: Condvar,
}

#[derive(Default)]
struct Gathered {
    bytes: Vec<u8>,
    writer_waits: bool,
    has_ended: bool,
}

/// As long as it lives, lines are written; with it the last of them are.
#[must_use = "without it nothing is logged"]
pub struct Writing {
    lines: Lines,
    /// Disconnected when all is written.
    ended: Receiver<()>,
}

impl Lines {
    pub fn to(out: impl Write + Send + 'static) -> io::Result<(Lines, Writing)> {
        let lines = Lines(Arc::default());
        let writer = lines.clone();
        let (ending, ended) = mpsc::channel();
        let write = move || {
            let _ending = ending;
            writer.write_to(out);
        };
        thread::Builder::new().name("log".to_owned()).spawn(write)?;
        Ok((lines.clone(), Writing { lines, ended }))
    }

    fn add(&self, line: &[u8]) {
        let Shared { room, more, .. } = &*self.0;
        let is_full =
            |gathered: &mut Gathered| gathered.bytes.len() > GATHERED_BYTES_MAX && !gathered.has_ended;
        let mut gathered = room.wait_while(self.lock(), is_full).unwrap_or_else(PoisonError::into_inner);
        if gathered.has_ended {
            return;
        }
        gathered.bytes.extend_from_slice(line);
        if std::mem::take(&mut gathered.writer_waits) {
            more.notify_one();
        }
    }

    fn write_to(&self, mut out: impl Write) {
        let mut some = Vec::new();
        while self.take(&mut some) {
            write_all(&mut out, &some);
            thread::sleep(GATHERED_FOR);
        }
    }

    /// Waits for lines; false when none will come.
    fn take(&self, some: &mut Vec<u8>) -> bool {
        some.clear();
        let Shared { room, more, .. } = &*self.0;
        let is_idle = |gathered: &mut Gathered| {
            gathered.writer_waits = gathered.bytes.is_empty() && !gathered.has_ended;
            gathered.writer_waits
        };
        let mut gathered = more.wait_while(self.lock(), is_idle).unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(some, &mut gathered.bytes);
        room.notify_all();
        !some.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.0.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody is left to be told of what cannot be written.
fn write_all(out: &mut impl Write, mut rest: &[u8]) {
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(bytes) if bytes > 0 => rest = &rest[bytes..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A pipe that somebody else has made so.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(GATHERED_FOR),
            _ => return,
        }
    }
    let _ = out.flush();
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Lines;

    fn make_writer(&self) -> Lines {
        self.clone()
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.lines.lock().has_ended = true;
        self.lines.0.more.notify_one();
        self.lines.0.room.notify_all();
        let _ = self.ended.recv_timeout(ENDED_WITHIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tells what it is given, and takes it only when it is allowed to.
    struct Slow(mpsc::Sender<Vec<u8>>, mpsc::Receiver<()>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(bytes.to_vec());
            let _ = self.1.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_many_write_at_once_comes_out_whole_and_to_the_last_line() {
        let (told, written) = mpsc::channel();
        let (allow, allowed) = mpsc::channel();
        let (lines, writing) = Lines::to(Slow(told, allowed)).unwrap();
        let threads: Vec<_> = (0..4)
            .map(|writer| {
                let mut lines = lines.clone();
                thread::spawn(move || {
                    (0..1000).for_each(|n| lines.write_all(format!("{writer} {n}\n").as_bytes()).unwrap())
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        drop(allow);
        drop(writing);
        let text = String::from_utf8(written.iter().flatten().collect()).unwrap();
        for writer in 0..4 {
            let own: Vec<_> = text.lines().filter(|line| line.starts_with(&format!("{writer} "))).collect();
            assert_eq!(own, (0..1000).map(|n| format!("{writer} {n}")).collect::<Vec<_>>());
        }
        assert_eq!(text.lines().count(), 4000);
    }

    #[test]
    fn a_process_ends_although_nobody_takes_its_last_lines() {
        let (told, written) = mpsc::channel();
        let (allow, allowed) = mpsc::channel();
        let (mut lines, writing) = Lines::to(Slow(told, allowed)).unwrap();
        lines.add(b"last");
        written.recv().unwrap();
        drop(writing);
        lines.write_all(b"after the end").unwrap();
        drop(allow);
        assert!(written.recv().is_err(), "it was told of nothing more");
    }

    #[test]
    fn a_reader_who_takes_nothing_holds_up_the_writers_and_not_the_memory() {
        let (told, written) = mpsc::channel();
        let (allow, allowed) = mpsc::channel();
        let (mut lines, writing) = Lines::to(Slow(told, allowed)).unwrap();
        let line = vec![b'x'; GATHERED_BYTES_MAX];
        lines.add(&line);
        written.recv().unwrap();
        lines.add(&line);
        lines.add(b"last");
        let waiting = thread::spawn(move || lines.write_all(b"waits").unwrap());
        allow.send(()).unwrap();
        waiting.join().unwrap();
        assert_eq!(written.recv().unwrap().len(), GATHERED_BYTES_MAX + 4);
        drop(allow);
        drop(writing);
        assert_eq!(written.recv().unwrap(), b"waits");
    }
}

//! The transcoder child: untrusted media is opened there and nowhere else. It gets files and a [`Task`], no
//! credential, no environment; it answers with [`Event`]s, and is killed when nobody waits for it any more.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow};
use chassis::Failure;
use domain::task::{Event, Outcome, SandboxReport, Task, UNSAFE_NO_SANDBOX};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::{interval, timeout};

use crate::child_limits;
use crate::failure::{RunError, Unsound};
use crate::run_limits::{Exceeded, OF_A_PROBE, RunLimits};
use crate::source_file::SourceFile;
use crate::spare::Spare;

/// The longest line that is read; a plan of a two-hour film is about 100 KiB.
const LINE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// What is kept of standard error, from its end, as the reason of a crash.
const STDERR_BYTES_MAX: usize = 4 * 1024;
/// How often what it made is measured.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After its last line there is nothing left to do.
const EXIT_MAX: Duration = Duration::from_secs(10);

/// The program that is started for media work.
#[derive(Debug, Clone)]
pub struct Transcoder {
    pub program: PathBuf,
    /// Before anything else: how a program that is more than a transcoder knows what is wanted.
    pub arguments: Vec<OsString>,
    /// It works only where the kernel can lock it in.
    pub sandbox_demanded: bool,
    spare: Spare,
}

/// What a run hears of while it goes on, beside its outcome.
#[derive(Clone, Copy)]
pub struct Told<'a> {
    /// Takes the fractions of its progress.
    pub progress: &'a watch::Sender<f64>,
    /// Has the bytes that it asks for.
    pub source: Option<&'a SourceFile>,
}

/// Ended by a bound, and what was written before that.
#[derive(Debug, thiserror::Error)]
#[error("{exceeded}; {tail}")]
pub struct Stopped {
    pub exceeded: Exceeded,
    pub tail: String,
}

/// Ended without a last word.
#[derive(Debug, thiserror::Error)]
#[error("the transcoder crashed ({how}){unread}; {tail}")]
pub struct Crashed {
    /// Its exit status or signal.
    pub how: String,
    /// Where it did not read its task.
    unread: String,
    /// What it wrote to standard error.
    pub tail: String,
}

impl Transcoder {
    pub fn new(program: impl Into<PathBuf>) -> Transcoder {
        Transcoder {
            program: program.into(),
            arguments: Vec::new(),
            sandbox_demanded: true,
            spare: Spare::default(),
        }
    }

    /// `transcoder` in the folder of the running program.
    pub fn beside_this_program() -> io::Result<Transcoder> {
        Ok(Transcoder::new(std::env::current_exe()?.with_file_name("transcoder")))
    }

    /// Runs a task to its end. Dropping the future kills the child.
    pub async fn run(
        &self,
        task: &Task,
        folder: &Path,
        limits: RunLimits,
        told: Told<'_>,
    ) -> Result<Outcome, RunError> {
        let mut running = self.child(task, limits)?;
        let conversation = timeout(limits.duration_max, running.converse(task, limits, told));
        tokio::select! {
            result = conversation => result.unwrap_or_else(|_| Err(Exceeded::Duration(limits.duration_max).into())),
            exceeded = watch_output(folder, limits.output_bytes_max) => Err(exceeded.into()),
        }
    }

    /// How a child is locked in on this machine: one is started that does nothing else.
    pub async fn sandbox(&self) -> anyhow::Result<SandboxReport> {
        let (progress, _unheard) = watch::channel(0.0);
        let told = Told { progress: &progress, source: None };
        match self.run(&Task::Sandbox, &std::env::temp_dir(), OF_A_PROBE, told).await? {
            Outcome::Sandbox(report) => Ok(report),
            _ => Err(anyhow!("{} says something else", self.program.display())),
        }
    }

    /// Whoever starts work asks before, once.
    pub async fn ready(&self) -> Result<(), Failure> {
        let report = self.sandbox().await;
        let missing = match report {
            Ok(report) if report.missing.is_empty() => return Ok(()),
            Ok(report) => report.missing,
            Err(error) => vec![format!("{error:#}")],
        };
        if self.sandbox_demanded {
            return Err(Failure::unavailable(refusal(&missing)));
        }
        tracing::warn!(?missing, "the transcoder is not locked in, as SLUICE_UNSAFE_NO_SANDBOX allows");
        Ok(())
    }

    /// Has a child at hand for the next upload. To be called on a thread that stays: the child ends with it.
    pub fn keep_spare(&self) {
        self.spare.keep(|| self.spawn());
    }

    /// What it may take holds before it hears of its task.
    fn child(&self, task: &Task, limits: RunLimits) -> Result<Running, RunError> {
        // Of all tasks this is the one that somebody waits for.
        let spare = if matches!(task, Task::Ingest { .. }) { self.spare.take() } else { None };
        let running = spare.map_or_else(|| self.spawn(), Ok).and_then(|child| child.bounded(limits));
        running.map_err(|error| {
            let temporary = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory);
            let error = anyhow::Error::new(error).context(format!("start {}", self.program.display()));
            if temporary { RunError::Disturbed(error) } else { RunError::Failed(error) }
        })
    }

    fn spawn(&self) -> io::Result<Running> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .args((!self.sandbox_demanded).then_some(UNSAFE_NO_SANDBOX))
            .env_clear()
            // Its task names every file by its whole path.
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its own, so that a signal ends all of it, and so that Ctrl-C reaches us first.
            .process_group(0)
            .kill_on_drop(true);
        child_limits::apply(&mut command);
        Ok(Running { child: command.spawn()? })
    }
}

/// A child that is killed, with its group, when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Running {
    /// `None` once it was waited for: then the number may be someone else's.
    pub fn pid(&self) -> Option<Pid> {
        self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
    }

    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn bounded(self, limits: RunLimits) -> io::Result<Running> {
        child_limits::bound(self.pid().ok_or(io::ErrorKind::BrokenPipe)?, limits)?;
        Ok(self)
    }

    fn kill(&self) {
        if let Some(group) = self.pid() {
            // It may have ended just now.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    async fn converse(
        &mut self,
        task: &Task,
        limits: RunLimits,
        told: Told<'_>,
    ) -> Result<Outcome, RunError> {
        const PIPED: &str = "it was asked for when the child was started";
        let stdin = self.child.stdin.take().expect(PIPED);
        let stdout = self.child.stdout.take().expect(PIPED);
        let stderr = self.child.stderr.take().expect(PIPED);
        let (answers, to_answer) = mpsc::channel(1);
        let listen = async {
            let heard = listen(stdout, limits.silence_max, told, answers).await;
            if heard.is_err() {
                // Nobody listens any more, and the other pipes end only with the child.
                self.kill();
            }
            heard
        };
        // All at once: a child that is stuck writing to one pipe never gets to the others.
        let (said, heard, tail) =
            tokio::join!(tell(stdin, task, to_answer), listen, tail(stderr, STDERR_BYTES_MAX));
        let status = timeout(EXIT_MAX, self.child.wait()).await;
        let heard = heard.map_err(|error| match error {
            ListenError::Stopped(exceeded) => Stopped { exceeded, tail: tail.clone() }.into(),
            ListenError::Unserved(error) => error,
            ListenError::Nonsense(error) => RunError::failed(format_args!("{error:#}; {tail}")),
        })?;
        match heard {
            Some(Event::Done { outcome }) => {
                let status = status.ok().and_then(Result::ok);
                match status.filter(ExitStatus::success) {
                    Some(_) => Ok(outcome),
                    None => Err(RunError::failed(format_args!(
                        "the transcoder was done, but ended with {status:?}; {tail}"
                    ))),
                }
            }
            Some(Event::Rejected { problem, detail }) => Err(RunError::Rejected { problem, detail }),
            Some(Event::Failed { detail, out_of_memory: true, .. }) => {
                Err(Stopped { exceeded: Exceeded::Memory(limits.memory_bytes_max), tail: detail }.into())
            }
            Some(Event::Failed { detail, unsound: parts, .. }) if !parts.is_empty() => {
                Err(RunError::Unsound(Unsound { parts, detail }))
            }
            Some(Event::Failed { detail, .. }) => Err(RunError::failed(detail)),
            Some(Event::Progress { .. } | Event::Want { .. }) | None => {
                let ended = status.as_ref().ok().and_then(|status| status.as_ref().ok());
                if let Some(exceeded) = ended.and_then(|status| exceeded_by(*status, &tail, limits)) {
                    return Err(Stopped { exceeded, tail }.into());
                }
                let how = match status {
                    Ok(Ok(status)) => status.to_string(),
                    _ => "without an exit status".to_owned(),
                };
                let unread =
                    said.map_or_else(|error| format!("; its task was not read: {error}"), |()| String::new());
                Err(RunError::Failed(Crashed { how, unread, tail }.into()))
            }
        }
    }
}

/// What the kernel, or the allocator, ended it for.
fn exceeded_by(status: ExitStatus, tail: &str, limits: RunLimits) -> Option<Exceeded> {
    let signal = status.signal().and_then(Signal::from_named_raw)?;
    match signal {
        Signal::XCPU => Some(Exceeded::Cpu(limits.cpu_s_max)),
        Signal::XFSZ => Some(Exceeded::Output(limits.output_bytes_max)),
        Signal::ABORT if tail.contains("memory allocation of") => {
            Some(Exceeded::Memory(limits.memory_bytes_max))
        }
        _ => None,
    }
}

/// Returns when there is more in the folder than there may be.
async fn watch_output(folder: &Path, bytes_max: u64) -> Exceeded {
    let mut looks = interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        if bytes_max > 0 && bytes_in(folder) > bytes_max {
            return Exceeded::Output(bytes_max);
        }
    }
}

/// Files that come and go are not counted; an empty one costs something too.
fn bytes_in(folder: &Path) -> u64 {
    const FILE_BYTES_MIN: u64 = 4096;
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let files = entries.filter_map(|entry| entry.and_then(|entry| entry.metadata()).ok());
    files.map(|file| file.len().max(FILE_BYTES_MIN)).sum()
}

fn refusal(missing: &[String]) -> String {
    format!(
        "The transcoder, which opens files that nobody vouches for, cannot be locked in on this machine:\n\n  \
         {}\n\n\
         It needs Linux 5.13 or newer with Landlock (`landlock` in /sys/kernel/security/lsm) and seccomp; around a \
         container,\nthe runtime's seccomp profile has to let both pass. Started as root it also needs to become \
         another user.\nTo work without: SLUICE_UNSAFE_NO_SANDBOX=1. A hostile file may then reach what Sluice can \
         reach.",
        missing.join("\n  ")
    )
}

/// Why a child is not listened to any more.
#[derive(Debug, thiserror::Error)]
enum ListenError {
    #[error(transparent)]
    Stopped(Exceeded),
    /// What it asked for could not be brought.
    #[error(transparent)]
    Unserved(RunError),
    #[error(transparent)]
    Nonsense(#[from] anyhow::Error),
}

/// The task, then a line for each answer.
async fn tell(mut stdin: ChildStdin, task: &Task, mut answers: mpsc::Receiver<()>) -> io::Result<()> {
    let mut task = serde_json::to_vec(task)?;
    task.push(b'\n');
    stdin.write_all(&task).await?;
    while let Some(()) = answers.recv().await {
        stdin.write_all(b"\n").await?;
    }
    Ok(())
}

/// Reads to the end of the output; answers with the event that ended the task. A thread that tells of progress may come to
/// speak after it.
async fn listen(
    stdout: ChildStdout,
    silence_max: Duration,
    told: Told<'_>,
    answers: mpsc::Sender<()>,
) -> Result<Option<Event>, ListenError> {
    let mut lines = BufReader::new(stdout);
    let mut end = None;
    loop {
        let line = timeout(silence_max, read_line(&mut lines))
            .await
            .map_err(|_| ListenError::Stopped(Exceeded::Silence(silence_max)))?;
        let Some(line) = line.context("read what the transcoder says")? else { return Ok(end) };
        let event = serde_json::from_slice(&line).context("the transcoder said something else")?;
        match event {
            Event::Progress { fraction } => {
                told.progress.send_replace(fraction.clamp(0.0, 1.0));
            }
            Event::Want { from, to } => {
                let source = told.source.context("the transcoder asked for bytes of no upload")?;
                source.bring(from..to).await.map_err(ListenError::Unserved)?;
                // Where it has died meanwhile, its output ends.
                let _ = answers.send(()).await;
            }
            outcome => end = Some(outcome),
        }
    }
}

/// `None` at the end.
async fn read_line(lines: &mut BufReader<ChildStdout>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    lines.take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
    if line.last() != Some(&b'\n') && line.len() as u64 == LINE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
    }
    Ok((!line.is_empty()).then_some(line))
}

/// The last bytes of a stream that is read to its end, as text without control characters.
async fn tail(mut stream: impl AsyncRead + Unpin, bytes_max: usize) -> String {
    let mut kept = Vec::new();
    let mut block = vec![0; bytes_max];
    while let Ok(count @ 1..) = stream.read(&mut block).await {
        kept.extend_from_slice(&block[..count]);
        let surplus = kept.len().saturating_sub(bytes_max);
        kept.drain(..surplus);
    }
    let text: String =
        String::from_utf8_lossy(&kept).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.trim().is_empty() { "it wrote no error".to_owned() } else { format!("it wrote: {}", text.trim()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source_file::tests::upload;
    use domain::LadderSettings;
    use domain::task::{EncodeSettings, EncodeSettingsPlanned, MediaLimits};
    use rustix::process::{WaitId, WaitIdOptions, waitid};

    const LIMITS: RunLimits = RunLimits {
        duration_max: Duration::from_secs(600),
        silence_max: Duration::from_secs(600),
        memory_bytes_max: 4 << 30,
        cpu_s_max: 600,
        output_bytes_max: 4 << 30,
        niceness: 0,
    };
    const MEDIA_LIMITS: MediaLimits = MediaLimits { duration_s_max: 1.0, pixels_max: 1, streams_max: 1 };
    /// Far below the limits that are not under test.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Why a child failed that stays until it is killed.
    async fn failure_of(script: &str, limits: RunLimits) -> String {
        let folder = tempfile::tempdir().unwrap();
        // Bounds hold once it has its task.
        let script = format!("read task; cd {}; {script}", folder.path().display());
        let transcoder =
            Transcoder { arguments: vec!["-c".into(), script.into()], ..Transcoder::new("/bin/sh") };
        let task = Task::Cover {
            input: folder.path().join("source"),
            on_demand: false,
            output: folder.path().to_owned(),
            limits: MEDIA_LIMITS,
            at_s: None,
        };
        run_to_failure(&transcoder, &task, folder.path(), limits).await
    }

    async fn run_to_failure(
        transcoder: &Transcoder,
        task: &Task,
        folder: &Path,
        limits: RunLimits,
    ) -> String {
        let (progress, _seen) = watch::channel(0.0);
        let run = transcoder.run(task, folder, limits, Told { progress: &progress, source: None });
        timeout(PATIENCE, run).await.expect("it is killed at once").unwrap_err().to_string()
    }

    /// An ingest by a child that tells which process it is.
    async fn ingest_and_tell(transcoder: &Transcoder) -> String {
        let folder = tempfile::tempdir().unwrap();
        let task = Task::Ingest {
            input: folder.path().join("source"),
            on_demand: false,
            output: folder.path().to_owned(),
            limits: MEDIA_LIMITS,
            settings: EncodeSettings {
                ladder: LadderSettings::default(),
                planned: EncodeSettingsPlanned::default(),
                chunk_s: None,
            },
            cover_at_s: None,
        };
        run_to_failure(transcoder, &task, folder.path(), LIMITS).await
    }

    #[tokio::test]
    async fn a_child_gets_the_bytes_it_asks_for_and_no_others() {
        let (store, key) = upload(b"a film").await;
        let folder = tempfile::tempdir().unwrap();
        let source = SourceFile::create(&store, key, folder.path().join("source")).await.unwrap();
        let said = async |to: u64, source: Option<&SourceFile>| {
            let script = format!(
                r#"read task; echo '{{"event":"want","from":0,"to":{to}}}'; read answer; cat {} >&2; exit 3"#,
                folder.path().join("source").display()
            );
            let transcoder =
                Transcoder { arguments: vec!["-c".into(), script.into()], ..Transcoder::new("/bin/sh") };
            let (progress, _seen) = watch::channel(0.0);
            let told = Told { progress: &progress, source };
            let run = transcoder.run(&Task::Sandbox, folder.path(), LIMITS, told);
            timeout(PATIENCE, run).await.expect("it goes on or is killed").unwrap_err().to_string()
        };
        for (error, word) in [
            (said(3, None).await, "no upload"),
            (said(7, Some(&source)).await, "6 bytes"),
            (said(6, Some(&source)).await, "a film"),
        ] {
            assert!(error.contains(word), "{error}");
        }
    }

    #[tokio::test]
    async fn a_silent_child_is_killed_and_what_it_wrote_is_told() {
        let limits = RunLimits { silence_max: Duration::from_millis(200), ..LIMITS };
        let error = failure_of("echo stuck >&2; sleep 600", limits).await;
        assert!(error.contains("silent for 200ms") && error.contains("stuck"), "{error}");
    }

    #[tokio::test]
    async fn a_child_that_says_something_else_is_killed() {
        let error = failure_of("echo nonsense; sleep 600", LIMITS).await;
        assert!(error.contains("something else"), "{error}");
    }

    #[tokio::test]
    async fn progress_that_is_told_after_the_end_does_not_matter() {
        let end =
            r#"echo '{"event":"failed","detail":"bad luck"}'; echo '{"event":"progress","fraction":1.0}'"#;
        assert_eq!(failure_of(end, LIMITS).await, "bad luck");
    }

    #[tokio::test]
    async fn a_child_that_never_ends_its_line_is_killed() {
        let script = "while :; do printf %65536s; done";
        let error = failure_of(script, LIMITS).await;
        assert!(error.contains("too long"), "{error}");
    }

    #[tokio::test]
    async fn an_encode_lets_others_go_first() {
        // The nineteenth field of /proc/*/stat; the words in parentheses have no blanks here.
        let niceness = async |added: i32| {
            let limits = RunLimits { niceness: added, ..LIMITS };
            let told =
                failure_of("set -- $(cat /proc/$$/stat); shift 18; echo \"nice=$1\" >&2; exit 3", limits)
                    .await;
            let (_, number) = told.rsplit_once("nice=").expect("it says so");
            number.trim().parse::<i32>().expect("a number")
        };
        let own = niceness(0).await;
        assert_eq!(niceness(10).await, (own + 10).min(19));
    }

    #[tokio::test]
    async fn whoever_burns_processor_time_is_told_so() {
        let limits = RunLimits { cpu_s_max: 1, ..LIMITS };
        let error = failure_of("echo burning >&2; while :; do :; done", limits).await;
        assert!(error.contains("1 s of processor time") && error.contains("burning"), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_grows_too_large_ends_it() {
        let limits = RunLimits { output_bytes_max: 1 << 20, ..LIMITS };
        let error = failure_of("exec head -c 100000000 /dev/zero > film", limits).await;
        assert!(error.contains("more than 1 MiB"), "{error}");
    }

    #[tokio::test]
    async fn many_files_that_grow_too_large_together_end_it() {
        let limits = RunLimits { output_bytes_max: 4 << 20, ..LIMITS };
        let script = "for n in 1 2 3 4 5 6 7 8 9; do head -c 1000000 /dev/zero > $n; done; sleep 600";
        let error = failure_of(script, limits).await;
        assert!(error.contains("more than 4 MiB"), "{error}");
    }

    #[tokio::test]
    async fn want_of_memory_is_told_however_it_shows() {
        let by_word = r#"echo '{"event":"failed","detail":"no room","out_of_memory":true}'"#;
        let by_abort = "echo 'memory allocation of 9 bytes failed: no room' >&2; kill -ABRT $$";
        for script in [by_word, by_abort] {
            let error = failure_of(script, LIMITS).await;
            assert!(error.contains("more memory than the 4096 MiB") && error.contains("no room"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_flood_of_words_is_cut() {
        let error = failure_of("yes | head -c 300000000 >&2; exit 3", LIMITS).await;
        assert!(error.contains("exit status: 3") && error.len() < 2 * STDERR_BYTES_MAX, "{}", error.len());
    }

    fn teller() -> Transcoder {
        let script = r#"read task; printf '{"event":"failed","detail":"it was %s"}' $$"#;
        Transcoder { arguments: vec!["-c".into(), script.into()], ..Transcoder::new("/bin/sh") }
    }

    #[tokio::test]
    async fn an_ingest_is_done_by_the_child_that_waits() {
        let transcoder = teller();
        transcoder.keep_spare();
        let waiting = transcoder.spare.pid().unwrap();
        transcoder.clone().keep_spare();
        assert_eq!(transcoder.spare.pid(), Some(waiting), "one is enough");
        let told = ingest_and_tell(&transcoder).await;
        assert_eq!(told, format!("it was {}", waiting.as_raw_nonzero()));
        assert_eq!(transcoder.spare.pid(), None);
        assert!(ingest_and_tell(&transcoder).await.starts_with("it was "), "started when it is needed");
    }

    #[tokio::test]
    async fn a_child_that_died_waiting_does_not_matter() {
        let transcoder = teller();
        transcoder.keep_spare();
        let dead = transcoder.spare.pid().unwrap();
        kill_process_group(dead, Signal::KILL).unwrap();
        // Dead, and not waited for.
        waitid(WaitId::Pid(dead), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        let told = ingest_and_tell(&transcoder).await;
        assert!(told.starts_with("it was ") && told != format!("it was {}", dead.as_raw_nonzero()), "{told}");
    }

    /// Says of itself what a child would that could not be locked in.
    fn unconfined() -> Transcoder {
        let script =
            r#"echo '{"event":"done","outcome":{"kind":"sandbox","holds":[],"missing":["Landlock: none"]}}'"#;
        Transcoder { arguments: vec!["-c".into(), script.into()], ..Transcoder::new("/bin/sh") }
    }

    #[tokio::test]
    async fn where_it_cannot_be_locked_in_nothing_starts_unless_it_is_told_to() {
        let demanded = unconfined();
        let refusal = demanded.ready().await.unwrap_err();
        for word in ["Landlock: none", "SLUICE_UNSAFE_NO_SANDBOX=1"] {
            assert!(refusal.text().contains(word), "{}", refusal.text());
        }
        Transcoder { sandbox_demanded: false, ..demanded }.ready().await.unwrap();
    }

    #[tokio::test]
    async fn a_transcoder_that_is_not_there_is_told_at_the_start() {
        let refusal = Transcoder::new("/nowhere/transcoder").ready().await.unwrap_err();
        assert!(refusal.text().contains("/nowhere/transcoder"), "{}", refusal.text());
    }
}

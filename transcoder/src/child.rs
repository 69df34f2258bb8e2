//! The process around a task: JSON in, locked in, JSON lines out.

use std::io::{self, BufRead, Read, Write};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use domain::task::{Event, Outcome, Task};

use crate::progress::Progress;
use crate::{TaskError, demand, error, ffi, pulse, run, sandbox};

/// A plan of a two-hour film with a keyframe a second is far below.
const TASK_BYTES_MAX: u64 = 16 << 20;

/// What to do where the machine cannot lock a child in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confinement {
    /// Refuse to work.
    Demanded,
    /// Work with the layers there are.
    AsFarAsItGoes,
}

impl Confinement {
    /// From the arguments of the process: its environment is empty.
    pub fn asked_for(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Confinement {
        if arguments.into_iter().any(|argument| argument == domain::task::UNSAFE_NO_SANDBOX) {
            Confinement::AsFarAsItGoes
        } else {
            Confinement::Demanded
        }
    }
}

/// Reads one task from standard input, runs it, and writes events to standard output. The exit code is 0 whenever
/// the last event was written: the outcome is in the event, not in the code.
pub fn run_child(confinement: Confinement) -> ExitCode {
    ffi::init();
    let lines = Arc::new(Mutex::new(io::stdout()));
    let for_progress = lines.clone();
    // A listener that has gone is noticed at the last event.
    let progress = Progress::new(move |fraction| drop(write(&for_progress, &Event::Progress { fraction })));
    let event = match work(confinement, Arc::new(progress), &lines) {
        Ok(outcome) => Event::Done { outcome },
        Err(TaskError::Rejected { problem, detail }) => Event::Rejected { problem, detail },
        Err(TaskError::Failed(error)) => {
            let (out_of_memory, unsound) = (error::is_out_of_memory(&error), error::unsound(&error));
            Event::Failed { detail: format!("{error:#}"), out_of_memory, unsound }
        }
    };
    match write(&lines, &event) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn work(
    confinement: Confinement,
    progress: Arc<Progress>,
    lines: &Arc<Mutex<io::Stdout>>,
) -> Result<Outcome, TaskError> {
    let mut task = read_task()?;
    // Before any thread is started, and before anything is opened that nobody vouches for.
    let sandbox = sandbox::enter(&mut task)?;
    if matches!(task, Task::Sandbox) {
        return Ok(Outcome::Sandbox(sandbox));
    }
    if confinement == Confinement::Demanded && !sandbox.missing.is_empty() {
        return Err(anyhow::anyhow!("it cannot be locked in: {}", sandbox.missing.join("; ")).into());
    }
    if let Some(upload) = task.inputs().first().filter(|_| task.is_on_demand()) {
        let lines = lines.clone();
        demand::begin(upload.to_path_buf(), move |range| ask(&lines, range));
    }
    pulse::keep_telling(progress.clone()).context("start a thread")?;
    run::run(&task, &progress)
}

fn read_task() -> anyhow::Result<Task> {
    let mut json = Vec::new();
    io::stdin().lock().take(TASK_BYTES_MAX).read_until(b'\n', &mut json).context("read the task")?;
    serde_json::from_slice(&json).context("understand the task")
}

/// Returns when the bytes are there.
fn ask(lines: &Mutex<io::Stdout>, range: Range<u64>) -> io::Result<()> {
    write(lines, &Event::Want { from: range.start, to: range.end })?;
    let mut answer = [0];
    io::stdin().lock().read_exact(&mut answer)
}

fn write(lines: &Mutex<io::Stdout>, event: &Event) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    let mut out = lines.lock().unwrap_or_else(PoisonError::into_inner);
    out.write_all(&line)?;
    out.flush()
}

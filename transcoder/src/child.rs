//! The process around a task: JSON in, JSON lines out.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use domain::task::{Event, Task};

use crate::progress::Progress;
use crate::{TaskError, ffi, run};

/// A plan of a two-hour film with a keyframe a second is far below.
const TASK_BYTES_MAX: u64 = 16 << 20;

/// Reads one task from standard input, runs it, and writes events to standard output. The exit code is 0 whenever
/// the last event was written: the outcome is in the event, not in the code.
pub fn run_child() -> ExitCode {
    ffi::init();
    let lines = Arc::new(Mutex::new(std::io::stdout()));
    let for_progress = lines.clone();
    // A listener that has gone is noticed at the last event.
    let progress = Progress::new(move |fraction| drop(write(&for_progress, &Event::Progress { fraction })));
    let event = match read_task().map_err(TaskError::from).and_then(|task| run::run(&task, &progress)) {
        Ok(outcome) => Event::Done { outcome },
        Err(TaskError::Rejected { problem, detail }) => Event::Rejected { problem, detail },
        Err(TaskError::Failed(error)) => Event::Failed { detail: format!("{error:#}") },
    };
    match write(&lines, &event) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn read_task() -> anyhow::Result<Task> {
    let mut json = Vec::new();
    std::io::stdin().take(TASK_BYTES_MAX).read_to_end(&mut json).context("read the task")?;
    serde_json::from_slice(&json).context("understand the task")
}

fn write(lines: &Mutex<std::io::Stdout>, event: &Event) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    let mut out = lines.lock().unwrap_or_else(PoisonError::into_inner);
    out.write_all(&line)?;
    out.flush()
}

//! How far a task is. Shared by the threads of a task; never falls, and speaks at most a few times a second.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Pause between two reports, in milliseconds.
const PAUSE_MS: u64 = 250;

pub struct Progress {
    last: Mutex<Last>,
    sink: Box<dyn Fn(f64) + Send + Sync>,
}

struct Last {
    fraction: f64,
    spoken_at: Option<Instant>,
}

impl Progress {
    pub fn new(sink: impl Fn(f64) + Send + Sync + 'static) -> Self {
        Progress { last: Mutex::new(Last { fraction: 0.0, spoken_at: None }), sink: Box::new(sink) }
    }

    pub fn silent() -> Self {
        Progress::new(|_| ())
    }

    /// `fraction` of the whole task, 0 to 1. Repeated where it would fall: a listener still sees life.
    pub fn report(&self, fraction: f64) {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        last.fraction = fraction.clamp(last.fraction, 1.0);
        let due = last.spoken_at.is_none_or(|at| at.elapsed() >= Duration::from_millis(PAUSE_MS));
        if due {
            last.spoken_at = Some(Instant::now());
            (self.sink)(last.fraction);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn never_falls_and_does_not_chatter() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let sink = said.clone();
        let progress = Progress::new(move |fraction| sink.lock().unwrap().push(fraction));
        for fraction in [0.5, 0.2, 0.9, f64::MAX] {
            progress.report(fraction);
        }
        assert_eq!(*said.lock().unwrap(), [0.5]);
    }
}

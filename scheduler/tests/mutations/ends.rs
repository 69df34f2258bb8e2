//! How films ended, counted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use domain::task::Ingested;
use scheduler::{Crashed, RunError, Stopped};

/// How many of an end are named.
const NAMED_MAX: usize = 6;
const WORDS_CHARS_MAX: usize = 110;

#[derive(Debug)]
pub struct End {
    kind: String,
    /// Of a crash: what it wrote.
    tail: String,
    duration: Duration,
}

impl End {
    pub fn of(result: Result<Ingested, RunError>, duration: Duration) -> End {
        let (kind, tail) = match result {
            Ok(ingested) if !ingested.source.warnings.is_empty() => ("taken with a warning".to_owned(), None),
            Ok(_) => ("taken".to_owned(), None),
            Err(RunError::Rejected { problem, .. }) => (format!("rejected: {problem}"), None),
            Err(RunError::Failed(error)) => match (error.downcast_ref(), error.downcast_ref()) {
                (Some(Crashed { how, tail, .. }), _) => (format!("crashed: {how}"), Some(tail.clone())),
                (_, Some(Stopped { exceeded, tail })) => {
                    (format!("stopped: {}", words(exceeded)), Some(tail.clone()))
                }
                _ => (format!("failed: {}", words(&format!("{error:#}"))), None),
            },
            Err(RunError::Unsound(error)) => (format!("failed: {}", words(&format!("{error:#}"))), None),
            Err(other) => (format!("not typed: {other:?}"), None),
        };
        End { kind, tail: tail.unwrap_or_default(), duration }
    }

    /// The film was taken or refused; in every other case it would be tried again.
    pub fn is_a_judgement(&self) -> bool {
        self.kind.starts_with("taken") || self.kind.starts_with("rejected")
    }
}

/// Without the numbers, which differ from film to film.
fn words(text: &impl ToString) -> String {
    let text = text.to_string();
    let mut words = String::new();
    for letter in text.chars().take(WORDS_CHARS_MAX) {
        match letter {
            '0'..='9' if words.ends_with('#') => {}
            '0'..='9' => words.push('#'),
            other => words.push(other),
        }
    }
    words
}

#[derive(Default)]
struct Row {
    count: u64,
    slowest: Duration,
    examples: Vec<String>,
    tails: Vec<String>,
}

#[derive(Default)]
pub struct Ends {
    rows: BTreeMap<String, Row>,
}

impl Extend<(&'static str, u64, End)> for Ends {
    fn extend<T: IntoIterator<Item = (&'static str, u64, End)>>(&mut self, ends: T) {
        for (film, number, end) in ends {
            assert!(!end.kind.starts_with("not typed"), "{film} {number}: {}", end.kind);
            let row = self.rows.entry(end.kind).or_default();
            row.count += 1;
            row.slowest = row.slowest.max(end.duration);
            if row.examples.len() < NAMED_MAX {
                row.examples.push(format!("{number} {film}"));
            }
            if !end.tail.is_empty() && row.tails.len() < NAMED_MAX {
                row.tails.push(format!("{number} {film}: {}", end.tail));
            }
        }
    }
}

impl Ends {
    pub fn slowest(&self) -> Duration {
        self.rows.values().map(|row| row.slowest).max().unwrap_or_default()
    }

    /// What children said who ended by an assertion of ours.
    pub fn panics(&self) -> Vec<&str> {
        let tails = self.rows.values().flat_map(|row| &row.tails);
        tails.filter(|tail| tail.contains("panicked at")).map(String::as_str).collect()
    }
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| end | films | slowest | numbers, e.g. |\n|---|---|---|---|")?;
        for (kind, row) in &self.rows {
            let examples = row.examples.join(", ");
            writeln!(f, "| {kind} | {} | {:.2} s | {examples} |", row.count, row.slowest.as_secs_f64())?;
        }
        for tail in self.rows.values().flat_map(|row| &row.tails) {
            writeln!(f, "\n{tail}")?;
        }
        Ok(())
    }
}

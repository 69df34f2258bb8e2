//! What ingest measured of a source, as a file that every encode reads instead of the whole source.

use std::path::Path;

use anyhow::Context;
use domain::ObjectFile;
use domain::task::OutputFile;

use crate::TaskError;
use crate::chunk_file::output_file;
use crate::source::SourceFacts;

/// Writes `facts.json` into `output`.
pub fn write(facts: &SourceFacts, output: &Path) -> Result<OutputFile, TaskError> {
    let json = serde_json::to_vec(facts).context("write the facts of the source")?;
    std::fs::write(output.join(ObjectFile::Facts.to_string()), json)?;
    output_file(output, ObjectFile::Facts)
}

pub fn read(path: &Path) -> Result<SourceFacts, TaskError> {
    let json = std::fs::read(path)?;
    Ok(serde_json::from_slice(&json).context("understand the facts of the source")?)
}

/// A fraction as two numbers.
pub mod rational {
    use ffmpeg_next::Rational;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(value: &Rational, serializer: S) -> Result<S::Ok, S::Error> {
        (value.numerator(), value.denominator()).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Rational, D::Error> {
        let (numerator, denominator) = Deserialize::deserialize(deserializer)?;
        Ok(Rational::new(numerator, denominator))
    }
}

/// Ascending times as runs of equal steps: `[first, [step, count]…]`. Two hours of a constant rate are a line.
pub mod times {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// A film of the longest duration at the highest rate that is read.
    const TIMES_MAX: u64 = 1 << 24;

    pub fn serialize<S: Serializer>(times: &[i64], serializer: S) -> Result<S::Ok, S::Error> {
        let mut runs: Vec<(i64, u64)> = Vec::new();
        for pair in times.windows(2) {
            let step = pair[1] - pair[0];
            match runs.last_mut() {
                Some((last, count)) if *last == step => *count += 1,
                _ => runs.push((step, 1)),
            }
        }
        (times.first(), runs).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i64>, D::Error> {
        let (first, runs): (Option<i64>, Vec<(i64, u64)>) = Deserialize::deserialize(deserializer)?;
        let mut times: Vec<i64> = first.into_iter().collect();
        for (step, count) in runs {
            for _ in 0..count {
                let last = times.last().copied().ok_or_else(|| D::Error::custom("a run without a start"))?;
                times.push(last.saturating_add(step));
                if times.len() as u64 > TIMES_MAX {
                    return Err(D::Error::custom("too many times"));
                }
            }
        }
        Ok(times)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Times(#[serde(with = "super::times")] Vec<i64>);

    proptest! {
        #[test]
        fn times_come_back(mut times in prop::collection::vec(-1_000_000i64..1_000_000_000, 0..50)) {
            times.sort_unstable();
            let json = serde_json::to_string(&Times(times.clone())).unwrap();
            prop_assert_eq!(serde_json::from_str::<Times>(&json).unwrap().0, times);
        }
    }

    #[test]
    fn a_constant_rate_is_one_run() {
        let times = Times((0..216_000).map(|n| n * 512).collect());
        assert_eq!(serde_json::to_string(&times).unwrap(), "[0,[[512,215999]]]");
    }
}

//! Randomness, given to everything that needs it.

use std::sync::{Arc, Mutex, PoisonError};

use domain::{IdParts, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Where ids, salts and jitter come from: the system, or a test's seed.
#[derive(Clone)]
pub struct Ids(Source);

#[derive(Clone)]
enum Source {
    System,
    Seeded(Arc<Mutex<StdRng>>),
}

impl Ids {
    pub fn system() -> Self {
        Ids(Source::System)
    }

    /// The same seed gives the same sequence.
    pub fn seeded(seed: u64) -> Self {
        Ids(Source::Seeded(Arc::new(Mutex::new(StdRng::seed_from_u64(seed)))))
    }

    /// A new id of any noun.
    pub fn next<T: From<IdParts>>(&self, now: Timestamp) -> T {
        T::from(self.parts(now))
    }

    pub fn parts(&self, now: Timestamp) -> IdParts {
        IdParts { now, random: self.bytes() }
    }

    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        match &self.0 {
            Source::System => rand::rng().fill_bytes(&mut bytes),
            Source::Seeded(rng) => {
                rng.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut bytes);
            }
        }
        bytes
    }

    /// Uniform in 0.0..1.0.
    pub fn fraction(&self) -> f64 {
        // 53 bits are what a double holds exactly.
        (u64::from_le_bytes(self.bytes()) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl std::fmt::Debug for Ids {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self.0, Source::System) { "Ids::system" } else { "Ids::seeded" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself_and_the_system_does_not() {
        let now = Timestamp::from_unix_ms(1_790_000_000_000);
        let first: domain::VideoId = Ids::seeded(1).next(now);
        assert_eq!(first, Ids::seeded(1).next(now));
        assert_ne!(first, Ids::seeded(2).next(now));
        assert_ne!(Ids::system().bytes::<16>(), Ids::system().bytes::<16>());
    }

    #[test]
    fn fractions_are_within_bounds() {
        let ids = Ids::seeded(3);
        assert!((0..1000).map(|_| ids.fraction()).all(|f| (0.0..1.0).contains(&f)));
    }
}

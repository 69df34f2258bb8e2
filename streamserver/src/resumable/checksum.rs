//! The checksum extension: what a request brings must hash to what the client says, or nothing of it is kept.

use bytes::Bytes;
use chassis::Problem;
use http::{HeaderMap, StatusCode};
use ring::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

use super::tus::headers::checksum_in_trailers;
use crate::digest::Hasher;

pub const MISMATCH: &str = "/problems/checksum-mismatch";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Every tus server has it.
    Sha1,
    Sha256,
}

impl Algorithm {
    const ALL: [Algorithm; 2] = [Algorithm::Sha1, Algorithm::Sha256];

    pub fn bytes(self) -> usize {
        self.implementation().output_len()
    }

    fn implementation(self) -> &'static digest::Algorithm {
        match self {
            Algorithm::Sha1 => &SHA1_FOR_LEGACY_USE_ONLY,
            Algorithm::Sha256 => &SHA256,
        }
    }
}

impl std::str::FromStr for Algorithm {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "sha1" => Ok(Algorithm::Sha1),
            "sha256" => Ok(Algorithm::Sha256),
            _ => Err(()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    pub algorithm: Algorithm,
    pub digest: Vec<u8>,
}

/// Where the checksum of a request is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    Given(Checksum),
    /// Behind the body; only there it says by which algorithm.
    Trailer,
}

/// The sums of the bytes as they come, on threads of their own.
pub struct Sums {
    hashers: Vec<(Algorithm, Hasher)>,
    expected: Option<Checksum>,
}

impl Sums {
    pub fn start(expected: Expected) -> Result<Sums, Problem> {
        let (algorithms, expected) = match expected {
            Expected::Given(checksum) => (vec![checksum.algorithm], Some(checksum)),
            Expected::Trailer => (Algorithm::ALL.to_vec(), None),
        };
        let start = |algorithm: Algorithm| Ok((algorithm, Hasher::start(algorithm.implementation())?));
        let hashers = algorithms.into_iter().map(start).collect::<std::io::Result<_>>();
        Ok(Sums { hashers: hashers.map_err(Problem::internal)?, expected })
    }

    pub async fn update(&self, bytes: &Bytes) -> Result<(), Problem> {
        for (_, hasher) in &self.hashers {
            hasher.update(bytes.clone()).await.map_err(Problem::internal)?;
        }
        Ok(())
    }

    pub fn read_trailers(&mut self, trailers: &HeaderMap) -> Result<(), Problem> {
        if self.expected.is_none() {
            self.expected = checksum_in_trailers(trailers)?;
        }
        Ok(())
    }

    /// Once the body is at its end.
    pub async fn verify(self) -> Result<(), Problem> {
        let Some(expected) = self.expected else {
            return Err(Problem::bad_request(
                "The trailer `Upload-Checksum` was announced and did not come.",
            ));
        };
        let hasher = self.hashers.into_iter().find(|(algorithm, _)| *algorithm == expected.algorithm);
        let (_, hasher) =
            hasher.ok_or_else(|| Problem::internal("no hasher of this algorithm was started"))?;
        let digest = hasher.finish().await.map_err(Problem::internal)?;
        if digest.as_ref() == expected.digest { Ok(()) } else { Err(mismatch()) }
    }
}

fn mismatch() -> Problem {
    Problem::new(
        StatusCode::from_u16(460).expect("three digits"),
        MISMATCH,
        "The bytes are not those you meant to send",
        "What arrived does not have the checksum that `Upload-Checksum` says; nothing of this request was kept. Send it \
         again from the same offset.",
    )
}

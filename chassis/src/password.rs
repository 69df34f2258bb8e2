//! Passwords: Argon2id with the parameters that OWASP advises (m = 19 MiB, t = 2, p = 1).

use std::sync::{Arc, LazyLock};

use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, Version};
use memmap2::{Advice, MmapMut};
use tokio::sync::Semaphore;

use crate::Problem;

const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const WAIT: std::time::Duration = std::time::Duration::from_secs(10);

/// One computation a core: more would only take each other's cache and memory.
static CORES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Arc::new(Semaphore::new(cores))
});

/// Compared with when the user is unknown, so that the answer takes the same time.
static NOBODY: LazyLock<String> =
    LazyLock::new(|| hash_now("a password that nobody has").unwrap_or_default());

/// The PHC string to store.
pub async fn hash(password: String) -> Result<String, Problem> {
    compute(move || hash_now(&password)).await?.map_err(Problem::internal)
}

/// Whether `password` is the one behind `stored`. `None`: no such user; it takes as long and is never right.
pub async fn verify(password: String, stored: Option<String>) -> Result<bool, Problem> {
    compute(move || {
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| NOBODY.clone());
        let matches = matches(&password, &stored).unwrap_or(false);
        known && matches
    })
    .await
}

/// Before the first login, so that an unknown user at that moment takes no longer than a known one.
pub fn warm_up() {
    LazyLock::force(&NOBODY);
}

async fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let core = tokio::time::timeout(WAIT, CORES.clone().acquire_owned()).await;
    let core = core.map_err(|_| Problem::overloaded(2))?.map_err(Problem::internal)?;
    let done = tokio::task::spawn_blocking(move || {
        let _core = core;
        work()
    });
    done.await.map_err(Problem::internal)
}

/// Why a password has no hash.
#[derive(Debug, thiserror::Error)]
enum HashError {
    #[error("{0}")]
    Argon2(#[from] argon2::Error),
    #[error("{0}")]
    Parameters(#[from] argon2::password_hash::Error),
    #[error("{0}")]
    Phc(#[from] argon2::password_hash::phc::Error),
    #[error("no memory for a password's hash: {0}")]
    Memory(#[from] std::io::Error),
}

fn hash_now(password: &str) -> Result<String, HashError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let salt = Salt::generate();
    let hash = PasswordHash {
        algorithm: ARGON2ID_IDENT,
        version: Some(Version::V0x13.into()),
        params: argon2.params().try_into()?,
        salt: Some(salt),
        hash: Some(output(&argon2, password, &salt, Params::DEFAULT_OUTPUT_LEN)?),
    };
    Ok(hash.to_string())
}

/// `None`: what is stored is no hash of ours.
fn matches(password: &str, stored: &str) -> Option<bool> {
    let stored = PasswordHash::new(stored).ok()?;
    let (salt, expected) = (stored.salt?, stored.hash?);
    let algorithm = Algorithm::try_from(stored.algorithm.as_str()).ok()?;
    let version = Version::try_from(stored.version?).ok()?;
    let argon2 = Argon2::new(algorithm, version, Params::try_from(&stored).ok()?);
    // Outputs are compared in constant time.
    Some(output(&argon2, password, &salt, expected.len()).ok()? == expected)
}

/// In memory that the system gives for this alone, and in large pages where it has some, which saves a third of the time.
/// An allocator would keep 19 MiB for each thread that ever did this.
fn output(argon2: &Argon2<'_>, password: &str, salt: &Salt, bytes: usize) -> Result<Output, HashError> {
    let mut memory = MmapMut::map_anon(argon2.params().block_count() * Block::SIZE)?;
    // Where there are none, it goes as well without.
    let _ = memory.advise(Advice::HugePage);
    #[allow(unsafe_code, reason = "Argon2's block has no safe cast")]
    // SAFETY: a block is made of integers, for which all bytes are valid.
    let (_, blocks, _) = unsafe { memory.align_to_mut::<Block>() };
    let mut output = [0; Output::MAX_LENGTH];
    let output = &mut output[..bytes];
    argon2.hash_password_into_with_memory(password.as_bytes(), salt, output, blocks)?;
    Ok(Output::new(output)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::PasswordHasher;

    #[tokio::test]
    async fn a_password_is_recognised_and_salted() {
        let (first, second) =
            (hash("correct horse".into()).await.unwrap(), hash("correct horse".into()).await.unwrap());
        assert!(first.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{first}");
        assert_ne!(first, second);
        assert!(verify("correct horse".into(), Some(first.clone())).await.unwrap());
        assert!(!verify("wrong horse".into(), Some(first)).await.unwrap());
    }

    #[test]
    fn a_hash_that_was_made_elsewhere_is_read() {
        let hash =
            Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(256, 1, 1, Some(16)).unwrap());
        let elsewhere = hash.hash_password_with_salt(b"correct horse", b"saltsaltsaltsalt").unwrap();
        assert_eq!(matches("correct horse", &elsewhere.to_string()), Some(true), "{elsewhere}");
        assert_eq!(matches("wrong horse", &elsewhere.to_string()), Some(false));
        assert_eq!(matches("correct horse", "$argon2id$v=19$m=256,t=1,p=1"), None);
    }

    #[tokio::test]
    async fn nobodys_password_is_never_right() {
        assert!(!verify("a password that nobody has".into(), None).await.unwrap());
        assert!(!verify("x".into(), Some("not a hash".into())).await.unwrap());
    }
}

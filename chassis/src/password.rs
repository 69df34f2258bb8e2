//! Passwords: Argon2id with the parameters that OWASP advises (m = 19 MiB, t = 2, p = 1).

use std::sync::{Arc, LazyLock};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
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
    compute(move || hash_now(&password)).await?.map_err(|e| Problem::internal(e.to_string()))
}

/// Whether `password` is the one behind `stored`. `None`: no such user; it takes as long and is never right.
pub async fn verify(password: String, stored: Option<String>) -> Result<bool, Problem> {
    compute(move || {
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| NOBODY.clone());
        let matches = PasswordHash::new(&stored)
            .is_ok_and(|hash| argon2().verify_password(password.as_bytes(), &hash).is_ok());
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

fn hash_now(password: &str) -> Result<String, argon2::password_hash::Error> {
    argon2().hash_password(password.as_bytes()).map(|hash| hash.to_string())
}

fn argon2() -> Argon2<'static> {
    let params =
        Params::new(MEMORY_KIB, PASSES, LANES, None).expect("these parameters are within Argon2's bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_recognised_and_salted() {
        let (first, second) =
            (hash("correct horse".into()).await.unwrap(), hash("correct horse".into()).await.unwrap());
        assert!(first.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{first}");
        assert_ne!(first, second);
        assert!(verify("correct horse".into(), Some(first.clone())).await.unwrap());
        assert!(!verify("wrong horse".into(), Some(first)).await.unwrap());
    }

    #[tokio::test]
    async fn nobodys_password_is_never_right() {
        assert!(!verify("a password that nobody has".into(), None).await.unwrap());
        assert!(!verify("x".into(), Some("not a hash".into())).await.unwrap());
    }
}

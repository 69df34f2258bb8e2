//! Ed25519 keys: only `api` holds the private one; everyone else verifies.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use domain::{Role, SessionId, Timestamp, UserId, VideoId};
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde::{Deserialize, Serialize};

use crate::{Ids, Settings};

const SIGNING_FILE: &str = "signing.pem";
const VERIFYING_FILE: &str = "verifying.pem";

/// How long a service waits for the key that `api` is about to write: 30 s.
const WAIT_STEP: std::time::Duration = std::time::Duration::from_millis(100);
const WAIT_STEPS: u32 = 300;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{what} is no Ed25519 key in PEM form: {reason}")]
    Malformed { what: &'static str, reason: String },
    #[error("the key file {path} cannot be read or written: {source}", path = path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("the keys of links (SLUICE_LINK_KEYS) are none: allowed is {0}")]
    Links(String),
    #[error("there are no keys of links: set SLUICE_LINK_KEYS to those of api, which wrote none to {path}", path = path.display())]
    NoLinks { path: PathBuf },
}

/// Signs tokens.
#[derive(Clone)]
pub struct SigningKey {
    encoding: Arc<EncodingKey>,
    verifying: VerifyingKey,
}

/// Verifies tokens.
#[derive(Clone)]
pub struct VerifyingKey(pub(super) Arc<DecodingKey>);

/// An upload token, with what its response says about it.
#[derive(Debug, Clone)]
pub struct UploadToken {
    pub token: String,
    pub expires_at: Timestamp,
}

pub(super) const ISSUER: &str = "sluice";

/// Whom a token is for: a token of one audience opens nothing of another.
pub(super) mod audience {
    pub const SESSION: &str = "sluice";
    pub const UPLOAD: &str = "sluice-upload";
    pub const SETUP: &str = "sluice-setup";
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Claims {
    pub iss: String,
    pub aud: String,
    /// Seconds since the epoch, as in RFC 7519.
    pub iat: i64,
    pub exp: i64,
    /// The user; absent in service and setup tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

impl Claims {
    fn new(audience: &str, now: Timestamp, expires_at: Timestamp) -> Claims {
        Claims {
            iss: ISSUER.to_owned(),
            aud: audience.to_owned(),
            iat: now.unix_ms() / 1000,
            exp: expires_at.unix_ms() / 1000,
            sub: None,
            sid: None,
            vid: None,
            role: None,
        }
    }
}

impl SigningKey {
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let malformed = |reason: String| KeyError::Malformed { what: "the signing key", reason };
        let key = ed25519_dalek::SigningKey::from_pkcs8_pem(pem).map_err(|e| malformed(e.to_string()))?;
        let public_pem = public_pem(&key).map_err(malformed)?;
        let encoding = EncodingKey::from_ed_pem(pem.as_bytes()).map_err(|e| malformed(e.to_string()))?;
        Ok(SigningKey { encoding: Arc::new(encoding), verifying: VerifyingKey::from_pem(&public_pem)? })
    }

    /// A new key, in memory.
    pub fn generate(ids: &Ids) -> Result<Self, KeyError> {
        SigningKey::from_pem(&generate_pem(ids)?)
    }

    /// Reads the key pair of `folder`, or makes it; the public half is written beside it for the other services.
    /// Two processes that start together agree: the first file that appears is the key.
    pub fn load_or_create(folder: &Path, ids: &Ids) -> Result<Self, KeyError> {
        let path = folder.join(SIGNING_FILE);
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| KeyError::File { path, source }
        };
        std::fs::create_dir_all(folder).map_err(at(folder))?;
        if !path.exists() {
            write_new(&path, &generate_pem(ids)?, 0o600).map_err(at(&path))?;
        }
        let pem = std::fs::read_to_string(&path).map_err(at(&path))?;
        let malformed = |reason| KeyError::Malformed { what: "the signing key", reason };
        let key = ed25519_dalek::SigningKey::from_pkcs8_pem(&pem).map_err(|e| malformed(e.to_string()))?;
        let public_path = folder.join(VERIFYING_FILE);
        let public = public_pem(&key).map_err(malformed)?;
        if std::fs::read_to_string(&public_path).ok().as_deref() != Some(&public) {
            replace(&public_path, &public, 0o644).map_err(at(&public_path))?;
        }
        SigningKey::from_pem(&pem)
    }

    /// The configured key, or the one of the data directory, which is made at the first start.
    pub fn of(settings: &Settings, ids: &Ids) -> Result<Self, KeyError> {
        match &settings.signing_key {
            Some(pem) => SigningKey::from_pem(pem),
            None => SigningKey::load_or_create(&settings.keys_dir(), ids),
        }
    }

    pub fn verifying(&self) -> VerifyingKey {
        self.verifying.clone()
    }

    pub fn session_token(
        &self,
        user: UserId,
        session: SessionId,
        role: Role,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> String {
        let claims = Claims::new(audience::SESSION, now, expires_at);
        let (sub, sid) = (Some(user.to_string()), Some(session.to_string()));
        self.sign(&Claims { sub, sid, role: Some(role), ..claims })
    }

    pub fn upload_token(&self, user: UserId, video: VideoId, now: Timestamp, lifetime_s: u64) -> UploadToken {
        let expires_at = now.plus_s(i64::try_from(lifetime_s).unwrap_or(i64::MAX));
        let claims = Claims::new(audience::UPLOAD, now, expires_at);
        let (sub, vid) = (Some(user.to_string()), Some(video.to_string()));
        UploadToken { token: self.sign(&Claims { sub, vid, ..claims }), expires_at }
    }

    /// Lets its holder choose the first admin, once.
    pub fn setup_token(&self, now: Timestamp, lifetime_s: u64) -> String {
        let expires_at = now.plus_s(i64::try_from(lifetime_s).unwrap_or(i64::MAX));
        self.sign(&Claims::new(audience::SETUP, now, expires_at))
    }

    /// For another part of the installation, as the scheduler's callers.
    pub fn service_token(&self, now: Timestamp, lifetime_s: u64) -> String {
        let expires_at = now.plus_s(i64::try_from(lifetime_s).unwrap_or(i64::MAX));
        let claims = Claims::new(audience::SESSION, now, expires_at);
        self.sign(&Claims { role: Some(Role::Service), ..claims })
    }

    fn sign(&self, claims: &Claims) -> String {
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &self.encoding)
            .expect("the key was checked to be Ed25519 when it was loaded, and the claims are plain strings")
    }
}

impl VerifyingKey {
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let malformed = |reason: String| KeyError::Malformed { what: "the verifying key", reason };
        ed25519_dalek::VerifyingKey::from_public_key_pem(pem).map_err(|e| malformed(e.to_string()))?;
        let key = DecodingKey::from_ed_pem(pem.as_bytes()).map_err(|e| malformed(e.to_string()))?;
        Ok(VerifyingKey(Arc::new(key)))
    }

    /// The configured key, or the one of the data directory. There `api` writes it at its first start; services that
    /// start together with it wait a little.
    pub async fn of(settings: &Settings) -> Result<Self, KeyError> {
        if let Some(pem) = &settings.verifying_key {
            return VerifyingKey::from_pem(pem);
        }
        let folder = settings.keys_dir();
        wait_for(&folder.join(VERIFYING_FILE)).await;
        VerifyingKey::load(&folder)
    }

    /// Reads what `api` wrote into `folder`.
    pub fn load(folder: &Path) -> Result<Self, KeyError> {
        VerifyingKey::from_pem(&read(&folder.join(VERIFYING_FILE))?)
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(hidden)")
    }
}

fn generate_pem(ids: &Ids) -> Result<String, KeyError> {
    let key = ed25519_dalek::SigningKey::from_bytes(&ids.bytes());
    let pem = key.to_pkcs8_pem(LineEnding::LF);
    let pem = pem.map_err(|e| KeyError::Malformed { what: "the new signing key", reason: e.to_string() })?;
    Ok(pem.to_string())
}

fn public_pem(key: &ed25519_dalek::SigningKey) -> Result<String, String> {
    key.verifying_key().to_public_key_pem(LineEnding::LF).map_err(|e| e.to_string())
}

/// Until `api` has written the file, or long enough.
pub(super) async fn wait_for(path: &Path) {
    for _ in 0..WAIT_STEPS {
        if path.exists() {
            return;
        }
        tokio::time::sleep(WAIT_STEP).await;
    }
}

pub(super) fn read(path: &Path) -> Result<String, KeyError> {
    std::fs::read_to_string(path).map_err(|source| KeyError::File { path: path.to_owned(), source })
}

/// The file appears whole and durable, or not at all; one that is there already is left alone.
pub(super) fn write_new(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let temporary = write_temporary(path, text, mode)?;
    let linked = std::fs::hard_link(&temporary, path);
    std::fs::remove_file(&temporary)?;
    match linked {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked.and_then(|()| sync_folder(path)),
    }
}

fn replace(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let temporary = write_temporary(path, text, mode)?;
    std::fs::rename(&temporary, path)?;
    sync_folder(path)
}

fn write_temporary(path: &Path, text: &str, mode: u32) -> std::io::Result<PathBuf> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    // What a crash left behind under this name is ours and worthless.
    let _ = std::fs::remove_file(&temporary);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(temporary)
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_pair_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        SigningKey::load_or_create(&keys, &Ids::seeded(1)).unwrap();
        let first = std::fs::read(keys.join(SIGNING_FILE)).unwrap();
        SigningKey::load_or_create(&keys, &Ids::seeded(2)).unwrap();
        assert_eq!(std::fs::read(keys.join(SIGNING_FILE)).unwrap(), first);
        let mode = std::fs::metadata(keys.join(SIGNING_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        VerifyingKey::load(&keys).unwrap();
        assert_eq!(std::fs::read_dir(&keys).unwrap().count(), 2, "no temporary file is left");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert!(SigningKey::from_pem("-----BEGIN NONSENSE-----").is_err());
        assert!(VerifyingKey::from_pem("").is_err());
    }
}

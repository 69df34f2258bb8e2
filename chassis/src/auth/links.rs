//! Links that open a private video for a while: `?exp=…&sig=…` behind an address, HMAC-SHA256 over the video's path and the
//! time. A link opens all that lies under its video, so a playlist passes it on to what it names as it is.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::{Timestamp, VideoId};
use ring::hmac;

use super::keys::{KeyError, read, wait_for, write_new};
use crate::{Ids, Settings};

const FILE: &str = "links.keys";
const KEYS_MAX: usize = 8;
const KEY_ID_CHARS_MAX: usize = 16;
const SECRET_CHARS_MIN: usize = 32;
/// Those who ask within it get the same link, which their caches know again.
const ROUNDED_UP_TO_S: u64 = 60;

/// Signs links with the first key, verifies them with each.
#[derive(Clone)]
pub struct LinkKeys(Arc<[LinkKey]>);

struct LinkKey {
    id: String,
    key: hmac::Key,
}

/// One that was signed by us; whether it has expired is another question.
#[derive(Clone, PartialEq, Eq)]
pub struct Link {
    query: String,
    pub expires_at: Timestamp,
}

impl Link {
    fn new(expires_s: u64, key_id: &str, signature: &str) -> Link {
        let expires_at = Timestamp::from_unix_ms(0).plus_s(i64::try_from(expires_s).unwrap_or(i64::MAX));
        Link { query: format!("exp={expires_s}&sig={key_id}.{signature}"), expires_at }
    }

    /// What stands behind the `?`. Plain letters, digits and `=&._-`: nothing in it has to be escaped in a playlist.
    pub fn query(&self) -> &str {
        &self.query
    }

    /// How many whole seconds it lasts; 0: it has expired.
    pub fn left_s(&self, now: Timestamp) -> u64 {
        u64::try_from(self.expires_at.ms_since(now) / 1000).unwrap_or(0)
    }

    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at <= now
    }
}

/// Whoever reads a link in a log can watch.
impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link(hidden, until {})", self.expires_at.to_rfc3339())
    }
}

impl LinkKeys {
    /// `<id>:<secret>`, several separated by commas or white space. The first one signs.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        parse(text).map_err(KeyError::Links)
    }

    /// A setting's value, refused before anything starts.
    pub(crate) fn check(text: &str) -> Result<(), String> {
        parse(text).map(|_| ())
    }

    /// A new key, in memory.
    pub fn generate(ids: &Ids) -> Result<Self, KeyError> {
        LinkKeys::parse(&generate_text(ids))
    }

    /// For whoever makes links: the configured keys, or those of the data directory, which are made at the first start.
    pub fn of(settings: &Settings, ids: &Ids) -> Result<Self, KeyError> {
        if let Some(text) = &settings.link_keys {
            return LinkKeys::parse(text);
        }
        if settings.signing_key.is_some() {
            tracing::warn!(
                "links open private videos only at processes of this data directory; set SLUICE_LINK_KEYS for all"
            );
        }
        LinkKeys::load_or_create(&settings.keys_dir(), ids)
    }

    /// For whoever verifies them: as [`LinkKeys::of`], but `api` makes what is missing; services that start together
    /// with it wait a little.
    pub async fn of_api(settings: &Settings) -> Result<Self, KeyError> {
        if let Some(text) = &settings.link_keys {
            return LinkKeys::parse(text);
        }
        let path = settings.keys_dir().join(FILE);
        wait_for(&path).await;
        if path.exists() { LinkKeys::parse(&read(&path)?) } else { Err(KeyError::NoLinks { path }) }
    }

    /// Two processes that start together agree: the first file that appears holds the key.
    pub fn load_or_create(folder: &Path, ids: &Ids) -> Result<Self, KeyError> {
        let path = folder.join(FILE);
        let at = |source| KeyError::File { path: path.clone(), source };
        std::fs::create_dir_all(folder).map_err(at)?;
        if !path.exists() {
            write_new(&path, &generate_text(ids), 0o600).map_err(at)?;
        }
        LinkKeys::parse(&read(&path)?)
    }

    /// A key for another purpose, which opens nothing: the same for all processes with the same first key.
    pub fn derive(&self, purpose: &str) -> hmac::Key {
        let secret = hmac::sign(&self.0[0].key, format!("sluice {purpose}").as_bytes());
        hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref())
    }

    /// Opens `video` for at least so long.
    pub fn sign(&self, video: VideoId, now: Timestamp, lifetime_s: u64) -> Link {
        let now_s = u64::try_from(now.unix_ms()).unwrap_or(0).div_ceil(1000);
        let expires_s = now_s.saturating_add(lifetime_s).next_multiple_of(ROUNDED_UP_TO_S);
        let LinkKey { id, key } = &self.0[0];
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(key, message(video, expires_s).as_bytes()));
        Link::new(expires_s, id, &signature)
    }

    /// The link in a query, if one of our keys signed it for this video. Compared in constant time.
    pub fn verify(&self, video: VideoId, query: &str) -> Option<Link> {
        let (expires, signature) = (the_only(query, "exp")?, the_only(query, "sig")?);
        let expires_s: u64 = expires.parse().ok()?;
        let (id, signature) = signature.split_once('.')?;
        let LinkKey { key, .. } = self.0.iter().find(|key| key.id == id)?;
        let signature_bytes = URL_SAFE_NO_PAD.decode(signature).ok()?;
        hmac::verify(key, message(video, expires_s).as_bytes(), &signature_bytes).ok()?;
        // One spelling only: `+5` and `05` are no other way to write a link.
        (expires == expires_s.to_string()).then(|| Link::new(expires_s, id, signature))
    }
}

/// What is signed. The words in front keep the key from meaning anything elsewhere.
fn message(video: VideoId, expires_s: u64) -> String {
    format!("sluice link\n/stream/videos/{video}\n{expires_s}")
}

/// The value of a name that the query has once.
fn the_only<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(found, _)| *found == name).map(|(_, value)| value);
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

fn generate_text(ids: &Ids) -> String {
    format!("k1:{}\n", URL_SAFE_NO_PAD.encode(ids.bytes::<32>()))
}

fn parse(text: &str) -> Result<LinkKeys, String> {
    let items = text.split([',', ' ', '\t', '\r', '\n']).filter(|item| !item.is_empty());
    let keys = items.map(parse_one).collect::<Result<Vec<_>, _>>()?;
    let once = keys.iter().enumerate().all(|(n, key)| keys[..n].iter().all(|before| before.id != key.id));
    if (1..=KEYS_MAX).contains(&keys.len()) && once { Ok(LinkKeys(keys.into())) } else { Err(allowed()) }
}

fn parse_one(item: &str) -> Result<LinkKey, String> {
    let (id, secret) = item.split_once(':').ok_or_else(allowed)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let id_good = (1..=KEY_ID_CHARS_MAX).contains(&id.len()) && id.chars().all(plain);
    if !id_good || secret.len() < SECRET_CHARS_MIN {
        return Err(allowed());
    }
    Ok(LinkKey { id: id.to_owned(), key: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()) })
}

fn allowed() -> String {
    format!(
        "1 to {KEYS_MAX} keys <id>:<secret>, separated by commas: ids that differ, of 1 to {KEY_ID_CHARS_MAX} letters, \
         digits, _ and -, and secrets of at least {SECRET_CHARS_MIN} characters"
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const OLD: &str = "old:0123456789abcdef0123456789abcdef";
    const NEW: &str = "new:fedcba9876543210fedcba9876543210";

    fn now() -> Timestamp {
        Timestamp::from_unix_ms(1_790_000_000_123)
    }

    fn video(seed: u64) -> VideoId {
        Ids::seeded(seed).next(now())
    }

    #[test]
    fn a_link_opens_its_video_and_says_until_when() {
        let keys = LinkKeys::parse(OLD).unwrap();
        let link = keys.sign(video(1), now(), 3600);
        assert_eq!(keys.verify(video(1), link.query()), Some(link.clone()));
        assert_eq!(keys.verify(video(2), link.query()), None);
        let lasts_ms = link.expires_at.ms_since(now());
        assert!((3_600_000..3_660_000).contains(&lasts_ms), "{lasts_ms}");
        assert_eq!(link, keys.sign(video(1), now().plus_s(1), 3600), "the same within a minute");
        assert!(!link.has_expired(link.expires_at.plus_ms(-1)) && link.has_expired(link.expires_at));
        assert_eq!((link.left_s(link.expires_at.plus_s(-9)), link.left_s(link.expires_at.plus_s(9))), (9, 0));
        assert!(!format!("{link:?}").contains("sig"));
        // Beside what else players and pages put into a query, in any order.
        let (expires, signature) = link.query().split_once('&').unwrap();
        let strange = format!("rendition=low&{signature}&x&=&CMCD=br%3D1&{expires}");
        assert_eq!(keys.verify(video(1), &strange), Some(link));
    }

    #[test]
    fn a_link_with_any_bit_changed_is_none() {
        let keys = LinkKeys::parse(&format!("{OLD},{NEW}")).unwrap();
        let link = keys.sign(video(1), now(), 60);
        for at in 0..link.query().len() {
            for bit in 0..7 {
                let mut bytes = link.query().as_bytes().to_vec();
                bytes[at] ^= 1 << bit;
                let changed = String::from_utf8(bytes).unwrap();
                assert_eq!(keys.verify(video(1), &changed), None, "{changed}");
            }
        }
        let (expires, signature) = link.query().split_once('&').unwrap();
        let number = expires.strip_prefix("exp=").unwrap();
        for bad in [
            String::new(),
            expires.to_owned(),
            signature.to_owned(),
            format!("{}&{expires}", link.query()),
            format!("{}&sig=", link.query()),
            format!("exp=0{number}&{signature}"),
            format!("exp=+{number}&{signature}"),
            format!("exp=99999999999999999999&{signature}"),
            format!("{expires}&{signature}="),
            format!("{expires}&sig=old."),
            format!("{expires}&sig=."),
        ] {
            assert_eq!(keys.verify(video(1), &bad), None, "{bad}");
        }
    }

    #[test]
    fn the_first_key_signs_and_the_others_still_verify() {
        let link = LinkKeys::parse(OLD).unwrap().sign(video(1), now(), 60);
        let both = LinkKeys::parse(&format!("{NEW}\n{OLD}\n")).unwrap();
        assert_eq!(both.verify(video(1), link.query()), Some(link.clone()));
        assert!(both.sign(video(1), now(), 60).query().contains("sig=new."));
        assert_eq!(LinkKeys::parse(NEW).unwrap().verify(video(1), link.query()), None);
        let renamed = LinkKeys::parse(&OLD.replace("old", "new")).unwrap();
        assert_eq!(renamed.verify(video(1), link.query()), None, "a key goes by its name");
    }

    #[test]
    fn what_are_no_keys_is_refused() {
        let many: Vec<_> = (0..9).map(|n| OLD.replace("old", &format!("k{n}"))).collect();
        for bad in
            ["", " ,", "old", "old:short", ":0123456789abcdef0123456789abcdef", &OLD.replace("old", "a.b")]
        {
            assert!(LinkKeys::parse(bad).is_err(), "{bad}");
        }
        assert!(LinkKeys::parse(&many.join(",")).is_err() && LinkKeys::parse(&many[..8].join(",")).is_ok());
        assert!(LinkKeys::parse(&format!("{OLD},{OLD}")).is_err(), "ids differ");
    }

    #[tokio::test]
    async fn a_key_is_made_once_and_found_by_others() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::defaults(crate::ServiceName::Streamserver);
        settings.data_dir = folder.path().to_owned();
        let made = LinkKeys::of(&settings, &Ids::seeded(1)).unwrap();
        let link = made.sign(video(1), now(), 60);
        for found in
            [LinkKeys::of(&settings, &Ids::seeded(2)).unwrap(), LinkKeys::of_api(&settings).await.unwrap()]
        {
            assert_eq!(found.verify(video(1), link.query()), Some(link.clone()));
        }
        let mode = std::fs::metadata(settings.keys_dir().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        settings.link_keys = Some(NEW.to_owned());
        assert_eq!(LinkKeys::of_api(&settings).await.unwrap().verify(video(1), link.query()), None);
    }
}

//! What stands behind every address that an answer names.

use std::fmt;

use chassis::Link;
use ring::digest;

/// Nothing, or `?` and a link, so that whoever may fetch a playlist may fetch what it names. Whatever writes addresses
/// takes one and writes it behind each of them, before a `#`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suffix(Option<Link>);

impl Suffix {
    pub fn of(link: &Link) -> Suffix {
        Suffix(Some(link.clone()))
    }

    /// Tells an answer that names addresses from the same one with another suffix: a part of an entity tag.
    pub fn tag(&self) -> String {
        let Some(link) = &self.0 else { return String::new() };
        let digest = digest::digest(&digest::SHA256, link.query().as_bytes());
        let short: String = digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("-{short}")
    }
}

impl fmt::Display for Suffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |link| write!(f, "?{}", link.query()))
    }
}

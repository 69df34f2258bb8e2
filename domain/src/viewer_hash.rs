//! Who watches, as far as anybody need know.

use std::fmt;

/// Tells viewers apart for as long as they count once. Made with a key, so that nobody finds an address by trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewerHash([u8; 16]);

impl ViewerHash {
    /// `digest` is keyed; its first half tells viewers apart well enough.
    pub fn of(digest: &[u8; 32]) -> ViewerHash {
        let (half, _) = digest.split_at(16);
        ViewerHash(half.try_into().expect("a half of 32 bytes has 16"))
    }
}

/// In hexadecimal, as it is stored.
impl fmt::Display for ViewerHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

//! People.

use crate::closed_enum::closed_enum;

closed_enum!(
    /// What a session may do.
    Role { User = "user", Admin = "admin", Service = "service" }
);

/// A user name as it is stored and compared: 3 to 32 of `[a-z0-9_.]`, case-folded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Username(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("3 to 32 characters of a-z, 0-9, _ and .")]
pub struct InvalidAccount;

impl Username {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Username {
    type Err = InvalidAccount;

    fn from_str(text: &str) -> Result<Self, InvalidAccount> {
        let folded = text.to_ascii_lowercase();
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'.';
        let valid = (3..=32).contains(&folded.len()) && folded.bytes().all(allowed);
        valid.then_some(Username(folded)).ok_or(InvalidAccount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usernames_fold_and_are_bounded() {
        assert_eq!("Al.ice_9".parse::<Username>().unwrap().as_str(), "al.ice_9");
        for bad in ["ab", "", "a b c", "über", "a/b", &"a".repeat(33)] {
            assert!(bad.parse::<Username>().is_err(), "{bad}");
        }
    }
}

//! Ids: UUIDv7, one type for each noun, parsed once at the edge.

use crate::Timestamp;

/// A string that is no id: not a UUID of version 7 in its lower-case hyphenated form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is a UUIDv7 in lower-case hyphenated form")]
pub struct InvalidId;

/// What a new id is made of; time and randomness come from the caller.
#[derive(Debug, Clone, Copy)]
pub struct IdParts {
    pub now: Timestamp,
    pub random: [u8; 10],
}

macro_rules! id {
    ($($(#[$meta:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(uuid::Uuid);

        impl From<IdParts> for $name {
            fn from(parts: IdParts) -> Self {
                let unix_ms = u64::try_from(parts.now.unix_ms()).unwrap_or(0);
                $name(uuid::Builder::from_unix_timestamp_millis(unix_ms, &parts.random).into_uuid())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let uuid = uuid::Uuid::try_parse(text).map_err(|_| InvalidId)?;
                // One spelling only: an id that compares equal must be written equally, in keys and in caches.
                let canonical = uuid.get_version_num() == 7 && uuid.as_hyphenated().to_string() == text;
                canonical.then_some($name(uuid)).ok_or(InvalidId)
            }
        }
    )+};
}

id!(
    UserId,
    SessionId,
    VideoId,
    /// A resumable upload.
    UploadId,
    /// One try at writing objects: an upload, a piece of a resumable one, or one run of a job. Its objects live under
    /// its own prefix.
    AttemptId,
    JobId,
    PublicationId,
    DeletionId,
    CommentId,
);

#[cfg(test)]
mod tests {
    use super::*;

    fn id(random: u8) -> VideoId {
        VideoId::from(IdParts { now: Timestamp::from_unix_ms(1_790_000_000_000), random: [random; 10] })
    }

    #[test]
    fn round_trips_and_sorts_by_time() {
        let text = id(7).to_string();
        assert_eq!(text.parse(), Ok(id(7)));
        let later =
            VideoId::from(IdParts { now: Timestamp::from_unix_ms(1_790_000_000_001), random: [0; 10] });
        assert!(later > id(255));
    }

    #[test]
    fn other_spellings_are_refused() {
        let text = id(7).to_string();
        for bad in [
            text.to_uppercase(),
            text.replace('-', ""),
            format!("{{{text}}}"),
            format!("{text} "),
            "550e8400-e29b-41d4-a716-446655440000".to_owned(),
            "../../etc/passwd".to_owned(),
            String::new(),
        ] {
            assert_eq!(bad.parse::<VideoId>(), Err(InvalidId), "{bad}");
        }
    }
}

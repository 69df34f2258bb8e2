//! Instants, in milliseconds since the Unix epoch; RFC 3339 UTC with milliseconds on the wire.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// A text that is no RFC 3339 date-time, or one outside the years 1970 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time is written like 2026-11-21T09:30:00.000Z (RFC 3339)")]
pub struct InvalidTimestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 9999-12-31T23:59:59.999Z, the last instant RFC 3339 can write.
    const UNIX_MS_MAX: i64 = 253_402_300_799_999;

    /// Clamps into the years 1970 to 9999, so that every value can be written.
    pub const fn from_unix_ms(unix_ms: i64) -> Self {
        if unix_ms < 0 {
            Timestamp(0)
        } else if unix_ms > Self::UNIX_MS_MAX {
            Timestamp(Self::UNIX_MS_MAX)
        } else {
            Timestamp(unix_ms)
        }
    }

    pub const fn unix_ms(self) -> i64 {
        self.0
    }

    pub const fn plus_ms(self, ms: i64) -> Self {
        Self::from_unix_ms(self.0.saturating_add(ms))
    }

    pub const fn plus_s(self, s: i64) -> Self {
        self.plus_ms(s.saturating_mul(1000))
    }

    /// Milliseconds from `earlier` to `self`; negative when `self` is the earlier one.
    pub const fn ms_since(self, earlier: Timestamp) -> i64 {
        self.0 - earlier.0
    }

    pub fn parse_rfc3339(text: &str) -> Result<Self, InvalidTimestamp> {
        let parsed = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| InvalidTimestamp)?;
        let unix_ms =
            i64::try_from(parsed.unix_timestamp_nanos() / 1_000_000).map_err(|_| InvalidTimestamp)?;
        if (0..=Self::UNIX_MS_MAX).contains(&unix_ms) {
            Ok(Timestamp(unix_ms))
        } else {
            Err(InvalidTimestamp)
        }
    }

    pub fn to_rfc3339(self) -> String {
        let format =
            format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .ok()
            .and_then(|instant| instant.format(&format).ok())
            .expect(
                "the range is checked when a Timestamp is made, and the format names only parts that exist",
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_reads_rfc3339() {
        let t = Timestamp::parse_rfc3339("2026-11-21T10:30:00.1239+01:00").unwrap();
        assert_eq!(t.to_rfc3339(), "2026-11-21T09:30:00.123Z");
        assert_eq!(Timestamp::parse_rfc3339(&t.to_rfc3339()), Ok(t));
        assert_eq!(Timestamp::from_unix_ms(i64::MAX).to_rfc3339(), "9999-12-31T23:59:59.999Z");
        for bad in ["", "tomorrow", "2026-11-21", "1969-12-31T23:59:59Z", "2026-13-01T00:00:00Z"] {
            assert_eq!(Timestamp::parse_rfc3339(bad), Err(InvalidTimestamp), "{bad}");
        }
    }
}

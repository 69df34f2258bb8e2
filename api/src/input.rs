//! What people type, parsed at the edge. Each message says what is allowed.

use chassis::{FieldError, Problem};
use domain::{Timestamp, Username, Visibility};
use serde::{Deserialize, Deserializer};
use time::Date;
use time::macros::format_description;

/// Collects what is wrong, so that a person learns of everything at once.
#[derive(Default)]
pub(crate) struct Fields(Vec<FieldError>);

type Parsed<T> = Result<T, String>;

impl Fields {
    /// `None` if it is wrong; then [`Fields::problem`] names it.
    pub fn take<T>(&mut self, field: &str, parsed: Parsed<T>) -> Option<T> {
        parsed.map_err(|message| self.0.push(FieldError { field: field.to_owned(), message })).ok()
    }

    /// For a field that may be left out: the outer `None` if it is wrong.
    pub fn take_optional<I, T>(
        &mut self,
        field: &str,
        value: Option<I>,
        parse: impl FnOnce(I) -> Parsed<T>,
    ) -> Option<Option<T>> {
        self.take(field, value.map(parse).transpose())
    }

    /// For a field that `null` empties.
    pub fn take_nullable<I, T>(
        &mut self,
        field: &str,
        value: Option<Option<I>>,
        parse: impl FnOnce(I) -> Parsed<T>,
    ) -> Option<Option<Option<T>>> {
        self.take(field, value.map(|value| value.map(parse).transpose()).transpose())
    }

    pub fn problem(self) -> Problem {
        Problem::fields(self.0)
    }
}

/// `null` is `Some(None)`; with `#[serde(default)]` a field that is left out is `None`.
pub(crate) fn nullable<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

pub(crate) fn username(text: String) -> Parsed<Username> {
    text.parse().map_err(|error: domain::InvalidAccount| error.to_string())
}

pub(crate) fn password(text: String) -> Parsed<String> {
    let long_enough = (8..=128).contains(&text.chars().count());
    if long_enough { Ok(text) } else { Err("8 to 128 characters".to_owned()) }
}

/// Case-folded. Whether mail arrives there only mail can tell.
pub(crate) fn email(text: String) -> Parsed<String> {
    let text = text.trim().to_lowercase();
    let parts = text.split_once('@');
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '@' | '<' | '>' | ',');
    let valid = parts.is_some_and(|(name, host)| {
        !name.is_empty()
            && host.contains('.')
            && !host.starts_with('.')
            && !host.ends_with('.')
            && name.chars().chain(host.chars()).all(plain)
    });
    let valid = valid && text.len() <= 254;
    if valid { Ok(text) } else { Err("an e-mail address like name@example.org".to_owned()) }
}

pub(crate) fn display_name(text: String) -> Parsed<String> {
    line(text, 1, 64)
}

pub(crate) fn bio(text: String) -> Parsed<String> {
    lines(text, 0, 1000)
}

pub(crate) fn phone(text: String) -> Parsed<String> {
    let text = text.trim().to_owned();
    let digits = text.chars().filter(char::is_ascii_digit).count();
    let rest = text.strip_prefix('+').unwrap_or(&text);
    let valid = (5..=15).contains(&digits)
        && text.len() <= 32
        && rest.chars().all(|c| c.is_ascii_digit() || matches!(c, ' ' | '-' | '(' | ')'));
    if valid { Ok(text) } else { Err("a phone number like +49 30 1234567".to_owned()) }
}

pub(crate) fn date_of_birth(text: String, now: Timestamp) -> Parsed<String> {
    let date = Date::parse(&text, format_description!("[year]-[month]-[day]")).ok();
    // Both are written largest unit first, so they compare as texts.
    let past = text < now.to_rfc3339() && text.as_str() >= "1900-01-01";
    if date.is_some() && past && text.len() == 10 {
        Ok(text)
    } else {
        Err("a date like 1990-12-31, not in the future".to_owned())
    }
}

pub(crate) fn title(text: String) -> Parsed<String> {
    line(text, 1, 128)
}

pub(crate) fn description(text: String) -> Parsed<String> {
    lines(text, 0, 5000)
}

/// Without doubles, in the order given.
pub(crate) fn tags(texts: Vec<String>) -> Parsed<Vec<String>> {
    if texts.len() > 20 {
        return Err("at most 20 tags".to_owned());
    }
    let mut tags = Vec::new();
    for text in texts {
        let tag = tag(text)?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    Ok(tags)
}

/// Case-folded, so that a tag is found however it is written.
pub(crate) fn tag(text: String) -> Parsed<String> {
    line(text.to_lowercase(), 1, 32).map_err(|message| format!("a tag has {message}"))
}

pub(crate) fn visibility(text: String) -> Parsed<Visibility> {
    text.parse().map_err(|_| "`public`, `unlisted` or `private`".to_owned())
}

/// `duration_s` as far as it is known.
pub(crate) fn cover_at_s(seconds: f64, duration_s: Option<f64>) -> Parsed<f64> {
    match duration_s {
        _ if seconds < 0.0 => Err("seconds from the start of the film, at least 0".to_owned()),
        Some(duration_s) if seconds > duration_s => Err(format!("the film ends after {duration_s:.3} s")),
        _ => Ok(seconds),
    }
}

pub(crate) fn comment(text: String) -> Parsed<String> {
    lines(text, 1, 2000)
}

/// One line, trimmed.
fn line(text: String, chars_min: usize, chars_max: usize) -> Parsed<String> {
    bounded(text, chars_min, chars_max, |c| c.is_control())
}

/// Several lines, trimmed.
fn lines(text: String, chars_min: usize, chars_max: usize) -> Parsed<String> {
    bounded(text, chars_min, chars_max, |c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
}

fn bounded(
    text: String,
    chars_min: usize,
    chars_max: usize,
    forbidden: impl Fn(char) -> bool,
) -> Parsed<String> {
    let text = text.trim();
    if text.chars().any(forbidden) {
        return Err("no control characters".to_owned());
    }
    if (chars_min..=chars_max).contains(&text.chars().count()) {
        return Ok(text.to_owned());
    }
    Err(if chars_min == 0 {
        format!("at most {chars_max} characters")
    } else {
        format!("{chars_min} to {chars_max} characters")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_trimmed_and_bounded_in_characters() {
        assert_eq!(title("  A title ".into()), Ok("A title".into()));
        assert_eq!(title("ü".repeat(128)).map(|t| t.chars().count()), Ok(128));
        for bad in ["", "   ", "a\u{0}b", "two\nlines", &"x".repeat(129)] {
            assert!(title(bad.into()).is_err(), "{bad:?}");
        }
        assert_eq!(comment("two\nlines".into()), Ok("two\nlines".into()));
        assert!(comment("x".repeat(2001)).is_err() && comment(" ".into()).is_err());
        assert!(description(String::new()).is_ok() && description("x".repeat(5001)).is_err());
    }

    #[test]
    fn tags_are_folded_and_few() {
        assert_eq!(
            tags(vec!["Sea".into(), "sea".into(), "Sky ".into()]),
            Ok(vec!["sea".into(), "sky".into()])
        );
        assert!(tags(vec!["x".into(); 21]).is_err());
        assert!(tags(vec![String::new()]).is_err() && tags(vec!["x".repeat(33)]).is_err());
    }

    #[test]
    fn addresses_and_numbers_look_like_ones() {
        assert_eq!(email(" Al@Example.ORG".into()), Ok("al@example.org".into()));
        for bad in ["", "al", "al@", "@example.org", "al@org", "a b@example.org", "a@b@c.de", "a@.de", "a@b."]
        {
            assert!(email(bad.into()).is_err(), "{bad}");
        }
        assert!(phone("+49 (30) 123-4567".into()).is_ok());
        for bad in ["", "1234", "phone", "+49+30123456", "1234567890123456"] {
            assert!(phone(bad.into()).is_err(), "{bad}");
        }
    }

    #[test]
    fn dates_of_birth_are_dates_in_the_past() {
        let now = Timestamp::parse_rfc3339("2026-11-21T00:00:00Z").unwrap();
        assert!(date_of_birth("1990-02-28".into(), now).is_ok());
        for bad in ["1990-02-30", "2026-11-22", "1890-01-01", "90-1-1", "", "1990-02-28T00:00:00Z"] {
            assert!(date_of_birth(bad.into(), now).is_err(), "{bad}");
        }
    }

    #[test]
    fn covers_are_taken_within_the_film() {
        assert!(cover_at_s(1.5, Some(2.0)).is_ok() && cover_at_s(9.0, None).is_ok());
        assert!(cover_at_s(-0.1, None).is_err() && cover_at_s(2.1, Some(2.0)).is_err());
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let mut fields = Fields::default();
        assert_eq!(fields.take("title", title("ok".into())), Some("ok".into()));
        assert_eq!(fields.take("title", title(String::new())), None);
        assert_eq!(fields.take_optional("email", Some("x".to_owned()), email), None);
        assert_eq!(fields.take_optional("email", None, email), Some(None));
        assert_eq!(fields.take_nullable::<String, _>("email", Some(None), email), Some(Some(None)));
        assert_eq!(fields.problem().errors().len(), 2);
    }
}

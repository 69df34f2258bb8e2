//! Texts of the file and the environment, parsed into what the settings hold.

use std::net::SocketAddr;
use std::path::PathBuf;

use domain::{JobKind, RungSettings, VideoCodec};

use super::{CacheTagHeader, LogFormat, StoreAddress};
use crate::Network;

/// A type that a setting can have.
pub trait Value: Sized {
    /// The error says what is allowed, e.g. `a whole number of at least 0`.
    fn parse(text: &str) -> Result<Self, String>;

    /// A text that `parse` takes; empty for nothing.
    fn write(&self) -> String;
}

macro_rules! numbers {
    ($($type:ty: $allowed:literal),+) => {$(
        impl Value for $type {
            fn parse(text: &str) -> Result<Self, String> {
                text.replace('_', "").parse().map_err(|_| $allowed.to_owned())
            }

            fn write(&self) -> String {
                self.to_string()
            }
        }
    )+};
}

numbers!(
    u32: "a whole number of at least 0",
    u64: "a whole number of at least 0",
    usize: "a whole number of at least 0",
    SocketAddr: "an address with a port, e.g. 127.0.0.1:8000"
);

impl Value for f64 {
    fn parse(text: &str) -> Result<Self, String> {
        let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
        number.ok_or_else(|| "a number of at least 0".to_owned())
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn write(&self) -> String {
        self.clone()
    }
}

impl Value for PathBuf {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("a path".to_owned()) } else { Ok(PathBuf::from(text)) }
    }

    fn write(&self) -> String {
        self.display().to_string()
    }
}

impl<T: Value> Value for Option<T> {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::parse(text).map(Some) }
    }

    fn write(&self) -> String {
        self.as_ref().map(T::write).unwrap_or_default()
    }
}

/// A list, separated by commas.
fn list<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(parse).collect()
}

impl Value for Vec<JobKind> {
    fn parse(text: &str) -> Result<Self, String> {
        if text.trim() == "all" {
            return Ok(JobKind::ALL.to_vec());
        }
        let words: Vec<_> = JobKind::ALL.iter().map(|kind| kind.as_str()).collect();
        let allowed = || format!("`all`, or a list of {}", words.join(", "));
        let kinds = list(text, |word| word.parse().map_err(|_| allowed()))?;
        if kinds.is_empty() { Err(allowed()) } else { Ok(kinds) }
    }

    fn write(&self) -> String {
        let words: Vec<_> = self.iter().map(|kind| kind.as_str()).collect();
        if words.len() == JobKind::ALL.len() { "all".to_owned() } else { words.join(",") }
    }
}

impl Value for Vec<VideoCodec> {
    fn parse(text: &str) -> Result<Self, String> {
        let allowed = || "nothing, or a list of `hevc` and `av1`; H.264 is always made".to_owned();
        let codecs: Vec<VideoCodec> = list(text, |word| word.parse().map_err(|_| allowed()))?;
        let once = codecs.iter().enumerate().all(|(n, codec)| !codecs[..n].contains(codec));
        if once && !codecs.contains(&VideoCodec::H264) { Ok(codecs) } else { Err(allowed()) }
    }

    fn write(&self) -> String {
        self.iter().map(|codec| codec.as_str()).collect::<Vec<_>>().join(",")
    }
}

impl Value for RungSettings {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Value for Vec<Network> {
    fn parse(text: &str) -> Result<Self, String> {
        list(text, |item| {
            item.parse().map_err(|_| "a list of addresses and networks, e.g. 10.0.0.0/8".to_owned())
        })
    }

    fn write(&self) -> String {
        self.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

impl Value for CacheTagHeader {
    fn parse(text: &str) -> Result<Self, String> {
        let found = CacheTagHeader::ALL.iter().find(|header| header.name().eq_ignore_ascii_case(text));
        found.copied().ok_or_else(|| {
            let names: Vec<_> = CacheTagHeader::ALL.iter().map(|header| header.name()).collect();
            format!("one of {}", names.join(", "))
        })
    }

    fn write(&self) -> String {
        self.name().to_owned()
    }
}

impl Value for LogFormat {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(LogFormat::Auto),
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("`auto`, `text` or `json`".to_owned()),
        }
    }

    fn write(&self) -> String {
        match self {
            LogFormat::Auto => "auto",
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
        .to_owned()
    }
}

impl Value for bool {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err("`true` or `false`".to_owned()),
        }
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Value for StoreAddress {
    fn parse(text: &str) -> Result<Self, String> {
        let allowed = || "`disk`, `disk:/path` or `s3://bucket/prefix`".to_owned();
        if text == "disk" {
            return Ok(StoreAddress::Disk(None));
        }
        if let Some(folder) = text.strip_prefix("disk:").filter(|folder| !folder.is_empty()) {
            return Ok(StoreAddress::Disk(Some(PathBuf::from(folder))));
        }
        let (bucket, prefix) = text
            .strip_prefix("s3://")
            .map(|rest| rest.split_once('/').unwrap_or((rest, "")))
            .ok_or_else(allowed)?;
        let prefix = prefix.trim_matches('/');
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let bucket_good = (3..=63).contains(&bucket.len()) && bucket.chars().all(plain);
        let prefix_good = prefix.is_empty()
            || prefix.split('/').all(|part| !matches!(part, "" | "." | "..") && part.chars().all(plain));
        if !bucket_good || !prefix_good {
            return Err(allowed());
        }
        Ok(StoreAddress::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl std::str::FromStr for StoreAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        StoreAddress::parse(text).map_err(|allowed| format!("allowed is {allowed}"))
    }
}

/// An http address without query; a slash at the end is dropped where it is used.
pub struct Url;

impl Url {
    pub fn check(text: &str) -> Result<(), String> {
        let allowed =
            || "an address that starts with http:// or https://, e.g. https://video.example".to_owned();
        let rest =
            text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or_else(allowed)?;
        let plain = |c: char| !c.is_whitespace() && !matches!(c, '?' | '#' | '"' | '<' | '>');
        if !rest.is_empty() && !rest.starts_with('/') && rest.chars().all(plain) {
            Ok(())
        } else {
            Err(allowed())
        }
    }
}

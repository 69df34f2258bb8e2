//! Why settings are refused, each in one line that names the setting, its value and what is allowed.

use std::path::PathBuf;

use super::Origin;

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("{name} (from {origin}): there is no such setting{}", suggestion.as_ref().map(|s| format!("; did you mean {s}?")).unwrap_or_default())]
    Unknown { name: String, origin: Origin, suggestion: Option<String> },
    #[error("{name} = \"{value}\" (from {origin}): allowed is {allowed}")]
    Invalid { name: String, value: String, origin: Origin, allowed: String },
    #[error("{name} and {other} are both set and mean the same: keep one of them")]
    Twice { name: String, other: String },
    #[error("{name} = \"{path}\": the file cannot be read: {source}", path = path.display())]
    SecretFile { name: String, path: PathBuf, source: std::io::Error },
    #[error("{path}: the settings file cannot be read: {source}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: this is not TOML: {reason}", path = path.display())]
    Syntax { path: PathBuf, reason: String },
    #[error("{name} (from {origin}): {reason}")]
    Conflict { name: &'static str, origin: Origin, reason: &'static str },
}

impl SettingsError {
    /// `EX_CONFIG` of sysexits.
    pub const EXIT_CODE: u8 = 78;
}

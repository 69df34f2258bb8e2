//! Why the program ends, in one line for a person, with an exit code of sysexits.

use std::fmt::Display;
use std::process::ExitCode;

use domain::{StartError, StartFault};

use crate::{HostError, KeyError, SettingsError};

#[derive(Debug)]
pub struct Failure {
    exit_code: u8,
    text: String,
}

impl Failure {
    /// Something we stand on is not there: a port, a database, a store.
    pub fn unavailable(text: impl Into<String>) -> Self {
        Failure { exit_code: 69, text: text.into() }
    }

    /// Ours: a bug, or a machine in trouble.
    pub fn software(what: &str, error: impl Display) -> Self {
        Failure { exit_code: 70, text: format!("{what}: {error:#}") }
    }

    /// A file or folder cannot be made.
    pub fn cannot_create(text: impl Into<String>) -> Self {
        Failure { exit_code: 73, text: text.into() }
    }

    /// A setting is wrong.
    pub fn settings(text: impl Into<String>) -> Self {
        Failure { exit_code: SettingsError::EXIT_CODE, text: text.into() }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Tells it on standard error; the exit code to end with.
    pub fn report(&self) -> ExitCode {
        eprintln!("{}", self.text);
        ExitCode::from(self.exit_code)
    }
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        Failure::unavailable(error.to_string())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let exit_code = match error.fault {
            StartFault::Unavailable => 69,
            StartFault::CannotCreate => 73,
            StartFault::Settings => SettingsError::EXIT_CODE,
        };
        Failure { exit_code, text: error.text }
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        Failure::settings(error.to_string())
    }
}

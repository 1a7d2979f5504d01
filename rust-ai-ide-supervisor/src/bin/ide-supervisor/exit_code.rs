//! How the program ends, as scripts see it.

use std::process::ExitCode;

use rust_ai_ide_supervisor::config_file::ConfigFileError;
use supervisor_core::error::Classified as _;

/// How the program ended; the numbers are documented and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything asked for was done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// The command line was not understood.
    Usage = 2,
    /// The configuration file is missing or invalid.
    ConfigInvalid = 3,
    /// No supervisor runs in that state directory.
    NoSupervisor = 4,
    /// No service has that id.
    NoSuchService = 5,
    /// Another supervisor owns that state directory.
    OwnedByAnother = 6,
    /// A critical service was given up.
    CriticalServiceFailed = 7,
    /// The database is newer, foreign, or damaged beyond repair.
    DatabaseRefused = 8,
}

impl Exit {
    /// Every way to end, in the order of the numbers.
    pub(crate) const ALL: [Self; 9] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::ConfigInvalid,
        Self::NoSupervisor,
        Self::NoSuchService,
        Self::OwnedByAnother,
        Self::CriticalServiceFailed,
        Self::DatabaseRefused,
    ];

    /// Gives what the number means, for the manual.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Usage => "the command line was not understood",
            Self::ConfigInvalid => "the configuration is missing or invalid",
            Self::NoSupervisor => "no supervisor is running there",
            Self::NoSuchService => "there is no such service",
            Self::OwnedByAnother => "another supervisor owns this state directory",
            Self::CriticalServiceFailed => "a critical service failed",
            Self::DatabaseRefused => {
                "the database was refused: newer, foreign, or damaged beyond repair"
            }
        }
    }

    /// Finds the exit that says most about an error with this stable code.
    pub(crate) fn of_error_code(code: &str) -> Self {
        match code {
            "unknown_service" => Self::NoSuchService,
            "database_owned" => Self::OwnedByAnother,
            "database_foreign"
            | "database_too_new"
            | "database_corrupt"
            | "migration_divergent"
            | "migration_damaged_history" => Self::DatabaseRefused,
            code if code.starts_with("config_") => Self::ConfigInvalid,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what was asked, in words that end with what to do next.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), help: None }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Ends the program quietly: whoever read the output has read enough.
    pub(crate) fn reader_left() -> Self {
        Self::new(Exit::Done, "")
    }
}

impl From<ConfigFileError> for Failure {
    fn from(error: ConfigFileError) -> Self {
        Self::new(Exit::of_error_code(error.code()), supervisor_core::error::chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_exit_has_a_number_of_its_own_from_zero_up() {
        let numbers: Vec<u8> = Exit::ALL.iter().map(|exit| *exit as u8).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
        let meanings: BTreeSet<&str> = Exit::ALL.iter().map(|exit| exit.meaning()).collect();
        assert_eq!(meanings.len(), Exit::ALL.len());
    }

    #[test]
    fn an_error_code_maps_to_the_exit_that_says_most() {
        assert_eq!(Exit::of_error_code("unknown_service"), Exit::NoSuchService);
        assert_eq!(Exit::of_error_code("database_owned"), Exit::OwnedByAnother);
        assert_eq!(Exit::of_error_code("config_invalid"), Exit::ConfigInvalid);
        assert_eq!(Exit::of_error_code("process_busy"), Exit::Failed);
    }
}

//! The command line.

pub(crate) mod running;
pub(crate) mod storage;
pub(crate) mod wrap;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use rust_ai_ide_supervisor::config_file::{ConfigFileError, locate};
use rust_ai_ide_supervisor::state_dir::STATE_DIR_NAME;

use crate::output::Colour;
use crate::services::DemoService;

const AFTER_HELP: &str = "\
Start here:
  ide-supervisor demo           watch three services be supervised, broken and recovered
  ide-supervisor config init    write an example ide-supervisor.toml
  ide-supervisor doctor         check this machine";

/// Keeps local services alive: starts them, watches them, restarts them, and remembers what they were doing.
#[derive(Debug, Parser)]
#[command(
    name = "ide-supervisor",
    version,
    after_help = AFTER_HELP,
    propagate_version = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(crate) struct Args {
    /// When to colour the output.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub(crate) color: Colour,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Running(running::RunningCommand),

    /// Runs a language server or MCP server for the client on standard input and output, and hides the server's crashes from it.
    ///
    /// Put in front of the server's command wherever an editor or agent is told how to start it. Nothing has to be
    /// configured; while nothing is wrong every byte passes as it came.
    Wrap(wrap::Wrap),

    /// Writes, checks or describes the configuration file.
    #[command(subcommand)]
    Config(ConfigCommand),

    /// Checks this machine, the configuration and the state directory, and says what to do about what it finds.
    Doctor(Doctor),

    /// Prints a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },

    /// Prints the manual page, or writes one for every command.
    Man {
        /// Directory to write one page for every command to.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },

    /// Runs one of the services `demo` supervises.
    #[command(subcommand, hide = true)]
    DemoService(DemoService),

    /// Runs the supervisor `demo` watches and kills.
    #[command(hide = true)]
    DemoSupervisor(Target),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Writes a commented example; refuses to overwrite a file.
    Init {
        /// File to write.
        #[arg(long, value_name = "FILE", default_value = rust_ai_ide_supervisor::config_file::CONFIG_FILE_NAME)]
        config: PathBuf,
    },
    /// Checks the whole file and explains the first mistake; nothing is started.
    Check {
        /// Configuration file; by default ide-supervisor.toml in the working directory or above it.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Prints the JSON Schema of the file, for completion in editors.
    Schema,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which supervisor is meant.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Target {
    /// Configuration file; by default ide-supervisor.toml in the working directory or above it.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// State directory; by default .ide-supervisor beside the configuration file.
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

impl Target {
    /// Gives the configuration file: the one named, else the nearest upwards.
    pub(crate) fn config_path(&self) -> Result<PathBuf, ConfigFileError> {
        match &self.config {
            Some(path) => Ok(path.clone()),
            None => locate(&std::env::current_dir().unwrap_or_default()),
        }
    }

    /// Gives the state directory: the one named, else the one beside the configuration file.
    pub(crate) fn state_dir(&self) -> Result<PathBuf, ConfigFileError> {
        if let Some(dir) = &self.state_dir {
            return Ok(dir.clone());
        }
        let config = std::path::absolute(self.config_path()?).unwrap_or_default();
        Ok(config.with_file_name(STATE_DIR_NAME))
    }
}

/// Reads a duration the way the configuration file does.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    supervisor_core::text::parse_duration("duration", text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_state_directory_stands_beside_the_configuration() {
        let target = Target { config: Some("/a/b/mine.toml".into()), state_dir: None };
        assert_eq!(target.state_dir().unwrap(), PathBuf::from("/a/b").join(STATE_DIR_NAME));
    }
}

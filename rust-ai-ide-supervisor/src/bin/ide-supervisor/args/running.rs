//! The commands that run a supervisor or talk to one.

use std::time::Duration;

use clap::Subcommand;
use rust_ai_ide_supervisor::GuardianChoice;
use supervisor_core::{CheckpointId, ServiceId};

pub(crate) use super::storage::{
    BackupCommand, DeadLetterCommand, RecoveryCommand, SavepointCommand,
};
use super::{Target, duration};

#[derive(Debug, Subcommand)]
pub(crate) enum RunningCommand {
    /// Supervises three small services built into the program, breaks them on purpose, and shows the recovery.
    ///
    /// Leaves nothing behind: no process, and no file outside its own temporary directory. Ctrl-C ends it cleanly.
    Demo(Demo),

    /// Runs the services of the configuration file until it is asked to end.
    Up(Up),

    /// Shows every service: what it is doing, why, and what happens next.
    Status(Status),

    /// Shows services, channels and events live in the whole terminal; keys start, stop and restart.
    Top(Target),

    /// Starts services and returns when their processes run.
    Start(Services),

    /// Stops services and returns when nothing of them is left; a second stop kills.
    Stop(Services),

    /// Stops and starts services.
    Restart(Services),

    /// Stops everything, the supervisor included, and returns when nothing is left.
    Down(Target),

    /// Reads the configuration again and changes only what changed.
    Reload(Target),

    /// Shows the captured output of a service.
    Logs(Logs),

    /// Shows what happened, oldest first.
    Events(Events),

    /// Takes, lists, shows, verifies or restores checkpoints.
    #[command(subcommand)]
    Checkpoint(CheckpointCommand),

    /// Named snapshots of every service's state, to keep, to carry elsewhere, and to go back to.
    #[command(subcommand)]
    Savepoint(SavepointCommand),

    /// Copies of the whole database, each of them opened and read before it counts.
    #[command(subcommand)]
    Backup(BackupCommand),

    /// Lists or verifies the audit trail.
    #[command(subcommand)]
    Audit(AuditCommand),

    /// What had to be done to open the database: shows it, or says that it was seen.
    #[command(subcommand)]
    Recovery(RecoveryCommand),

    /// Shows every channel and its health.
    Channels(Plain),

    /// Messages that failed for good: lists them, sends them again, or deletes them.
    #[command(subcommand)]
    DeadLetters(DeadLetterCommand),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// How long to run; until its story is told by default.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub(crate) length: Option<Duration>,
    /// Print events as one JSON document a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Go to the background once every service that starts by itself was started.
    #[arg(long)]
    pub(crate) detach: bool,
    /// Print events as one JSON document a line.
    #[arg(long, conflicts_with = "detach")]
    pub(crate) json: bool,
    /// Own the services' processes in this process instead of in a guardian: when it is killed, what it leaves behind
    /// ends with the next start only, and nothing outlives it.
    #[arg(long)]
    pub(crate) no_guardian: bool,
}

impl Up {
    /// Who owns the services' processes.
    pub(crate) fn guardian(&self) -> GuardianChoice {
        if self.no_guardian { GuardianChoice::Refused } else { GuardianChoice::IfPossible }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Show it again at every change and every few seconds, until Ctrl-C.
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Services {
    /// Ids of the services.
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<ServiceId>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Logs {
    /// Id of the service.
    #[arg(value_name = "ID")]
    pub(crate) id: ServiceId,
    /// Lines to show.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub(crate) lines: u32,
    /// Go on with what is written from now on, until Ctrl-C.
    #[arg(short, long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Events {
    /// Stored events to show.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub(crate) lines: u32,
    /// Go on with what happens from now on, until Ctrl-C.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Print one JSON document a line.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// Nothing but a supervisor and a form.
#[derive(Debug, clap::Args)]
pub(crate) struct Plain {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CheckpointCommand {
    /// Takes a checkpoint now and prints its id.
    Create(Plain),
    /// Lists checkpoints, newest first.
    List(Listing),
    /// Shows what a checkpoint holds.
    Show {
        /// Its id; the newest that verifies by default.
        id: Option<CheckpointId>,
        #[command(flatten)]
        plain: Plain,
    },
    /// Reads a checkpoint in both of its places and checks every hash.
    Verify {
        /// Its id; every stored checkpoint by default.
        id: Option<CheckpointId>,
        #[command(flatten)]
        plain: Plain,
    },
    /// Goes back to a checkpoint, after a backup of what is stored now. The supervisor must not run.
    Restore {
        /// Its id.
        id: CheckpointId,
        /// Only show what would change.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        plain: Plain,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Lists audit rows, oldest first.
    List(Listing),
    /// Checks the whole chain of hashes.
    Verify(Plain),
}

/// How much of a list.
#[derive(Debug, clap::Args)]
pub(crate) struct Listing {
    /// Rows to show, the newest.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) lines: u32,
    #[command(flatten)]
    pub(crate) plain: Plain,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory as _, Parser};

    #[derive(Debug, Parser)]
    struct Whole {
        #[command(subcommand)]
        command: RunningCommand,
    }

    #[test]
    fn the_commands_are_consistent() {
        Whole::command().debug_assert();
    }

    #[test]
    fn a_bad_id_is_a_usage_error_before_anybody_is_asked() {
        assert!(Whole::try_parse_from(["x", "start", "../etc"]).is_err());
        assert!(Whole::try_parse_from(["x", "start"]).is_err());
        assert!(Whole::try_parse_from(["x", "checkpoint", "show", "nonsense"]).is_err());
        let started = Whole::try_parse_from(["x", "start", "a", "b", "--state-dir", "s"]).unwrap();
        assert!(
            matches!(started.command, RunningCommand::Start(services) if services.ids.len() == 2)
        );
    }

    #[test]
    fn a_duration_reads_as_in_the_configuration() {
        let demo = Whole::try_parse_from(["x", "demo", "--for", "1m 30s"]).unwrap();
        assert!(
            matches!(demo.command, RunningCommand::Demo(demo) if demo.length == Some(Duration::from_secs(90)))
        );
        assert!(Whole::try_parse_from(["x", "demo", "--for", "-1s"]).is_err());
    }
}

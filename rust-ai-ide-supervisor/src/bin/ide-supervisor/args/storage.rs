//! The commands about stored state.

use std::path::PathBuf;

use clap::Subcommand;
use uuid::Uuid;

use super::running::{Listing, Plain};

#[derive(Debug, Subcommand)]
pub(crate) enum SavepointCommand {
    /// Makes a savepoint of what is now.
    Create {
        /// Its name: 1 to 64 letters, digits, `_`, `-` or `.`, beginning with a letter or digit.
        name: String,
        /// What to remember about it.
        #[arg(long, default_value = "")]
        note: String,
        #[command(flatten)]
        plain: Plain,
    },
    /// Lists savepoints, newest first.
    List(Plain),
    /// Shows what a savepoint holds.
    Show(Named),
    /// Shows what restoring a savepoint would change.
    Diff(Named),
    /// Goes back to a savepoint, after a backup of what is stored now. The supervisor must not run.
    Restore {
        /// Its name.
        name: String,
        /// Only show what would change.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        plain: Plain,
    },
    /// Writes a savepoint to a new file.
    Export {
        /// Its name.
        name: String,
        /// The file; nothing may be there yet.
        #[arg(value_name = "FILE")]
        path: PathBuf,
        #[command(flatten)]
        plain: Plain,
    },
    /// Takes in a file that `export` wrote, here or elsewhere.
    Import {
        /// The file.
        #[arg(value_name = "FILE")]
        path: PathBuf,
        /// The name it gets; its own by default.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        plain: Plain,
    },
    /// Deletes a savepoint.
    Delete(Named),
}

/// One thing with a name.
#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// Its name.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) plain: Plain,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Takes a backup now: copied, opened again, read, then named.
    Create(Plain),
    /// Lists backups, newest first.
    List(Plain),
    /// Reads backups again and proves what they hold.
    Verify {
        /// Its name; every backup by default.
        name: Option<String>,
        #[command(flatten)]
        plain: Plain,
    },
    /// Removes backups beyond the newest ones; damaged ones and the only sound one stay.
    Prune {
        /// So many stay.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
        keep: u64,
        #[command(flatten)]
        plain: Plain,
    },
    /// Goes back to the states of a backup, after a backup of what is stored now. The supervisor must not run.
    Restore {
        /// Its name.
        name: String,
        /// Replace a database that cannot be opened at all by the backup; the refused one is set aside, not deleted.
        #[arg(long)]
        replace_refused: bool,
        #[command(flatten)]
        plain: Plain,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RecoveryCommand {
    /// Shows what openings of the database found, passed over, rebuilt or moved aside, the newest first.
    Show(Plain),
    /// Says that everything `show` shows was seen; a lost end of the database is accepted by that.
    Settle(Plain),
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetterCommand {
    /// Lists dead letters, newest first.
    List {
        /// Of this channel only.
        #[arg(long, value_name = "NAME")]
        channel: Option<String>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Sends dead letters again, with their old ids.
    Requeue {
        /// Ids of the messages.
        #[arg(required = true, value_name = "ID", value_parser = message_id)]
        ids: Vec<Uuid>,
        #[command(flatten)]
        plain: Plain,
    },
    /// Deletes dead letters.
    #[command(group = clap::ArgGroup::new("which").required(true))]
    Purge {
        /// Of this channel only.
        #[arg(long, value_name = "NAME", group = "which")]
        channel: Option<String>,
        /// Of every channel.
        #[arg(long, group = "which")]
        all: bool,
        #[command(flatten)]
        plain: Plain,
    },
}

fn message_id(text: &str) -> Result<Uuid, &'static str> {
    text.parse().map_err(|_| "expected an id such as `dead-letters list` prints")
}

//! How savepoints, backups and dead letters read to a person.

use chrono::{DateTime, Utc};
use supervisor_core::message::DeadLetter;
use supervisor_persist::{
    BackupHealth, BackupReason, BackupStage, BackupSummary, BackupVerification, ChangeKind,
    RecoveryReport, Savepoint, SavepointHealth, SavepointSummary, SnapshotChange, SnapshotDiff,
};

use super::{age, moment, size, word};
use crate::exit_code::Failure;
use crate::output::{Output, Style, Table};

/// Gives a table of savepoints.
pub(crate) fn savepoints(all: &[SavepointSummary], now: DateTime<Utc>) -> Table {
    let mut table =
        Table::new(&["SAVEPOINT", "MADE", "SEQUENCE", "SERVICES", "SIZE", "HEALTH", "NOTE"]);
    for savepoint in all {
        let health = match &savepoint.health {
            SavepointHealth::Verified => (Style::Good, "verified".to_owned()),
            SavepointHealth::Damaged { reason } => (Style::Bad, format!("damaged: {reason}")),
        };
        table.row(vec![
            (Style::Bold, savepoint.name.clone()),
            (Style::Plain, format!("{} ago", age(savepoint.created_at, now))),
            (Style::Plain, savepoint.sequence.to_string()),
            (Style::Plain, savepoint.services.to_string()),
            (Style::Plain, size(savepoint.bytes)),
            health,
            (Style::Plain, savepoint.note.clone()),
        ]);
    }
    table
}

/// Prints what a savepoint holds.
pub(crate) fn savepoint(found: &Savepoint, output: Output) -> Result<(), Failure> {
    let summary = &found.summary;
    let (at, producer) = (moment(summary.created_at), &summary.producer);
    let made = format!("{}, made {at} by version {producer}", summary.name);
    output.line(&made)?;
    if !summary.note.is_empty() {
        output.line(&crate::output::clean(&summary.note))?;
    }
    let held = format!(
        "journal sequence {}, {} services, {} pending operations, {} channels",
        summary.sequence, summary.services, summary.pending_operations, summary.channels
    );
    output.line(&held)?;
    let mut services: Vec<_> = found.snapshot.services.values().collect();
    services.sort_by(|a, b| a.id.cmp(&b.id));
    for state in services {
        output.line(&format!(
            "  {}  {} #{}  {} restarts  {}",
            state.id, state.phase, state.incarnation, state.restarts, state.reason
        ))?;
    }
    Ok(())
}

/// Prints what would change, or did.
pub(crate) fn diff(diff: &SnapshotDiff, output: Output) -> Result<(), Failure> {
    if diff.is_empty() {
        return output.line("nothing differs");
    }
    let parts =
        [("service", &diff.services), ("operation", &diff.operations), ("channel", &diff.channels)];
    for (what, changes) in parts {
        for change in changes {
            output.line(&changed(what, change, output))?;
        }
    }
    Ok(())
}

fn changed(what: &str, change: &SnapshotChange, output: Output) -> String {
    let (sign, style) = match change.change {
        ChangeKind::Added => ("+", Style::Good),
        ChangeKind::Removed => ("-", Style::Bad),
        ChangeKind::Changed => ("~", Style::Warn),
    };
    let mut line = format!("{} {what} {}", output.paint(style, sign), change.id);
    for field in &change.fields {
        line.push_str(&format!("\n    {}: {} -> {}", field.field, field.now, field.then));
    }
    line
}

/// Gives a table of backups.
pub(crate) fn backups(all: &[BackupSummary], now: DateTime<Utc>) -> Table {
    let mut table = Table::new(&["BACKUP", "TAKEN", "WHY", "SCHEMA", "SEQUENCE", "SIZE", "HEALTH"]);
    for backup in all {
        let health = match &backup.health {
            BackupHealth::Verified { at } => {
                (Style::Good, format!("verified {} ago", age(*at, now)))
            }
            BackupHealth::Damaged { reason } => (Style::Bad, format!("damaged: {reason}")),
        };
        table.row(vec![
            (Style::Bold, backup.name.clone()),
            (Style::Plain, format!("{} ago", age(backup.created_at, now))),
            (Style::Plain, reason(&backup.reason)),
            (Style::Plain, backup.content.schema_version.to_string()),
            (Style::Plain, backup.content.sequence.to_string()),
            (Style::Plain, size(backup.bytes)),
            health,
        ]);
    }
    table
}

fn reason(reason: &BackupReason) -> String {
    match reason {
        BackupReason::Requested => "asked for".to_owned(),
        BackupReason::Scheduled => "on schedule".to_owned(),
        BackupReason::BeforeMigration { from, to } => format!("before schema {from} became {to}"),
        BackupReason::BeforeRestore => "before a restore".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Gives a table of what reading backups again found.
pub(crate) fn verifications(found: &[BackupVerification]) -> Table {
    let mut table = Table::new(&["BACKUP", "", "FOUND"]);
    for backup in found {
        let verdict = match backup.intact {
            true => (Style::Good, "intact".to_owned()),
            false => (Style::Bad, "NOT INTACT".to_owned()),
        };
        table.row(vec![
            (Style::Bold, backup.name.clone()),
            verdict,
            (Style::Plain, backup.detail.clone()),
        ]);
    }
    table
}

/// Gives the word for a stage of a long run.
pub(crate) fn stage(stage: BackupStage) -> &'static str {
    match stage {
        BackupStage::Copying => "copying",
        BackupStage::Proving => "reading the copy",
        BackupStage::Hashing => "hashing",
        _ => "publishing",
    }
}

/// Gives a table of dead letters.
pub(crate) fn dead_letters(letters: &[DeadLetter], now: DateTime<Utc>) -> Table {
    let mut table = Table::new(&["MESSAGE", "CHANNEL", "KIND", "GIVEN UP", "WHY"]);
    for letter in letters {
        table.row(vec![
            (Style::Bold, letter.message.id.to_string()),
            (Style::Plain, letter.channel.clone()),
            (Style::Plain, letter.message.message_type.clone()),
            (Style::Plain, format!("{} ago", age(letter.at, now))),
            (Style::Plain, letter.cause.clone()),
        ]);
    }
    table
}

/// Gives a table of what openings of the store found.
pub(crate) fn findings(report: &RecoveryReport) -> Table {
    let mut table = Table::new(&["FIRST FOUND", "KIND", "SEEN", "SUBJECT", "FOUND"]);
    for note in &report.notes {
        let seen = match note.settled {
            true => (Style::Dim, "yes".to_owned()),
            false => (Style::Warn, "no".to_owned()),
        };
        table.row(vec![
            (Style::Dim, moment(note.at)),
            (Style::Plain, word(&note.kind)),
            seen,
            (Style::Bold, note.subject.clone()),
            (Style::Plain, note.reason.clone()),
        ]);
    }
    table
}

/// Prints what opening the store had to do.
pub(crate) fn recovery(report: &RecoveryReport, output: Output) -> Result<(), Failure> {
    for note in &report.notes {
        output.line(&format!("{}: {}", note.subject, note.reason))?;
    }
    output.line("the database can be opened again; `ide-supervisor up` goes on from there")
}

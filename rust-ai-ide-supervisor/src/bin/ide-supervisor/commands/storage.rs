//! `savepoint`, `backup`, `dead-letters` and going back to a checkpoint.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rust_ai_ide_supervisor::daemon::ClientError;
use rust_ai_ide_supervisor::daemon::protocol::{Body, Call};
use rust_ai_ide_supervisor::storage::{Progress, StorageAnswer, StorageCall, carry_out};
use serde::Serialize;
use supervisor_core::CheckpointId;
use supervisor_core::error::{Classified as _, chain};
use supervisor_persist::BackupProgress;
use uuid::Uuid;

use super::source::{Source, asked, asked_each, builder, failure, stored, unexpected};
use crate::args::running::Plain;
use crate::args::storage::{BackupCommand, DeadLetterCommand, RecoveryCommand, SavepointCommand};
use crate::exit_code::{Exit, Failure};
use crate::output::{Output, count, progress};
use crate::render::{size, storage as render};

/// Asks the supervisor that runs, or its store when none does.
async fn ask(plain: &Plain, storage: StorageCall) -> Result<StorageAnswer, Failure> {
    asked(&plain.target, async move |source| answer_of(source, storage).await).await
}

/// Asks everybody who keeps something in a state directory: its supervisor, and the sessions of wrapped servers.
async fn ask_each(plain: &Plain, storage: StorageCall) -> Result<Vec<StorageAnswer>, Failure> {
    let all = asked_each(&plain.target, async |source| answer_of(source, storage.clone()).await);
    Ok(all.await?.into_iter().map(|(_, answer)| answer).collect())
}

async fn answer_of(source: &mut Source, storage: StorageCall) -> Result<StorageAnswer, Failure> {
    let list = list_of(&storage);
    let far = tell();
    match source {
        Source::Live(client) => {
            let call = Call::Storage { storage };
            match client.call_with(call, |so_far| far(so_far)).await {
                Ok(Body::Storage(answer)) => Ok(*answer),
                Ok(_) => Err(unexpected()),
                Err(ClientError::Failed(report)) => {
                    Err(refused(&report.code, report.message, list))
                }
                Err(error) => Err(failure(&error)),
            }
        }
        Source::Stored(store) => {
            let done = carry_out(store, storage, None, far).await;
            done.map_err(|error| refused(error.code(), chain(&error), list))
        }
    }
}

/// Words the failure of a call on a store that is open: what is wrong is what was named, not the database.
fn refused(code: &str, message: String, list: &str) -> Failure {
    let failure = Failure::new(Exit::Failed, message);
    match code {
        "database_not_found" => {
            failure.help(format!("`ide-supervisor {list}` shows what there is"))
        }
        _ => failure,
    }
}

/// The command that lists what a call may name.
const fn list_of(call: &StorageCall) -> &'static str {
    use StorageCall as Of;
    match call {
        Of::CheckpointDiff { .. } | Of::CheckpointRestore { .. } => "checkpoint list",
        Of::BackupCreate
        | Of::BackupList
        | Of::BackupVerify { .. }
        | Of::BackupPrune { .. }
        | Of::BackupRestore { .. } => "backup list",
        Of::DeadLetterList { .. } | Of::DeadLetterRequeue { .. } | Of::DeadLetterPurge { .. } => {
            "dead-letters list"
        }
        _ => "savepoint list",
    }
}

/// Says on standard error how far a long run is, at each stage and at every tenth of it.
fn tell() -> Progress {
    let last = AtomicU64::new(u64::MAX);
    Arc::new(move |BackupProgress { stage, done, total }: BackupProgress| {
        let tenths = done.saturating_mul(10).checked_div(total).unwrap_or(10).min(10);
        let step = (stage as u64) * 100 + tenths;
        // Small ones are over before anybody could read it.
        if total < (8 << 20) || last.swap(step, Ordering::Relaxed) == step {
            return;
        }
        progress(&format!("{}: {tenths}0 % of {}", render::stage(stage), size(total)));
    })
}

fn json_or(
    plain: &Plain,
    output: Output,
    value: &impl Serialize,
    print: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    if plain.json { output.json(value) } else { print() }
}

pub(super) async fn savepoint(command: SavepointCommand, output: Output) -> Result<(), Failure> {
    match command {
        SavepointCommand::Create { name, note, plain } => {
            one_savepoint(&plain, StorageCall::SavepointCreate { name, note }, output).await
        }
        SavepointCommand::Import { path, name, plain } => {
            let path = absolute(&path)?;
            one_savepoint(&plain, StorageCall::SavepointImport { path, name }, output).await
        }
        SavepointCommand::List(plain) => match ask(&plain, StorageCall::SavepointList).await? {
            StorageAnswer::Savepoints(all) => json_or(&plain, output, &all, || {
                output.list(&render::savepoints(&all, chrono::Utc::now()), "no savepoints")
            }),
            _ => Err(unexpected()),
        },
        SavepointCommand::Show(named) => {
            match ask(&named.plain, StorageCall::SavepointShow { name: named.name }).await? {
                StorageAnswer::SavepointContent(found) => {
                    json_or(&named.plain, output, &found, || render::savepoint(&found, output))
                }
                _ => Err(unexpected()),
            }
        }
        SavepointCommand::Diff(named) => {
            diff(&named.plain, StorageCall::SavepointDiff { name: named.name }, output).await
        }
        SavepointCommand::Restore { name, dry_run: true, plain } => {
            diff(&plain, StorageCall::SavepointDiff { name }, output).await
        }
        SavepointCommand::Restore { name, plain, .. } => {
            restore(&plain, StorageCall::SavepointRestore { name }, output).await
        }
        SavepointCommand::Export { name, path, plain } => {
            let call = StorageCall::SavepointExport { name, path: absolute(&path)? };
            match ask(&plain, call).await? {
                StorageAnswer::Written(path) => {
                    let value = serde_json::json!({ "path": path });
                    json_or(&plain, output, &value, || output.line(&path.to_string_lossy()))
                }
                _ => Err(unexpected()),
            }
        }
        SavepointCommand::Delete(named) => {
            let name = named.name.clone();
            ask(&named.plain, StorageCall::SavepointDelete { name }).await?;
            let value = serde_json::json!({ "deleted": named.name });
            json_or(&named.plain, output, &value, || {
                progress(&format!("savepoint {} is deleted", named.name));
                Ok(())
            })
        }
    }
}

async fn one_savepoint(plain: &Plain, call: StorageCall, output: Output) -> Result<(), Failure> {
    match ask(plain, call).await? {
        StorageAnswer::Savepoint(made) => json_or(plain, output, &made, || {
            let services = count(to_usize(made.services), "service");
            output.line(&format!("{}  {services}, {}, verified", made.name, size(made.bytes)))
        }),
        _ => Err(unexpected()),
    }
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

async fn diff(plain: &Plain, call: StorageCall, output: Output) -> Result<(), Failure> {
    match ask(plain, call).await? {
        StorageAnswer::Diff(diff) => json_or(plain, output, &diff, || render::diff(&diff, output)),
        _ => Err(unexpected()),
    }
}

async fn restore(plain: &Plain, call: StorageCall, output: Output) -> Result<(), Failure> {
    match ask(plain, call).await? {
        StorageAnswer::Restored(outcome) => json_or(plain, output, &outcome, || {
            render::diff(&outcome.changes, output)?;
            for rung in &outcome.rejected {
                output.line(&format!("passed over {}: {}", rung.source, rung.reason))?;
            }
            output.line(&format!(
                "restored from {}; the next `up` begins with checkpoint {}",
                outcome.source, outcome.checkpoint
            ))?;
            output.line(&format!("what was there before is in backup {}", outcome.safety_backup))
        }),
        _ => Err(unexpected()),
    }
}

pub(super) async fn restore_checkpoint(
    checkpoint: CheckpointId,
    dry_run: bool,
    plain: &Plain,
    output: Output,
) -> Result<(), Failure> {
    if dry_run {
        return diff(plain, StorageCall::CheckpointDiff { checkpoint }, output).await;
    }
    restore(plain, StorageCall::CheckpointRestore { checkpoint }, output).await
}

pub(super) async fn backup(command: BackupCommand, output: Output) -> Result<(), Failure> {
    match command {
        BackupCommand::Create(plain) => match ask(&plain, StorageCall::BackupCreate).await? {
            StorageAnswer::Backup(taken) => json_or(&plain, output, &taken, || {
                output.line(&format!("{}  {}, opened and read", taken.name, size(taken.bytes)))
            }),
            _ => Err(unexpected()),
        },
        BackupCommand::List(plain) => match ask(&plain, StorageCall::BackupList).await? {
            StorageAnswer::Backups(all) => json_or(&plain, output, &all, || {
                output.list(&render::backups(&all, chrono::Utc::now()), "no backups")
            }),
            _ => Err(unexpected()),
        },
        BackupCommand::Verify { name, plain } => {
            match ask(&plain, StorageCall::BackupVerify { name }).await? {
                StorageAnswer::Verified(found) => {
                    json_or(&plain, output, &found, || {
                        output.list(&render::verifications(&found), "no backups")
                    })?;
                    let bad = found.iter().filter(|backup| !backup.intact).count();
                    if bad == 0 {
                        return Ok(());
                    }
                    let message = format!("{} of {} cannot be relied on", bad, found.len());
                    Err(Failure::new(Exit::Failed, message)
                        .help("`backup create` takes a fresh one"))
                }
                _ => Err(unexpected()),
            }
        }
        BackupCommand::Prune { keep, plain } => {
            match ask(&plain, StorageCall::BackupPrune { keep }).await? {
                StorageAnswer::Pruned(names) => json_or(&plain, output, &names, || {
                    names.iter().try_for_each(|name| output.line(name))?;
                    progress(&format!("{} removed", count(names.len(), "backup")));
                    Ok(())
                }),
                _ => Err(unexpected()),
            }
        }
        BackupCommand::Restore { name, replace_refused: true, plain } => {
            replace_refused(name, &plain, output).await
        }
        BackupCommand::Restore { name, plain, .. } => {
            restore(&plain, StorageCall::BackupRestore { name }, output).await
        }
    }
}

/// Puts a backup in the place of a database that cannot be opened.
async fn replace_refused(name: String, plain: &Plain, output: Output) -> Result<(), Failure> {
    let store = builder(&plain.target)?.ok_or_else(|| {
        Failure::new(Exit::Failed, "there is no database there")
            .help("--state-dir names another directory")
    })?;
    let opened = store.set_aside_refused().go_back_to(name).open().await;
    let store = opened.map_err(|error| stored(&error))?;
    let report = store.recovery_report().await.map_err(|error| stored(&error))?;
    store.close().await.map_err(|error| stored(&error))?;
    json_or(plain, output, &report, || render::recovery(&report, output))
}

pub(super) async fn dead_letters(
    command: DeadLetterCommand,
    output: Output,
) -> Result<(), Failure> {
    match command {
        DeadLetterCommand::List { channel, listing } => {
            let limit = listing.lines as usize;
            let mut letters = Vec::new();
            let call = StorageCall::DeadLetterList { channel, limit };
            for answer in ask_each(&listing.plain, call).await? {
                let StorageAnswer::DeadLetters(some) = answer else {
                    return Err(unexpected());
                };
                letters.extend(some);
            }
            // Newest first, as each of them is.
            letters.sort_by_key(|letter| std::cmp::Reverse(letter.at));
            letters.truncate(limit);
            json_or(&listing.plain, output, &letters, || {
                output.list(&render::dead_letters(&letters, chrono::Utc::now()), "no dead letters")
            })
        }
        DeadLetterCommand::Requeue { ids, plain } => requeue(ids, &plain, output).await,
        DeadLetterCommand::Purge { channel, plain, .. } => {
            let gone =
                counted_each(&plain, StorageCall::DeadLetterPurge { channel }, output).await?;
            progress(&format!("{} deleted", count(to_usize(gone), "dead letter")));
            Ok(())
        }
    }
}

/// Sends dead letters again, whoever has them; what one of those refuses keeps no other from it.
async fn requeue(ids: Vec<Uuid>, plain: &Plain, output: Output) -> Result<(), Failure> {
    let wanted = ids.len();
    let call = StorageCall::DeadLetterRequeue { ids };
    let answers =
        asked_each(&plain.target, async |source| match answer_of(source, call.clone()).await {
            Err(failure) if failure.exit == Exit::Failed => Ok(Err(failure)),
            other => other.map(Ok),
        });
    let mut refused = Vec::new();
    let mut counts = Vec::new();
    for (_, answer) in answers.await? {
        match answer {
            Ok(count) => counts.push(count),
            Err(failure) => refused.push(failure.message),
        }
    }
    let back = to_usize(total(plain, counts, output)?);
    if back > 0 {
        progress(&format!("{} will be sent again", count(back, "message")));
    }
    if !refused.is_empty() {
        return Err(Failure::new(Exit::Failed, refused.join("\n")));
    }
    if back == wanted {
        return Ok(());
    }
    let message = format!("{} of {} named no dead letter", wanted - back, count(wanted, "id"));
    Err(Failure::new(Exit::Failed, message).help("`dead-letters list` shows their ids"))
}

pub(super) async fn recovery(command: RecoveryCommand, output: Output) -> Result<(), Failure> {
    match command {
        RecoveryCommand::Show(plain) => match ask(&plain, StorageCall::Recovery).await? {
            StorageAnswer::Recovery(report) => json_or(&plain, output, &report, || {
                output.list(&render::findings(&report), "nothing was ever found")
            }),
            _ => Err(unexpected()),
        },
        RecoveryCommand::Settle(plain) => {
            let seen = counted(&plain, StorageCall::RecoverySettle, output).await?;
            progress(&format!("{} settled", count(to_usize(seen), "finding")));
            Ok(())
        }
    }
}

async fn counted(plain: &Plain, call: StorageCall, output: Output) -> Result<u64, Failure> {
    total(plain, vec![ask(plain, call).await?], output)
}

/// The same, over everybody who keeps dead letters.
async fn counted_each(plain: &Plain, call: StorageCall, output: Output) -> Result<u64, Failure> {
    total(plain, ask_each(plain, call).await?, output)
}

fn total(plain: &Plain, answers: Vec<StorageAnswer>, output: Output) -> Result<u64, Failure> {
    let mut sum = 0;
    for answer in answers {
        let StorageAnswer::Count(n) = answer else {
            return Err(unexpected());
        };
        sum += n;
    }
    if plain.json {
        output.json(&serde_json::json!({ "count": sum }))?;
    }
    Ok(sum)
}

/// Gives a file's whole path; the directory it is named in must be there.
fn absolute(path: &Path) -> Result<std::path::PathBuf, Failure> {
    let path = std::path::absolute(path)
        .map_err(|error| Failure::new(Exit::Failed, format!("{}: {error}", path.display())))?;
    match path.parent() {
        Some(parent) if !parent.is_dir() => {
            let message = format!("there is no directory {}", parent.display());
            Err(Failure::new(Exit::Failed, message).help("make it, or name a file in another one"))
        }
        _ => Ok(path),
    }
}

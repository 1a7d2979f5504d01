//! `savepoint`, `backup`, `dead-letters` and going back to a checkpoint.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rust_ai_ide_supervisor::daemon::protocol::{Body, Call};
use rust_ai_ide_supervisor::storage::{Progress, StorageAnswer, StorageCall, carry_out};
use serde::Serialize;
use supervisor_core::CheckpointId;
use supervisor_persist::BackupProgress;

use super::source::{Source, builder, failure, source, stored, unexpected};
use crate::args::running::Plain;
use crate::args::storage::{BackupCommand, DeadLetterCommand, SavepointCommand};
use crate::exit_code::{Exit, Failure};
use crate::output::{Output, count, progress};
use crate::render::storage as render;

/// Asks the supervisor that runs, or its store when none does.
async fn ask(plain: &Plain, storage: StorageCall) -> Result<StorageAnswer, Failure> {
    let restores = storage.restores();
    let mut source = source(&plain.target).await?;
    let far = tell();
    let answer = match &mut source {
        Source::Live(client) => {
            let call = Call::Storage { storage };
            match client.call_with(call, |so_far| far(so_far)).await {
                Ok(Body::Storage(answer)) => Ok(*answer),
                Ok(_) => Err(unexpected()),
                Err(error) if restores => {
                    Err(failure(&error).help("`ide-supervisor down`, then this command, then `up`"))
                }
                Err(error) => Err(failure(&error)),
            }
        }
        Source::Stored(store) => {
            carry_out(store, storage, None, far).await.map_err(|error| stored(&error))
        }
    };
    source.close().await?;
    answer
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
        progress(&format!("{}: {}0 % of {total} bytes", render::stage(stage), tenths));
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
                output.table(&render::savepoints(&all, chrono::Utc::now()))
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
            let (services, bytes) = (count(to_usize(made.services), "service"), made.bytes);
            output.line(&format!("{}  {services}, {bytes} bytes, verified", made.name))
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
                output.line(&format!("{}  {} bytes, opened and read", taken.name, taken.bytes))
            }),
            _ => Err(unexpected()),
        },
        BackupCommand::List(plain) => match ask(&plain, StorageCall::BackupList).await? {
            StorageAnswer::Backups(all) => json_or(&plain, output, &all, || {
                output.table(&render::backups(&all, chrono::Utc::now()))
            }),
            _ => Err(unexpected()),
        },
        BackupCommand::Verify { name, plain } => {
            match ask(&plain, StorageCall::BackupVerify { name }).await? {
                StorageAnswer::Verified(found) => {
                    json_or(&plain, output, &found, || {
                        output.table(&render::verifications(&found))
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
            match ask(&listing.plain, StorageCall::DeadLetterList { channel, limit }).await? {
                StorageAnswer::DeadLetters(letters) => {
                    json_or(&listing.plain, output, &letters, || {
                        output.table(&render::dead_letters(&letters, chrono::Utc::now()))
                    })
                }
                _ => Err(unexpected()),
            }
        }
        DeadLetterCommand::Requeue { ids, plain } => {
            let wanted = ids.len();
            let back = counted(&plain, StorageCall::DeadLetterRequeue { ids }, output).await?;
            progress(&format!("{} will be sent again", count(to_usize(back), "message")));
            if to_usize(back) == wanted {
                return Ok(());
            }
            let message = format!("{} of {wanted} are no dead letters", wanted - to_usize(back));
            Err(Failure::new(Exit::Failed, message).help("`dead-letters list` shows their ids"))
        }
        DeadLetterCommand::Purge { channel, plain, .. } => {
            let gone = counted(&plain, StorageCall::DeadLetterPurge { channel }, output).await?;
            progress(&format!("{} deleted", count(to_usize(gone), "dead letter")));
            Ok(())
        }
    }
}

async fn counted(plain: &Plain, call: StorageCall, output: Output) -> Result<u64, Failure> {
    match ask(plain, call).await? {
        StorageAnswer::Count(n) => {
            if plain.json {
                output.json(&serde_json::json!({ "count": n }))?;
            }
            Ok(n)
        }
        _ => Err(unexpected()),
    }
}

fn absolute(path: &Path) -> Result<std::path::PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::new(Exit::Failed, format!("{}: {error}", path.display())))
}

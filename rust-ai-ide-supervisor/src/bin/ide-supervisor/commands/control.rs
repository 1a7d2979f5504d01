//! The commands that ask a running supervisor, and, where that makes sense, its stored state when none runs.

use std::path::Path;
use std::time::Duration;

use rust_ai_ide_supervisor::daemon::ControlClient;
use rust_ai_ide_supervisor::daemon::protocol::{Body, Call};
use supervisor_core::checkpoint::{CheckpointHealth, CheckpointSummary};
use supervisor_core::journal::AuditEntry;
use supervisor_core::ports::{AuditLog, CheckpointSelector, CheckpointStore, RestoreSummary};
use supervisor_core::{CheckpointId, Sequence};

use super::source::{
    Source, ask, asked, asked_each, connect, connect_all, connect_for, places, state_dir, stored,
    targets, unexpected,
};
use super::{storage, watch};
use crate::args::Target;
use crate::args::running::{AuditCommand, CheckpointCommand, Plain, RunningCommand, Services};
use crate::exit_code::{Exit, Failure};
use crate::output::{Output, progress};
use crate::render;

pub(crate) fn run(command: RunningCommand, output: Output) -> Result<(), Failure> {
    super::block_on(async {
        match command {
            RunningCommand::Status(status) => watch::status(&status, output).await,
            RunningCommand::Top(target) => super::top::run(&target, output).await,
            RunningCommand::Start(services) => {
                each(services, |service| Call::Start { service }, "started").await
            }
            RunningCommand::Stop(services) => {
                each(services, |service| Call::Stop { service }, "stopped").await
            }
            RunningCommand::Restart(services) => {
                each(services, |service| Call::Restart { service }, "restarted").await
            }
            RunningCommand::Down(target) => down(&target).await,
            RunningCommand::Reload(target) => reload(&target).await,
            RunningCommand::Logs(logs) => watch::logs(&logs, output).await,
            RunningCommand::Events(events) => watch::events(&events, output).await,
            RunningCommand::Checkpoint(command) => checkpoint(command, output).await,
            RunningCommand::Audit(command) => audit(command, output).await,
            RunningCommand::Savepoint(command) => storage::savepoint(command, output).await,
            RunningCommand::Backup(command) => storage::backup(command, output).await,
            RunningCommand::Recovery(command) => storage::recovery(command, output).await,
            RunningCommand::DeadLetters(command) => storage::dead_letters(command, output).await,
            RunningCommand::Channels(plain) => channels(&plain, output).await,
            RunningCommand::Up(_) | RunningCommand::Demo(_) => Ok(()),
        }
    })
}

/// Carries out one command for several services, all of them even if one fails.
async fn each(
    services: Services,
    call: impl Fn(supervisor_core::ServiceId) -> Call,
    done: &str,
) -> Result<(), Failure> {
    let mut failed: Option<Failure> = None;
    for id in services.ids {
        let mut client = connect_for(&services.target, &id).await?;
        match ask(&mut client, call(id.clone())).await {
            Ok(_) => progress(&format!("{id} {done}")),
            Err(failure) => {
                let message = format!("{id}: {}", failure.message);
                failed = Some(match failed {
                    None => Failure { message, ..failure },
                    Some(first) => {
                        Failure { message: format!("{}\n{message}", first.message), ..first }
                    }
                });
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Ends the supervisor of a state directory and the sessions of wrapped servers in it.
async fn down(target: &Target) -> Result<(), Failure> {
    let mut ended = Vec::new();
    let mut nobody = None;
    for target in targets(target)? {
        match connect(&target).await {
            Ok(mut client) => drop(ask(&mut client, Call::Down).await?),
            Err(failure) if failure.exit == Exit::NoSupervisor => {
                _ = nobody.get_or_insert(failure);
                continue;
            }
            Err(failure) => return Err(failure),
        }
        ended.push(target);
    }
    if let Some(failure) = nobody.filter(|_| ended.is_empty()) {
        return Err(failure);
    }
    for target in ended {
        let dir = state_dir(&target)?;
        let database = places(&target, &dir);
        // Gone means that the directory is free again, not only that the services are.
        while ControlClient::connect(&dir).await.is_ok()
            || database.as_ref().is_some_and(|(database, _)| is_owned(database))
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    progress("everything is stopped");
    Ok(())
}

fn is_owned(database: &Path) -> bool {
    let mut lock = database.as_os_str().to_owned();
    lock.push(".lock");
    let Ok(file) = std::fs::File::open(lock) else {
        return false;
    };
    matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock))
}

async fn reload(target: &Target) -> Result<(), Failure> {
    let mut client = connect(target).await?;
    let Body::Reloaded(report) = ask(&mut client, Call::Reload).await? else {
        return Err(unexpected());
    };
    progress(&super::up::described(&report));
    Ok(())
}

async fn checkpoint(command: CheckpointCommand, output: Output) -> Result<(), Failure> {
    match command {
        CheckpointCommand::Create(plain) => {
            let mut client = connect(&plain.target).await?;
            let Body::CheckpointCreated(id) = ask(&mut client, Call::CheckpointCreate).await?
            else {
                return Err(unexpected());
            };
            if plain.json {
                output.json(&serde_json::json!({ "id": id }))
            } else {
                output.line(&id.to_string())
            }
        }
        CheckpointCommand::List(listing) => {
            let limit = listing.lines as usize;
            let list =
                asked(&listing.plain.target, async |source| list(source, limit).await).await?;
            if listing.plain.json {
                output.json(&list)
            } else {
                output.list(&render::checkpoints(&list, chrono::Utc::now()), "no checkpoints")
            }
        }
        CheckpointCommand::Show { id, plain } => {
            let shown = asked(&plain.target, async |source| load(source, id).await).await?;
            if plain.json { output.json(&shown) } else { show_checkpoint(&shown, output) }
        }
        CheckpointCommand::Verify { id, plain } => {
            let found = asked(&plain.target, async |source| verify(source, id).await).await?;
            judged(&found, plain.json, output)
        }
        CheckpointCommand::Restore { id, dry_run, plain } => {
            storage::restore_checkpoint(id, dry_run, &plain, output).await
        }
    }
}

async fn list(source: &mut Source, limit: usize) -> Result<Vec<CheckpointSummary>, Failure> {
    match source {
        Source::Stored(store) => {
            CheckpointStore::list(store, limit).await.map_err(|error| stored(&error))
        }
        Source::Live(client) => match ask(client, Call::CheckpointList { limit }).await? {
            Body::Checkpoints(list) => Ok(list),
            _ => Err(unexpected()),
        },
    }
}

async fn load(source: &mut Source, id: Option<CheckpointId>) -> Result<RestoreSummary, Failure> {
    match (source, id) {
        (Source::Live(client), id) => {
            let which = id.map_or(CheckpointSelector::Latest, CheckpointSelector::Id);
            match ask(client, Call::CheckpointShow { which }).await? {
                Body::Checkpoint(summary) => Ok(*summary),
                _ => Err(unexpected()),
            }
        }
        (Source::Stored(store), Some(id)) => {
            let checkpoint =
                CheckpointStore::load(store, id).await.map_err(|error| stored(&error))?;
            Ok(RestoreSummary {
                checkpoint,
                source: format!("checkpoint {id}"),
                rejected: Vec::new(),
            })
        }
        (Source::Stored(store), None) => {
            let restored = store.restore().await.map_err(|error| stored(&error))?;
            let none = || Failure::new(Exit::Failed, "there is no checkpoint");
            let checkpoint = restored.checkpoint.ok_or_else(none)?;
            Ok(RestoreSummary { checkpoint, source: restored.source, rejected: restored.rejected })
        }
    }
}

fn show_checkpoint(shown: &RestoreSummary, output: Output) -> Result<(), Failure> {
    let checkpoint = &shown.checkpoint;
    output.line(&format!("{}, taken {}", shown.source, render::moment(checkpoint.created_at)))?;
    output.line(&format!(
        "journal sequence {}, {} services, {} pending operations, {} channels",
        checkpoint.sequence,
        checkpoint.services.len(),
        checkpoint.pending_operations.len(),
        checkpoint.channels.len()
    ))?;
    let mut services: Vec<_> = checkpoint.services.values().collect();
    services.sort_by(|a, b| a.id.cmp(&b.id));
    for state in services {
        let line = format!(
            "  {}  {} #{}  {} restarts  {}",
            state.id, state.phase, state.incarnation, state.restarts, state.reason
        );
        output.line(&line)?;
    }
    for rung in &shown.rejected {
        output.line(&format!("passed over {}: {}", rung.source, rung.reason))?;
    }
    Ok(())
}

async fn verify(
    source: &mut Source,
    id: Option<CheckpointId>,
) -> Result<Vec<CheckpointSummary>, Failure> {
    let ids = match id {
        Some(id) => vec![id],
        None => list(source, 10_000).await?.into_iter().map(|summary| summary.id).collect(),
    };
    let mut summaries = Vec::new();
    for id in ids {
        summaries.push(match source {
            Source::Stored(store) => {
                CheckpointStore::verify(store, id).await.map_err(|error| stored(&error))?
            }
            Source::Live(client) => {
                match ask(client, Call::CheckpointVerify { checkpoint: id }).await? {
                    Body::CheckpointVerified(summary) => summary,
                    _ => return Err(unexpected()),
                }
            }
        });
    }
    Ok(summaries)
}

fn judged(summaries: &[CheckpointSummary], json: bool, output: Output) -> Result<(), Failure> {
    if json {
        output.json(&summaries)?;
    } else {
        output.list(&render::checkpoints(summaries, chrono::Utc::now()), "no checkpoints")?;
    }
    let bad =
        summaries.iter().filter(|summary| summary.health != CheckpointHealth::Verified).count();
    if bad == 0 {
        return Ok(());
    }
    let message = format!(
        "{bad} of {} checkpoints are damaged in at least one of their places",
        summaries.len()
    );
    Err(Failure::new(Exit::Failed, message)
        .help("recovery uses the newest good one; `checkpoint create` takes a fresh one"))
}

async fn audit(command: AuditCommand, output: Output) -> Result<(), Failure> {
    match command {
        AuditCommand::List(listing) => {
            let rows = asked_each(&listing.plain.target, async |source| {
                audit_rows(source, listing.lines).await
            })
            .await?;
            let several = rows.len() > 1;
            let mut rows: Vec<AuditEntry> = rows.into_iter().flat_map(|(_, rows)| rows).collect();
            if several {
                rows.sort_by_key(|row| row.at);
            }
            let rows = &rows[rows.len().saturating_sub(listing.lines as usize)..];
            if listing.plain.json { output.json(&rows) } else { output.table(&render::audit(rows)) }
        }
        AuditCommand::Verify(plain) => {
            let found = asked_each(&plain.target, async |source| match source {
                Source::Live(client) => match ask(client, Call::AuditVerify).await? {
                    Body::AuditVerified(verification) => Ok(verification),
                    _ => Err(unexpected()),
                },
                Source::Stored(store) => {
                    AuditLog::verify(store).await.map_err(|error| stored(&error))
                }
            })
            .await?;
            match &found[..] {
                [(_, only)] if plain.json => output.json(only)?,
                all if plain.json => {
                    let all: Vec<_> = all.iter().map(|(dir, found)| serde_json::json!({ "state_dir": dir, "verification": found })).collect();
                    output.json(&all)?;
                }
                [(_, only)] => output.line(&only.detail)?,
                all => {
                    for (dir, found) in all {
                        output.line(&format!("{}: {}", dir.display(), found.detail))?;
                    }
                }
            }
            if found.iter().all(|(_, verification)| verification.intact) {
                return Ok(());
            }
            Err(Failure::new(Exit::Failed, "the audit trail is not intact")
                .help("rows before the first bad one can be trusted"))
        }
    }
}

async fn audit_rows(source: &mut Source, lines: u32) -> Result<Vec<AuditEntry>, Failure> {
    let limit = lines as usize;
    match source {
        Source::Live(client) => match ask(client, Call::AuditList { after: None, limit }).await? {
            Body::Audit(rows) => Ok(rows),
            _ => Err(unexpected()),
        },
        Source::Stored(store) => {
            let head = AuditLog::head(store).await.map_err(|error| stored(&error))?;
            let after = Sequence(head.get().saturating_sub(u64::from(lines)));
            AuditLog::read(store, after, limit).await.map_err(|error| stored(&error))
        }
    }
}

async fn channels(plain: &Plain, output: Output) -> Result<(), Failure> {
    let mut all = Vec::new();
    for mut client in connect_all(&plain.target).await? {
        let Body::Channels(channels) = ask(&mut client, Call::Channels).await? else {
            return Err(unexpected());
        };
        all.extend(channels);
    }
    if plain.json { output.json(&all) } else { output.table(&render::channels(&all)) }
}

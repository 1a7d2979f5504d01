//! The commands that ask a running supervisor, and, where that makes sense, its stored state when none runs.

use std::path::Path;
use std::time::Duration;

use rust_ai_ide_supervisor::daemon::protocol::{Body, Call};
use rust_ai_ide_supervisor::daemon::{ControlClient, Followed};
use supervisor_core::checkpoint::{CheckpointHealth, CheckpointSummary};
use supervisor_core::journal::AuditEntry;
use supervisor_core::ports::{AuditLog, CheckpointSelector, CheckpointStore, RestoreSummary};
use supervisor_core::{CheckpointId, Sequence};
use tokio::time::Instant;

use super::source::{Source, ask, asked, connect, failure, places, state_dir, stored, unexpected};
use super::storage;
use crate::args::Target;
use crate::args::running::{
    AuditCommand, CheckpointCommand, Events, Logs, Plain, RunningCommand, Services, Status,
};
use crate::exit_code::{Exit, Failure};
use crate::os;
use crate::output::{Output, progress};
use crate::render;

/// Longest time between two looks of `status --watch`.
const WATCH_EVERY: Duration = Duration::from_secs(5);
/// Time that a burst of events gets to end.
const WATCH_SETTLE: Duration = Duration::from_millis(100);

pub(crate) fn run(command: RunningCommand, output: Output) -> Result<(), Failure> {
    super::block_on(async {
        match command {
            RunningCommand::Status(status) => show_status(&status, output).await,
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
            RunningCommand::Logs(logs) => show_logs(&logs, output).await,
            RunningCommand::Events(events) => show_events(&events, output).await,
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

async fn show_status(status: &Status, output: Output) -> Result<(), Failure> {
    let mut client = connect(&status.target).await?;
    print_status(&mut client, status.json, output).await?;
    if !status.watch {
        return Ok(());
    }
    let mut follower = connect(&status.target).await?;
    follower.follow().await.map_err(|error| failure(&error))?;
    let mut due = Instant::now() + WATCH_EVERY;
    loop {
        match tokio::time::timeout_at(due, next(&mut follower)).await {
            Ok(followed) => {
                if followed?.is_none() {
                    return Ok(());
                }
                // A burst of events is one change to look at.
                due = due.min(Instant::now() + WATCH_SETTLE);
            }
            Err(_) => {
                if !status.json {
                    output.next_screen()?;
                }
                print_status(&mut client, status.json, output).await?;
                due = Instant::now() + WATCH_EVERY;
            }
        }
    }
}

async fn print_status(
    client: &mut ControlClient,
    json: bool,
    output: Output,
) -> Result<(), Failure> {
    let Body::Status(report) = ask(client, Call::Status).await? else {
        return Err(unexpected());
    };
    if json {
        output.json(&report)
    } else {
        output.raw(&render::status(&report, chrono::Utc::now(), output))
    }
}

/// Waits for the next event, or for Ctrl-C.
async fn next(client: &mut ControlClient) -> Result<Option<Followed>, Failure> {
    let signals = |error| Failure::new(Exit::Failed, format!("cannot listen for signals: {error}"));
    tokio::select! {
        followed = client.next() => followed.map_err(|error| failure(&error)),
        () = os::asked_to_end().map_err(signals)? => Ok(None),
    }
}

/// Carries out one command for several services, all of them even if one fails.
async fn each(
    services: Services,
    call: impl Fn(supervisor_core::ServiceId) -> Call,
    done: &str,
) -> Result<(), Failure> {
    let mut client = connect(&services.target).await?;
    let mut failed: Option<Failure> = None;
    for id in services.ids {
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

async fn down(target: &Target) -> Result<(), Failure> {
    let dir = state_dir(target)?;
    let database = places(target, &dir);
    let mut client = connect(target).await?;
    ask(&mut client, Call::Down).await?;
    drop(client);
    // Gone means that the directory is free again, not only that the services are.
    while ControlClient::connect(&dir).await.is_ok()
        || database.as_ref().is_some_and(|(database, _)| is_owned(database))
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
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

async fn show_logs(logs: &Logs, output: Output) -> Result<(), Failure> {
    let mut client = connect(&logs.target).await?;
    let mut last = None;
    let mut limit = logs.lines as usize;
    loop {
        let call = Call::Logs { service: logs.id.clone(), limit };
        let Body::Logs(lines) = ask(&mut client, call).await? else {
            return Err(unexpected());
        };
        let seen = last
            .as_ref()
            .and_then(|last| lines.iter().rposition(|line| line == last))
            .map_or(0, |at| at + 1);
        for line in &lines[seen..] {
            output.line(&render::log_line(line, output))?;
        }
        last = lines.last().cloned().or(last);
        if !logs.follow {
            return Ok(());
        }
        limit = 1000;
        let signals =
            |error| Failure::new(Exit::Failed, format!("cannot listen for signals: {error}"));
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
            () = os::asked_to_end().map_err(signals)? => return Ok(()),
        }
    }
}

async fn show_events(events: &Events, output: Output) -> Result<(), Failure> {
    let mut client = connect(&events.target).await?;
    let print = |event: &supervisor_core::event::SupervisorEvent| {
        if events.json {
            output.json(event)
        } else {
            output.line(&render::event::line(event, output))
        }
    };
    // Followed before the stored ones are read, so that nothing falls between the two.
    let mut follower = None;
    if events.follow {
        let mut connected = connect(&events.target).await?;
        connected.follow().await.map_err(|error| failure(&error))?;
        follower = Some(connected);
    }
    let call = Call::Events { after: None, limit: events.lines as usize };
    let Body::Events(stored) = ask(&mut client, call).await? else {
        return Err(unexpected());
    };
    let mut shown = Sequence::ZERO;
    for event in &stored {
        print(event)?;
        shown = event.sequence;
    }
    let Some(mut follower) = follower else {
        return Ok(());
    };
    while let Some(followed) = next(&mut follower).await? {
        match followed {
            Followed::Event(event) if event.sequence > shown => print(&event)?,
            Followed::Event(_) => {}
            Followed::Missed(missed) => progress(&format!("{missed} events are missing here")),
        }
    }
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
            let rows = asked(&listing.plain.target, async |source| {
                audit_rows(source, listing.lines).await
            })
            .await?;
            if listing.plain.json {
                output.json(&rows)
            } else {
                output.table(&render::audit(&rows))
            }
        }
        AuditCommand::Verify(plain) => {
            let verification = asked(&plain.target, async |source| match source {
                Source::Live(client) => match ask(client, Call::AuditVerify).await? {
                    Body::AuditVerified(verification) => Ok(verification),
                    _ => Err(unexpected()),
                },
                Source::Stored(store) => {
                    AuditLog::verify(store).await.map_err(|error| stored(&error))
                }
            })
            .await?;
            if plain.json {
                output.json(&verification)?;
            } else {
                output.line(&verification.detail)?;
            }
            if verification.intact {
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
    let mut client = connect(&plain.target).await?;
    let Body::Channels(channels) = ask(&mut client, Call::Channels).await? else {
        return Err(unexpected());
    };
    if plain.json { output.json(&channels) } else { output.table(&render::channels(&channels)) }
}

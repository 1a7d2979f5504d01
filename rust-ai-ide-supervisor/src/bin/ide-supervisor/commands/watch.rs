//! `status`, `events` and `logs`: what is, what happened, what was written, once or as it goes on.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::select_all;
use rust_ai_ide_supervisor::daemon::protocol::{Body, Call};
use rust_ai_ide_supervisor::daemon::{ControlClient, Followed};
use supervisor_core::event::SupervisorEvent;
use supervisor_core::status::StatusReport;
use tokio::time::Instant;
use uuid::Uuid;

use super::source::{ask, connect_all, connect_for, failure, unexpected};
use crate::args::Target;
use crate::args::running::{Events, Logs, Status};
use crate::exit_code::{Exit, Failure};
use crate::os;
use crate::output::{Output, progress};
use crate::render;

/// Longest time between two looks of `status --watch`.
const WATCH_EVERY: Duration = Duration::from_secs(5);
/// Time that a burst of events gets to end.
const WATCH_SETTLE: Duration = Duration::from_millis(100);

pub(super) async fn status(status: &Status, output: Output) -> Result<(), Failure> {
    let mut clients = connect_all(&status.target).await?;
    print_status(&mut clients, status.json, output).await?;
    if !status.watch {
        return Ok(());
    }
    let mut followers = follow_all(&status.target).await?;
    let mut due = Instant::now() + WATCH_EVERY;
    loop {
        match tokio::time::timeout_at(due, next(&mut followers)).await {
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
                print_status(&mut clients, status.json, output).await?;
                due = Instant::now() + WATCH_EVERY;
            }
        }
    }
}

/// Prints the services and channels of everybody who answers; about itself the first one speaks.
async fn print_status(
    clients: &mut Vec<ControlClient>,
    json: bool,
    output: Output,
) -> Result<(), Failure> {
    let mut whole: Option<StatusReport> = None;
    let mut last = None;
    for mut client in std::mem::take(clients) {
        match ask(&mut client, Call::Status).await {
            Ok(Body::Status(report)) => match &mut whole {
                None => whole = Some(*report),
                Some(whole) => {
                    whole.services.extend(report.services);
                    whole.channels.extend(report.channels);
                }
            },
            Ok(_) => return Err(unexpected()),
            // One that ended between two looks is not shown any more, unless it was the last.
            Err(failure) => {
                last = Some(failure);
                continue;
            }
        }
        clients.push(client);
    }
    let report = whole.ok_or_else(|| last.unwrap_or_else(unexpected))?;
    if json {
        output.json(&report)
    } else {
        output.raw(&render::status(&report, chrono::Utc::now(), output))
    }
}

/// Follows everybody who answers.
async fn follow_all(target: &Target) -> Result<Vec<ControlClient>, Failure> {
    let mut clients = connect_all(target).await?;
    for client in &mut clients {
        client.follow().await.map_err(|error| failure(&error))?;
    }
    Ok(clients)
}

/// Waits for the next event of any of them; nothing after Ctrl-C or when all have ended.
async fn next(clients: &mut Vec<ControlClient>) -> Result<Option<Followed>, Failure> {
    let signals = |error| Failure::new(Exit::Failed, format!("cannot listen for signals: {error}"));
    let asked_to_end = os::asked_to_end().map_err(signals)?;
    tokio::pin!(asked_to_end);
    while !clients.is_empty() {
        let waiting = clients.iter_mut().map(|client| Box::pin(client.next()));
        let (followed, at) = tokio::select! {
            (followed, at, _) = select_all(waiting) => (followed, at),
            () = &mut asked_to_end => return Ok(None),
        };
        match followed.map_err(|error| failure(&error))? {
            Some(followed) => return Ok(Some(followed)),
            None => drop(clients.remove(at)),
        }
    }
    Ok(None)
}

pub(super) async fn events(events: &Events, output: Output) -> Result<(), Failure> {
    let mut clients = connect_all(&events.target).await?;
    let print = |event: &SupervisorEvent| {
        if events.json {
            output.json(event)
        } else {
            output.line(&render::event::line(event, output))
        }
    };
    // Followed before the stored ones are read, so that nothing falls between the two.
    let mut followers = if events.follow { follow_all(&events.target).await? } else { Vec::new() };
    let limit = events.lines as usize;
    let mut stored = Vec::new();
    for client in &mut clients {
        let Body::Events(of_one) = ask(client, Call::Events { after: None, limit }).await? else {
            return Err(unexpected());
        };
        stored.extend(of_one);
    }
    let shown: HashSet<Uuid> = stored.iter().map(|event| event.id).collect();
    if clients.len() > 1 {
        // Each counts for itself; between them only the clock tells.
        stored.sort_by_key(|event| event.at);
    }
    for event in &stored[stored.len().saturating_sub(limit)..] {
        print(event)?;
    }
    while let Some(followed) = next(&mut followers).await? {
        match followed {
            Followed::Event(event) if !shown.contains(&event.id) => print(&event)?,
            Followed::Event(_) => {}
            Followed::Missed(missed) => progress(&format!("{missed} events are missing here")),
        }
    }
    Ok(())
}

pub(super) async fn logs(logs: &Logs, output: Output) -> Result<(), Failure> {
    let mut client = connect_for(&logs.target, &logs.id).await?;
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

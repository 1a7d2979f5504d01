//! How states, events and records read to a person.

pub(crate) mod event;
pub(crate) mod storage;

use chrono::{DateTime, Local, Utc};
use supervisor_core::checkpoint::{CheckpointHealth, CheckpointSummary};
use supervisor_core::journal::AuditEntry;
use supervisor_core::message::{ChannelState, ChannelStatus};
use supervisor_core::state::Phase;
use supervisor_core::status::{DroppedOutput, LogLine, OutputStream, ServiceStatus, StatusReport};

use crate::output::{Output, Style, Table, clean};

/// Gives the whole of `status`: a line on the supervisor, its services, its channels if it has any.
pub(crate) fn status(report: &StatusReport, now: DateTime<Utc>, output: Output) -> String {
    let supervisor = &report.supervisor;
    let mut text = format!(
        "supervisor {} (pid {}), up {}, mode {}",
        word(&supervisor.state),
        supervisor.pid,
        age(supervisor.started_at, now),
        clean(&supervisor.mode),
    );
    match &supervisor.last_checkpoint {
        Some(id) => text.push_str(&format!(", last checkpoint {id}")),
        None => text.push_str(", no checkpoint yet"),
    }
    let guarded = supervisor.containment.iter().any(|layer| layer == "guardian");
    text.push_str(if guarded { ", guarded" } else { ", without a guardian" });
    text.push_str("\n\n");
    if report.services.is_empty() {
        text.push_str("no services\n");
    } else {
        text.push_str(&services(&report.services, now).render(output));
    }
    if !report.channels.is_empty() {
        text.push('\n');
        text.push_str(&channels(&report.channels).render(output));
    }
    text
}

fn services(services: &[ServiceStatus], now: DateTime<Utc>) -> Table {
    let mut table =
        Table::new(&["SERVICE", "PHASE", "READY", "PID", "RUN", "RESTARTS", "SINCE", "WHY"]);
    for service in services {
        let id = match service.critical {
            true => format!("{}!", service.id),
            false => service.id.to_string(),
        };
        let ready = match (service.ready, service.phase) {
            (true, _) => (Style::Good, "yes".to_owned()),
            (false, Phase::Running | Phase::Unhealthy | Phase::Starting) => {
                (Style::Warn, "no".to_owned())
            }
            (false, _) => (Style::Dim, "-".to_owned()),
        };
        let mut why = service.reason.clone();
        if let Some(due) = service.next_restart_at
            && due > now
        {
            why.push_str(&format!(" (restart in {})", age(now, due)));
        }
        if let Some(dropped) = service.dropped.as_ref().and_then(not_kept) {
            why.push_str(&format!(" ({dropped})"));
        }
        table.row(vec![
            (Style::Bold, id),
            (phase_style(service.phase), service.phase.to_string()),
            ready,
            (Style::Plain, service.pid.map_or("-".to_owned(), |pid| pid.to_string())),
            (Style::Plain, service.incarnation.to_string()),
            (Style::Plain, service.restarts.to_string()),
            (Style::Plain, age(service.since, now)),
            (Style::Plain, why),
        ]);
    }
    table
}

/// Says how much of a service's output was dropped; what went with its oldest file was kept as long as was asked for.
fn not_kept(dropped: &DroppedOutput) -> Option<String> {
    let lines = dropped.rate_lines + dropped.unwritten_lines;
    let parts = [
        (lines > 0).then(|| count_of(lines, "line of output dropped", "lines of output dropped")),
        (dropped.cut_lines > 0).then(|| count_of(dropped.cut_lines, "line cut", "lines cut")),
    ];
    let said: Vec<_> = parts.into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join(", "))
}

fn count_of(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// Gives a table of channels.
pub(crate) fn channels(channels: &[ChannelStatus]) -> Table {
    let mut table = Table::new(&["CHANNEL", "STATE", "GENERATION", "BUFFERED", "DEAD", "WHY"]);
    for channel in channels {
        let style = match channel.state {
            ChannelState::Ready => Style::Good,
            ChannelState::Open | ChannelState::Closed => Style::Bad,
            _ => Style::Warn,
        };
        let dead = if channel.dead_letters == 0 { Style::Plain } else { Style::Bad };
        table.row(vec![
            (Style::Bold, channel.name.clone()),
            (style, channel.state.to_string()),
            (Style::Plain, channel.generation.to_string()),
            (Style::Plain, channel.buffered.to_string()),
            (dead, channel.dead_letters.to_string()),
            (Style::Plain, channel.reason.clone()),
        ]);
    }
    table
}

/// Gives a table of stored checkpoints.
pub(crate) fn checkpoints(checkpoints: &[CheckpointSummary], now: DateTime<Utc>) -> Table {
    let mut table =
        Table::new(&["CHECKPOINT", "TAKEN", "SEQUENCE", "SERVICES", "PENDING", "SIZE", "HEALTH"]);
    for checkpoint in checkpoints {
        let health = match &checkpoint.health {
            CheckpointHealth::Verified => (Style::Good, "verified".to_owned()),
            CheckpointHealth::Unverified => (Style::Plain, "not read yet".to_owned()),
            CheckpointHealth::Quarantined { reason } => {
                (Style::Bad, format!("quarantined: {reason}"))
            }
        };
        table.row(vec![
            (Style::Bold, checkpoint.id.to_string()),
            (Style::Plain, format!("{} ago", age(checkpoint.created_at, now))),
            (Style::Plain, checkpoint.sequence.to_string()),
            (Style::Plain, checkpoint.services.to_string()),
            (Style::Plain, checkpoint.pending_operations.to_string()),
            (Style::Plain, size(checkpoint.bytes)),
            health,
        ]);
    }
    table
}

/// Gives a table of audit rows.
pub(crate) fn audit(rows: &[AuditEntry]) -> Table {
    let mut table = Table::new(&["SEQUENCE", "AT", "ACTOR", "ACTION", "SUBJECT", "DETAIL"]);
    for row in rows {
        table.row(vec![
            (Style::Plain, row.sequence.to_string()),
            (Style::Dim, time(row.at)),
            (Style::Plain, word(&row.record.actor)),
            (Style::Plain, word(&row.record.action)),
            (Style::Bold, row.record.subject.clone()),
            (Style::Plain, row.record.detail.clone()),
        ]);
    }
    table
}

/// Gives one captured line of a service.
pub(crate) fn log_line(line: &LogLine, output: Output) -> String {
    let at = output.paint(Style::Dim, &time(line.at));
    let text = clean(&line.text);
    match line.stream {
        OutputStream::Stdout => format!("{at} | {text}"),
        OutputStream::Stderr => format!("{at} {} {text}", output.paint(Style::Warn, "!")),
        OutputStream::Supervisor => {
            format!("{at} {}", output.paint(Style::Dim, &format!("# {text}")))
        }
    }
}

pub(crate) fn phase_style(phase: Phase) -> Style {
    match phase {
        Phase::Running => Style::Good,
        Phase::Failed | Phase::Unhealthy => Style::Bad,
        Phase::Starting | Phase::Backoff | Phase::Stopping => Style::Warn,
        Phase::Registered | Phase::Stopped => Style::Dim,
    }
}

/// Gives a serde word such as `shutting_down` with its underscores as spaces.
pub(crate) fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text.replace('_', " "),
        _ => "?".to_owned(),
    }
}

/// Gives the time of day where the reader is.
fn time(at: DateTime<Utc>) -> String {
    at.with_timezone(&Local).format("%H:%M:%S%.3f").to_string()
}

/// Gives a moment to the second, in UTC.
pub(crate) fn moment(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Gives a number of bytes in the largest unit of which there is at least one.
pub(crate) fn size(bytes: u64) -> String {
    let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

/// Gives the time between two moments in its two largest units, such as `3m 5s`.
pub(crate) fn age(from: DateTime<Utc>, to: DateTime<Utc>) -> String {
    let seconds = (to - from).num_seconds().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86400, seconds % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Colour;
    use supervisor_core::status::SupervisorStatus;
    use supervisor_core::{Sequence, ServiceId};

    fn plain() -> Output {
        Output::new(Colour::Never)
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn a_service_whose_output_is_dropped_says_how_much_and_not_what_merely_grew_old() {
        let mut dropped = DroppedOutput { aged_bytes: 7, ..DroppedOutput::default() };
        assert_eq!(not_kept(&dropped), None);
        dropped = DroppedOutput { rate_lines: 2, unwritten_lines: 1, cut_lines: 1, ..dropped };
        assert_eq!(not_kept(&dropped).unwrap(), "3 lines of output dropped, 1 line cut");
    }

    #[test]
    fn a_service_in_backoff_says_why_and_when_it_is_back() {
        let mut state =
            supervisor_core::state::ServiceState::registered(ServiceId::new("lsp").unwrap(), at(0));
        state.phase = Phase::Backoff;
        state.restarts = 3;
        state.reason = "signal 9".into();
        state.next_restart_at = Some(at(14));
        let report = StatusReport {
            version: 1,
            supervisor: SupervisorStatus {
                pid: 42,
                started_at: at(-3600),
                state: supervisor_core::status::SupervisorPhase::Running,
                mode: "normal".into(),
                database: "db".into(),
                last_checkpoint: None,
                containment: Vec::new(),
            },
            services: vec![ServiceStatus::of(&state, "LSP", true)],
            channels: Vec::new(),
        };
        let text = status(&report, at(10), plain());
        assert!(text.starts_with("supervisor running (pid 42), up 1h 0m, mode normal"), "{text}");
        let row = text.lines().last().unwrap();
        assert!(row.starts_with("lsp!") && row.contains("backoff"), "{row}");
        assert!(row.ends_with("signal 9 (restart in 4s)"), "{row}");
    }

    #[test]
    fn a_quarantined_checkpoint_says_so_in_its_row() {
        let summary = CheckpointSummary {
            id: supervisor_core::CheckpointId(uuid::Uuid::nil()),
            created_at: at(0),
            sequence: Sequence::default(),
            services: 3,
            pending_operations: 0,
            bytes: 1000,
            health: CheckpointHealth::Quarantined { reason: "hash differs".into() },
        };
        let text = checkpoints(&[summary], at(61)).render(plain());
        assert!(text.contains("1m 1s ago") && text.contains("quarantined: hash differs"), "{text}");
    }

    #[test]
    fn an_audit_row_and_a_log_line_are_one_line_each() {
        use supervisor_core::journal::{Actor, AuditAction, AuditRecord};
        let row = AuditEntry {
            sequence: Sequence::default(),
            at: at(0),
            record: AuditRecord {
                actor: Actor::Operator,
                action: AuditAction::ServiceState,
                subject: "lsp".into(),
                detail: "stopped\non request".into(),
            },
            hash: "00".into(),
        };
        let text = audit(&[row]).render(plain());
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("operator") && text.contains("service state"), "{text}");
        let line = LogLine {
            at: at(0),
            stream: OutputStream::Stderr,
            text: "\u{1b}]0;title\u{7}oops".into(),
        };
        let text = log_line(&line, plain());
        assert!(text.ends_with("oops") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn sizes_are_given_in_a_unit_one_can_picture() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (118_784, "116.0 KiB"),
            (1 << 31, "2.0 GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn times_are_given_in_their_two_largest_units() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (61, "1m 1s"), (3661, "1h 1m"), (90_000, "1d 1h")]
        {
            assert_eq!(age(at(0), at(seconds)), text);
        }
        assert_eq!(age(at(5), at(0)), "0s");
    }
}

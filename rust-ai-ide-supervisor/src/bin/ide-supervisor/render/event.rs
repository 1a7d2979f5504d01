//! One event in one line.

use supervisor_core::event::{EventKind, SupervisorEvent};
use supervisor_core::exit::ExitReport;
use supervisor_core::message::ChannelState;
use supervisor_core::state::Phase;

use super::{phase_style, time, word};
use crate::output::{Output, Style, clean, count};

/// Columns the subject of an event is padded to.
const SUBJECT_WIDTH: usize = 16;

/// Gives an event as one plain line: when, about what, what happened, why.
pub(crate) fn line(event: &SupervisorEvent, output: Output) -> String {
    let (style, said) = describe(&event.kind);
    let at = output.paint(Style::Dim, &time(event.at));
    let subject = format!("{:<SUBJECT_WIDTH$}", clean(&subject(&event.kind)));
    format!("{at}  {}  {}", output.paint(Style::Bold, &subject), output.paint(style, &clean(&said)))
}

fn subject(kind: &EventKind) -> String {
    match kind {
        EventKind::IpcChannelStateChanged { channel, .. }
        | EventKind::ChannelRecovered { channel, .. }
        | EventKind::IpcMessageDropped { channel, .. } => channel.clone(),
        other => match other.service() {
            Some(service) => service.to_string(),
            None => "supervisor".to_owned(),
        },
    }
}

fn describe(kind: &EventKind) -> (Style, String) {
    service(kind)
        .or_else(|| channel(kind))
        .or_else(|| storage(kind))
        .or_else(|| system(kind))
        // The enum may grow; its name says more than nothing.
        .unwrap_or_else(|| (Style::Plain, kind.name().to_owned()))
}

fn service(kind: &EventKind) -> Option<(Style, String)> {
    Some(match kind {
        EventKind::ServiceStateChanged { from, to, ready, pid, reason, exit, .. } => {
            let ready = if *ready { "ready" } else { "not ready" };
            let mut said =
                if from == to { format!("{to}, {ready}") } else { format!("{from} -> {to}") };
            if let Some(pid) = pid.filter(|_| matches!(to, Phase::Starting | Phase::Running)) {
                said.push_str(&format!(" (pid {pid})"));
            }
            said.push_str(&format!(": {reason}{}", last_line(exit.as_ref())));
            (phase_style(*to), said)
        }
        EventKind::HealthCheckCompleted { role, kind, passed, latency_us, detail, .. } => {
            let verdict = if *passed { "passed" } else { "failed" };
            let style = if *passed { Style::Dim } else { Style::Warn };
            let (role, kind, took) = (word(role), word(kind), micros(*latency_us));
            let said = format!("{role} probe ({kind}) {verdict} in {took}: {detail}");
            (style, said)
        }
        EventKind::ServiceRestarted { incarnation, restarts, reason, .. } => (
            Style::Good,
            format!("restarted (run {incarnation}, restart {restarts} of its life): {reason}"),
        ),
        EventKind::ServiceGaveUp { critical, reason, exit, .. } => {
            let then = match critical {
                true => "; it is critical, so everything is shut down",
                false => "",
            };
            let last = last_line(exit.as_ref());
            (Style::Bad, format!("given up: {reason}{then}{last}"))
        }
        EventKind::ServiceDegraded { reason, .. } => (Style::Warn, format!("degraded: {reason}")),
        EventKind::ServiceUnkillable { survivors, .. } => {
            (Style::Bad, format!("survived the kill: {}", survivors.join(", ")))
        }
        _ => return None,
    })
}

fn channel(kind: &EventKind) -> Option<(Style, String)> {
    Some(match kind {
        EventKind::IpcChannelStateChanged { from, to, generation, reason, .. } => {
            let style = match to {
                ChannelState::Ready => Style::Good,
                _ => Style::Warn,
            };
            let said = format!("channel {from} -> {to} (generation {generation}): {reason}");
            (style, said)
        }
        EventKind::ChannelRecovered { generation, took_us, cause, redelivered, lost, .. } => {
            let took = micros(*took_us);
            let said = format!(
                "channel recovered in {took} (generation {generation}) after {cause}: \
                 {redelivered} delivered again, {lost} lost or unknown"
            );
            (Style::Good, said)
        }
        EventKind::IpcMessageDropped { message, outcome, reason, .. } => {
            (Style::Warn, format!("message {message} ended as {outcome}: {reason}"))
        }
        _ => return None,
    })
}

fn storage(kind: &EventKind) -> Option<(Style, String)> {
    let many =
        |number: &u64, noun: &str| count(usize::try_from(*number).unwrap_or(usize::MAX), noun);
    Some(match kind {
        EventKind::CheckpointCreated { checkpoint, services, pending_operations } => {
            let (services, pending) =
                (many(services, "service"), many(pending_operations, "pending operation"));
            let said = format!("checkpoint {checkpoint} taken: {services}, {pending}");
            (Style::Plain, said)
        }
        EventKind::CheckpointQuarantined { source, reason } => {
            (Style::Bad, format!("{source} is damaged and was put aside: {reason}"))
        }
        EventKind::Recovered { source, services, pending_operations, swept, rejected } => {
            let mut said = format!(
                "recovered from {source}: {}, {}, {swept} left-over processes ended",
                many(services, "service"),
                many(pending_operations, "pending operation")
            );
            if !rejected.is_empty() {
                said.push_str(&format!("; passed over {}", rejected.join(", ")));
            }
            (Style::Good, said)
        }
        EventKind::BackupCompleted { backup, bytes } => {
            (Style::Plain, format!("backup {backup} made and proven ({bytes} bytes)"))
        }
        EventKind::BackupFailed { reason } => (Style::Bad, format!("backup failed: {reason}")),
        _ => return None,
    })
}

fn system(kind: &EventKind) -> Option<(Style, String)> {
    Some(match kind {
        EventKind::ModeChanged { mode, reason } => {
            let style = match mode.as_str() {
                "normal" => Style::Good,
                _ => Style::Warn,
            };
            (style, format!("mode {mode}: {reason}"))
        }
        EventKind::ShutdownStarted { reason, culprit } => {
            let because = match culprit {
                Some(id) => format!(" because of {id}"),
                None => String::new(),
            };
            (Style::Warn, format!("shutting down{because}: {reason}"))
        }
        EventKind::ShutdownCompleted { clean, took_us } => {
            let (style, how) = match clean {
                true => (Style::Good, "nothing is left"),
                false => (Style::Bad, "not everything ended in time"),
            };
            (style, format!("shut down in {}, {how}", micros(*took_us)))
        }
        EventKind::EventsDropped { missed } => {
            (Style::Warn, format!("{missed} events are missing here"))
        }
        _ => return None,
    })
}

fn last_line(exit: Option<&ExitReport>) -> String {
    exit.and_then(|exit| exit.last_lines.last())
        .map(|line| format!(" (last line: {line:?})"))
        .unwrap_or_default()
}

fn micros(us: u64) -> String {
    match us {
        0..1000 => format!("{us} us"),
        1000..1_000_000 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        _ => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Colour;
    use chrono::DateTime;
    use supervisor_core::exit::{ExitReason, ExitStatus};
    use supervisor_core::{CheckpointId, Incarnation, Sequence, ServiceId};

    fn shown(kind: EventKind) -> String {
        let whole = SupervisorEvent {
            version: 1,
            id: uuid::Uuid::nil(),
            sequence: Sequence::default(),
            at: DateTime::from_timestamp(1_700_000_000, 0).unwrap(),
            kind,
        };
        line(&whole, Output::new(Colour::Never))
    }

    #[test]
    fn an_event_is_one_line_whatever_a_service_wrote() {
        let line = shown(EventKind::ServiceStateChanged {
            service: ServiceId::new("lsp").unwrap(),
            incarnation: Incarnation::ZERO,
            from: Phase::Running,
            to: Phase::Backoff,
            ready: false,
            pid: None,
            reason: "signal 11; restart in 1s".into(),
            exit: Some(ExitReport {
                status: Some(ExitStatus::Signal(11)),
                reason: ExitReason::Crash,
                last_lines: vec!["first".into(), "\u{1b}[31mpanic\nat the disco".into()],
            }),
        });
        assert!(!line.contains('\n') && !line.contains('\u{1b}'), "{line}");
        assert!(line.contains("lsp") && line.contains("running -> backoff: signal 11"), "{line}");
        assert!(line.contains("panic"), "{line}");
    }

    #[test]
    fn an_event_of_the_system_names_what_it_is_about() {
        let taken = shown(EventKind::CheckpointCreated {
            checkpoint: CheckpointId(uuid::Uuid::nil()),
            services: 1,
            pending_operations: 2,
        });
        assert!(taken.contains("supervisor  "), "{taken}");
        assert!(taken.ends_with("taken: 1 service, 2 pending operations"), "{taken}");
        let changed = shown(EventKind::IpcChannelStateChanged {
            channel: "lsp".into(),
            from: ChannelState::Ready,
            to: ChannelState::Backoff,
            generation: supervisor_core::Generation::ZERO,
            reason: "end of file".into(),
        });
        assert!(changed.contains("  lsp  ") && changed.contains("ready -> backoff"), "{changed}");
        let ended = shown(EventKind::ShutdownCompleted { clean: false, took_us: 1_234_567 });
        assert!(ended.ends_with("shut down in 1.2 s, not everything ended in time"), "{ended}");
    }
}

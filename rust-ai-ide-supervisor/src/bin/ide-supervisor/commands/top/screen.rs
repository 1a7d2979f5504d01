//! What `top` shows and what its keys mean; no terminal, no clock, no connection.

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use ratatui::Frame;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style as Look};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState};
use rust_ai_ide_supervisor::daemon::protocol::Call;
use supervisor_core::ServiceId;
use supervisor_core::event::SupervisorEvent;
use supervisor_core::message::ChannelState;
use supervisor_core::status::{ServiceStatus, StatusReport};

use crate::output::{Colour, Output, Style, clean};
use crate::render::{self, age, phase_style, size, word};

/// Events that are kept to be shown.
pub(super) const EVENTS_MAX: usize = 200;
const KEYS: &str = " q quit   ↑↓ select   s start   x stop   r restart";

/// What a key asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Act {
    Nothing,
    Quit,
    /// Ask the supervisor for this, and say that when it is done.
    Ask(Call, String),
}

/// Everything that is on the screen.
#[derive(Debug)]
pub(super) struct Screen {
    report: Option<StatusReport>,
    events: VecDeque<SupervisorEvent>,
    /// By its id: a reload may move it to another row.
    selected: Option<ServiceId>,
    said: String,
    coloured: bool,
    stale: bool,
}

impl Screen {
    pub(super) fn new(coloured: bool) -> Self {
        Self {
            report: None,
            events: VecDeque::new(),
            selected: None,
            said: String::new(),
            coloured,
            stale: true,
        }
    }

    /// Tells whether something came since it was drawn.
    pub(super) const fn is_stale(&self) -> bool {
        self.stale
    }

    pub(super) fn take_report(&mut self, report: StatusReport) {
        let known = |id: &ServiceId| report.services.iter().any(|service| service.id == *id);
        if !self.selected.as_ref().is_some_and(known) {
            self.selected = report.services.first().map(|service| service.id.clone());
        }
        self.report = Some(report);
        self.stale = true;
    }

    pub(super) fn take_event(&mut self, event: SupervisorEvent) {
        // Read once as a stored one and once live.
        if self.events.back().is_some_and(|last| last.sequence >= event.sequence) {
            return;
        }
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
        self.stale = true;
    }

    pub(super) fn say(&mut self, said: String) {
        self.said = said;
        self.stale = true;
    }

    pub(super) fn input(&mut self, event: &Event) -> Act {
        self.stale = true;
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.key(*key),
            _ => Act::Nothing,
        }
    }

    fn key(&mut self, key: KeyEvent) -> Act {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'd') if control => Act::Quit,
            KeyCode::Char('q') | KeyCode::Esc => Act::Quit,
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Home => self.step(isize::MIN),
            KeyCode::End => self.step(isize::MAX),
            KeyCode::Char('s') => self.ask("started", |service| Call::Start { service }),
            KeyCode::Char('x') => self.ask("stopped", |service| Call::Stop { service }),
            KeyCode::Char('r') => self.ask("restarted", |service| Call::Restart { service }),
            _ => Act::Nothing,
        }
    }

    fn step(&mut self, by: isize) -> Act {
        let services = self.services();
        let last = services.len().saturating_sub(1);
        let at = self.place().unwrap_or(0).saturating_add_signed(by).min(last);
        self.selected = services.get(at).map(|service| service.id.clone());
        Act::Nothing
    }

    fn ask(&mut self, done: &str, call: impl FnOnce(ServiceId) -> Call) -> Act {
        let Some(service) = self.selected.clone() else { return Act::Nothing };
        self.said = format!("{service} is being {done}");
        Act::Ask(call(service.clone()), format!("{service} is {done}"))
    }

    fn services(&self) -> &[ServiceStatus] {
        self.report.as_ref().map_or(&[], |report| &report.services)
    }

    fn place(&self) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        self.services().iter().position(|service| service.id == *selected)
    }

    fn look(&self, style: Style) -> Look {
        let colour = |colour| if self.coloured { Look::new().fg(colour) } else { Look::new() };
        match style {
            Style::Plain => Look::new(),
            Style::Good => colour(Color::Green),
            Style::Warn => colour(Color::Yellow),
            Style::Bad => colour(Color::Red).add_modifier(Modifier::BOLD),
            Style::Dim => Look::new().add_modifier(Modifier::DIM),
            Style::Bold => Look::new().add_modifier(Modifier::BOLD),
        }
    }

    /// Draws everything; whatever does not fit is left out, the services last.
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>, now: DateTime<Utc>) {
        self.stale = false;
        let Some(report) = &self.report else { return };
        let channels = match report.channels.len() {
            0 => 0,
            some => u16::try_from(some).unwrap_or(u16::MAX).saturating_add(2).min(8),
        };
        let [head, services, detail, channel_area, events, foot] = Layout::vertical([
            Constraint::Length(2),
            Constraint::Min(3),
            Constraint::Length(3),
            Constraint::Max(channels),
            Constraint::Percentage(35),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(Paragraph::new(self.head(report, now)), head);
        let mut state = TableState::new().with_selected(self.place());
        frame.render_stateful_widget(self.table(report, now), services, &mut state);
        frame.render_widget(Paragraph::new(self.detail(now)), detail);
        frame.render_widget(Paragraph::new(self.channels(report)), channel_area);
        frame.render_widget(Paragraph::new(self.recent(events)), events);
        frame.render_widget(Paragraph::new(self.foot()), foot);
    }

    fn head(&self, report: &StatusReport, now: DateTime<Utc>) -> Line<'static> {
        let supervisor = &report.supervisor;
        let running = report.services.iter().filter(|service| service.ready).count();
        let normal = supervisor.mode == "normal";
        Line::from(vec![
            Span::styled(
                format!(" supervisor {}", word(&supervisor.state)),
                self.look(Style::Bold),
            ),
            Span::raw(format!(
                "  pid {}  up {}  mode ",
                supervisor.pid,
                age(supervisor.started_at, now)
            )),
            Span::styled(
                clean(&supervisor.mode),
                self.look(if normal { Style::Good } else { Style::Bad }),
            ),
            Span::raw(format!("  {running} of {} ready", report.services.len())),
        ])
    }

    fn table(&self, report: &StatusReport, now: DateTime<Utc>) -> Table<'static> {
        let headings =
            ["SERVICE", "PHASE", "READY", "PID", "RESTARTS", "SINCE", "CPU", "MEMORY", "WHY"];
        let rows = report.services.iter().map(|service| {
            let id =
                if service.critical { format!("{}!", service.id) } else { service.id.to_string() };
            let usage = service.usage.as_ref();
            Row::new(vec![
                Cell::new(id).style(self.look(Style::Bold)),
                Cell::new(service.phase.to_string()).style(self.look(phase_style(service.phase))),
                Cell::new(if service.ready { "yes" } else { "no" })
                    .style(self.look(if service.ready { Style::Good } else { Style::Dim })),
                Cell::new(service.pid.map_or("-".to_owned(), |pid| pid.to_string())),
                Cell::new(service.restarts.to_string()),
                Cell::new(age(service.since, now)),
                Cell::new(
                    usage.map_or("-".to_owned(), |usage| format!("{:.0}%", usage.cpu_percent)),
                ),
                Cell::new(usage.map_or("-".to_owned(), |usage| size(usage.memory))),
                Cell::new(clean(&service.reason)),
            ])
        });
        let ids = report.services.iter().map(|service| service.id.as_str().len() + 1).max();
        let widest = u16::try_from(ids.unwrap_or(0).clamp(8, 32)).unwrap_or(32);
        let widths = [widest, 10, 5, 7, 8, 8, 5, 10].map(Constraint::Length);
        Table::new(rows, widths.into_iter().chain([Constraint::Min(10)]))
            .header(Row::new(headings).style(self.look(Style::Dim)))
            .row_highlight_style(Look::new().add_modifier(Modifier::REVERSED))
    }

    /// What there is to know about the selected service.
    fn detail(&self, now: DateTime<Utc>) -> Vec<Line<'static>> {
        let Some(service) = self.place().and_then(|at| self.services().get(at)) else {
            return vec![Line::raw(""), Line::raw(" no services")];
        };
        let mut first = format!(" {}: {}", service.id, clean(&service.reason));
        if let Some(due) = service.next_restart_at.filter(|due| *due > now) {
            first.push_str(&format!(", restarted in {}", age(now, due)));
        }
        let last = match &service.last_exit {
            None => format!(" run {}, no run before it ended", service.incarnation),
            Some(exit) => {
                let how = match (exit.code, exit.signal) {
                    (Some(code), _) => format!("code {code}"),
                    (None, Some(signal)) => format!("signal {signal}"),
                    (None, None) => "unknown".to_owned(),
                };
                format!(
                    " run {}, the last one ended by {} ({how})",
                    service.incarnation,
                    word(&exit.reason)
                )
            }
        };
        vec![Line::raw(""), Line::raw(first), Line::styled(last, self.look(Style::Dim))]
    }

    fn channels(&self, report: &StatusReport) -> Vec<Line<'static>> {
        if report.channels.is_empty() {
            return Vec::new();
        }
        let mut lines = vec![Line::raw("")];
        lines.extend(report.channels.iter().map(|channel| {
            let style = match channel.state {
                ChannelState::Ready => Style::Good,
                ChannelState::Open | ChannelState::Closed => Style::Bad,
                _ => Style::Warn,
            };
            Line::from(vec![
                Span::styled(
                    format!(" channel {}  ", clean(&channel.name)),
                    self.look(Style::Bold),
                ),
                Span::styled(channel.state.to_string(), self.look(style)),
                Span::raw(format!(
                    "  generation {}  {} buffered  {} dead letters",
                    channel.generation, channel.buffered, channel.dead_letters
                )),
            ])
        }));
        lines
    }

    /// The newest events that fit, the newest at the bottom.
    fn recent(&self, area: Rect) -> Vec<Line<'static>> {
        let room = usize::from(area.height).saturating_sub(1);
        let skipped = self.events.len().saturating_sub(room);
        let plain = Output::new(Colour::Never);
        let mut lines = vec![Line::raw("")];
        let shown = self.events.iter().skip(skipped);
        lines.extend(
            shown.map(|event| Line::raw(format!(" {}", render::event::line(event, plain)))),
        );
        lines
    }

    fn foot(&self) -> Line<'static> {
        if self.said.is_empty() {
            return Line::styled(KEYS, self.look(Style::Dim));
        }
        Line::from(vec![
            Span::styled(KEYS, self.look(Style::Dim)),
            Span::styled(format!("   {}", clean(&self.said)), self.look(Style::Bold)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use supervisor_core::event::{EVENT_VERSION, EventKind};
    use supervisor_core::state::{Phase, ServiceState};
    use supervisor_core::status::{SupervisorPhase, SupervisorStatus};
    use supervisor_core::{Incarnation, Sequence};

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
    }

    fn service(id: &str, phase: Phase, reason: &str) -> ServiceStatus {
        let mut state = ServiceState::registered(ServiceId::new(id).unwrap(), at(0));
        state.phase = phase;
        state.incarnation = Incarnation(3);
        state.reason = reason.into();
        ServiceStatus::of(&state, id, false)
    }

    fn report(services: Vec<ServiceStatus>) -> StatusReport {
        StatusReport {
            version: 1,
            supervisor: SupervisorStatus {
                pid: 42,
                started_at: at(-60),
                state: SupervisorPhase::Running,
                mode: "normal".into(),
                database: "db".into(),
                last_checkpoint: None,
                containment: Vec::new(),
            },
            services,
            channels: Vec::new(),
        }
    }

    fn event(n: u64) -> SupervisorEvent {
        SupervisorEvent {
            version: EVENT_VERSION,
            id: uuid::Uuid::from_u128(n.into()),
            sequence: Sequence(n),
            at: at(0),
            kind: EventKind::BackupFailed { reason: format!("reason {n}.") },
        }
    }

    fn screen() -> Screen {
        let mut screen = Screen::new(true);
        screen.take_report(report(vec![
            service("lsp", Phase::Running, "up"),
            service("model", Phase::Backoff, "signal 9\u{1b}[2J"),
        ]));
        screen
    }

    fn drawn(screen: &mut Screen, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| screen.draw(frame, at(10))).unwrap();
        terminal.backend().to_string()
    }

    fn press(screen: &mut Screen, code: KeyCode) -> Act {
        screen.input(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
    }

    #[test]
    fn every_service_is_in_a_row_with_its_phase_and_why() {
        let text = drawn(&mut screen(), 120, 24);
        assert!(
            text.contains("supervisor running  pid 42  up 1m 10s  mode normal  0 of 2 ready"),
            "{text}"
        );
        let row = text.lines().find(|line| line.contains("model ")).unwrap();
        assert!(row.contains("backoff") && row.contains("signal 9"), "{row}");
        assert!(!text.contains('\u{1b}'), "what a service says cannot move the cursor");
        assert!(text.contains(" lsp: up") && text.contains("run 3"), "{text}");
        assert!(text.lines().last().unwrap().contains("q quit"), "{text}");
    }

    #[test]
    fn the_selected_service_is_the_one_that_is_asked_for_and_stays_selected() {
        let mut screen = screen();
        press(&mut screen, KeyCode::Down);
        let model = ServiceId::new("model").unwrap();
        let asked = press(&mut screen, KeyCode::Char('r'));
        assert_eq!(
            asked,
            Act::Ask(Call::Restart { service: model.clone() }, "model is restarted".into())
        );
        press(&mut screen, KeyCode::Down);
        screen.take_report(report(vec![
            service("another", Phase::Running, "up"),
            service("model", Phase::Running, "up"),
            service("lsp", Phase::Running, "up"),
        ]));
        assert_eq!(screen.place(), Some(1), "at its new place");
        screen.take_report(report(vec![service("lsp", Phase::Running, "up")]));
        let stopped = press(&mut screen, KeyCode::Char('x'));
        assert!(
            matches!(stopped, Act::Ask(Call::Stop { service }, _) if service.as_str() == "lsp")
        );
        screen.take_report(report(Vec::new()));
        assert_eq!(press(&mut screen, KeyCode::Char('s')), Act::Nothing);
        assert_eq!(press(&mut screen, KeyCode::Up), Act::Nothing);
    }

    #[test]
    fn the_newest_events_are_shown_once_and_no_more_than_so_many_are_kept() {
        let mut screen = screen();
        for n in 1..=500 {
            screen.take_event(event(n));
        }
        screen.take_event(event(499));
        assert_eq!(screen.events.len(), EVENTS_MAX);
        let text = drawn(&mut screen, 100, 24);
        assert!(text.contains("reason 500.") && !text.contains("reason 400."), "{text}");
        assert_eq!(text.matches("reason 499.").count(), 1);
    }

    #[test]
    fn it_says_what_a_command_came_to_and_is_drawn_only_when_something_changed() {
        let mut screen = screen();
        assert!(screen.is_stale());
        drawn(&mut screen, 100, 24);
        assert!(!screen.is_stale());
        screen.say("there is no service x".into());
        assert!(screen.is_stale());
        assert!(drawn(&mut screen, 120, 24).contains("there is no service x"));
    }

    #[test]
    fn q_escape_and_ctrl_c_end_it() {
        let mut screen = screen();
        assert_eq!(press(&mut screen, KeyCode::Char('q')), Act::Quit);
        assert_eq!(press(&mut screen, KeyCode::Esc), Act::Quit);
        let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(screen.input(&Event::Key(ctrl_c)), Act::Quit);
    }

    #[test]
    fn any_size_of_a_terminal_is_survived_and_no_colour_means_none() {
        for (width, height) in [(1, 1), (5, 2), (20, 5), (40, 8), (300, 100)] {
            drawn(&mut screen(), width, height);
        }
        let mut plain = screen();
        plain.coloured = false;
        let mut terminal = Terminal::new(TestBackend::new(100, 20)).unwrap();
        terminal.draw(|frame| plain.draw(frame, at(10))).unwrap();
        assert!(terminal.backend().buffer().content().iter().all(|cell| cell.fg == Color::Reset));
    }
}

//! Hiding the crash of an MCP server from its client.
//!
//! [`McpRelay`] stands between one client and one server that speak the Model Context Protocol over standard input and
//! output, revisions 2024-11-05 to 2026-07-28. While nothing is wrong it passes every message on as it came. When the
//! server is lost it gives the next one the session the client believes in, and only then lets anything else flow:
//!
//! 1. `initialize` with the client's own parameters and the revision both sides agreed on, then `initialized`;
//! 2. the log level and the resource subscriptions;
//! 3. the lists of tools, prompts and resources the client has read are read again and compared;
//! 4. the client is told which lists changed and that its subscribed resources may have;
//! 5. what was unanswered and may be repeated is asked again in its old order, then what waited, then what is new.
//!
//! Revision 2026-07-28 has no handshake and no session: there, `server/discover` shows that the server listens, 3 to 5
//! are done, and who listens for changes (`subscriptions/listen`) listens on.
//!
//! A tool is called a second time only if the tool said, before and after the crash, that this does no harm.

mod batch;
mod client;
mod failure;
mod fields;
mod flight;
mod health;
mod incident;
mod lists;
mod loss;
mod options;
mod restore;
mod reverse;
mod server;
mod session;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use supervisor_core::message::ChannelState;
use supervisor_core::{Generation, Monotonic};

use self::flight::Flight;
use self::health::Health;
use self::incident::Incident;
use self::lists::Lists;
use self::restore::{Quarantine, Restore};
use self::reverse::Asks;
use self::session::Session;
use crate::relay::{Id, Input, NOTHING_WAITS, Output, Relay, Starts};

pub use options::McpOptions;

pub use failure::{DEAD_LETTERED, EXPIRED, INDETERMINATE, NOT_SENT, REJECTED};

/// A timer noticed later than this says that we stood still, not that the server did.
const LATE: Duration = Duration::from_secs(2);

/// How long a client that has left is still given answers; the official clients wait 2 s before they use force.
const LEAVE: Duration = Duration::from_millis(1500);

/// Longest id or progress token, in bytes of JSON.
const ID_MAX: usize = 1024;

/// How ids of our own begin; a client's id that begins alike is renamed on its way to the server.
const OWN_PREFIX: &str = "ide-supervisor/";

/// Where the relay stands with its server.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Link {
    /// None runs.
    Down,
    /// One runs, and the client's own `initialize` is unanswered.
    Greeting(Generation),
    /// One runs and is given the session.
    Restoring(Generation),
    /// One runs and has it.
    Live(Generation),
    /// One runs and is being ended, because it was no use.
    Ending(Generation),
    /// None is started any more, unless the client asks for something from `again` on.
    GaveUp { reason: String, again: Monotonic },
    /// The client is gone.
    Closed,
}

impl Link {
    const fn generation(&self) -> Option<Generation> {
        match self {
            Self::Greeting(generation)
            | Self::Restoring(generation)
            | Self::Live(generation)
            | Self::Ending(generation) => Some(*generation),
            Self::Down | Self::GaveUp { .. } | Self::Closed => None,
        }
    }
}

/// Whether the client has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// It has, and is still owed answers; until then.
    Until(Monotonic),
    /// It has, and the server is being ended.
    Stopping,
}

/// Keeps one client's MCP session over any number of servers; see the [module](self).
#[derive(Debug)]
pub struct McpRelay {
    options: McpOptions,
    link: Link,
    leaving: Leaving,
    session: Session,
    lists: Lists,
    flight: Flight,
    asks: Asks,
    restore: Restore,
    quarantine: Quarantine,
    health: Health,
    incident: Incident,
    starts: Starts,
    /// The last number given to an id of our own.
    own: u64,
    /// The number of the last letter about something servers died of.
    letters: u64,
    /// Whether some server ran before.
    had_server: bool,
    /// Whether the running server was seen to work.
    is_ready: bool,
    /// Pause before a client's request makes another start be tried.
    pause: Duration,
    /// When the last input came.
    last: Monotonic,
    /// When a tick was asked for then.
    due: Option<Monotonic>,
    /// What people were already told once.
    noticed: Noticed,
}

#[derive(Debug, Default)]
struct Noticed {
    client_junk: bool,
    server_junk: bool,
    unasked: bool,
    subscriptions: bool,
    greeting: bool,
}

impl McpRelay {
    /// Makes a relay that has seen nothing yet.
    #[must_use]
    pub fn new(options: McpOptions) -> Self {
        Self {
            link: Link::Down,
            leaving: Leaving::No,
            session: Session::default(),
            lists: Lists::default(),
            flight: Flight::default(),
            asks: Asks::default(),
            restore: Restore::default(),
            quarantine: Quarantine::default(),
            health: Health::new(&options),
            incident: Incident::default(),
            starts: Starts::default(),
            own: 0,
            letters: 0,
            had_server: false,
            is_ready: false,
            pause: options.recovery.breaker.open_base,
            last: Monotonic::ZERO,
            due: None,
            noticed: Noticed::default(),
            options,
        }
    }

    /// Gives the bytes of messages and session state that are kept, for tests of the bound.
    #[cfg(test)]
    fn kept_bytes(&self) -> usize {
        self.flight.bytes() + self.session.bytes() + self.lists.bytes()
    }

    /// Gives how long a request may wait for a server: as long as this one needs to start.
    fn patience(&self) -> Duration {
        self.starts.patience(self.options.recovery.request_timeout)
    }

    /// Gives how long a new server may take to answer its handshake.
    fn handshake(&self) -> Duration {
        self.starts.patience(self.options.recovery.handshake_timeout)
    }

    /// Gives an id nobody used before.
    fn own_id(&mut self, generation: Generation) -> Id {
        self.own += 1;
        Id::text(&format!("{OWN_PREFIX}{generation}/{}", self.own))
    }

    fn to_server(&self, message: Bytes, out: &mut Vec<Output>) {
        if let Some(generation) = self.link.generation() {
            out.push(Output::ToServer { generation, message });
        }
    }

    /// Tells people something once in the life of the relay.
    fn notice_once(
        &mut self,
        told: fn(&mut Noticed) -> &mut bool,
        text: String,
        out: &mut Vec<Output>,
    ) {
        if !std::mem::replace(told(&mut self.noticed), true) {
            out.push(Output::Notice(text));
        }
    }

    /// Asks for another server, because this one is no use.
    fn replace_server(&mut self, reason: String, out: &mut Vec<Output>) {
        if let Some(generation) = self.link.generation()
            && self.link != Link::Ending(generation)
        {
            self.link = Link::Ending(generation);
            out.push(Output::RestartServer { reason });
        }
    }

    fn server_started(&mut self, generation: Generation, now: Monotonic, out: &mut Vec<Output>) {
        if self.link == Link::Closed || self.link.generation() >= Some(generation) {
            return;
        }
        self.health.started(now);
        self.incident.attempt(now);
        self.had_server = true;
        self.is_ready = false;
        if self.session.agreed().is_some() {
            self.begin_restore(generation, now, out);
        } else if self.session.envelope().is_some() {
            self.begin_without_greeting(generation, now, out);
        } else {
            // Nothing to restore: whatever the client asks, its greeting first of all, is for this server.
            self.lists.forget_tools();
            self.link = Link::Live(generation);
            self.pump(now, out);
        }
    }

    /// Writes what waits, in order, until something must be awaited first.
    fn pump(&mut self, now: Monotonic, out: &mut Vec<Output>) {
        while let Link::Live(generation) = self.link
            && let Some(waiting) = self.flight.next_waiting()
        {
            match waiting {
                flight::Waiting::Note { message, initialized } => {
                    self.session.initialized |= initialized;
                    self.to_server(message, out);
                }
                flight::Waiting::Call(seq) => self.write_waiting(seq, generation, now, out),
            }
        }
    }

    /// A server has the client's state and answers.
    fn ready(&mut self, now: Monotonic, out: &mut Vec<Output>) {
        let Some(generation) = self.link.generation() else { return };
        self.is_ready = true;
        self.starts.done(now);
        self.pause = self.options.recovery.breaker.open_base;
        out.push(Output::Ready { generation });
        if let Some(report) = self.incident.recovered(generation, now) {
            out.push(Output::Report(Box::new(report)));
        }
    }

    /// The client says no more. What it has asked is still answered, for a moment: `cat requests | server` works, too.
    fn client_gone(&mut self, now: Monotonic, out: &mut Vec<Output>) {
        if self.link == Link::Closed || self.leaving != Leaving::No {
            return;
        }
        out.push(Output::EndServer);
        if self.link.generation().is_none() {
            self.close("the client left", out);
            out.push(Output::StopServer);
            return;
        }
        self.leaving = Leaving::Until(now + LEAVE);
    }

    /// Ends the server once the client that left has its answers, or has had its time.
    fn leave(&mut self, now: Monotonic, out: &mut Vec<Output>) {
        if let Leaving::Until(end) = self.leaving
            && (self.flight.len() == 0 || end <= now)
        {
            self.leaving = Leaving::Stopping;
            out.push(Output::StopServer);
        }
    }

    /// Nothing follows.
    fn close(&mut self, reason: &str, out: &mut Vec<Output>) {
        self.fail_waiting(reason, out);
        self.link = Link::Closed;
        self.leaving = Leaving::Stopping;
        self.flight = Flight::default();
        self.asks = Asks::default();
        if let Some(report) = self.incident.abandoned() {
            out.push(Output::Report(Box::new(report)));
        }
    }

    fn gave_up(&mut self, reason: String, now: Monotonic, out: &mut Vec<Output>) {
        if self.link == Link::Closed {
            return;
        }
        self.fail_waiting(&reason, out);
        self.link = Link::GaveUp { reason: reason.clone(), again: now + self.pause };
        self.pause = (self.pause * 2).min(self.options.recovery.breaker.open_max);
        if let Some(report) = self.incident.gave_up(reason) {
            out.push(Output::Report(Box::new(report)));
        }
    }

    /// Does what is due.
    fn tick(&mut self, now: Monotonic, out: &mut Vec<Output>) {
        self.expire_waiting(now, out);
        match self.link {
            Link::Restoring(_) => self.restore_tick(now, out),
            Link::Live(_) | Link::Greeting(_) if self.leaving == Leaving::No => {
                self.health_tick(now, out);
            }
            Link::Live(_) | Link::Greeting(_) => {}
            Link::Down | Link::Ending(_) | Link::GaveUp { .. } | Link::Closed => {}
        }
    }

    fn health_tick(&mut self, now: Monotonic, out: &mut Vec<Output>) {
        let Some(generation) = self.link.generation() else { return };
        for act in self.health.tick(now, self.load()) {
            match act {
                health::Act::Ping => {
                    let id = self.own_id(generation);
                    self.health.asked_ping(id.clone(), now);
                    let (method, params) = self.sign_of_life();
                    self.to_server(crate::relay::request(&id, method, &params), out);
                }
                health::Act::Look => out.push(Output::LookAtServer { generation }),
                health::Act::Replace(reason) => {
                    self.replace_server(reason, out);
                    return;
                }
            }
        }
    }

    /// What is cheap to answer: the revision without handshake has no ping.
    fn sign_of_life(&self) -> (&'static str, Vec<u8>) {
        match self.session.envelope().filter(|_| self.session.agreed().is_none()) {
            Some(envelope) => ("server/discover", [br#"{"_meta":"#, &envelope[..], b"}"].concat()),
            None => ("ping", b"{}".to_vec()),
        }
    }

    /// What the server has to do, as far as its silence is judged.
    fn load(&self) -> health::Load {
        match self.link {
            Link::Greeting(_) => health::Load::Starting,
            _ if self.flight.runs_tool() => health::Load::Tool,
            _ if self.flight.owed() > 0 => health::Load::Requests,
            _ => health::Load::Nothing,
        }
    }
}

impl Relay for McpRelay {
    fn handle(&mut self, input: Input, now: Monotonic, out: &mut Vec<Output>) {
        if let Some(due) = self.due
            && now.since(due) > LATE
        {
            // How much of the time since the last input was ours nobody knows: none of it is charged.
            let lost = now.since(self.last);
            self.health.forgive(lost);
            self.restore.forgive(lost);
            self.flight.forgive(lost);
            self.starts.stood_still();
        }
        match input {
            Input::FromClient(message) => self.client_says(&message, now, out),
            Input::FromServer { generation, message } => {
                if self.link.generation() == Some(generation) {
                    self.server_says(&message, now, out);
                }
            }
            Input::ServerStarted { generation } => self.server_started(generation, now, out),
            Input::ServerLost { generation, loss, last_stderr } => {
                self.server_lost(generation, &loss, last_stderr, now, out);
            }
            Input::RestartGaveUp { reason } => self.gave_up(reason, now, out),
            Input::ServerSeen { generation, busy, stopped } => {
                if self.link.generation() == Some(generation) {
                    self.health.seen(busy, stopped);
                }
            }
            Input::ClientGone => self.client_gone(now, out),
            Input::Taken { .. } | Input::Tick => {}
        }
        if self.deadline().is_some_and(|due| due <= now) {
            self.tick(now, out);
        }
        self.leave(now, out);
        self.last = now;
        // What became due by this very input is not late.
        self.due = self.deadline().map(|due| due.max(now));
    }

    fn deadline(&self) -> Option<Monotonic> {
        let link = match self.link {
            Link::Restoring(_) => Some(self.restore.deadline(self.handshake())),
            Link::Live(_) | Link::Greeting(_) if self.leaving == Leaving::No => {
                self.health.deadline(self.load())
            }
            Link::Live(_) | Link::Greeting(_) => None,
            Link::Down | Link::Ending(_) | Link::GaveUp { .. } | Link::Closed => None,
        };
        let waiting = self.flight.first_expiry(self.patience());
        let leaving = match self.leaving {
            Leaving::Until(end) => Some(end),
            Leaving::No | Leaving::Stopping => None,
        };
        [link, waiting, leaving].into_iter().flatten().min()
    }

    fn state(&self) -> ChannelState {
        match self.link {
            Link::Closed => ChannelState::Closed,
            _ if self.leaving != Leaving::No => ChannelState::Draining,
            Link::Down if self.had_server => ChannelState::Backoff,
            Link::Down => ChannelState::Connecting,
            Link::Greeting(_) | Link::Restoring(_) => ChannelState::Syncing,
            Link::Live(_) if !self.is_ready => ChannelState::Connecting,
            Link::Live(_) if self.health.is_suspect() => ChannelState::Suspect,
            Link::Live(_) => ChannelState::Ready,
            Link::Ending(_) => ChannelState::Suspect,
            Link::GaveUp { .. } => ChannelState::Open,
        }
    }

    fn held(&self) -> usize {
        self.flight.waiting()
    }

    fn requeue(
        &mut self,
        letter: u64,
        _now: Monotonic,
        out: &mut Vec<Output>,
    ) -> Result<(), String> {
        let method = self.quarantine.release(letter).ok_or(NOTHING_WAITS)?;
        out.push(Output::Notice(format!(
            "the next server is given `{method}` again, because somebody asked for that"
        )));
        Ok(())
    }

    fn owed(&self) -> usize {
        self.flight.owed()
    }

    fn held_until(&self) -> Option<Monotonic> {
        self.flight.first_expiry(self.patience())
    }
}

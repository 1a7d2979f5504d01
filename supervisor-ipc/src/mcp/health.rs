//! Telling a server that hangs from one that is busy or has nothing to say.

use std::time::Duration;

use supervisor_core::Monotonic;

use super::McpOptions;
use crate::relay::Id;

/// Missed intervals after which a server is suspect.
const SUSPECT_AFTER: u32 = 2;

/// What the server has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// It has not answered the client's greeting: it may be loading for long, and must not be asked anything else.
    Starting,
    Nothing,
    Requests,
    Tool,
}

/// What has to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    Ping,
    Look,
    Replace(String),
}

#[derive(Debug)]
struct Ping {
    id: Id,
    /// When the count of missed intervals begins.
    since: Monotonic,
    missed: u32,
}

/// The server's signs of life. Any message is one; a ping is sent only when there was none for a while, and there is
/// never more than one unanswered.
#[derive(Debug)]
pub(super) struct Health {
    idle: Duration,
    quiet: Duration,
    misses: u32,
    silence: Duration,
    busy_silence: Duration,
    heard: Monotonic,
    /// The first thing written since then that wants an answer.
    asked: Option<Monotonic>,
    ping: Option<Ping>,
    busy: bool,
    stopped: bool,
    /// Whether a server of this session ever answered a ping: one that never does is not blamed for it.
    answers_pings: bool,
}

impl Health {
    pub(super) const fn new(options: &McpOptions) -> Self {
        Self {
            idle: options.recovery.heartbeat.idle,
            quiet: options.quiet,
            misses: options.recovery.heartbeat.misses,
            silence: options.silence,
            busy_silence: options.busy_silence,
            heard: Monotonic::ZERO,
            asked: None,
            ping: None,
            busy: false,
            stopped: false,
            answers_pings: false,
        }
    }

    pub(super) fn started(&mut self, now: Monotonic) {
        self.heard = now;
        self.asked = None;
        self.ping = None;
        self.busy = false;
        self.stopped = false;
    }

    pub(super) fn wrote(&mut self, now: Monotonic) {
        self.asked.get_or_insert(now);
    }

    pub(super) fn heard(&mut self, now: Monotonic) {
        self.heard = now;
        self.asked = None;
        self.busy = false;
        self.stopped = false;
        if let Some(ping) = &mut self.ping {
            ping.since = now;
            ping.missed = 0;
        }
    }

    pub(super) fn asked_ping(&mut self, id: Id, now: Monotonic) {
        self.ping = Some(Ping { id, since: now, missed: 0 });
        self.wrote(now);
    }

    /// Takes an answer if it is one to our ping.
    pub(super) fn answered(&mut self, id: &Id) -> bool {
        let ours = self.ping.as_ref().is_some_and(|ping| ping.id == *id);
        if ours {
            self.ping = None;
            self.answers_pings = true;
        }
        ours
    }

    pub(super) const fn seen(&mut self, busy: bool, stopped: bool) {
        self.busy = busy;
        self.stopped = stopped;
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.ping.as_ref().is_some_and(|ping| ping.missed >= SUSPECT_AFTER)
    }

    pub(super) fn forgive(&mut self, late: Duration) {
        self.heard = self.heard + late;
        self.asked = self.asked.map(|asked| asked + late);
        if let Some(ping) = &mut self.ping {
            ping.since = ping.since + late;
        }
    }

    /// Since when the server owes us something.
    fn silent_since(&self, load: Load) -> Option<Monotonic> {
        let owes = load != Load::Nothing || self.ping.is_some();
        owes.then(|| self.asked.map_or(self.heard, |asked| asked.max(self.heard)))
    }

    fn next_ping(&self, load: Load) -> Option<Monotonic> {
        match load {
            _ if self.ping.is_some() => None,
            Load::Starting => None,
            Load::Nothing => Some(self.heard + self.quiet),
            Load::Requests | Load::Tool => self.silent_since(load).map(|since| since + self.idle),
        }
    }

    fn next_look(&self) -> Option<Monotonic> {
        let ping = self.ping.as_ref()?;
        Some(ping.since + self.idle * (ping.missed + 1))
    }

    /// When silence is death.
    fn end(&self, load: Load) -> Option<Monotonic> {
        let since = self.silent_since(load)?;
        if load == Load::Nothing && !self.answers_pings && !self.stopped {
            return None;
        }
        let limit = if self.stopped {
            self.idle * (self.misses + 1)
        } else if self.busy || matches!(load, Load::Tool | Load::Starting) {
            self.busy_silence
        } else {
            self.silence
        };
        Some(since + limit)
    }

    pub(super) fn deadline(&self, load: Load) -> Option<Monotonic> {
        [self.next_ping(load), self.next_look(), self.end(load)].into_iter().flatten().min()
    }

    pub(super) fn tick(&mut self, now: Monotonic, load: Load) -> Vec<Act> {
        if self.end(load).is_some_and(|end| end <= now) {
            let silent = self.silent_since(load).map_or(Duration::ZERO, |since| now.since(since));
            let how = if self.stopped { " and is stopped" } else { "" };
            let reason = format!("the server has said nothing for {} s{how}", silent.as_secs());
            return vec![Act::Replace(reason)];
        }
        let mut acts = Vec::new();
        if self.next_ping(load).is_some_and(|due| due <= now) {
            acts.push(Act::Ping);
        }
        if self.next_look().is_some_and(|due| due <= now)
            && let Some(ping) = &mut self.ping
        {
            // One look for however many intervals have passed.
            let passed = now.since(ping.since).as_nanos() / self.idle.as_nanos().max(1);
            ping.missed = u32::try_from(passed).unwrap_or(u32::MAX - 1).max(ping.missed + 1);
            if ping.missed >= SUSPECT_AFTER {
                acts.push(Act::Look);
            }
        }
        acts
    }
}

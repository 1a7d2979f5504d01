//! Hiding a language server's crash from its client.
//!
//! State is replayed, messages are not: documents, folders and settings are known here as the client has them, and a
//! server started again is given them as they are now, once. Everything else is fenced by the generation it belongs
//! to. While nothing is wrong every byte passes as it came.
//!
//! [`LspRelay`] holds the state; `client` takes in what the client sends, `edits` what of it is about documents, `server` what the server sends, `restore`
//! gives a new server the state, `blame` finds out what one died of, `time` does what is due.

mod asked;
mod blame;
mod client;
mod documents;
mod edits;
mod methods;
mod notebooks;
mod options;
mod places;
mod registrations;
mod restore;
mod server;
mod session;
mod standing;
#[cfg(test)]
mod tests;
mod text;
mod time;
mod uri;
mod vitals;

use std::collections::HashSet;

use bytes::Bytes;
use serde_json::json;
use supervisor_core::message::ChannelState;
use supervisor_core::{Generation, Monotonic};

pub use options::LspOptions;
pub use places::Files;

use crate::relay::{Id, Input, Output, RecoveryReport, Relay, Starts, notification};
use asked::{Ask, Asked, Questions, Refusal};
use documents::Documents;
use methods::Family;
use registrations::Registrations;
use restore::Restore;
use session::{Session, Watched};
use standing::{Diagnostics, Progress};
use vitals::Vitals;

/// Where the running server is.
#[derive(Debug)]
enum Phase {
    /// None runs.
    Down,
    /// It runs and nobody has greeted it: the client has not spoken yet.
    Fresh,
    /// The client's own `initialize` is on its way.
    Greeting,
    /// Our repetition of it is, under this id.
    Repeating { id: Id, since: Monotonic },
    /// Its documents are being opened.
    Restoring(Restore),
    /// It has everything.
    Ready,
}

/// How far the client is with leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Intent {
    Stay,
    /// It asked for `shutdown`.
    Leave,
    /// It said `exit`, or is gone.
    Left,
}

/// An incident that is not over yet.
#[derive(Debug)]
struct Incident {
    report: RecoveryReport,
    lost_at: Monotonic,
    started_at: Monotonic,
    greeted_at: Monotonic,
}

/// First of the ids we give to requests of our own: high, because clients count from zero, and within 31 bits,
/// because some servers read no more.
const OWN_IDS: u64 = 2_000_000_000;
/// How late a tick may be before it is we who stood still.
const STOOD_STILL: std::time::Duration = std::time::Duration::from_secs(2);

/// Recovery of a language server.
#[derive(Debug)]
pub struct LspRelay {
    options: LspOptions,
    session: Session,
    documents: Documents,
    asked: Asked,
    questions: Questions,
    registrations: Registrations,
    forget_registrations_at: Option<Monotonic>,
    diagnostics: Diagnostics,
    progress: Progress,
    watched: Watched,
    vitals: Vitals,
    starts: Starts,
    files: Option<Box<dyn Files>>,
    /// The running server, or the last one.
    generation: Generation,
    phase: Phase,
    intent: Intent,
    /// The `shutdown` that is not answered yet, and when it is answered here.
    shutdown: Option<(Id, Monotonic)>,
    /// What the running server offers.
    capabilities: serde_json::Value,
    server_encoding: text::Encoding,
    /// Data of the running server that the client holds; everything counts as such until the first crash.
    fresh: HashSet<Family>,
    fresh_tokens: HashSet<(Tokens, uri::UriKey)>,
    ever_lost: bool,
    incident: Option<Incident>,
    gave_up: Option<String>,
    /// Whether the person at the client was told since a server was ready last.
    told_of_giving_up: bool,
    tried_again: Option<Monotonic>,
    /// Documents that are watched for a while after they were opened, because they may have killed a server.
    settling: Vec<(uri::UriKey, Monotonic)>,
    /// No document was watched any more when the last server was lost.
    settled_before: bool,
    /// The document whose newest text the server has not shown to have survived.
    unproven: Option<uri::UriKey>,
    /// The last restoration ended in a death, so the next one goes document by document.
    careful: bool,
    numbers: u64,
    /// The number of the last letter about something servers died of.
    letters: u64,
    now: Monotonic,
}

/// Answers whose ids the client sends back to ask for what changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Tokens {
    Semantic,
    Pull,
    PullAll,
}

impl LspRelay {
    /// Makes a relay for one client.
    #[must_use]
    pub fn new(options: LspOptions) -> Self {
        Self {
            options,
            session: Session::default(),
            documents: Documents::default(),
            asked: Asked::default(),
            questions: Questions::default(),
            registrations: Registrations::default(),
            forget_registrations_at: None,
            diagnostics: Diagnostics::default(),
            progress: Progress::default(),
            watched: Watched::default(),
            vitals: Vitals::default(),
            starts: Starts::default(),
            files: None,
            generation: Generation::ZERO,
            phase: Phase::Down,
            intent: Intent::Stay,
            shutdown: None,
            capabilities: serde_json::Value::Null,
            server_encoding: text::Encoding::default(),
            fresh: HashSet::new(),
            fresh_tokens: HashSet::new(),
            ever_lost: false,
            incident: None,
            gave_up: None,
            told_of_giving_up: false,
            tried_again: None,
            settling: Vec::new(),
            settled_before: true,
            unproven: None,
            careful: false,
            numbers: OWN_IDS,
            letters: 0,
            now: Monotonic::ZERO,
        }
    }

    /// An id for a request of our own that nobody uses now.
    fn own_id(&mut self) -> Id {
        loop {
            self.numbers += 1;
            if self.numbers > i32::MAX as u64 {
                self.numbers = OWN_IDS;
            }
            let id = Id::number(self.numbers);
            if !self.asked.is_written(&id) {
                return id;
            }
        }
    }

    /// Writes to the running server.
    fn write(&mut self, message: Bytes, out: &mut Vec<Output>) {
        self.vitals.written(self.now, &self.options);
        out.push(Output::ToServer { generation: self.generation, message });
    }

    /// Tells the person at the client something it should know.
    fn tell(&self, text: &str, out: &mut Vec<Output>) {
        out.push(Output::Notice(text.to_owned()));
        if self.session.greeted {
            let params = json!({ "type": 2, "message": text }).to_string();
            out.push(Output::ToClient(notification("window/showMessage", params.as_bytes())));
        }
    }

    /// Gives how long a request may wait for a server: as long as this one needs to start.
    fn hold(&self) -> std::time::Duration {
        self.starts.patience(self.options.hold)
    }

    fn refuse(&mut self, ask: &Ask, why: &Refusal, out: &mut Vec<Output>) {
        if let Some(incident) = &mut self.incident {
            let messages = &mut incident.report.messages;
            match why {
                Refusal::Died(_) | Refusal::Deadly(_) => messages.failed_maybe_done += 1,
                _ => messages.failed_unsent += 1,
            }
        }
        out.push(Output::ToClient(ask.refused(why)));
    }

    /// Whether notifications of the client can go to the server as they are.
    const fn live(&self) -> bool {
        matches!(self.phase, Phase::Ready | Phase::Restoring(_))
    }
}

impl Relay for LspRelay {
    fn handle(&mut self, input: Input, now: Monotonic, out: &mut Vec<Output>) {
        self.now = now;
        match input {
            Input::FromClient(message) => self.client_message(message, out),
            Input::FromServer { generation, message } => {
                if generation == self.generation && !matches!(self.phase, Phase::Down) {
                    self.server_message(message, out);
                }
            }
            Input::ServerStarted { generation } => self.server_started(generation, out),
            Input::ServerLost { generation, loss, last_stderr } => {
                self.server_lost(generation, &loss, last_stderr, out);
            }
            Input::RestartGaveUp { reason } => self.restart_gave_up(reason, out),
            Input::ServerSeen { generation, busy, stopped } => {
                if generation == self.generation {
                    self.vitals.seen(busy, stopped);
                }
            }
            Input::Taken { generation } => self.taken(generation, out),
            Input::ClientGone => self.client_gone(out),
            Input::Tick => self.tick(out),
        }
    }

    fn deadline(&self) -> Option<Monotonic> {
        self.next_deadline()
    }

    fn state(&self) -> ChannelState {
        match self.phase {
            _ if self.intent == Intent::Left => ChannelState::Closed,
            _ if self.intent == Intent::Leave => ChannelState::Draining,
            Phase::Down if self.gave_up.is_some() => ChannelState::Open,
            Phase::Down if self.ever_lost => ChannelState::Backoff,
            Phase::Down | Phase::Fresh | Phase::Greeting => ChannelState::Connecting,
            Phase::Repeating { .. } | Phase::Restoring(_) => ChannelState::Syncing,
            Phase::Ready if self.vitals.suspect(&self.options) => ChannelState::Suspect,
            Phase::Ready => ChannelState::Ready,
        }
    }

    fn held(&self) -> usize {
        self.asked.held()
    }

    fn requeue(
        &mut self,
        letter: u64,
        now: Monotonic,
        out: &mut Vec<Output>,
    ) -> Result<(), String> {
        self.now = now;
        self.try_again(letter, out)
    }

    fn owed(&self) -> usize {
        self.asked.written()
    }

    fn held_until(&self) -> Option<Monotonic> {
        self.asked.deadline()
    }
}

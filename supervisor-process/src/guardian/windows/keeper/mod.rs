//! Windows: the guardian itself. One task owns everything; what it waits for comes to it as events.
//!
//! Every set is a job whose handles are here and with its host, so what a guardian that is killed held ends with its host
//! at the latest, and nothing has to be looked for. Bounds: [`PEERS_MAX`] connections, [`SETS_MAX`] sets, [`EVENTS_MAX`]
//! frames waiting, and `peer.rs` bounds what waits to be sent; whoever is beyond one is refused or disconnected.

mod log;
mod peer;
mod requests;
mod set;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use supervisor_core::config::HostDeathPolicy;
use supervisor_core::exit::ExitStatus;
use tokio::net::windows::named_pipe::NamedPipeServer;
use tokio::sync::mpsc;

use self::log::Log;
use self::peer::{Peer, PeerId};
use self::set::Set;
use super::exits::{ExitFile, ExitRecord};
use super::pipe_name;
use super::protocol::{Left, Reply, RequestId, SetId};
use crate::capture::CaptureThread;
use crate::os::guardian as os;
use crate::os::{Entry, Snapshot};

/// Connections at once: the host's, and those that are greeted or refused.
const PEERS_MAX: usize = 8;
/// Sets at once.
const SETS_MAX: usize = 4096;
/// Events that wait; whoever sends more waits until they are dealt with.
const EVENTS_MAX: usize = 16;
/// How long a guardian nobody has greeted waits for somebody.
const UNWANTED: Duration = Duration::from_secs(20);
/// First pause between two looks whether a set whose leader has ended is empty; doubles to [`LOOK_MAX`].
const LOOK_MIN: Duration = Duration::from_millis(1);
/// Longest pause between two looks.
const LOOK_MAX: Duration = Duration::from_millis(100);

/// What the guardian waits for.
#[derive(Debug)]
enum Event {
    /// A whole frame came over a connection.
    Frame(PeerId, Vec<u8>),
    /// A connection has ended, for the reason given if there is more to it.
    Gone(PeerId, Option<String>),
    /// A leader has ended.
    Exited(SetId, ExitStatus),
}

/// The guardian.
struct Keeper {
    name: String,
    pid: u32,
    start_time: u64,
    log: Log,
    exits: ExitFile,
    capture: CaptureThread,
    sets: HashMap<SetId, Set>,
    next_set: SetId,
    peers: HashMap<PeerId, Peer>,
    next_peer: PeerId,
    owner: Option<PeerId>,
    /// Somebody was greeted once.
    wanted: bool,
    /// Who waits for the sets to be named, and until when.
    lists: Vec<(RequestId, Instant)>,
    sender: mpsc::Sender<Event>,
    /// Pause before the next look at sets whose leader has ended.
    pause: Duration,
}

/// Guards until there is nothing left to guard and nobody to guard it for.
///
/// # Errors
/// What the system said when it could not make itself ready; another guardian of this directory is one such reason.
pub(super) fn run(state_dir: PathBuf, _mark: String) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let name = pipe_name(&state_dir);
        // Taken first: who has the pipe is the guardian of this directory, and owns its files.
        let listener = os::listen(&name, true)?;
        let log = Log::open(&state_dir);
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let pid = std::process::id();
        let myself = Entry::read(pid).ok_or(io::ErrorKind::NotFound)?;
        let keeper = Keeper {
            name,
            pid,
            start_time: myself.start_time,
            exits: ExitFile::open(&state_dir)?,
            capture: CaptureThread::start()?,
            log,
            sets: HashMap::new(),
            next_set: 1,
            peers: HashMap::new(),
            next_peer: 1,
            owner: None,
            wanted: false,
            lists: Vec::new(),
            sender,
            pause: LOOK_MIN,
        };
        keeper.serve(listener, events).await
    })
}

impl Keeper {
    async fn serve(
        mut self,
        mut listener: NamedPipeServer,
        mut events: mpsc::Receiver<Event>,
    ) -> io::Result<()> {
        let begun = Instant::now();
        loop {
            let look = self.next_look();
            let alone = self.peers.is_empty() && !self.wanted;
            tokio::select! {
                connected = listener.connect(), if self.peers.len() < PEERS_MAX => {
                    let pipe = std::mem::replace(&mut listener, os::listen(&self.name, false)?);
                    match connected {
                        Ok(()) => self.admit(pipe),
                        Err(error) => self.log.say(&format!("a connection failed: {error}")),
                    }
                }
                // The sender is ours, so there is always another.
                Some(event) = events.recv() => self.take(event),
                () = tokio::time::sleep(look.unwrap_or(LOOK_MAX)), if look.is_some() => self.look(),
                () = tokio::time::sleep(UNWANTED.saturating_sub(begun.elapsed())), if alone => {
                    return Ok(());
                }
            }
            self.answer_lists();
            let needed = self.owner.is_some() || !self.peers.is_empty() || !self.wanted;
            if !needed && !self.sets.values().any(Set::may_live) {
                return Ok(());
            }
        }
    }

    fn admit(&mut self, pipe: NamedPipeServer) {
        let id = self.next_peer;
        self.next_peer += 1;
        let holding = os::client_of(&pipe).and_then(os::Peer::open);
        match holding {
            Ok(process) => {
                self.peers.insert(id, Peer::new(id, pipe, process, self.sender.clone()));
            }
            // The pipe is this user's alone, so this one is gone already.
            Err(error) => self.log.say(&format!("a connection was closed: {error}")),
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Frame(peer, body) => self.serve_frame(peer, &body),
            Event::Gone(peer, why) => {
                if let Some(why) = why {
                    self.log.say(&format!("a connection was closed: {why}"));
                }
                self.remove_peer(peer);
            }
            Event::Exited(set, status) => self.exited(set, status),
        }
    }

    /// Forgets a connection. If it was the host's, what is to end with the host is killed.
    fn remove_peer(&mut self, id: PeerId) {
        self.peers.remove(&id);
        if self.owner != Some(id) {
            return;
        }
        self.owner = None;
        self.lists.clear();
        for set in self.sets.values_mut() {
            set.waiting.clear();
            if set.policy == HostDeathPolicy::Die {
                set.forget = true;
                if let Err(error) = set.kill() {
                    self.log.say(&format!("{} may not be killed: {error}", set.service));
                }
            }
        }
        self.forget_wanted();
        if let Err(error) = self.exits.sync() {
            self.log.say(&format!("recorded exits may not survive the system: {error}"));
        }
    }

    fn exited(&mut self, id: SetId, status: ExitStatus) {
        let Some(set) = self.sets.get_mut(&id) else { return };
        set.status = Some(status);
        if set.policy == HostDeathPolicy::Outlive {
            let record = record(set, status);
            let kept = self
                .exits
                .add(&record)
                .and_then(|()| if self.owner.is_none() { self.exits.sync() } else { Ok(()) });
            if let Err(error) = kept {
                // It is kept with the set all the same, and told to the next host as long as this guardian lives.
                self.log.say(&format!("an exit of {} could not be recorded: {error}", set.service));
            }
        }
        self.pause = LOOK_MIN;
        self.look();
    }

    /// When sets whose leader has ended are looked at again; never, if there is none that is not empty.
    fn next_look(&self) -> Option<Duration> {
        let open = |set: &Set| set.status.is_some() && !set.emptied || !set.waiting.is_empty();
        self.sets.values().any(open).then_some(self.pause)
    }

    /// Finds the sets that have become empty, and those whose kill has lasted too long.
    fn look(&mut self) {
        self.pause = (self.pause * 2).min(LOOK_MAX);
        let now = Instant::now();
        let mut answers: Vec<(RequestId, Reply)> = Vec::new();
        for set in self.sets.values_mut() {
            if set.status.is_some() && !set.emptied {
                set.emptied = set.leader.group_is_empty();
            }
            if set.emptied {
                let reply = Reply::Killed { killed: set.killed.max(1), left: Vec::new() };
                answers.extend(set.waiting.drain(..).map(|(to, _)| (to, reply.clone())));
            }
            let late = |(_, until): &mut (RequestId, Instant)| now >= *until;
            let late: Vec<_> = set.waiting.extract_if(.., late).collect();
            if !late.is_empty() {
                let reply = Reply::Killed { killed: set.killed, left: left(set) };
                answers.extend(late.into_iter().map(|(to, _)| (to, reply.clone())));
            }
        }
        // Told before the answers, so that who is answered finds the end already known.
        self.tell();
        for (to, reply) in answers {
            self.reply(to, &reply);
        }
        self.forget_wanted();
    }

    /// Tells the host what it has not heard yet.
    fn tell(&mut self) {
        let Some(owner) = self.owner.and_then(|owner| self.peers.get(&owner)) else { return };
        for set in self.sets.values_mut() {
            if !set.told_exit
                && let Some(exit) = set.exit()
            {
                set.told_exit = true;
                set.told_emptied = exit.empty;
                owner.say(&Reply::Exited { set: set.id, exit }, 0);
            }
            if set.told_exit && set.emptied && !set.told_emptied {
                set.told_emptied = true;
                owner.say(&Reply::Emptied { set: set.id }, 0);
            }
        }
    }

    fn reply(&self, to: RequestId, reply: &Reply) {
        if to != 0
            && let Some(owner) = self.owner.and_then(|owner| self.peers.get(&owner))
        {
            owner.say(reply, to);
        }
    }

    fn forget_wanted(&mut self) {
        self.sets.retain(|_, set| !set.forget || set.may_live());
    }
}

fn record(set: &Set, status: ExitStatus) -> ExitRecord {
    let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    ExitRecord {
        service: set.service.clone(),
        incarnation: set.incarnation,
        pid: set.leader.pid(),
        start_time: set.start_time,
        status,
        at_millis: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
    }
}

/// What of a set is alive.
fn left(set: &Set) -> Vec<Left> {
    let leader = set.leader.pid();
    let entries = Snapshot::take().entries.into_iter().filter(|entry| entry.group == leader);
    let left = |entry: Entry| {
        let Entry { pid, start_time, state, .. } = entry;
        Left { pid, start_time, state }
    };
    entries.map(left).collect()
}

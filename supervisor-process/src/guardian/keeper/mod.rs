//! The guardian's own process: one thread, one loop over descriptors, no policy.
//!
//! `start.rs` makes processes, `family.rs` tells whose they are, `ending.rs` signals and kills, `requests.rs` is what a
//! host can ask, `peer.rs` how it asks, `output.rs` where what services write goes.

mod ending;
mod family;
mod log;
mod output;
mod peer;
mod requests;
mod set;
mod start;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use supervisor_core::Signal;
use supervisor_core::config::HostDeathPolicy;

use self::family::Orphans;
use self::log::Log;
use self::output::{Buffer, Got};
use self::peer::Peer;
use self::set::Set;
use super::exits::ExitFile;
use super::protocol::{Refusal, Reply, RequestId, SetId, Welcome};
use super::{LOCK, SOCKET};
use crate::capture::DropCause;
use crate::os::guardian::{self as os, ChildSignals, Children, Listener, Lock, NullDevice, Poller};

/// Events taken from the system at a time.
const BATCH: usize = 128;
/// Connections at a time, the owner's included; one more is closed at once.
const PEERS_MAX: usize = 8;
/// Sets held at a time; one more is refused as the system refuses one process too many.
const SETS_MAX: usize = 4096;
/// How long a connection may take to greet.
const GREETING_LIMIT: Duration = Duration::from_secs(5);

/// What a descriptor in the loop is, in the high byte of its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Child = 1,
    Listener = 2,
    Peer = 3,
    Leader = 4,
    Stdout = 5,
    Stderr = 6,
}

const fn token(kind: Kind, id: u32) -> u64 {
    ((kind as u64) << 56) | id as u64
}

/// Everything the guardian holds.
#[derive(Debug)]
struct Keeper {
    poller: Poller,
    child_signals: ChildSignals,
    children: Children,
    listener: Listener,
    /// The directory itself, so that its socket can be removed whatever its path has become.
    dir: File,
    _lock: Lock,
    log: Log,
    exits: ExitFile,
    exits_unsynced: bool,
    mark: String,
    umask: u32,
    open_files: (u64, u64),
    pid: u32,
    start_time: u64,
    peers: BTreeMap<u32, Peer>,
    owner: Option<u32>,
    next_peer: u32,
    sets: BTreeMap<SetId, Set>,
    next_set: SetId,
    orphans: Orphans,
    /// Leaders whose end was seen in this round, not told yet.
    ended: Vec<SetId>,
    /// Something of ours ended in this round.
    family_changed: bool,
    /// Signals for what left its group, sent together at the end of the round.
    signals: Vec<(RequestId, SetId, Signal)>,
    /// Who waits for the list of sets, and until when at most.
    lists: Vec<(RequestId, Instant)>,
    buffer: Buffer,
}

/// Runs a guardian for a state directory until it has nothing to guard; its host is at standard input.
///
/// # Errors
/// What the system said while it made itself ready; the host was told if it could be.
pub(super) fn run(state_dir: PathBuf, mark: String) -> io::Result<()> {
    let (child_signals, umask) = os::prepare()?;
    let host = NullDevice::take_over()?;
    rustix::io::ioctl_fionbio(&host, true)?;
    match Keeper::new(state_dir, mark, child_signals, umask) {
        Ok(Some(mut keeper)) => {
            keeper.add_peer(host);
            keeper.work();
            Ok(())
        }
        Ok(None) => {
            refuse(&host, Refusal::Elsewhere, "another guardian has this state directory");
            Ok(())
        }
        Err(error) => {
            refuse(&host, Refusal::Unfit, &format!("the guardian cannot work: {error}"));
            Err(error)
        }
    }
}

fn refuse(host: &OwnedFd, why: Refusal, text: &str) {
    if let Some(frame) = (Welcome::Refused { why, text: text.to_owned() }).encode() {
        // One that is gone already needs no answer.
        drop(os::send(host, &frame, &[]));
    }
}

impl Keeper {
    fn new(
        state_dir: PathBuf,
        mark: String,
        child_signals: ChildSignals,
        umask: u32,
    ) -> io::Result<Option<Self>> {
        let dir = File::open(&state_dir)?;
        os::own_directory(&dir).map_err(io::Error::other)?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let Some(lock) = Lock::take(options.open(state_dir.join(LOCK))?)? else {
            return Ok(None);
        };
        let open_files = os::open_files_limit();
        let poller = Poller::new(BATCH)?;
        let listener = Listener::bind(&dir, SOCKET)?;
        poller.add(&listener, token(Kind::Listener, 0))?;
        poller.add(&child_signals, token(Kind::Child, 0))?;
        let pid = std::process::id();
        Ok(Some(Self {
            poller,
            child_signals,
            children: Children::open()?,
            listener,
            log: Log::open(&state_dir),
            exits: ExitFile::open(&state_dir)?,
            exits_unsynced: false,
            dir,
            _lock: lock,
            mark,
            umask,
            open_files,
            pid,
            start_time: crate::os::Entry::read(pid).map_or(0, |entry| entry.start_time),
            peers: BTreeMap::new(),
            owner: None,
            next_peer: 0,
            sets: BTreeMap::new(),
            next_set: 1,
            orphans: Orphans::new(),
            ended: Vec::new(),
            family_changed: false,
            signals: Vec::new(),
            lists: Vec::new(),
            buffer: Buffer::new(),
        }))
    }

    fn work(&mut self) {
        while !self.is_over() {
            let limit = self.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
            for ready in self.poller.wait(limit) {
                let id = u32::try_from(ready & u64::from(u32::MAX)).unwrap_or(0);
                match ready >> 56 {
                    kind if kind == Kind::Child as u64 => self.on_child_signal(),
                    kind if kind == Kind::Listener as u64 => self.accept(),
                    kind if kind == Kind::Peer as u64 => self.on_peer(id),
                    kind if kind == Kind::Leader as u64 => self.on_leader(id),
                    kind if kind == Kind::Stdout as u64 => self.on_output(id, 0),
                    _ => self.on_output(id, 1),
                }
            }
            self.end_of_round();
        }
        self.leave();
    }

    /// Nothing is left to guard, and nobody is there who might want something guarded.
    fn is_over(&self) -> bool {
        self.peers.is_empty()
            && self.owner.is_none()
            && self.sets.values().all(|set| !set.may_live())
            && self.orphans.strays().next().is_none()
    }

    fn leave(&self) {
        // Both fail only when somebody removed the directory, and then there is nothing to remove.
        drop(self.exits.sync());
        _ = rustix::fs::unlinkat(&self.dir, SOCKET, rustix::fs::AtFlags::empty());
    }

    fn next_deadline(&self) -> Option<Instant> {
        let kills = self.sets.values().filter_map(|set| set.kill.as_ref());
        let looks = kills.map(|kill| kill.next_look);
        // One that does not read is not answered before it does.
        let answered = self.lists.iter().filter(|_| !self.owner_is_full());
        let lists = answered.map(|(_, by)| *by);
        looks.chain(lists).chain(self.peers.values().filter_map(|peer| peer.greet_by)).min()
    }

    fn on_child_signal(&mut self) {
        self.child_signals.drain();
        self.family_changed = true;
    }

    fn on_leader(&mut self, id: SetId) {
        let Some(set) = self.sets.get_mut(&id) else { return };
        let status = match os::ended(set.leader) {
            os::Ended::Running => return,
            os::Ended::As(status) => status,
            os::Ended::Gone => supervisor_core::exit::ExitStatus::Unknown,
        };
        if let Some(end) = set.end.take() {
            self.poller.remove(&end);
        }
        set.status = Some(status);
        self.ended.push(id);
        self.family_changed = true;
        for which in [0, 1] {
            self.drain(id, which);
        }
    }

    fn on_output(&mut self, id: SetId, which: usize) {
        let Some(set) = self.sets.get_mut(&id) else { return };
        let Some(source) = &mut set.sources[which] else { return };
        let got = source.read(&mut self.buffer);
        let began = source.take_began();
        if got == Got::End {
            self.poller.remove(&source.pipe);
            set.sources[which] = None;
        }
        self.tell_dropping(id, began);
    }

    /// Tells the owner that output has begun to be dropped; without room or an owner it stays with the counts.
    fn tell_dropping(&mut self, set: SetId, began: Vec<DropCause>) {
        let Some(owner) = self.owner.and_then(|owner| self.peers.get_mut(&owner)) else { return };
        for cause in began {
            if !owner.is_full() {
                owner.say(&Reply::Dropping { set, cause }, 0, Vec::new());
            }
        }
    }

    fn drain(&mut self, id: SetId, which: usize) {
        let Some(set) = self.sets.get_mut(&id) else { return };
        let Some(source) = &mut set.sources[which] else { return };
        let got = source.drain(&mut self.buffer);
        let began = source.take_began();
        if got == Got::End {
            self.poller.remove(&source.pipe);
            set.sources[which] = None;
        }
        self.tell_dropping(id, began);
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok(Some(socket)) => match os::peer(&socket) {
                    Ok((uid, _)) if uid == rustix::process::geteuid().as_raw() => {
                        self.add_peer(socket);
                    }
                    Ok((uid, pid)) => {
                        self.log.say(&format!("process {pid} of user {uid} was refused"));
                    }
                    Err(error) => {
                        self.log.say(&format!("a peer without a name was refused: {error}"));
                    }
                },
                Ok(None) => return,
                Err(error) => {
                    self.log.say(&format!("a connection was lost before it began: {error}"));
                    return;
                }
            }
        }
    }

    fn add_peer(&mut self, socket: OwnedFd) {
        if self.peers.len() >= PEERS_MAX {
            self.log.say("one connection too many was closed");
            return;
        }
        let id = self.next_peer;
        if self.poller.add(&socket, token(Kind::Peer, id)).is_err() {
            return;
        }
        self.next_peer += 1;
        self.peers.insert(id, Peer::new(socket, Instant::now() + GREETING_LIMIT));
    }

    fn on_peer(&mut self, id: u32) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.flush();
            if !peer.is_full() {
                peer.read();
            }
        }
        self.serve(id);
    }

    /// What is done once for everything that happened in a round: children looked at, ends told, kills taken a step
    /// further, connections that ended removed.
    fn end_of_round(&mut self) {
        if std::mem::take(&mut self.family_changed) {
            self.look_at_family();
        }
        self.send_signals();
        self.step_kills();
        self.tell();
        self.answer_lists();
        self.end_strays();
        let now = Instant::now();
        let ids: Vec<u32> = self.peers.keys().copied().collect();
        for id in ids {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            if peer.greet_by.is_some_and(|by| now >= by) {
                self.log.say("a connection that did not greet was closed");
                peer.over = true;
            }
            if peer.over {
                self.remove_peer(id);
                continue;
            }
            let (read, write) = (!peer.is_full(), peer.waits());
            self.poller.change(&peer.socket, token(Kind::Peer, id), read, write);
        }
        if self.owner.is_none() && std::mem::take(&mut self.exits_unsynced) {
            // Nobody holds these facts but the file. A disk that refuses is as if the machine had crashed later.
            if let Err(error) = self.exits.sync() {
                self.log.say(&format!("recorded exits are not on the disk: {error}"));
            }
        }
    }

    fn remove_peer(&mut self, id: u32) {
        if let Some(peer) = self.peers.remove(&id) {
            self.poller.remove(&peer.socket);
        }
        if self.owner == Some(id) {
            self.owner = None;
            self.lose_host();
        }
    }

    /// The host is gone, by whatever route: what was to die with it dies, the rest is kept for the next one.
    fn lose_host(&mut self) {
        let now = Instant::now();
        self.signals.clear();
        self.lists.clear();
        let mut dying = 0;
        for set in self.sets.values_mut() {
            if let Some(kill) = &mut set.kill {
                kill.asked.clear();
            }
            if set.policy == HostDeathPolicy::Die {
                set.forget = true;
                if set.may_live() {
                    dying += 1;
                    set.kill.get_or_insert_with(|| set::Kill::new(now)).next_look = now;
                }
            }
        }
        self.sets.retain(|_, set| !set.forget || set.may_live());
        let kept = self.sets.len() - dying;
        self.log.say(&format!("the host is gone: {dying} sets are killed, {kept} are kept"));
        self.step_kills();
    }
}

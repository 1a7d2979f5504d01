//! What a host can ask.

use std::time::{Duration, Instant};

use supervisor_core::config::HostDeathPolicy;
use supervisor_core::status::DroppedOutput;

use super::super::protocol::{
    Held, Hello, Refusal, Reply, Request, RequestId, SetId, Spawn, VERSION_MAX, VERSION_MIN,
    Welcome, build, common,
};
use super::super::wire::Malformed;
use super::peer::Peer;
use super::start::{self, Started};
use super::{Keeper, Kind, SETS_MAX, os, token};
use crate::os::guardian::{Refused, Step};

/// Descriptors one set may need, and those kept for everything else.
const DESCRIPTORS_PER_SET: u64 = 5;
const DESCRIPTORS_KEPT: u64 = 32;
/// Requests of one kind that may wait: for the list of sets, for the end of one set. One more is refused as busy.
pub(super) const WAITING_MAX: usize = 64;
/// Longest wait for what a kill does not end before the sets are named all the same.
const LIST_LIMIT: Duration = Duration::from_secs(5);

impl Keeper {
    /// Answers every whole frame that has come over a connection.
    pub(super) fn serve(&mut self, id: u32) {
        loop {
            let Some(peer) = self.peers.get_mut(&id) else { return };
            let next = match peer.next() {
                Ok(None) => return,
                Ok(Some(body)) if peer.greet_by.is_some() => self.greet(id, &body),
                Ok(Some(body)) => match Request::decode(&body) {
                    Ok((to, request)) => {
                        self.carry_out(to, request);
                        Ok(())
                    }
                    Err(malformed) => Err(malformed),
                },
                Err(malformed) => Err(malformed),
            };
            if let Err(malformed) = next {
                self.log.say(&format!("a connection was closed: {malformed}"));
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.over = true;
                }
                return;
            }
        }
    }

    fn greet(&mut self, id: u32, body: &[u8]) -> Result<(), Malformed> {
        let hello = Hello::decode(body)?;
        let welcome = self.welcome(id, &hello);
        let accepted = matches!(welcome, Welcome::Accepted { .. });
        let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
        if let Some(frame) = welcome.encode() {
            peer.queue(frame, Vec::new());
        }
        if accepted {
            peer.greet_by = None;
            self.owner = Some(id);
        } else {
            peer.over = true;
        }
        Ok(())
    }

    fn welcome(&mut self, id: u32, hello: &Hello) -> Welcome {
        let refused = |why, text| Welcome::Refused { why, text };
        let Some(version) = common(hello) else {
            self.log.say(&format!("{:?} speaks no version of ours and was refused", hello.build));
            let text = format!(
                "the guardian {} speaks versions {VERSION_MIN} to {VERSION_MAX} of its protocol, {} speaks {} to {}",
                build(),
                hello.build,
                hello.oldest,
                hello.newest
            );
            return refused(Refusal::Version, text);
        };
        if let Some(owner) = self.owner.filter(|owner| *owner != id) {
            let gone = self.peers.get(&owner).is_none_or(|peer| os::is_gone(&peer.socket));
            if !gone {
                self.log.say("a second host was refused");
                return refused(Refusal::Owned, "another host is connected to it".to_owned());
            }
            // Its end has come but was not read yet; what it means is done first.
            self.remove_peer(owner);
        }
        Welcome::Accepted { version, pid: self.pid, start_time: self.start_time, build: build() }
    }

    fn carry_out(&mut self, to: RequestId, request: Request) {
        match request {
            Request::Spawn(spawn) => self.spawn(to, *spawn),
            Request::Signal { set, signal } => self.signal(to, set, signal),
            Request::Kill { set, confirm_ms, forget } => {
                // A day is for ever, and no number of a host can overflow a clock.
                let confirm = Duration::from_millis(confirm_ms.min(24 * 3600 * 1000));
                self.kill(to, set, Instant::now() + confirm, forget);
            }
            Request::List if self.lists.len() < WAITING_MAX => {
                self.lists.push((to, Instant::now() + LIST_LIMIT));
            }
            Request::List => self.busy(to),
            Request::Forget { set } => self.forget(set),
            Request::Attach { set } => self.attach(to, set),
            Request::Dropped => self.tell_dropped(to),
            Request::Ping => self.reply(to, &Reply::Done { errno: 0 }),
            Request::ForgetExits { upto } => {
                if let Err(error) = self.exits.forget(upto) {
                    self.log.say(&format!("recorded exits could not be forgotten: {error}"));
                }
            }
        }
    }

    /// Names every service of which output was not kept; runs of one share its counts.
    fn tell_dropped(&mut self, to: RequestId) {
        let counts = self.sets.values().map(|set| (set.service.clone(), set.output.dropped()));
        let mut dropped: Vec<_> =
            counts.filter(|(_, dropped)| *dropped != DroppedOutput::default()).collect();
        dropped.dedup_by(|one, other| one.0 == other.0);
        self.reply(to, &Reply::Dropped(dropped));
    }

    /// Whether no more may be added that waits for the host to read.
    pub(super) fn owner_is_full(&self) -> bool {
        self.owner.and_then(|owner| self.peers.get(&owner)).is_some_and(Peer::is_full)
    }

    /// Too many wait already.
    pub(super) fn busy(&mut self, to: RequestId) {
        self.reply(to, &Reply::Done { errno: rustix::io::Errno::AGAIN.raw_os_error() });
    }

    fn reply(&mut self, to: RequestId, reply: &Reply) {
        if let Some(owner) = self.owner.and_then(|owner| self.peers.get_mut(&owner)) {
            owner.say(reply, to, Vec::new());
        }
    }

    fn spawn(&mut self, to: RequestId, spawn: Spawn) {
        match self.try_spawn(spawn) {
            Ok((id, started)) => {
                let set = &started.set;
                let channel = started.channel.is_some();
                let (pid, start_time, refused) = (set.leader, set.start_time, started.refused);
                self.sets.insert(id, started.set);
                let with = started.channel.map(Vec::from).unwrap_or_default();
                if let Some(owner) = self.owner.and_then(|owner| self.peers.get_mut(&owner)) {
                    let reply = Reply::Started { set: id, pid, start_time, channel, refused };
                    owner.say(&reply, to, with);
                }
            }
            Err(Refused { step, errno }) => {
                self.reply(to, &Reply::NotStarted { step: step as u8, errno });
            }
        }
    }

    fn try_spawn(&mut self, mut spawn: Spawn) -> Result<(SetId, Started), Refused> {
        let refused = |errno: rustix::io::Errno| {
            Err(Refused { step: Step::Fork, errno: errno.raw_os_error() })
        };
        if self.sets.len() >= SETS_MAX {
            return refused(rustix::io::Errno::AGAIN);
        }
        let needed = (self.sets.len() as u64 + 1) * DESCRIPTORS_PER_SET + DESCRIPTORS_KEPT;
        if needed > os::descriptors_max() {
            return refused(rustix::io::Errno::MFILE);
        }
        // What raised our own limit is no business of a service; its own wish, if it has one, comes after it.
        let (soft, hard) = self.open_files;
        spawn.limits.insert(0, (os::OPEN_FILES, soft, hard));
        let id = self.next_set;
        spawn.limits.extend(os::tag(id));
        let known = self.sets.values().find(|set| set.service == spawn.service);
        let known = known.map(|set| set.output.clone());
        let started = start::start(id, spawn, self.umask, known)?;
        self.next_set += 1;
        self.watch(&started);
        Ok((id, started))
    }

    fn watch(&self, started: &Started) {
        let set = &started.set;
        let sources = [(Kind::Stdout, &set.sources[0]), (Kind::Stderr, &set.sources[1])];
        for (kind, source) in sources {
            if let Some(source) = source
                && let Err(error) = self.poller.add(&source.pipe, token(kind, set.id))
            {
                self.log.say(&format!("output of {} is not read: {error}", set.service));
            }
        }
        if let Some(end) = &set.end
            && let Err(error) = self.poller.add(end, token(Kind::Leader, set.id))
        {
            self.log.say(&format!("the end of {} will be noticed late: {error}", set.service));
        }
    }

    fn attach(&mut self, to: RequestId, id: SetId) {
        let Some(set) = self.sets.get(&id) else {
            return self.reply(to, &Reply::Done { errno: rustix::io::Errno::SRCH.raw_os_error() });
        };
        let copies =
            set.channel.as_ref().and_then(|[stdin, stdout]| start::copies(stdin, stdout).ok());
        let reply = Reply::Started {
            set: id,
            pid: set.leader,
            start_time: set.start_time,
            channel: copies.is_some(),
            refused: [0; 2],
        };
        if let Some(owner) = self.owner.and_then(|owner| self.peers.get_mut(&owner)) {
            owner.say(&reply, to, copies.map(Vec::from).unwrap_or_default());
        }
    }

    /// Names every set to those who asked, once nothing is being killed any more for the loss of the host before.
    pub(super) fn answer_lists(&mut self) {
        let dying = |set: &super::set::Set| {
            set.policy == HostDeathPolicy::Die && set.forget && set.may_live()
        };
        let now = Instant::now();
        let dying = self.sets.values().any(dying);
        let due = |(_, by): &(RequestId, Instant)| !dying || now >= *by;
        if self.owner_is_full() || !self.lists.iter().any(due) {
            return;
        }
        let mut held: Vec<Held> = Vec::new();
        for set in self.sets.values_mut() {
            set.told_exit = set.status.is_some();
            set.told_emptied = set.emptied;
            held.push(set.held());
        }
        let named = super::set::named(held);
        while !self.lists.is_empty() && !self.owner_is_full() {
            let (to, _) = self.lists.remove(0);
            self.reply(to, &named);
        }
    }
}

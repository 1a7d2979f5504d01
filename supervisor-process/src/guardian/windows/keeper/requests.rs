//! What a host can ask.

use std::io;
use std::time::{Duration, Instant};

use supervisor_core::config::HostDeathPolicy;
use supervisor_core::status::DroppedOutput;

use super::super::protocol::{
    Held, Hello, Refusal, Reply, Request, RequestId, SetId, Spawn, VERSION_MAX, VERSION_MIN,
    Welcome, build, common,
};
use super::peer::PeerId;
use super::set::{self, Set};
use super::{Keeper, LOOK_MIN, SETS_MAX};
use crate::os::guardian::{Step, code_of};

/// Longest wait for what a kill does not end before the sets are named all the same.
const LIST_LIMIT: Duration = Duration::from_secs(5);
/// The system lacks what another set needs.
const NO_SYSTEM_RESOURCES: i32 = 1450;
/// What was wished for is unknown here.
const NOT_SUPPORTED: i32 = 50;
/// There is no such set.
const NOT_FOUND: i32 = 1168;

impl Keeper {
    /// Deals with one frame of a connection.
    pub(super) fn serve_frame(&mut self, id: PeerId, body: &[u8]) {
        let Some(peer) = self.peers.get(&id) else { return };
        let done = if peer.greeted {
            Request::decode(body).map(|(to, request)| self.carry_out(to, request))
        } else {
            Hello::decode(body).map(|hello| self.greet(id, &hello))
        };
        if let Err(malformed) = done {
            self.log.say(&format!("a connection was closed: {malformed}"));
            self.remove_peer(id);
        }
    }

    fn greet(&mut self, id: PeerId, hello: &Hello) {
        let welcome = self.welcome(hello);
        let accepted = matches!(welcome, Welcome::Accepted { .. });
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Some(frame) = welcome.encode() {
            peer.queue(frame);
        }
        if accepted {
            peer.greeted = true;
            self.owner = Some(id);
            self.wanted = true;
        } else {
            self.remove_peer(id);
        }
    }

    fn welcome(&mut self, hello: &Hello) -> Welcome {
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
        if let Some(owner) = self.owner {
            if self.peers.get(&owner).is_some_and(|peer| !peer.is_over()) {
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
            Request::Signal { set, signal } => {
                let sent = match self.sets.get(&set) {
                    Some(set) if !set.emptied => set.leader.signal_group(signal),
                    // An empty set is no error.
                    _ => Ok(()),
                };
                self.done(to, sent);
            }
            Request::Kill { set, confirm_ms, forget } => {
                // A day is for ever, and no number of a host can overflow a clock.
                let confirm = Duration::from_millis(confirm_ms.min(24 * 3600 * 1000));
                self.kill(to, set, Instant::now() + confirm, forget);
            }
            Request::List => self.lists.push((to, Instant::now() + LIST_LIMIT)),
            Request::Forget { set } => {
                if let Some(set) = self.sets.get_mut(&set) {
                    set.forget = true;
                }
                self.forget_wanted();
            }
            Request::Attach { set } => self.attach(to, set),
            Request::Ping => self.reply(to, &Reply::Done { errno: 0 }),
            Request::Dropped => {
                // Runs of one service share its counts. That dropping begins is told on Unix only.
                let counts =
                    self.sets.values().map(|set| (set.service.clone(), set.output.dropped()));
                let dropped = counts.filter(|(_, dropped)| *dropped != DroppedOutput::default());
                self.reply(to, &Reply::Dropped(dropped.collect()));
            }
            Request::ForgetExits { upto } => {
                if let Err(error) = self.exits.forget(upto) {
                    self.log.say(&format!("recorded exits could not be forgotten: {error}"));
                }
            }
        }
    }

    fn done(&self, to: RequestId, outcome: io::Result<()>) {
        let errno = outcome.err().map_or(0, |error| code_of(&error));
        self.reply(to, &Reply::Done { errno });
    }

    fn spawn(&mut self, to: RequestId, spawn: Spawn) {
        let (id, service) = (self.next_set, spawn.service.clone());
        let wishes = [spawn.nice.is_some(), spawn.oom_score_adj.is_some()];
        let refused = wishes.map(|wished| if wished { NOT_SUPPORTED } else { 0 });
        let known = self.sets.values().find(|set| set.service == service);
        let known = known.map(|set| set.output.clone());
        let started = if self.sets.len() >= SETS_MAX {
            Err(io::Error::from_raw_os_error(NO_SYSTEM_RESOURCES))
        } else {
            set::start(id, spawn, known, &self.capture, self.sender.clone())
        };
        match started {
            Ok((set, offered)) => {
                self.next_set += 1;
                self.started(to, &set, offered, refused);
                self.sets.insert(id, set);
            }
            Err(error) => {
                let errno = code_of(&error);
                self.reply(to, &Reply::NotStarted { step: Step::Exec as u8, errno });
            }
        }
    }

    /// Says that a set runs, with the handles its host takes over.
    fn started(&self, to: RequestId, set: &Set, offered: Vec<u64>, refused: [i32; 2]) {
        let reply = Reply::Started {
            set: set.id,
            pid: set.leader.pid(),
            start_time: set.start_time,
            channel: offered.len() > 1,
            refused,
        };
        self.reply(to, &Reply::Handles(offered));
        self.reply(to, &reply);
    }

    fn attach(&self, to: RequestId, id: SetId) {
        let Some(set) = self.sets.get(&id) else {
            return self.reply(to, &Reply::Done { errno: NOT_FOUND });
        };
        match set.offer() {
            Ok(offered) => self.started(to, set, offered, [0, 0]),
            Err(error) => self.done(to, Err(error)),
        }
    }

    /// Begins to kill a set, or joins a kill that is under way.
    fn kill(&mut self, to: RequestId, id: SetId, until: Instant, forget: bool) {
        let Some(set) = self.sets.get_mut(&id) else {
            return self.reply(to, &Reply::Killed { killed: 0, left: Vec::new() });
        };
        set.forget |= forget;
        if to != 0 {
            set.waiting.push((to, until));
        }
        if !set.emptied
            && let Err(error) = set.kill()
        {
            self.log.say(&format!("{} may not be killed: {error}", set.service));
        }
        self.pause = LOOK_MIN;
        self.look();
    }

    /// Names every set to those who asked, once nothing is being killed any more for the loss of the host before.
    pub(super) fn answer_lists(&mut self) {
        let dying = |set: &Set| set.policy == HostDeathPolicy::Die && set.forget && set.may_live();
        let now = Instant::now();
        let dying = self.sets.values().any(dying);
        if !self.lists.iter().any(|(_, by)| !dying || now >= *by) {
            return;
        }
        let mut held: Vec<Held> = Vec::new();
        for set in self.sets.values_mut() {
            set.told_exit = set.status.is_some();
            set.told_emptied = set.emptied;
            held.push(set.held());
        }
        for (to, _) in std::mem::take(&mut self.lists) {
            self.reply(to, &Reply::Sets(held.clone()));
        }
    }
}

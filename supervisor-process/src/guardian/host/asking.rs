//! What is asked of a guardian over its connection, whatever that is: requests, whose answers are awaited, and what it tells
//! of the runs it holds.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::super::protocol::{Reply, Request, RequestId, SetId};
use super::child::Run;
use super::link::Link;
use crate::capture::DropWatch;

/// What a process owns that the system passes on.
#[cfg(unix)]
pub(super) type Handle = std::os::fd::OwnedFd;
/// What a process owns that the system passes on.
#[cfg(windows)]
pub(super) type Handle = std::os::windows::io::OwnedHandle;

/// The guardian is gone, or reads nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost;

/// An answer, and the handles that came with it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) reply: Reply,
    pub(super) with: Vec<Handle>,
}

/// What is done with an answer before the requester sees it, in the order in which things happened.
pub(super) type Take = Box<dyn FnOnce(&Arc<Link>, Answer) + Send>;

/// What is open on a connection.
pub(super) struct Asked {
    /// As many as wait for an answer; they are given up with the connection.
    pending: Mutex<HashMap<RequestId, Take>>,
    runs: Mutex<HashMap<SetId, Weak<Run>>>,
    next: AtomicU32,
    drops: DropWatch,
    /// The connection has ended.
    pub(super) lost: CancellationToken,
    /// What the loss of it left behind was ended too.
    pub(super) cleaned: CancellationToken,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every statement under these locks leaves the value valid; a panic of another holder changes nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Asked {
    pub(super) fn new(drops: DropWatch) -> Self {
        Self {
            pending: Mutex::default(),
            runs: Mutex::default(),
            next: AtomicU32::new(1),
            drops,
            lost: CancellationToken::new(),
            cleaned: CancellationToken::new(),
        }
    }

    /// Whoever waits for an answer learns that none comes.
    pub(super) fn end(&self) {
        self.lost.cancel();
        locked(&self.pending).clear();
    }

    fn next_id(&self) -> RequestId {
        loop {
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            // 0 asks for no answer.
            if id != 0 {
                return id;
            }
        }
    }

    fn on_run(&self, set: SetId, then: impl FnOnce(&Run)) {
        let run = locked(&self.runs).get(&set).and_then(Weak::upgrade);
        if let Some(run) = run {
            then(&run);
        }
    }
}

impl Link {
    pub(super) fn runs(&self) -> MutexGuard<'_, HashMap<SetId, Weak<Run>>> {
        locked(&self.asked.runs)
    }

    /// Gives every run somebody still holds.
    pub(super) fn living_runs(&self) -> Vec<Arc<Run>> {
        self.runs().values().filter_map(Weak::upgrade).collect()
    }

    /// Sends a request nobody waits for.
    pub(super) fn tell(&self, request: &Request) {
        // Lost: then the guardian's own rule for a lost host, or what is done after a lost guardian, does it.
        if let Some(frame) = request.encode(0) {
            _ = self.send(frame);
        }
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn ask(&self, request: &Request) -> Result<Answer, Lost> {
        let (answer, answered) = oneshot::channel();
        // Whoever asked may have gone; then nobody needs the answer.
        self.ask_with(request, Box::new(move |_, given| drop(answer.send(given))))?;
        tokio::select! {
            answer = answered => answer.map_err(|_| Lost),
            () = self.asked.lost.cancelled() => Err(Lost),
        }
    }

    /// Sends a request whose answer is taken by `take`, before anything that came after it is looked at.
    pub(super) fn ask_with(&self, request: &Request, take: Take) -> Result<(), Lost> {
        let id = self.asked.next_id();
        let frame = request.encode(id).ok_or(Lost)?;
        locked(&self.asked.pending).insert(id, take);
        let sent = self.send(frame);
        if sent.is_err() || self.asked.lost.is_cancelled() {
            locked(&self.asked.pending).remove(&id);
            return Err(Lost);
        }
        Ok(())
    }

    /// Deals with what the guardian said; `with` is asked for the handles that belong to an answer.
    pub(super) fn heard(
        self: &Arc<Self>,
        id: RequestId,
        reply: Reply,
        with: impl FnOnce(&Reply) -> Vec<Handle>,
    ) {
        match reply {
            Reply::Exited { set, exit } => self.asked.on_run(set, |run| run.exited(exit)),
            Reply::Emptied { set } => self.asked.on_run(set, Run::emptied),
            Reply::Dropping { set, cause } => self.asked.on_run(set, |run| {
                self.asked.drops.tell(&run.key.service, run.key.incarnation, cause);
            }),
            reply => {
                let with = with(&reply);
                let take = locked(&self.asked.pending).remove(&id);
                if let Some(take) = take {
                    take(self, Answer { reply, with });
                }
            }
        }
    }
}

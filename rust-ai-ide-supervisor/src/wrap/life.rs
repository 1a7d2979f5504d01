//! Starting the server, losing it, and ending it, with its client or without.

use std::sync::Arc;

use supervisor_core::config::StopStep;
use supervisor_core::error::{SpawnError, chain};
use supervisor_core::exit::ExitStatus;
use supervisor_core::message::ChannelState;
use supervisor_core::{Generation, Monotonic, Signal};
use supervisor_ipc::relay::{Input, Loss, telling};

use super::drive::{Driver, Leaving};
use super::ladder::Step;
use super::running::Running;
use super::{Observed, WrapEnd};

/// Why a server is replaced that nothing is wrong with.
pub(super) const ASKED_FOR: &str = "somebody asked for a restart";
/// Characters of a server's last line that stand in an error, which an editor may show in a small window.
const LAST_LINE_SHOWN: usize = 200;

fn shortened(line: &str) -> String {
    line.chars().take(LAST_LINE_SHOWN).collect()
}

impl Driver<'_> {
    /// The client says no more; it may still listen, as one does that is a pipe.
    pub(super) fn client_left(&mut self) {
        if std::mem::replace(&mut self.client_there, false) {
            self.tell(Input::ClientGone);
            // A relay that owes answers ends the server when it has given them, whatever comes first; without its
            // client a server has nothing else to do.
            if self.wrap.relay.state() != ChannelState::Draining {
                self.leave();
            }
        }
    }

    /// The client neither speaks nor listens.
    pub(super) fn client_gone(&mut self) {
        self.client_hears = false;
        self.to_client.clear();
        self.client_left();
        self.leave();
    }

    /// Ends what is left of the running server and decides what follows.
    pub(super) async fn lose(&mut self, loss: Loss) {
        let Some(running) = self.running.take() else {
            return;
        };
        let generation = running.generation;
        if let Loss::Exited(status) = loss {
            self.ended = Some(status);
        }
        let said = running.inbox.said();
        let mut last_stderr = running.end().await;
        if last_stderr.is_empty() {
            last_stderr.extend(said);
        }
        self.leaving = None;
        self.lost(generation, loss, last_stderr);
    }

    /// Ends the running server because somebody asked for that, and starts another whatever the ladder thinks.
    pub(super) async fn restart(&mut self) {
        if let Some(running) = self.running.take() {
            let generation = running.generation;
            let last_stderr = running.end().await;
            let loss = Loss::Replaced(ASKED_FOR.to_owned());
            self.tell_loss(generation, &loss, last_stderr);
        }
        self.ladder.forgive();
        self.start_at = Some(self.now());
    }

    fn tell_loss(&mut self, generation: Generation, loss: &Loss, last_stderr: Vec<String>) {
        let ending = self.ending;
        self.observer.observe(&Observed::Lost { generation, loss, ending });
        self.tell(Input::ServerLost { generation, loss: loss.clone(), last_stderr });
    }

    pub(super) fn lost(&mut self, generation: Generation, loss: Loss, last_stderr: Vec<String>) {
        let last = telling(&last_stderr).map(shortened);
        self.tell_loss(generation, &loss, last_stderr);
        if self.ending {
            return;
        }
        let (now, random) = (self.now(), self.wrap.entropy.next_u64());
        match self.ladder.lost(&loss, now, random) {
            Step::Start(delay) => self.start_at = Some(now + delay),
            Step::GiveUp { mut reason, again } => {
                if let Some(last) = last {
                    reason = format!("{reason}; it said last: {last}");
                }
                self.given_up = true;
                self.start_at = again.map(|pause| now + pause);
                self.tell(Input::RestartGaveUp { reason: reason.clone() });
                if !self.ever_ready {
                    self.end = Some(WrapEnd::GaveUp(reason));
                }
            }
        }
    }

    pub(super) async fn start(&mut self) {
        self.start_at = None;
        self.generation = self.generation.next();
        let generation = self.generation;
        let now = self.now();
        self.ladder.started(now);
        let options = &self.wrap.options;
        let spec = Arc::new(options.spec.clone());
        let started =
            Running::start(&self.wrap.spawner, &self.service, &spec, options, generation).await;
        match started {
            Ok(running) => {
                let pid = running.child.identity().pid;
                self.running = Some(running);
                self.given_up = false;
                self.observer.observe(&Observed::Started { pid, generation });
                self.tell(Input::ServerStarted { generation });
            }
            Err(error) => self.not_started(error),
        }
    }

    pub(super) fn not_started(&mut self, error: SpawnError) {
        if !self.ever_ready && self.generation == Generation(1) {
            self.end = Some(WrapEnd::NoServer(error));
            return;
        }
        let reason = chain(&error);
        self.lost(self.generation, Loss::NotStarted(reason), Vec::new());
    }

    /// A full pipe is the sign of a hang, unless the server is at work.
    pub(super) async fn judge_stall(&mut self, now: Monotonic) {
        let Some(running) = &mut self.running else {
            return;
        };
        let Some(mut stall) = running.stall.filter(|stall| stall.look_at <= now) else {
            return;
        };
        let (busy, _) = running.look(now);
        let over = stall.is_over(now, busy, &self.wrap.options);
        running.stall = Some(stall);
        if !over {
            return;
        }
        self.lose(Loss::WriteStalled).await;
        self.carry_out().await;
    }

    pub(super) async fn go_on_leaving(&mut self, now: Monotonic) {
        if self.leaving.as_ref().is_none_or(|leaving| leaving.next > now) {
            return;
        }
        let Some(running) = &self.running else {
            self.leaving = None;
            return;
        };
        let step = self.leaving.as_mut().and_then(|leaving| leaving.steps.pop());
        match step {
            Some(StopStep { signal, wait }) => {
                // A set that cannot be signalled is killed by the next step.
                drop(running.child.signal_set(signal).await);
                drop(running.child.signal_set(Signal::Cont).await);
                if let Some(leaving) = &mut self.leaving {
                    leaving.next = now + wait;
                }
            }
            None => self.lose(Loss::Replaced("it did not end when asked".to_owned())).await,
        }
    }

    /// Begins the end of the server: it gets what is written already, then its input is closed.
    pub(super) fn leave(&mut self) {
        self.ending = true;
        let Some(running) = self.running.as_mut().filter(|_| self.leaving.is_none()) else {
            return;
        };
        if running.outbox.is_empty() {
            running.stdin = None;
        }
        let mut steps = self.wrap.options.spec.stop_steps();
        steps.reverse();
        self.leaving = Some(Leaving { steps, next: self.now() + self.wrap.options.leave });
    }

    /// The leader ended: what it wrote is read to its end, unless somebody else holds that open.
    pub(super) async fn server_ended(&mut self, status: ExitStatus) {
        let drain = tokio::time::sleep(self.wrap.options.drain);
        tokio::pin!(drain);
        while let Some(running) = &mut self.running {
            let read = tokio::select! {
                biased;
                read = running.inbox.read(&mut running.stdout) => read,
                () = &mut drain => break,
            };
            if !matches!(read, Ok(read) if read > 0) || self.cut().is_err() {
                break;
            }
        }
        self.lose(Loss::Exited(status)).await;
    }
}

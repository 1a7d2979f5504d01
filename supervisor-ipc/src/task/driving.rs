//! What moves a channel: its connection, its background work and its deadlines, polled as one future.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use supervisor_core::Monotonic;
use supervisor_core::message::{ChannelState, IpcMessage, Outcome};
use tokio::sync::{mpsc, oneshot};

use super::{Done, Task};
use crate::channel::Request;
use crate::durable::{self, Durable, Place};
use crate::machine::{Event, SendOptions};
use crate::receipt::{Promise, Receipt};

/// Longest sleep at a time.
const SLEEP_MAX: Duration = Duration::from_secs(3600);
/// Rounds after which others get their turn.
const ROUNDS_MAX: usize = 16;
/// Frames read in one round.
const FRAMES_MAX: usize = 256;

/// How a message was taken: at once, or after it was stored or had room.
#[derive(Debug)]
pub(crate) enum Taken {
    Now(Receipt),
    Later(oneshot::Receiver<Receipt>),
}

/// Drives a channel until it is closed.
pub(crate) async fn drive(task: Arc<Mutex<Task>>, mut requests: mpsc::Receiver<Request>) {
    let lock = || task.lock().unwrap_or_else(PoisonError::into_inner);
    let bell = Arc::clone(&lock().bell);
    let (unread, due) = (Waker::from(Arc::clone(&bell)), Waker::from(Arc::clone(&bell.driver)));
    lock().mailbox.driven_by(&due);
    std::future::poll_fn(|cx| {
        if !bell.begin(cx.waker()) {
            return Poll::Pending;
        }
        let mut locked = lock();
        let (mut io, mut cx) = (Context::from_waker(&unread), Context::from_waker(&due));
        let polled = locked.poll(&mut io, &mut cx, &mut requests);
        let settled = std::mem::take(&mut locked.settled);
        drop(locked);
        // Without the lock, which is the first thing that those who wake up ask for.
        for (promise, outcome) in settled {
            promise.settle(outcome);
        }
        polled
    })
    .await;
    let durable = {
        let mut locked = lock();
        locked.mailbox.close();
        locked.durable.take()
    };
    if let Some(durable) = durable {
        durable.close().await;
    }
}

impl Task {
    /// Takes a message in the sender's own context: with nothing else under way it is on the wire when this returns.
    pub(crate) fn send(
        &mut self,
        message: IpcMessage,
        options: SendOptions,
        place: Option<Place>,
    ) -> Taken {
        self.look_at_clock();
        let alone = self.machine.in_flight() == 0;
        let taken = self.on_send(message, options, place);
        if alone {
            // What does not fit now is left to the driver, which then listens for room.
            self.flush(&mut Context::from_waker(Waker::noop()));
        }
        if self.left_something() {
            self.bell.driver.wake_by_ref();
        }
        self.publish();
        for (promise, outcome) in self.settled.drain(..) {
            promise.settle(outcome);
        }
        taken
    }

    /// Whether there is something that only the driver goes on with.
    fn left_something(&self) -> bool {
        let sooner = match (self.machine.next_deadline(), self.armed) {
            (Some(next), Some(armed)) => next < armed,
            (next, None) => next.is_some(),
            (None, _) => false,
        };
        let left = self.wire.as_ref().is_some_and(|wire| wire.pending() || wire.broken.is_some());
        sooner || left || self.attention
    }

    /// Reads for somebody who waits for an outcome, and gives what is to be told without the lock. The driver, who was
    /// woken too, does all the rest.
    pub(super) fn read(&mut self, io: &mut Context<'_>) -> Vec<(Promise, Outcome)> {
        self.look_at_clock();
        let more = self.poll_frames(io);
        let plain = self.machine.state == ChannelState::Ready
            && self.machine.writable
            && self.wire.is_some()
            && self.session.is_none()
            && self.durable.is_none()
            && self.blocked.is_empty()
            && !self.pushes;
        if more || !plain || self.left_something() {
            self.bell.driver.wake_by_ref();
        }
        self.publish();
        std::mem::take(&mut self.settled)
    }

    fn poll(
        &mut self,
        io: &mut Context<'_>,
        cx: &mut Context<'_>,
        requests: &mut mpsc::Receiver<Request>,
    ) -> Poll<()> {
        for _ in 0..ROUNDS_MAX {
            self.attention = false;
            self.look_at_clock();
            let mut busy = self.poll_frames(io);
            self.poll_session(cx);
            self.poll_jobs(cx);
            self.poll_requests(cx, requests);
            busy |= self.poll_deadline(cx);
            self.unblock();
            self.acknowledge();
            let gathers = self.drive_outbox();
            busy |= self.flush(cx);
            busy |= self.look_at_wire();
            if self.machine.state == ChannelState::Closed {
                self.unblock();
                self.publish();
                return Poll::Ready(());
            }
            if gathers {
                break;
            }
            if !busy && !self.attention {
                self.publish();
                return Poll::Pending;
            }
        }
        self.publish();
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// What the peer says comes first: an answer that has arrived must win over the loss noticed after it. Tells
    /// whether there may be more.
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> bool {
        self.bell.heard();
        for _ in 0..FRAMES_MAX {
            let Some(wire) = &mut self.wire else { return false };
            match wire.poll_frame(cx) {
                Poll::Ready(frame) => self.on_frame(frame),
                Poll::Pending => return false,
            }
        }
        true
    }

    /// Hands on what a synchroniser says, while there is room for it.
    fn poll_session(&mut self, cx: &mut Context<'_>) {
        while let (Some(session), Some(wire)) = (&mut self.session, &self.wire)
            && !wire.crowded()
            && let Poll::Ready(Some(frame)) = session.answers.poll_recv(cx)
        {
            self.write(frame);
        }
    }

    /// Hands on what a synchroniser has said already.
    pub(super) fn hand_over(&mut self, most: usize) {
        for _ in 0..most {
            let Some(frame) = self.session.as_mut().and_then(|talk| talk.answers.try_recv().ok())
            else {
                return;
            };
            self.write(frame);
        }
    }

    fn poll_jobs(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(done)) = self.jobs.poll_join_next(cx) {
            // A new connection is to be listened to.
            self.attention = true;
            self.on_done(done.unwrap_or(Done::Nothing));
        }
        while let Poll::Ready(Some(done)) = poll_store(self.durable.as_mut(), cx) {
            if let Some(done) = done {
                self.on_stored(done);
            }
        }
    }

    fn poll_requests(&mut self, cx: &mut Context<'_>, requests: &mut mpsc::Receiver<Request>) {
        while self.machine.state != ChannelState::Closed
            && let Poll::Ready(request) = requests.poll_recv(cx)
        {
            match request {
                Some(request) => self.on_request(request),
                None => self.step(Event::Close),
            }
        }
    }

    fn next_deadline(&self) -> Option<Monotonic> {
        let blocked = self.blocked.front().map(|sender| sender.until);
        let stored = self.durable.as_ref().and_then(Durable::next_deadline);
        [self.machine.next_deadline(), blocked, stored].into_iter().flatten().min()
    }

    /// Sleeps until the next deadline. One that moved away is not followed: waking up too early costs less than that.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.next_deadline() else {
            self.armed = None;
            return false;
        };
        let left = deadline.since(self.now());
        if left.is_zero() {
            self.armed = None;
            self.step(Event::Tick);
            return true;
        }
        if self.armed.is_none_or(|armed| deadline < armed) {
            self.armed = Some(deadline);
            let until = tokio::time::Instant::now() + left.min(SLEEP_MAX);
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(until),
                none => *none = Some(Box::pin(tokio::time::sleep_until(until))),
            }
        }
        let over = self.sleep.as_mut().is_some_and(|sleep| sleep.poll_unpin(cx).is_ready());
        if over {
            self.armed = None;
        }
        over
    }

    /// Writes what the peer takes; says whether more may be written now than before.
    fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(wire) = &mut self.wire else { return false };
        let full = wire.poll_flush(cx).is_pending();
        let progress = std::mem::take(&mut wire.progress);
        let crowded = wire.crowded();
        let released = !self.machine.writable && !crowded;
        self.machine.writable = !crowded;
        let stalls = full && wire.pending();
        if released || progress && stalls || self.machine.stalls() != stalls {
            self.step(Event::Wrote { pending: stalls });
        }
        released
    }

    /// A connection that takes nothing any more is given up once everything was read.
    fn look_at_wire(&mut self) -> bool {
        let Some(reason) = self.wire.as_mut().and_then(|wire| wire.broken.take()) else {
            return false;
        };
        self.step(Event::Lost { reason });
        true
    }
}

fn poll_store(
    durable: Option<&mut Durable>,
    cx: &mut Context<'_>,
) -> Poll<Option<Option<durable::Done>>> {
    let Some(durable) = durable else { return Poll::Ready(None) };
    durable.jobs.poll_join_next(cx).map(|done| {
        done.map(|done| {
            // One that panicked took its answer with it; its sender learns that the channel is closed to it.
            done.inspect_err(
                |error| tracing::error!(%error, "a call to the outbox ended abnormally"),
            )
            .ok()
        })
    })
}

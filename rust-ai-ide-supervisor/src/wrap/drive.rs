//! The loop that carries out what a relay decides.

use std::io;
use std::time::Duration;

use supervisor_core::config::StopStep;
use supervisor_core::exit::ExitStatus;
use supervisor_core::message::ChannelState;
use supervisor_core::{Generation, Monotonic, ServiceId};
use supervisor_ipc::relay::{Envelope, Frames, Input, Loss, Output};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::alarm::Alarm;
use super::ladder::Ladder;
use super::pipe::{Inbox, Outbox};
use super::running::{Running, Stall};
use super::spin::{Spin, awake};
use super::{Observed, Observer, Requeue, Wrap, WrapEnd};

/// How long the last words to the client may take once the session is over.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How the end of the server is brought about, step by step.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) steps: Vec<StopStep>,
    pub(super) next: Monotonic,
}

pub(super) struct Driver<'o> {
    pub(super) wrap: Wrap,
    pub(super) service: ServiceId,
    pub(super) ladder: Ladder,
    pub(super) observer: &'o mut dyn Observer,
    pub(super) out: Vec<Output>,
    pub(super) to_client: Outbox,
    pub(super) client_frames: Frames,
    pub(super) client_there: bool,
    pub(super) client_hears: bool,
    /// Whether its next message is looked for.
    pub(super) client_spin: Spin,
    /// Whether it was said that a side wrote what is no message; once is enough.
    junk_told: JunkTold,
    pub(super) running: Option<Running>,
    pub(super) generation: Generation,
    pub(super) start_at: Option<Monotonic>,
    pub(super) given_up: bool,
    pub(super) ever_ready: bool,
    /// The session is over: no server is started again.
    pub(super) ending: bool,
    pub(super) leaving: Option<Leaving>,
    pub(super) ended: Option<ExitStatus>,
    pub(super) state: ChannelState,
    pub(super) end: Option<WrapEnd>,
}

#[derive(Debug, Default)]
struct JunkTold {
    client: bool,
    server: bool,
}

impl Wrap {
    /// Runs the session until the client is gone, or the server is of no use.
    ///
    /// `stop` ends the session like a client that leaves. When this returns, nothing of the server is left.
    ///
    /// # Cancel safety
    /// When dropped, the server's set is killed.
    pub async fn run(
        self,
        mut client_in: impl AsyncRead + Unpin + Send,
        mut client_out: impl AsyncWrite + Unpin + Send,
        observer: &mut dyn Observer,
        stop: impl Future<Output = ()> + Send,
    ) -> WrapEnd {
        let service = match self.options.spec.service_id() {
            Ok(service) => service,
            Err(error) => return WrapEnd::GaveUp(error.to_string()),
        };
        let (options, state) = (&self.options, self.relay.state());
        let frames = || Frames::new(options.framing, options.frame_max, options.junk_max);
        let mut inbox = Inbox::new(options.framing, frames());
        let client_spin = Spin::new(options.cores);
        let mut driver = Driver {
            service,
            ladder: Ladder::new(&options.spec, options.by_policy),
            observer,
            out: Vec::new(),
            to_client: Outbox::default(),
            client_frames: frames(),
            client_there: true,
            client_hears: true,
            client_spin,
            junk_told: JunkTold::default(),
            running: None,
            generation: Generation::ZERO,
            start_at: Some(self.clock.monotonic()),
            given_up: false,
            ever_ready: false,
            ending: false,
            leaving: None,
            ended: None,
            state,
            end: None,
            wrap: self,
        };
        driver.serve(&mut inbox, &mut client_in, &mut client_out, stop).await;
        driver.last_words(&mut client_out).await;
        driver.end.unwrap_or(WrapEnd::ClientLeft(driver.ended))
    }
}

/// What the loop woke up for.
enum Woken {
    ClientRead(io::Result<usize>),
    ClientWritten(io::Result<()>),
    ServerRead(io::Result<usize>),
    ServerWritten(io::Result<()>),
    ServerEnded(ExitStatus),
    Time,
    Stop,
    Restart,
    Requeue(Requeue),
}

impl Driver<'_> {
    pub(super) fn now(&self) -> Monotonic {
        self.wrap.clock.monotonic()
    }

    async fn serve(
        &mut self,
        inbox: &mut Inbox,
        client_in: &mut (impl AsyncRead + Unpin + Send),
        client_out: &mut (impl AsyncWrite + Unpin + Send),
        stop: impl Future<Output = ()> + Send,
    ) {
        tokio::pin!(stop);
        let mut asked_to_stop = false;
        let mut alarm = Alarm::new();
        loop {
            self.on_time().await;
            self.write_at_once(client_out).await;
            if self.over() {
                return;
            }
            let due = self.deadline();
            let clock = self.wrap.clock.as_ref();
            let (client_full, running) = (self.to_client.is_full(), self.running.as_mut());
            let server_full = running.as_ref().is_some_and(|running| running.outbox.is_full());
            let server_spin = running.as_ref().and_then(|running| running.spin.until());
            let looks_until = server_spin.max(self.client_spin.until());
            let woken = tokio::select! {
                read = inbox.read(client_in), if self.client_there && !server_full => Woken::ClientRead(read),
                written = self.to_client.write(client_out), if !self.to_client.is_empty() => Woken::ClientWritten(written),
                woken = server_event(running, !client_full) => woken,
                () = alarm.rings(due, clock) => Woken::Time,
                never = awake(looks_until, clock), if looks_until.is_some() => match never {},
                () = &mut stop, if !asked_to_stop => Woken::Stop,
                () = self.wrap.restart.notified(), if !self.ending => Woken::Restart,
                asked = asked(&mut self.wrap.requeue) => Woken::Requeue(asked),
            };
            match woken {
                Woken::ClientRead(Ok(read)) if read > 0 => {
                    let now = self.now();
                    self.client_spin.heard(now);
                    self.client_read(inbox);
                }
                Woken::ClientRead(_) => {
                    if inbox.is_cut_off() {
                        let at = inbox.dump();
                        self.notice(&format!(
                            "the client's input ended in the middle of a message (at \"{at}\")"
                        ));
                    }
                    self.client_left();
                }
                Woken::ClientWritten(Err(_)) => self.client_gone(),
                Woken::Stop => {
                    asked_to_stop = true;
                    self.client_gone();
                }
                Woken::Restart => self.restart().await,
                Woken::Requeue(asked) => self.requeue(asked),
                Woken::ServerRead(read) => self.server_read(read).await,
                Woken::ServerWritten(written) => self.server_written(&written),
                Woken::ServerEnded(status) => self.server_ended(status).await,
                Woken::ClientWritten(Ok(())) => self.client_written(),
                Woken::Time => {}
            }
            self.carry_out().await;
        }
    }

    fn over(&self) -> bool {
        self.end.is_some() || (self.ending && self.running.is_none())
    }

    fn deadline(&self) -> Option<Monotonic> {
        let stall = self.running.as_ref().and_then(|running| running.stall);
        let stalled = stall.map(|stall| stall.look_at);
        let leaving = self.leaving.as_ref().map(|leaving| leaving.next);
        // While the client reads nothing the server is not read either, and its silence is not its own.
        let relay = if self.to_client.is_full() { None } else { self.wrap.relay.deadline() };
        [stalled, leaving, self.start_due(), relay].into_iter().flatten().min()
    }

    fn start_due(&self) -> Option<Monotonic> {
        self.start_at.map(|planned| self.ladder.due(planned, self.wrap.relay.held_until()))
    }

    pub(super) fn tell(&mut self, input: Input) {
        let now = self.now();
        self.wrap.relay.handle(input, now, &mut self.out);
    }

    fn requeue(&mut self, Requeue { letter, answer }: Requeue) {
        let now = self.now();
        let done = self.wrap.relay.requeue(letter, now, &mut self.out);
        // Who asked may have left.
        drop(answer.send(done));
    }

    fn client_read(&mut self, inbox: &mut Inbox) {
        if let Some(other) = inbox.other_protocol() {
            let text = format!(
                "the client does not speak the protocol named here: its first bytes are those of `--protocol {other}`"
            );
            self.end = Some(WrapEnd::BadClient(text));
            return;
        }
        loop {
            match inbox.next() {
                Ok(Some(message)) => self.tell(Input::FromClient(message)),
                Ok(None) => {
                    if let Some(line) = inbox.skipped()
                        && !std::mem::replace(&mut self.junk_told.client, true)
                    {
                        self.notice(&format!(
                            "the client wrote something that is no message; it was skipped: {line}"
                        ));
                    }
                    return;
                }
                Err(error) => {
                    let text = format!(
                        "the client's input cannot be read: {error} (at \"{}\")",
                        inbox.dump()
                    );
                    self.end = Some(WrapEnd::BadClient(text));
                    return;
                }
            }
        }
    }

    pub(super) fn server_written(&mut self, written: &io::Result<()>) {
        let now = self.now();
        if let Some(running) = &mut self.running {
            let waits = !running.outbox.is_empty();
            if !waits && self.wrap.relay.owed() > 0 {
                running.spin.asked(now);
            }
            running.stall = waits.then(|| Stall::begins(now, &self.wrap.options));
            if written.is_err() {
                // It reads no more; its end, or that of its output, says why.
                running.stdin = None;
                running.outbox.clear();
                running.stall = None;
            }
            if self.leaving.is_some() && running.outbox.is_empty() {
                running.stdin = None;
            }
        }
        self.tell_taken();
    }

    async fn server_read(&mut self, read: io::Result<usize>) {
        if matches!(read, Ok(read) if read > 0) {
            let now = self.now();
            if let Some(running) = &mut self.running {
                running.spin.heard(now);
            }
            if let Err(loss) = self.cut() {
                self.lose(loss).await;
            }
            return;
        }
        // A server that ends closes its output first.
        let drain = self.wrap.options.drain;
        let status = match &self.running {
            Some(running) => running.ended_within(drain).await,
            None => None,
        };
        self.lose(status.map_or(Loss::EndOfOutput, Loss::Exited)).await;
    }

    /// Gives the relay every whole message of the running server.
    pub(super) fn cut(&mut self) -> Result<(), Loss> {
        loop {
            let Some(running) = &mut self.running else {
                return Ok(());
            };
            if let Some(other) = running.inbox.other_protocol() {
                let text = format!(
                    "the server's first bytes are those of `--protocol {other}`; if nothing works, that is why"
                );
                self.observer.observe(&Observed::Notice(&text));
                continue;
            }
            let generation = running.generation;
            match running.inbox.next() {
                Ok(Some(message)) => {
                    let before = self.out.len();
                    self.tell(Input::FromServer { generation, message });
                    if !self.ladder.has_answered() && self.out[before..].iter().any(answers) {
                        self.ladder.answered();
                    }
                }
                Ok(None) => {
                    let skipped = running.inbox.skipped();
                    self.tell_of_junk(skipped);
                    return Ok(());
                }
                Err(error) => {
                    let text = format!("{error} (at \"{}\")", running.inbox.dump());
                    return Err(Loss::Framing(text));
                }
            }
        }
    }

    /// Servers and their wrappers print to the wrong stream; whoever looks for the reason of a failure needs to know.
    fn tell_of_junk(&mut self, skipped: Option<String>) {
        if let Some(line) = skipped
            && !std::mem::replace(&mut self.junk_told.server, true)
        {
            self.notice(&format!(
                "the server wrote something that is no message; such lines are kept from the client: {line}"
            ));
        }
    }

    /// Does what is due.
    async fn on_time(&mut self) {
        let now = self.now();
        if self.start_due().is_some_and(|at| at <= now) && self.running.is_none() && !self.ending {
            self.start().await;
        }
        self.go_on_leaving(now).await;
        self.judge_stall(now).await;
        if !self.to_client.is_full() && self.wrap.relay.deadline().is_some_and(|at| at <= now) {
            self.tell(Input::Tick);
        }
        self.carry_out().await;
    }

    /// Carries out what the relay decided, and what follows from that.
    pub(super) async fn carry_out(&mut self) {
        while !self.out.is_empty() {
            for output in std::mem::take(&mut self.out) {
                self.carry_out_one(output).await;
            }
        }
        let state = self.wrap.relay.state();
        if state != self.state {
            let from = std::mem::replace(&mut self.state, state);
            let (generation, held) = (self.generation, self.wrap.relay.held());
            self.observer.observe(&Observed::State { from, to: state, generation, held });
        }
    }

    async fn carry_out_one(&mut self, output: Output) {
        match output {
            Output::ToClient(message) if self.client_hears => {
                if let Err(error) = self.to_client.push(&mut self.client_frames, message) {
                    self.notice(&format!("a message for the client was dropped: {error}"));
                }
            }
            Output::ToClient(_) => {}
            Output::ToServer { generation, message } => self.write(generation, message),
            Output::RestartServer { reason } => self.lose(Loss::Replaced(reason)).await,
            Output::TryAgain if self.given_up && self.running.is_none() => {
                self.start_at = Some(self.now());
            }
            Output::TryAgain => {}
            Output::LookAtServer { generation } => {
                let now = self.now();
                if let Some(running) = self.running.as_mut().filter(|r| r.generation == generation)
                {
                    let (busy, stopped) = running.look(now);
                    self.tell(Input::ServerSeen { generation, busy, stopped });
                }
            }
            Output::TellWhenTaken { generation } => {
                if let Some(running) = self.running.as_mut().filter(|r| r.generation == generation)
                {
                    running.tell_when_taken = Some(running.outbox.end());
                    self.tell_taken();
                }
            }
            Output::Ready { .. } => {
                self.ever_ready = true;
                let now = self.now();
                self.ladder.ready(now);
            }
            Output::EndServer => {
                self.ending = true;
                self.start_at = None;
            }
            Output::StopServer => self.leave(),
            Output::DeadLetter(letter) => self.observer.observe(&Observed::DeadLetter(&letter)),
            Output::Report(report) => self.observer.observe(&Observed::Report(&report)),
            Output::Notice(text) => self.notice(&text),
        }
    }

    fn notice(&mut self, text: &str) {
        self.observer.observe(&Observed::Notice(text));
    }

    fn write(&mut self, generation: Generation, message: bytes::Bytes) {
        let now = self.now();
        let Some(running) =
            self.running.as_mut().filter(|running| running.generation == generation)
        else {
            return;
        };
        if running.stdin.is_none() {
            return;
        }
        match running.outbox.push(&mut running.frames, message) {
            Ok(()) if running.stall.is_none() => {
                running.stall = Some(Stall::begins(now, &self.wrap.options));
            }
            Ok(()) => {}
            Err(error) => self.notice(&format!("a message for the server was dropped: {error}")),
        }
    }

    async fn last_words(&mut self, client_out: &mut (impl AsyncWrite + Unpin + Send)) {
        if let Some(running) = self.running.take() {
            drop(running.end().await);
        }
        self.carry_out().await;
        let all = async {
            while !self.to_client.is_empty() && self.to_client.write(client_out).await.is_ok() {}
        };
        // A client that reads nothing has had its time.
        drop(tokio::time::timeout(LAST_WORDS, all).await);
    }
}

/// Tells whether the client gets the result of a request.
fn answers(output: &Output) -> bool {
    matches!(output, Output::ToClient(message)
        if Envelope::read(message).is_ok_and(|envelope| envelope.result().is_some()))
}

/// Waits for whatever the running server does first; for ever when there is none.
async fn server_event(running: Option<&mut Running>, read: bool) -> Woken {
    let Some(running) = running else {
        return std::future::pending().await;
    };
    let (stdin, outbox) = (&mut running.stdin, &mut running.outbox);
    let write = async {
        match stdin {
            Some(stdin) if !outbox.is_empty() => outbox.write(stdin).await,
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        read = running.inbox.read(&mut running.stdout), if read => Woken::ServerRead(read),
        written = write => Woken::ServerWritten(written),
        status = running.child.wait() => Woken::ServerEnded(status),
    }
}

/// Waits for what somebody asks to be tried again; for ever when nobody can ask.
async fn asked(requeue: &mut Option<mpsc::Receiver<Requeue>>) -> Requeue {
    if let Some(receiver) = requeue
        && let Some(asked) = receiver.recv().await
    {
        return asked;
    }
    std::future::pending().await
}

//! Races that only the task itself can be brought into.

use supervisor_core::config::{FramingKind, RecoveryConfig};
use tokio::sync::Semaphore;

use super::*;
use crate::clock::TokioClock;

#[derive(Debug)]
struct NoSink;

impl supervisor_core::ports::EventSink for NoSink {
    fn publish(&self, _: EventKind) {}
}

fn task() -> Task {
    let options =
        Arc::new(ChannelOptions { framing: FramingKind::Lsp, ..ChannelOptions::default() });
    let machine = Machine::new(options.config.clone(), false, 1);
    Task {
        name: "svc".into(),
        protocol: Protocol::of(options.framing),
        world: Arc::new(World {
            clock: Arc::new(TokioClock(tokio::time::Instant::now())),
            sink: Arc::new(NoSink),
            reconnects: Arc::new(Semaphore::new(1)),
            buffered: Arc::default(),
            outbox: None,
        }),
        options,
        transport: None,
        synchronizer: None,
        wire: None,
        runtime: Handle::current(),
        session_id: Uuid::nil(),
        session: None,
        left: HashMap::new(),
        jobs: JoinSet::new(),
        time: Monotonic::ZERO,
        shown: watch::Sender::new(Shown { state: machine.state, buffered: 0 }),
        told: machine.state,
        behind: Arc::default(),
        machine,
        mailbox: Arc::new(Mailbox::new(&RecoveryConfig::default())),
        pushes: false,
        dead: Arc::default(),
        durable: None,
        blocked: VecDeque::new(),
        share: Share::new(Arc::default()),
        last_recovery: None,
        settled: Vec::new(),
        place: None,
        pings: Vec::new(),
        actions: Vec::new(),
        bell: Bell::new(),
        attention: false,
        armed: None,
        sleep: None,
    }
}

/// Puts a synchroniser in between that takes so many frames; gives where it would read them.
fn talk(task: &mut Task, most: usize) -> mpsc::Receiver<Bytes> {
    let (frames, inbox) = mpsc::channel(most);
    let (_, answers) = mpsc::channel(1);
    task.session = Some(Talk { frames, answers });
    inbox
}

#[tokio::test]
async fn what_a_synchroniser_left_unread_is_the_channels_in_its_order() {
    let mut task = task();
    let mut incoming = crate::Incoming::new(Arc::clone(&task.mailbox));
    task.machine.step(task.now(), Event::Attached);
    task.machine.step(task.now(), Event::Connected);
    assert_eq!(task.machine.state, ChannelState::Syncing);
    let unread = talk(&mut task, 2);
    for number in [7, 8] {
        let note = format!(r#"{{"jsonrpc":"2.0","method":"note","params":{number}}}"#);
        task.on_frame(Ok(note.into()));
    }
    assert!(incoming.try_recv().is_none(), "while it runs, the synchroniser gets everything");
    task.on_done(Done::Synced(
        task.machine.generation,
        Ok(Greeted::default()),
        VecDeque::new(),
        unread,
    ));
    assert_eq!(incoming.try_recv().unwrap().payload, 7);
    assert_eq!(incoming.try_recv().unwrap().payload, 8);
    assert_eq!(task.machine.state, ChannelState::Ready, "and the connection lives");
}

#[tokio::test]
async fn a_synchroniser_that_does_not_keep_up_costs_the_connection() {
    let mut task = task();
    task.machine.step(task.now(), Event::Attached);
    task.machine.step(task.now(), Event::Connected);
    let _synchronizer = talk(&mut task, 1);
    let note = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"note"}"#);
    task.on_frame(Ok(note.clone()));
    task.on_frame(Ok(note));
    assert_eq!(task.machine.state, ChannelState::Backoff);
    assert!(task.machine.reason.contains("keep up"), "{}", task.machine.reason);
}

//! Dead letters of a wrapped server: they are kept, and its session may be asked to try one again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use supervisor_core::error::{SecurityError, SupervisorError, chain};
use supervisor_core::event::EventKind;
use supervisor_core::message::{DeadLetter, IpcMessage, Lane};
use supervisor_core::ports::{Clock as _, EventSink, Outbox as _};
use supervisor_ipc::relay::Letter;
use supervisor_persist::StatePersistence;
use supervisor_process::SystemClock;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Letters kept of one server; at the bound the oldest go, for the newest say what is wrong now.
const LETTERS_MAX: usize = 256;
/// Letters that wait to be stored; one more is left out and that is said in the log.
const UNSTORED_MAX: usize = 256;
/// How long the session may take to say whether something can be tried again.
const ANSWER: Duration = Duration::from_secs(5);
/// Why a letter whose session is over is not sent again.
const OVER: &str = "its session is over, and a new one gives it to its server by itself";

/// Somebody asks that what lies in a dead letter be given to the server again.
#[derive(Debug)]
pub struct Requeue {
    /// The letter's number in its session.
    pub letter: u64,
    /// Whether that was done, and why not.
    pub answer: oneshot::Sender<Result<(), String>>,
}

/// The letters of one server, those of earlier sessions included.
#[derive(Debug)]
pub(super) struct Letters {
    channel: String,
    store: StatePersistence,
    sink: Arc<dyn EventSink>,
    session: mpsc::Sender<Requeue>,
    /// Those of this session that it can be asked about.
    numbers: Mutex<VecDeque<(Uuid, u64)>>,
    count: AtomicU64,
}

/// Stores letters in their order until it is closed.
#[derive(Debug)]
pub(super) struct Keeper {
    sender: mpsc::Sender<DeadLetter>,
    task: JoinHandle<()>,
}

impl Letters {
    pub(super) fn new(
        channel: String,
        store: StatePersistence,
        sink: Arc<dyn EventSink>,
        session: mpsc::Sender<Requeue>,
    ) -> Self {
        let (numbers, count) = (Mutex::default(), AtomicU64::new(0));
        Self { channel, store, sink, session, numbers, count }
    }

    /// Gives how many there are.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts those that are stored.
    pub(super) async fn recount(&self) {
        match self.store.dead_letters(None, LETTERS_MAX).await {
            Ok(letters) => self.count.store(letters.len() as u64, Ordering::Relaxed),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the dead letters cannot be counted");
            }
        }
    }

    /// Makes a letter of what a relay gave up, and tells of it.
    fn written(&self, letter: &Letter) -> DeadLetter {
        let (id, at) = (Uuid::now_v7(), SystemClock::new().wall());
        if letter.over.is_none() {
            let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
            if numbers.len() >= LETTERS_MAX {
                numbers.pop_front();
            }
            numbers.push_back((id, letter.number));
        }
        self.sink.publish(EventKind::IpcMessageDropped {
            channel: self.channel.clone(),
            message: id,
            lane: Lane::Normal,
            outcome: "DeadLettered".to_owned(),
            reason: format!("{} {}: {}", letter.method, letter.about, letter.cause),
        });
        let message = IpcMessage {
            id,
            message_type: letter.method.clone(),
            payload: letter.about.clone(),
            timestamp: at,
            retry_count: u32::try_from(letter.generations.len()).unwrap_or(u32::MAX),
        };
        DeadLetter {
            channel: self.channel.clone(),
            message,
            at,
            cause: letter.cause.clone(),
            generations: letter.generations.clone(),
            kept_because: Some(letter.over.unwrap_or(OVER).to_owned()),
        }
    }

    async fn keep(&self, letter: DeadLetter) {
        if let Err(error) = self.store.bury(letter).await {
            tracing::warn!(error = %chain(&error), "a dead letter could not be stored");
        }
        let all = self.store.dead_letters(None, LETTERS_MAX * 2).await.unwrap_or_default();
        let old: Vec<_> = all.iter().skip(LETTERS_MAX).map(|letter| letter.message.id).collect();
        if !old.is_empty()
            && let Err(error) = self.store.forget(&old).await
        {
            tracing::warn!(error = %chain(&error), "old dead letters could not be removed");
        }
        self.recount().await;
    }

    /// Says of those the running session can try again that they are not only kept.
    pub(super) fn show(&self, letters: &mut [DeadLetter]) {
        let numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        for letter in letters {
            if numbers.iter().any(|(id, _)| *id == letter.message.id) {
                letter.kept_because = None;
            }
        }
    }

    /// Tells those the running session can try again from the others.
    pub(super) fn of_session(&self, ids: Vec<Uuid>) -> (Vec<(Uuid, u64)>, Vec<Uuid>) {
        let numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut mine, mut others) = (Vec::new(), Vec::new());
        for id in ids {
            match numbers.iter().find(|(known, _)| *known == id) {
                Some(known) => mine.push(*known),
                None => others.push(id),
            }
        }
        (mine, others)
    }

    /// Lets the session try letters again, and forgets those it does; gives their number.
    ///
    /// # Errors
    /// Those it does not try again, with the reason of each; the others are.
    pub(super) async fn requeue(&self, letters: Vec<(Uuid, u64)>) -> Result<u64, SupervisorError> {
        let (mut back, mut refused) = (Vec::new(), Vec::new());
        for (id, letter) in letters {
            match self.ask(letter).await {
                Ok(()) => back.push(id),
                Err(reason) => refused.push(format!("{id}: {reason}")),
            }
        }
        let gone = self.store.forget(&back).await;
        self.numbers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(id, _)| !back.contains(id));
        if refused.is_empty() {
            return Ok(gone?);
        }
        let action = "sending a dead letter again".to_owned();
        Err(SecurityError::NotPermitted { action, reason: refused.join("; ") }.into())
    }

    async fn ask(&self, letter: u64) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.session.send(Requeue { letter, answer }).await.ok()?;
            answered.await.ok()
        };
        let answer = tokio::time::timeout(ANSWER, asked).await;
        answer
            .map_err(|_| "its session is busy; try again")?
            .unwrap_or_else(|| Err(OVER.to_owned()))
    }
}

impl Keeper {
    pub(super) fn start(letters: Arc<Letters>) -> Self {
        let (sender, mut receiver) = mpsc::channel(UNSTORED_MAX);
        let task = crate::supervisor::tasks::spawn(async move {
            letters.recount().await;
            while let Some(letter) = receiver.recv().await {
                letters.keep(letter).await;
            }
        });
        Self { sender, task }
    }

    pub(super) fn take(&self, letters: &Letters, letter: &Letter) {
        if self.sender.try_send(letters.written(letter)).is_err() {
            tracing::warn!(method = letter.method, "a dead letter is left out: too many at once");
        }
    }

    /// Stores what waits.
    pub(super) async fn close(self) {
        drop(self.sender);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the keeper of dead letters ended abnormally");
        }
    }
}

//! The side that uses a guardian: a spawner like any other, and what the guardian kept of an earlier host.

mod asking;
mod child;
#[cfg_attr(windows, path = "../windows/launch.rs")]
mod launch;
#[cfg_attr(windows, path = "../windows/link.rs")]
mod link;
mod loss;
mod outlived;
mod output;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use supervisor_core::config::{HostDeathPolicy, ServiceSpec, TransportKind};
use supervisor_core::error::{ProcessError, SpawnError, SpawnErrorKind};
use supervisor_core::ports::{ChildHandle, ProcessSpawner, SpawnRequest};
use supervisor_core::{Incarnation, ProcessIdentity, ServiceId};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

pub use launch::{available, running};
pub use outlived::Outlived;

use self::asking::{Answer, Lost};
use self::child::{GuardianChild, Run};
use self::launch::Place;
use self::link::Link;
use super::protocol::{Reply, Request, Spawn};
use super::{GuardianNews, GuardianProgram};
use crate::capture::DropWatch;
use crate::command::{environment, judge_spawn_error, path_in, service_program};
use crate::importance::Refusals;
use crate::os;
use crate::os::guardian::Step;
use crate::scan::SetKey;

/// Starts that are tried again with a new guardian when the old one dies meanwhile.
const TRIES: u32 = 2;
/// How long a guardian with nothing left to guard may take to end.
const LEAVE: Duration = Duration::from_secs(5);
/// How long what a lost guardian held may take to be ended before a start gives up for now.
const CLEANED: Duration = Duration::from_secs(10);

/// Starts services through a guardian, a small process of its own that outlives this one.
///
/// A start costs what it costs a small process, whatever the size of this one. When this process is gone, by whatever
/// route, the guardian kills the sets that are to die with it within a second and keeps the others; the next spawner in
/// the same state directory finds those with [`outlived`](Self::outlived). If the guardian dies, what it held is killed
/// by its marks and identities, its ends are reported, and the next start uses a new guardian.
///
/// # Platform
/// **Linux.** **macOS:** what left its group, its session and its living parent and hides its environment, as the system's
/// own programs do, is not found; type-checked and not run.
/// **Windows:** over a named pipe, with sets that are job objects; run under Wine.
#[derive(Debug)]
pub struct GuardianSpawner {
    place: Place,
    mark: Arc<str>,
    log_dir: PathBuf,
    current: tokio::sync::Mutex<Option<Arc<Link>>>,
    /// The same link for those who cannot wait.
    known: Mutex<Option<Arc<Link>>>,
    files: Mutex<HashMap<ServiceId, u32>>,
    news: watch::Sender<GuardianNews>,
    /// How much of the recorded ends was read and not forgotten yet, in bytes.
    records_read: AtomicU64,
    drops: DropWatch,
    close: CancellationToken,
}

impl GuardianSpawner {
    /// Finds the guardian of a state directory or starts one.
    ///
    /// The caller holds the state directory by a lock of its own, and the directory is its own with mode 0700. Children
    /// carry `mark`; their output is kept below `log_dir`, one directory a service.
    ///
    /// # Errors
    /// [`ProcessError::Os`] that says what is in the way: no program that can be a guardian, one of another version,
    /// one that another host still uses after two seconds, a directory that is not this user's alone. A retry helps only
    /// if that changes.
    ///
    /// # Cancel safety
    /// Safe; a guardian that was started and not greeted ends by itself.
    pub async fn open(
        state_dir: &Path,
        mark: impl Into<Arc<str>>,
        log_dir: PathBuf,
        program: GuardianProgram,
    ) -> Result<Self, ProcessError> {
        let mark = mark.into();
        let place = Place { state_dir: state_dir.to_owned(), mark: mark.to_string(), program };
        let close = CancellationToken::new();
        let connected = launch::find_or_start(&place).await?;
        let drops = DropWatch::default();
        let link = Link::new(connected.stream, connected.guardian, drops.clone());
        let news = watch::Sender::new(guarding(&link, false));
        let spawner = Self {
            place,
            mark,
            log_dir,
            current: tokio::sync::Mutex::new(None),
            known: Mutex::new(None),
            files: Mutex::default(),
            news,
            records_read: AtomicU64::new(0),
            drops,
            close,
        };
        spawner.drive(&link);
        *spawner.current.lock().await = Some(link);
        Ok(spawner)
    }

    /// Tells how it stands with the guardian, now and whenever that changes.
    #[must_use]
    pub fn news(&self) -> watch::Receiver<GuardianNews> {
        self.news.subscribe()
    }

    /// Lets the guardian go and waits until it has ended, unless it has something to guard that outlives us.
    ///
    /// # Cancel safety
    /// Safe; it ends all the same.
    pub async fn close(&self) {
        let link = self.current.lock().await.take();
        if let Some(link) = &link {
            // Whatever was asked before is answered before this, so nothing is started that nobody knows of.
            drop(tokio::time::timeout(LEAVE, link.ask(&Request::Ping)).await);
        }
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.close.cancel();
        if let Some(link) = link {
            link.asked.lost.cancelled().await;
            let outlives = |run: &Arc<Run>| run.policy == HostDeathPolicy::Outlive;
            if !link.living_runs().iter().any(outlives) {
                link.ended(LEAVE).await;
            }
        }
    }

    fn key(&self, service: &ServiceId, incarnation: Incarnation) -> SetKey {
        SetKey { mark: Arc::clone(&self.mark), service: service.clone(), incarnation }
    }

    /// Starts the task of a connection, which ends with it, with this spawner, or with the runtime.
    fn drive(&self, link: &Arc<Link>) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(link));
        let (task, after) = (Arc::clone(link), Arc::clone(link));
        let (close, news, mark) = (self.close.clone(), self.news.clone(), self.place.mark.clone());
        // Nobody waits for it: it ends with the connection, and what it cleans up then is waited for by `cleaned`.
        drop(tokio::spawn(async move {
            task.run(close.clone()).await;
            if close.is_cancelled() {
                after.asked.cleaned.cancel();
                return;
            }
            news.send_replace(GuardianNews::Lost);
            loss::clean_up(&after, &mark).await;
        }));
    }

    /// Gives the connection, to a new guardian if the old one is gone and what it held was ended.
    async fn link(&self) -> Result<Arc<Link>, ProcessError> {
        let mut current = self.current.lock().await;
        let mut replaced = false;
        if let Some(link) = current.as_ref() {
            if !link.asked.lost.is_cancelled() {
                return Ok(Arc::clone(link));
            }
            replaced = true;
            let cleaned = tokio::time::timeout(CLEANED, link.asked.cleaned.cancelled()).await;
            cleaned.map_err(|_| unavailable("what the guardian before held does not end"))?;
        }
        if self.close.is_cancelled() {
            return Err(unavailable("it was let go"));
        }
        let connected = launch::find_or_start(&self.place).await?;
        let link = Link::new(connected.stream, connected.guardian, self.drops.clone());
        self.drive(&link);
        self.news.send_replace(guarding(&link, replaced));
        *current = Some(Arc::clone(&link));
        Ok(link)
    }

    fn request(&self, request: &SpawnRequest) -> Result<Spawn, SpawnError> {
        let spec = &request.spec;
        let variables = environment(request, &self.mark);
        let program = service_program(spec, path_in(&variables))?;
        let program = program.into_os_string().into_encoded_bytes();
        let own = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let working_dir = spec.working_dir.as_ref().map_or(own.clone(), |dir| own.join(dir));
        let mut arguments = vec![program.clone()];
        arguments.extend(spec.args.iter().map(|argument| argument.as_bytes().to_vec()));
        let pair = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            [name.as_encoded_bytes(), b"=", value.as_encoded_bytes()].concat()
        };
        self.files
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(request.service.clone(), spec.capture.files);
        Ok(Spawn {
            service: request.service.clone(),
            incarnation: request.incarnation,
            policy: spec.on_host_death,
            program,
            arguments,
            environment: variables.into_iter().map(pair).collect(),
            working_dir: working_dir.into_os_string().into_encoded_bytes(),
            channel: spec
                .channel
                .as_ref()
                .is_some_and(|channel| channel.transport == TransportKind::Stdio),
            limits: os::rlimits(&spec.limits),
            nice: spec.limits.nice,
            oom_score_adj: spec.limits.oom_score_adj,
            capture: self.capture(&request.service, spec),
        })
    }

    /// Asks for a start. The answer is made a run before anything that happened to it later is looked at.
    async fn start(
        &self,
        link: &Arc<Link>,
        spawn: &Request,
        key: SetKey,
        spec: &ServiceSpec,
    ) -> Result<Result<GuardianChild, (u8, i32)>, Lost> {
        let (given, taken) = oneshot::channel();
        let policy = spec.on_host_death;
        let take = move |link: &Arc<Link>, answer: Answer| {
            let result = match answer.reply {
                Reply::Started { set, pid, start_time, refused, .. } => {
                    let boot_id = os::boot_id().to_owned();
                    let identity = ProcessIdentity { boot_id, pid, start_time };
                    Ok(Unclaimed {
                        run: Run::new(link, (set, identity), key, policy, answer.with),
                        claimed: false,
                        refusals: Refusals::of_errnos(refused),
                    })
                }
                Reply::NotStarted { step, errno } => Err((step, errno)),
                _ => Err((Step::Fork as u8, 0)),
            };
            // Nobody waits any more: what was started is dropped here, which kills it.
            drop(given.send(result));
        };
        link.ask_with(spawn, Box::new(take))?;
        let result = tokio::select! {
            result = taken => result.map_err(|_| Lost)?,
            () = link.asked.lost.cancelled() => return Err(Lost),
        };
        Ok(result.map(|unclaimed| {
            unclaimed.refusals.report(spec);
            unclaimed.claim()
        }))
    }
}

/// A run that was started and that nobody has taken yet; killed if nobody does, whatever its policy.
struct Unclaimed {
    run: Arc<Run>,
    claimed: bool,
    refusals: Refusals,
}

impl Unclaimed {
    fn claim(mut self) -> GuardianChild {
        self.claimed = true;
        GuardianChild(Arc::clone(&self.run))
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if !self.claimed {
            self.run.kill_unclaimed();
        }
    }
}

fn unavailable(text: &str) -> ProcessError {
    ProcessError::Os {
        action: "reaching the guardian".to_owned(),
        source: std::io::Error::other(text.to_owned()).into(),
    }
}

fn guarding(link: &Link, replaced: bool) -> GuardianNews {
    let (pid, start_time) = (link.guardian.pid, link.guardian.start_time);
    let identity = ProcessIdentity { boot_id: os::boot_id().to_owned(), pid, start_time };
    GuardianNews::Guarding { identity, replaced }
}

/// Says what a refused start means.
fn judge(spec: &ServiceSpec, (step, errno): (u8, i32)) -> SpawnError {
    let source = std::io::Error::from_raw_os_error(errno);
    let mut error = judge_spawn_error(spec, source);
    match Step::from_number(step) {
        Some(Step::WorkingDir) => {
            error.kind = SpawnErrorKind::BadWorkingDir;
            "its working directory cannot be entered".clone_into(&mut error.reason);
        }
        Some(Step::Limit) => "a resource limit was refused".clone_into(&mut error.reason),
        _ => {}
    }
    error
}

#[async_trait]
impl ProcessSpawner for GuardianSpawner {
    async fn spawn(&self, request: SpawnRequest) -> Result<Box<dyn ChildHandle>, SpawnError> {
        let spec = &request.spec;
        let gone = |reason: String| SpawnError {
            kind: SpawnErrorKind::SpawnerUnavailable,
            program: spec.command.clone(),
            reason,
            source: None,
        };
        let spawn = Request::Spawn(Box::new(self.request(&request)?));
        if spawn.encode(1).is_none() {
            return Err(SpawnError {
                kind: SpawnErrorKind::BadExecutable,
                program: spec.command.clone(),
                reason: "its arguments and environment are longer than 4 MiB".to_owned(),
                source: None,
            });
        }
        for _ in 0..TRIES {
            let link = self.link().await;
            let link = link.map_err(|error| gone(supervisor_core::error::chain(&error)))?;
            let key = self.key(&request.service, request.incarnation);
            match self.start(&link, &spawn, key, spec).await {
                Ok(Ok(child)) => return Ok(Box::new(child)),
                Ok(Err(refused)) => return Err(judge(spec, refused)),
                // What may have come of it is ended before another is tried: no second copy.
                Err(Lost) => {}
            }
        }
        Err(gone("the guardian died while it was starting it".to_owned()))
    }

    fn containment(&self) -> Vec<String> {
        os::guardian::containment()
    }
}

impl Drop for GuardianSpawner {
    fn drop(&mut self) {
        self.close.cancel();
        // At once and not when the task comes to it: the next host must find that this one is gone. What was asked and
        // is not sent yet the task sends first, for a bounded time; the next host waits for that.
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(link) = known.filter(|link| !link.waits()) {
            link.hang_up();
        }
    }
}

//! Joining the engines: storage first, then what a dead predecessor left behind, then processes and channels.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use supervisor_core::error::{SupervisorError, chain};
use supervisor_core::event::EventKind;
use supervisor_core::journal::{Actor, AuditAction};
use supervisor_core::ports::{
    AuditLog, CheckpointStore, EventSink, EventStore, Outbox, ProcessTable, StateStore,
    StdioReceiver,
};
use supervisor_core::state::{PendingOperation, ServiceState};
use supervisor_core::status::SupervisorPhase;
use supervisor_core::{CheckpointId, Incarnation, ProcessIdentity, Sequence, ServiceId};
use supervisor_ipc::IpcMonitor;
use supervisor_persist::{Durability, StatePersistence};
use supervisor_process::{
    Cgroups, ChannelPing, Engine, SystemProbes, SystemProcessTable, guardian,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::channels::ChannelHub;
use super::guarding::{self, Guarding};
use super::recovery::{after_clean_end, ended_cleanly, newest_states};
use super::sink::{AuditQueue, Sink};
use super::{Inner, Supervisor, numbers};
use crate::state_dir::StateDir;

/// How long what a dead supervisor left behind may take to end by itself before it is killed.
const LEFTOVER_GRACE: Duration = Duration::from_millis(500);

/// Runs of services.
type Runs = Vec<(ServiceId, Incarnation)>;

/// The engines, joined.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) store: StatePersistence,
    pub(super) engine: Engine,
    pub(super) ipc: IpcMonitor,
    pub(super) hub: Arc<ChannelHub>,
    pub(super) sink: Arc<Sink>,
    pub(super) audit: AuditQueue,
    pub(super) recovered: Recovered,
    pub(super) guarding: Guarding,
    pub(super) last_checkpoint: watch::Sender<Option<CheckpointId>>,
    /// Background tasks, joined at shutdown.
    pub(super) tasks: Mutex<Vec<JoinHandle<()>>>,
    /// The tasks that store events and audit rows, joined last.
    pub(super) writers: Mutex<Vec<JoinHandle<()>>>,
}

/// What was found of an earlier supervisor.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub(super) clean: bool,
    /// The supervisor before did not close its storage, whatever the last event says: it was killed before it had stored
    /// one of its own, or after the last.
    pub(super) interrupted: bool,
    pub(super) states: HashMap<ServiceId, ServiceState>,
    pub(super) operations: Vec<PendingOperation>,
    pub(super) source: String,
    pub(super) rejected: Vec<String>,
    pub(super) swept: u64,
}

impl Supervisor {
    /// Gives the engines, joining them at the first call.
    pub(super) async fn parts(&self) -> Result<&Parts, SupervisorError> {
        if *self.inner.phase.borrow() >= SupervisorPhase::ShuttingDown
            && self.inner.parts.get().is_none()
        {
            return Err(SupervisorError::ShuttingDown);
        }
        self.inner.parts.get_or_try_init(|| open(&self.inner)).await
    }
}

async fn open(inner: &Inner) -> Result<Parts, SupervisorError> {
    let dir = StateDir::open(&inner.state_dir)?;
    let store = StatePersistence::builder(
        dir.join(&inner.config.database_path),
        dir.join(&inner.config.checkpoint_dir),
    )
    .clock(Arc::clone(&inner.clock))
    .entropy(Arc::clone(&inner.entropy))
    .open()
    .await?;
    let mut recovered = read_stored(&store).await?;
    let guarding = guarding::open(&inner.guardian, &dir).await?;
    guarding.claim_all(&mut recovered, inner.clock.wall()).await?;
    let kept = guarding.kept();
    let (leftovers, mut seen) = leftovers(&dir.mark(), &recovered.states, &kept);
    seen.extend(guardian::recorded_runs(dir.path()));
    // Stored before what shows them is ended: this supervisor may be killed too.
    exceed(&store, &guarding, &mut recovered, seen, inner.clock.wall()).await;
    recovered.swept += end(&leftovers).await;
    let (cgroups, swept, seen) = cgroups(inner.cgroups, dir.mark(), kept).await;
    recovered.swept += swept;
    exceed(&store, &guarding, &mut recovered, seen, inner.clock.wall()).await;

    let events_head = EventStore::head(&store).await?;
    // Events are a record for people; what recovery needs is in the journal and the trail, which are synced.
    let events = Arc::new(store.with_durability(Durability::Soon));
    let event_writer = inner.bus.store_into(events, events_head);
    let (audit, audit_writer) = AuditQueue::start(Arc::new(store.clone()) as Arc<dyn AuditLog>);
    let hub = Arc::new(ChannelHub::default());
    let sink = Arc::new(Sink {
        bus: Arc::clone(&inner.bus),
        audit: audit.clone(),
        culprits: inner.culprits.clone(),
        channels: Arc::downgrade(&hub),
    });
    let events: Arc<dyn EventSink> = Arc::clone(&sink) as _;
    let mut engine = Engine::builder()
        .clock(Arc::clone(&inner.clock))
        .entropy(Arc::clone(&inner.entropy))
        .sink(Arc::clone(&events))
        .store(Arc::new(store.clone()) as Arc<dyn StateStore>)
        .stdio(Arc::clone(&hub) as Arc<dyn StdioReceiver>)
        .probes(Arc::new(SystemProbes::new().with_ping(Arc::clone(&hub) as Arc<dyn ChannelPing>)))
        .mark(dir.mark())
        .log_dir(dir.join("logs"))
        .health_check_interval(inner.config.health_check_interval)
        .max_services(inner.config.max_concurrent_services)
        // With a guardian orphans are its children, not ours.
        .subreaper(cfg!(target_os = "linux") && inner.subreaper && guarding.spawner.is_none());
    if let Some(spawner) = &guarding.spawner {
        engine = engine.guardian(Arc::clone(spawner));
    }
    if let Some(cgroups) = cgroups {
        engine = engine.cgroups(cgroups);
    }
    let engine = engine.build()?;
    let ipc = IpcMonitor::builder(supervisor_core::config::RecoveryConfig::default())
        .clock(Arc::clone(&inner.clock))
        .entropy(Arc::clone(&inner.entropy))
        .sink(events)
        .outbox(Arc::new(store.clone()) as Arc<dyn Outbox>)
        .build();
    hub.join(ipc.clone(), engine.channel_watch());
    note_recovery(&audit, &recovered);
    guarding.tell_untold(&audit);
    let newest = CheckpointStore::list(&store, 1).await?.first().map(|summary| summary.id);
    Ok(Parts {
        store,
        engine,
        ipc,
        hub,
        sink,
        audit,
        recovered,
        guarding,
        last_checkpoint: watch::Sender::new(newest),
        tasks: Mutex::new(Vec::new()),
        writers: Mutex::new(vec![event_writer, audit_writer]),
    })
}

/// Walks the restore ladder and lays the newer transitions over what it found.
async fn read_stored(store: &StatePersistence) -> Result<Recovered, SupervisorError> {
    let restored = store.restore().await?;
    let stored = StateStore::load(store).await?;
    let head = EventStore::head(store).await?;
    let last = EventStore::read(store, Sequence(head.get().saturating_sub(1)), 1).await?;
    let clean = ended_cleanly(last.first());
    let interrupted = store.recovery_report().await?.unclean_stop;
    // A checkpoint that is younger than the clean end was put there by somebody who went back to it, operations included.
    let gone_back = restored
        .checkpoint
        .as_ref()
        .zip(last.first())
        .is_some_and(|(checkpoint, last)| checkpoint.created_at > last.at);
    let (services, operations) = restored
        .checkpoint
        .map(|checkpoint| (checkpoint.services, checkpoint.pending_operations))
        .unwrap_or_default();
    let mut states = newest_states(services, stored);
    if clean {
        // A clean end leaves nothing alive, so what may be was started by one that had no time to say more.
        let cut_off = |state: &ServiceState| interrupted && state.phase.may_be_alive();
        let judged = |state| if cut_off(&state) { state } else { after_clean_end(state) };
        states = states.into_iter().map(|(id, state)| (id, judged(state))).collect();
    }
    let rejected =
        restored.rejected.iter().map(|rung| format!("{}: {}", rung.source, rung.reason)).collect();
    Ok(Recovered {
        clean,
        interrupted,
        states,
        operations: if clean && !gone_back { Vec::new() } else { operations },
        source: restored.source,
        rejected,
        swept: 0,
    })
}

/// Makes sure that the next run of each service has a higher number than those that were seen, and stores that.
///
/// A run that is taken over alive is the newest, whatever else was seen: it was started by the guardian that lives. What
/// cannot be stored now is with the service's next transition; a start does not fail for it.
async fn exceed(
    store: &StatePersistence,
    guarding: &Guarding,
    recovered: &mut Recovered,
    mut seen: Runs,
    now: DateTime<Utc>,
) {
    let kept = guarding.kept();
    seen.retain(|(service, _)| !kept.iter().any(|(kept, _)| kept == service));
    let raised = numbers::raise(&mut recovered.states, seen, now);
    if raised.is_empty() {
        return;
    }
    for state in raised.iter().map(|transition| &transition.state) {
        guarding.outdate(&state.id, state.incarnation);
    }
    if let Err(error) = StateStore::record(store, raised).await {
        tracing::error!(error = %chain(&error), "numbers of runs that were seen are not stored");
    }
}

/// Takes a cgroup if one is wanted and to be had, and ends what earlier supervisors left in theirs, but for the runs that
/// are kept: what left everything else behind is found there. Gives how many that were, and the runs that had a group.
async fn cgroups(wanted: bool, mark: String, kept: Runs) -> (Option<Cgroups>, u64, Runs) {
    let none = (None, 0, Runs::new());
    if !wanted {
        return none;
    }
    let found = tokio::task::spawn_blocking(move || {
        let cgroups = Cgroups::find(&mark)?;
        let ended = cgroups.end_leftovers(&kept);
        Ok::<_, std::io::Error>((cgroups, ended))
    });
    match found.await {
        Ok(Ok((mut cgroups, ended))) => {
            let seen = cgroups.take_earlier_runs();
            (Some(cgroups), ended as u64, seen)
        }
        Ok(Err(error)) => {
            tracing::info!(%error, "sets are contained without cgroups");
            none
        }
        Err(_) => none,
    }
}

/// Names every process that carries this state directory's mark, and every stored leader that is still that very process
/// with its group, but for the runs that are kept: their supervisor is gone, for we hold its lock. Also names the runs.
fn leftovers(
    mark: &str,
    states: &HashMap<ServiceId, ServiceState>,
    kept: &[(ServiceId, Incarnation)],
) -> (Vec<ProcessIdentity>, Runs) {
    let table = SystemProcessTable::new();
    let is_kept = |service: &ServiceId, run: Incarnation| {
        kept.iter().any(|(id, kept)| id == service && *kept == run)
    };
    let unwanted = states.values().filter(|state| !is_kept(&state.id, state.incarnation));
    let leaders: Vec<_> = unwanted.filter_map(|state| state.identity.clone()).collect();
    let mut identities = table.led_by(&leaders);
    let marked = table.marked(mark).into_iter();
    let mut runs = Runs::new();
    for process in marked.filter(|process| !is_kept(&process.service, process.incarnation)) {
        if !identities.contains(&process.identity) {
            identities.push(process.identity);
        }
        runs.push((process.service, process.incarnation));
    }
    (identities, runs)
}

/// Ends what was left and gives how many processes that were.
async fn end(identities: &[ProcessIdentity]) -> u64 {
    if identities.is_empty() {
        return 0;
    }
    match SystemProcessTable::new().end(identities, LEFTOVER_GRACE).await {
        Ok(report) if report.survivors.is_empty() => {}
        Ok(report) => {
            let survivors: Vec<_> = report.survivors.iter().map(ToString::to_string).collect();
            tracing::error!(
                ?survivors,
                "processes of the supervisor before this one survived a kill"
            );
        }
        Err(error) => {
            tracing::error!(error = %chain(&error), "leftovers of the supervisor before this one");
        }
    }
    identities.len() as u64
}

fn note_recovery(audit: &AuditQueue, recovered: &Recovered) {
    if recovered.clean && recovered.rejected.is_empty() && recovered.swept == 0 {
        return;
    }
    let detail = format!(
        "unclean end: {}; {} services, {} pending operations, {} processes ended; passed over: [{}]",
        !recovered.clean,
        recovered.states.len(),
        recovered.operations.len(),
        recovered.swept,
        recovered.rejected.join("; ")
    );
    audit.note(Actor::Supervisor, AuditAction::Recovery, recovered.source.as_str(), detail);
}

impl Recovered {
    /// The event that tells subscribers, if there is anything to tell.
    pub(super) fn event(&self) -> Option<EventKind> {
        let something = !self.clean || self.swept > 0 || !self.rejected.is_empty();
        something.then(|| EventKind::Recovered {
            source: self.source.clone(),
            services: self.states.len() as u64,
            pending_operations: self.operations.len() as u64,
            swept: self.swept,
            rejected: self.rejected.clone(),
        })
    }
}

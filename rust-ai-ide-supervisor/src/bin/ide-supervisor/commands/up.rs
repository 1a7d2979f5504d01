//! `up`: runs the services of a configuration file until it is asked to end.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rust_ai_ide_supervisor::config_file::ConfigFile;
use rust_ai_ide_supervisor::daemon::protocol::ReloadReport;
use rust_ai_ide_supervisor::daemon::{ControlClient, ControlServer, Faces, Reloader};
use rust_ai_ide_supervisor::{
    Actor, GuardianChoice, ShutdownReport, Supervisor, SupervisorControl,
};
use supervisor_core::config::{HostDeathPolicy, ServiceSpec};
use supervisor_core::error::{Classified, SecurityError, SupervisorError, chain};
use supervisor_core::ports::{Delivery, EventSubscription};
use tokio::sync::Mutex;

use crate::args::running::Up;
use crate::exit_code::{Exit, Failure};
use crate::os;
use crate::output::{self, Output, progress};
use crate::render;

/// How long a supervisor in the background may take until it answers.
const DETACH_LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn run(up: &Up, output: Output) -> Result<(), Failure> {
    let config = up.target.config_path()?;
    let file = ConfigFile::load(&config)?;
    let state_dir = up.target.state_dir.clone().unwrap_or_else(|| file.state_dir());
    if up.detach {
        return super::block_on(detach(&config, &state_dir, up.no_guardian));
    }
    let choice = up.guardian();
    super::block_on(supervise(file, state_dir, choice, (up.json, output), |_| async { Ok(()) }))
}

/// Runs a supervisor in this process. `prepare` is given it before anything is started.
pub(super) async fn supervise<F>(
    file: ConfigFile,
    state_dir: PathBuf,
    choice: GuardianChoice,
    (json, output): (bool, Output),
    prepare: impl FnOnce(Supervisor) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    output::start_logging(file.supervisor.enable_detailed_logging);
    if let Err(error) = supervisor_process::raise_open_files() {
        // There is room for fewer services then, and one too many says so.
        tracing::debug!(%error, "the limit of open descriptors stays as it is");
    }
    let supervisor = Supervisor::builder()
        .config(file.supervisor.clone())
        .state_dir(&state_dir)
        .subreaper(true)
        .guardian(choice)
        .build()
        .map_err(|error| failure(&error))?;
    let events = supervisor.events();
    let printing = tokio::spawn(print_events(events, json, output));
    let result = run_to_its_end(&supervisor, file, prepare).await;
    if matches!(result, Ok(End::Left)) {
        // Dropped without a shutdown: what dies with its host is killed, the rest is the guardian's, and the next
        // supervisor takes it over.
        return Ok(());
    }
    if result.is_err() {
        // Whatever was started ends with it; why it failed is what the caller is told.
        drop(supervisor.shutdown(Actor::Operator).await);
    }
    drop(supervisor);
    // Ends with the supervisor, after the last event.
    drop(printing.await);
    result.map(drop)
}

/// How a supervisor came to its end.
enum End {
    /// Everything was stopped.
    ShutDown,
    /// The terminal is gone, and there are services that outlive the supervisor.
    Left,
}

async fn run_to_its_end<F>(
    supervisor: &Supervisor,
    file: ConfigFile,
    prepare: impl FnOnce(Supervisor) -> F,
) -> Result<End, Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    for service in &file.services {
        supervisor.register_service(service.clone()).await.map_err(|error| failure(&error))?;
    }
    prepare(supervisor.clone()).await?;
    let reloader = Arc::new(FileReloader {
        supervisor: supervisor.clone(),
        path: file.path.clone(),
        known: Mutex::new(file.services.clone()),
    });
    let faces = Faces {
        control: Arc::new(supervisor.clone()),
        reloader: Some(reloader.clone() as Arc<dyn Reloader>),
        storage: Some(Arc::new(supervisor.clone())),
    };
    let server = ControlServer::start(supervisor.state_dir(), faces);
    let server = server.map_err(|error| {
        Failure::new(Exit::Failed, format!("cannot listen for commands: {error}"))
    })?;
    progress(&format!(
        "supervising {} (state in {})",
        output::count(file.services.len(), "service"),
        supervisor.state_dir().display()
    ));
    let starting = async {
        match supervisor.start_monitoring().await {
            Ok(()) | Err(SupervisorError::ShuttingDown) => {}
            // The others run; this one's restart policy, or the operator, goes on from here.
            Err(error) => progress(&format!("not everything was started: {}", chain(&error))),
        }
    };
    let mut ended = Box::pin(wait_for_end(supervisor, &reloader));
    // A service that waits for a slow dependency keeps nobody from asking us to end.
    let report = tokio::select! {
        report = &mut ended => report,
        () = starting => ended.await,
    }?;
    server.stop().await;
    report.map_or(Ok(End::Left), |report| judge(&report).map(|()| End::ShutDown))
}

/// Waits until everything was stopped, or gives no report if services are left to outlive this process.
async fn wait_for_end(
    supervisor: &Supervisor,
    reloader: &FileReloader,
) -> Result<Option<ShutdownReport>, Failure> {
    let signals = |error| Failure::new(Exit::Failed, format!("cannot listen for signals: {error}"));
    let mut reloads = os::asked_to_reload().map_err(signals)?;
    // Listened for all the time, so that what comes during a reload is not missed.
    let asked = os::asked_to_end().map_err(signals)?;
    let terminal_gone = os::terminal_gone().map_err(signals)?;
    tokio::pin!(asked, terminal_gone);
    loop {
        tokio::select! {
            report = supervisor.finished() => return Ok(Some(report)),
            () = &mut asked => break,
            () = &mut terminal_gone => {
                let outlives = |spec: &ServiceSpec| spec.on_host_death == HostDeathPolicy::Outlive;
                if reloader.known.lock().await.iter().any(outlives) {
                    return Ok(None);
                }
                break;
            }
            () = reloads.next() => match reloader.reload().await {
                Ok(report) => progress(&described(&report)),
                Err(error) => progress(&format!("nothing was changed: {}", chain(&error))),
            },
        }
    }
    progress("stopping; once more to kill at once");
    let stopping = supervisor.shutdown(Actor::Operator);
    tokio::pin!(stopping);
    tokio::select! {
        _ = &mut stopping => {}
        () = os::asked_to_end().map_err(signals)? => {
            progress("killing what is left");
            force(supervisor).await;
            drop(stopping.await);
        }
    }
    Ok(Some(supervisor.finished().await))
}

/// Asks every service to stop a second time, which kills it.
async fn force(supervisor: &Supervisor) {
    let Ok(status) = supervisor.status().await else {
        return;
    };
    let services: Vec<_> =
        status.services.into_iter().filter(|service| service.phase.may_be_alive()).collect();
    let stops = services.iter().map(|service| supervisor.stop(&service.id, Actor::Operator));
    futures_util::future::join_all(stops).await;
}

fn judge(report: &ShutdownReport) -> Result<(), Failure> {
    if let Some(culprit) = &report.culprit {
        return Err(Failure::new(Exit::CriticalServiceFailed, report.reason.clone()).help(
            format!(
                "`ide-supervisor logs {culprit}` shows its last words once a supervisor runs again"
            ),
        ));
    }
    if report.clean {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Failed,
        format!("shut down with problems: {}", report.problems.join("; ")),
    ))
}

/// Says why a supervisor could not be made, and what to do about it.
pub(super) fn failure(error: &SupervisorError) -> Failure {
    let exit = Exit::of_error_code(error.code());
    let failure = Failure::new(exit, chain(error));
    match exit {
        Exit::OwnedByAnother => {
            failure.help("`ide-supervisor status` asks it; `--state-dir` names another directory")
        }
        Exit::DatabaseRefused => failure.help(
            "nothing was changed; move the file away to begin anew, or name another --state-dir",
        ),
        _ => failure,
    }
}

async fn print_events(mut events: Box<dyn EventSubscription>, json: bool, output: Output) {
    while let Some(delivery) = events.next().await {
        let printed = match delivery {
            Delivery::Event(event) if json => output.json(&event),
            Delivery::Event(event) if is_shown(&event.kind) => {
                output.line(&render::event::line(&event, output))
            }
            Delivery::Event(_) => Ok(()),
            Delivery::Missed(missed) => {
                progress(&format!(
                    "{missed} events were not shown: they came faster than they could be printed"
                ));
                Ok(())
            }
        };
        if printed.is_err() {
            // Whoever read has left; supervising goes on.
            return;
        }
    }
}

/// A passed probe says nothing a person would want to read every few seconds.
const fn is_shown(kind: &supervisor_core::event::EventKind) -> bool {
    !matches!(kind, supervisor_core::event::EventKind::HealthCheckCompleted { passed: true, .. })
}

/// Reads the file again, and changes only what changed.
#[derive(Debug)]
struct FileReloader {
    supervisor: Supervisor,
    path: PathBuf,
    known: Mutex<Vec<ServiceSpec>>,
}

#[async_trait]
impl Reloader for FileReloader {
    async fn reload(&self) -> Result<ReloadReport, SupervisorError> {
        let mut known = self.known.lock().await;
        let refused =
            |reason: String| SecurityError::NotPermitted { action: "reload".to_owned(), reason };
        let file = ConfigFile::load(&self.path).map_err(|error| refused(chain(&error)))?;
        if file.supervisor != *self.supervisor.config() {
            return Err(refused(
                "[supervisor] changed; restart the supervisor for that".to_owned(),
            )
            .into());
        }
        let mut report = ReloadReport::default();
        for old in known.iter() {
            let id = old.service_id()?;
            match file.services.iter().find(|new| new.id == old.id) {
                Some(new) if new == old => report.unchanged.push(id),
                Some(new) => {
                    self.supervisor.remove_service(&id, Actor::Operator).await?;
                    self.supervisor.register_service(new.clone()).await?;
                    report.changed.push(id);
                }
                None => {
                    self.supervisor.remove_service(&id, Actor::Operator).await?;
                    report.removed.push(id);
                }
            }
        }
        for new in file.services.iter().filter(|new| !known.iter().any(|old| old.id == new.id)) {
            report.added.push(self.supervisor.register_service(new.clone()).await?);
        }
        *known = file.services;
        Ok(report)
    }
}

pub(super) fn described(report: &ReloadReport) -> String {
    let names = |ids: &[supervisor_core::ServiceId]| {
        if ids.is_empty() {
            "none".to_owned()
        } else {
            ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        }
    };
    format!(
        "added: {}; removed: {}; changed: {}; unchanged: {}",
        names(&report.added),
        names(&report.removed),
        names(&report.changed),
        report.unchanged.len()
    )
}

/// Starts the same command in a session of its own and waits until it answers.
async fn detach(config: &Path, state_dir: &Path, no_guardian: bool) -> Result<(), Failure> {
    let failed = |what: &str, error: &dyn std::error::Error| {
        Failure::new(Exit::Failed, format!("{what}: {error}"))
    };
    let dir = rust_ai_ide_supervisor::state_dir::StateDir::open(state_dir)
        .map_err(|error| failure(&error))?;
    let log_path = dir.join("supervisor.log");
    let log = os::own_file(&log_path).map_err(|error| failed("cannot write the log", &error))?;
    let copy = log.try_clone().map_err(|error| failed("cannot write the log", &error))?;
    let program =
        std::env::current_exe().map_err(|error| failed("cannot find this program", &error))?;
    let mut command = tokio::process::Command::new(program);
    command.arg("up").arg("--config").arg(config).arg("--state-dir").arg(dir.path());
    if no_guardian {
        command.arg("--no-guardian");
    }
    command.stdin(Stdio::null()).stdout(log).stderr(copy);
    os::own_session(&mut command);
    let mut child =
        command.spawn().map_err(|error| failed("cannot start the supervisor", &error))?;
    let deadline = tokio::time::Instant::now() + DETACH_LIMIT;
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            let said = std::fs::read_to_string(&log_path).unwrap_or_default();
            let exit = Exit::ALL
                .into_iter()
                .find(|exit| Some(*exit as i32) == status.code())
                .unwrap_or(Exit::Failed);
            return Err(Failure::new(
                exit,
                format!("the supervisor ended at once: {}", said.trim()),
            ));
        }
        if ControlClient::connect(dir.path()).await.is_ok() {
            progress(&format!(
                "running in the background as process {}",
                child.id().unwrap_or_default()
            ));
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            return Err(Failure::new(Exit::Failed, "the supervisor does not answer")
                .help(format!("look into {}", log_path.display())));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

//! Whom to ask: the supervisor that runs, or what one has stored.

use std::path::{Path, PathBuf};

use rust_ai_ide_supervisor::config_file::ConfigFile;
use rust_ai_ide_supervisor::daemon::protocol::{Body, Call};
use rust_ai_ide_supervisor::daemon::{ClientError, ControlClient};
use rust_ai_ide_supervisor::wrap::RECORDS_DIR;
use rust_ai_ide_supervisor::{StatePersistence, SupervisorConfig};
use supervisor_core::ServiceId;
use supervisor_core::error::{Classified, DatabaseError, chain};
use supervisor_persist::StatePersistenceBuilder;

use crate::args::Target;
use crate::exit_code::{Exit, Failure};
use crate::output::progress;

/// Wrapped servers that are looked at in one state directory.
const RECORDS_MAX: usize = 1000;

/// Gives the state directory that is meant; without a configuration file there is no supervisor to ask.
pub(super) fn state_dir(target: &Target) -> Result<PathBuf, Failure> {
    target.state_dir().map_err(|error| {
        Failure::new(Exit::NoSupervisor, chain(&error))
            .help("name the supervisor with --state-dir or --config")
    })
}

pub(super) async fn connect(target: &Target) -> Result<ControlClient, Failure> {
    let dir = state_dir(target)?;
    ControlClient::connect(&dir).await.map_err(|error| failure(&error))
}

/// Gives the state directory that is meant and, below it, those of the wrapped servers that were ever recorded there.
pub(super) fn targets(target: &Target) -> Result<Vec<Target>, Failure> {
    let dir = state_dir(target)?;
    let records = std::fs::read_dir(dir.join(RECORDS_DIR)).into_iter().flatten().flatten();
    let mut wrapped: Vec<PathBuf> =
        records.map(|entry| entry.path()).filter(|it| it.is_dir()).collect();
    wrapped.sort();
    wrapped.truncate(RECORDS_MAX);
    let wrapped = wrapped.into_iter().map(|dir| Target { config: None, state_dir: Some(dir) });
    Ok([target.clone()].into_iter().chain(wrapped).collect())
}

/// Connects to whoever answers in a state directory: its supervisor, and the sessions of wrapped servers.
pub(super) async fn connect_all(target: &Target) -> Result<Vec<ControlClient>, Failure> {
    let mut clients = Vec::new();
    let mut nobody = None;
    for target in targets(target)? {
        match ControlClient::connect(&state_dir(&target)?).await {
            Ok(client) => clients.push(client),
            Err(error @ ClientError::NotRunning { .. }) => _ = nobody.get_or_insert(error),
            Err(error) => return Err(failure(&error)),
        }
    }
    match nobody {
        Some(error) if clients.is_empty() => Err(failure(&error)),
        _ => Ok(clients),
    }
}

/// Connects to whoever has a service; to the supervisor, which says that it has none, when nobody does.
pub(super) async fn connect_for(target: &Target, id: &ServiceId) -> Result<ControlClient, Failure> {
    let mut clients = connect_all(target).await?;
    if clients.len() > 1 {
        for at in 0..clients.len() {
            if let Body::Status(report) = ask(&mut clients[at], Call::Status).await?
                && report.services.iter().any(|service| service.id == *id)
            {
                return Ok(clients.swap_remove(at));
            }
        }
    }
    Ok(clients.swap_remove(0))
}

/// Asks everybody who has an answer, the supervisor first, then the wrapped servers by name.
pub(super) async fn asked_each<T>(
    target: &Target,
    mut question: impl AsyncFnMut(&mut Source) -> Result<T, Failure>,
) -> Result<Vec<(PathBuf, T)>, Failure> {
    let mut answers = Vec::new();
    let mut nobody = None;
    for target in targets(target)? {
        let mut source = match source(&target).await {
            Ok(source) => source,
            Err(failure) if failure.exit == Exit::NoSupervisor => {
                _ = nobody.get_or_insert(failure);
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let answer = question(&mut source).await;
        let closed = source.close().await;
        answers.push((state_dir(&target)?, answer.and_then(|answer| closed.map(|()| answer))?));
    }
    match nobody {
        Some(failure) if answers.is_empty() => Err(failure),
        _ => Ok(answers),
    }
}

pub(super) fn failure(error: &ClientError) -> Failure {
    match error {
        ClientError::NotRunning { .. } => Failure::new(Exit::NoSupervisor, error.to_string())
            .help("`ide-supervisor up` starts one; --state-dir names another directory"),
        ClientError::Failed(report) => {
            Failure::new(Exit::of_error_code(&report.code), report.message.clone())
        }
        other => Failure::new(Exit::Failed, chain(other)),
    }
}

pub(super) fn stored(error: &DatabaseError) -> Failure {
    let failure = Failure::new(Exit::of_error_code(error.code()), chain(error));
    match failure.exit {
        Exit::DatabaseRefused => failure.help(
            "`ide-supervisor doctor` says what is wrong; `backup restore NAME --replace-refused` goes \
             back to a backup and sets the refused file aside",
        ),
        Exit::OwnedByAnother => failure.help("`ide-supervisor down` ends the one that runs"),
        _ if error.code() == "database_busy" => {
            failure.help("another program has the file open and locked; close it, then repeat this")
        }
        _ => failure,
    }
}

pub(super) async fn ask(client: &mut ControlClient, call: Call) -> Result<Body, Failure> {
    client.call(call).await.map_err(|error| failure(&error))
}

pub(super) fn unexpected() -> Failure {
    Failure::new(
        Exit::Failed,
        "the supervisor gave an answer that fits no question; are both of the same version?",
    )
}

/// Who answers questions about stored state: the supervisor that has it, or the store itself when none runs.
pub(super) enum Source {
    Live(ControlClient),
    Stored(StatePersistence),
}

impl Source {
    /// Lets go of what was opened.
    async fn close(self) -> Result<(), Failure> {
        match self {
            Self::Live(_) => Ok(()),
            Self::Stored(store) => store.close().await.map_err(|error| stored(&error)),
        }
    }
}

/// Asks whoever has the answer, and lets go of the store whatever came of it: one that is only dropped counts as killed.
pub(super) async fn asked<T>(
    target: &Target,
    question: impl AsyncFnOnce(&mut Source) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut source = source(target).await?;
    let answer = question(&mut source).await;
    let closed = source.close().await;
    answer.and_then(|answer| closed.map(|()| answer))
}

async fn source(target: &Target) -> Result<Source, Failure> {
    let dir = state_dir(target)?;
    match ControlClient::connect(&dir).await {
        Ok(client) => Ok(Source::Live(client)),
        Err(error @ ClientError::NotRunning { .. }) => {
            let store = builder(target)?.ok_or_else(|| failure(&error))?;
            progress("no supervisor is running; reading its stored state");
            store.open().await.map(Source::Stored).map_err(|error| stored(&error))
        }
        Err(error) => Err(failure(&error)),
    }
}

/// Gives what opens the store of a state directory, if there is one.
pub(super) fn builder(target: &Target) -> Result<Option<StatePersistenceBuilder>, Failure> {
    let found = places(target, &state_dir(target)?);
    Ok(found.map(|(database, checkpoints)| StatePersistence::builder(database, checkpoints)))
}

/// Gives where database and checkpoints of a state directory are, if there is a database: where the configuration puts
/// them, else in the usual places, because stored state must be within reach when the configuration is gone or broken.
pub(super) fn places(target: &Target, dir: &Path) -> Option<(PathBuf, PathBuf)> {
    let configured = target.config_path().and_then(ConfigFile::load).ok();
    let configs =
        configured.map(|file| file.supervisor).into_iter().chain([SupervisorConfig::default()]);
    configs
        .map(|config| (dir.join(&config.database_path), dir.join(&config.checkpoint_dir)))
        .find(|(database, _)| database.exists())
}

//! What a child is given: its program as an absolute path, and exactly the environment its service names.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use supervisor_core::config::ServiceSpec;
use supervisor_core::error::{SpawnError, SpawnErrorKind};
use supervisor_core::ports::SpawnRequest;

use crate::os;

/// Variable that carries the mark of the supervisor that started a process.
pub const MARK_VARIABLE: &str = "IDE_SUPERVISOR_MARK";
/// Variable that carries the service a process was started for.
pub const SERVICE_VARIABLE: &str = "IDE_SUPERVISOR_SERVICE";
/// Variable that carries the run a process was started for.
pub const INCARNATION_VARIABLE: &str = "IDE_SUPERVISOR_INCARNATION";

/// Variable that carries the mark of the supervisor a guardian works for.
#[cfg(unix)]
pub(crate) const GUARDIAN_VARIABLE: &str = "IDE_SUPERVISOR_GUARDIAN";

/// Builds the child's environment: what is inherited, then the service's own, then ours.
pub(crate) fn environment(request: &SpawnRequest, mark: &str) -> BTreeMap<OsString, OsString> {
    let spec = &request.spec;
    let mut variables: BTreeMap<OsString, OsString> = std::env::vars_os()
        .filter(|(name, _)| {
            name.to_str().is_some_and(|name| spec.inherit_environment.inherits(name))
        })
        .collect();
    let extra = request.extra_environment.iter().map(|(name, value)| (name, value));
    for (name, value) in spec.environment.iter().chain(extra) {
        set(&mut variables, name, value);
    }
    set(&mut variables, MARK_VARIABLE, mark);
    set(&mut variables, SERVICE_VARIABLE, request.service.as_str());
    set(&mut variables, INCARNATION_VARIABLE, &request.incarnation.to_string());
    variables
}

/// Sets a variable, in the place of one that is the same to the system: Windows compares names without regard to case.
fn set(variables: &mut BTreeMap<OsString, OsString>, name: &str, value: &str) {
    if cfg!(windows) {
        variables.retain(|known, _| !known.eq_ignore_ascii_case(name));
    }
    variables.insert(name.into(), value.into());
}

/// Gives where programs are looked for.
pub(crate) fn path_in(variables: &BTreeMap<OsString, OsString>) -> Option<&OsString> {
    if cfg!(windows) {
        return variables.iter().find(|(name, _)| name.eq_ignore_ascii_case("PATH")).map(|it| it.1);
    }
    variables.get(OsStr::new("PATH"))
}

/// Finds the program the way `execvp` would, in the child's PATH, so that spawning needs no search after the fork.
///
/// # Errors
/// [`SpawnErrorKind::NotFound`], or [`SpawnErrorKind::PermissionDenied`] when only files that may not be executed were found.
pub fn find_program(
    command: &str,
    path: Option<&OsString>,
    working_dir: Option<&Path>,
) -> Result<PathBuf, SpawnError> {
    let base = match working_dir {
        Some(directory) => directory.to_path_buf(),
        // Joined to what is absolute, it makes no difference.
        None if Path::new(command).is_absolute() => PathBuf::new(),
        None => std::env::current_dir().unwrap_or_default(),
    };
    if command.contains('/') || (cfg!(windows) && command.contains('\\')) {
        // The child resolves a relative program after it changed its directory; so do we.
        let mut missing = None;
        for spelling in os::spellings(command) {
            let program = base.join(spelling);
            match os::executable(&program) {
                Ok(()) => return Ok(program),
                Err(error) => missing = Some(error),
            }
        }
        return Err(unusable(command, missing.unwrap_or_else(|| io::ErrorKind::NotFound.into())));
    }
    let mut denied = None;
    let spellings = os::spellings(command);
    for directory in path.map(std::env::split_paths).into_iter().flatten() {
        for spelling in &spellings {
            let program = base.join(&directory).join(spelling);
            match os::executable(&program) {
                Ok(()) => return Ok(program),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    denied = Some(error);
                }
                Err(_) => {}
            }
        }
    }
    Err(denied.map_or_else(
        || SpawnError {
            kind: SpawnErrorKind::NotFound,
            program: command.to_owned(),
            reason: "no such program in the service's PATH; install it or give its full path"
                .to_owned(),
            source: None,
        },
        |error| unusable(command, error),
    ))
}

fn unusable(command: &str, error: io::Error) -> SpawnError {
    let (kind, reason) = match error.kind() {
        io::ErrorKind::NotFound => (SpawnErrorKind::NotFound, "no such file"),
        io::ErrorKind::PermissionDenied => {
            (SpawnErrorKind::PermissionDenied, "it may not be executed; check its mode")
        }
        io::ErrorKind::IsADirectory => (SpawnErrorKind::BadExecutable, "it is a directory"),
        _ => (SpawnErrorKind::Other, "it cannot be looked at"),
    };
    SpawnError { kind, program: command.to_owned(), reason: reason.to_owned(), source: Some(error) }
}

fn lacks_working_dir(spec: &ServiceSpec) -> bool {
    spec.working_dir.as_ref().is_some_and(|dir| !dir.is_dir())
}

/// Finds a service's program; a missing working directory is blamed before what could not be found below it.
pub(crate) fn service_program(
    spec: &ServiceSpec,
    path: Option<&OsString>,
) -> Result<PathBuf, SpawnError> {
    let found = find_program(&spec.command, path, spec.working_dir.as_deref());
    found.map_err(|error| match error.source {
        Some(source) if lacks_working_dir(spec) => judge_spawn_error(spec, source),
        _ => error,
    })
}

/// Says what a failed start means; the program itself was found before.
pub(crate) fn judge_spawn_error(spec: &ServiceSpec, error: io::Error) -> SpawnError {
    let (kind, reason) = if lacks_working_dir(spec) {
        (SpawnErrorKind::BadWorkingDir, "its working directory is missing or no directory")
    } else {
        match os::spawn_error_kind(&error) {
            kind if kind == SpawnErrorKind::BadExecutable && os::is_too_large(&error) => {
                (kind, "its arguments and environment are larger than the system takes")
            }
            // The file was there a moment ago, so what is missing is what its first line names.
            SpawnErrorKind::NotFound => {
                (SpawnErrorKind::BadExecutable, "the interpreter its first line names is missing")
            }
            kind @ SpawnErrorKind::BadExecutable => (kind, "it is no program this system can run"),
            kind @ SpawnErrorKind::PermissionDenied => (kind, "it may not be executed"),
            kind @ SpawnErrorKind::ResourceExhausted => {
                (kind, "descriptors, memory or process slots are used up")
            }
            kind @ SpawnErrorKind::Busy => (kind, "its file is being written"),
            kind => (kind, "the system refused"),
        }
    };
    SpawnError {
        kind,
        program: spec.command.clone(),
        reason: reason.to_owned(),
        source: Some(error),
    }
}

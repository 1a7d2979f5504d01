//! A command as a probe: run like a service's program, killed with its group at the timeout.

use std::process::{Command, Stdio};

use supervisor_core::Signal;
use supervisor_core::exit::ExitStatus;
use supervisor_core::ports::{ProbeRequest, SpawnRequest};

use crate::command::{environment, find_program};
use crate::os::{self, Leader};

/// Kills the probe's group when the probe is over, however it is over.
struct Guard(Leader);

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.signal_group(Signal::Kill));
        self.0.reap_within(std::time::Duration::from_millis(200));
    }
}

pub(super) async fn check(request: &ProbeRequest) -> Result<String, String> {
    let (program, args) = request.probe.command.split_first().ok_or("it names no command")?;
    let spawn = SpawnRequest {
        service: request.service.clone(),
        incarnation: request.incarnation,
        spec: request.spec.clone(),
        extra_environment: Vec::new(),
    };
    // No mark of the service: a probe is no member of its set.
    let mut variables = environment(&spawn, "");
    for name in [crate::MARK_VARIABLE, crate::SERVICE_VARIABLE, crate::INCARNATION_VARIABLE] {
        variables.remove(std::ffi::OsStr::new(name));
    }
    let path = variables.get(std::ffi::OsStr::new("PATH"));
    let program = find_program(program, path, request.spec.working_dir.as_deref())
        .map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(variables);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(directory) = &request.spec.working_dir {
        command.current_dir(directory);
    }
    os::own_group(&mut command);
    let started = os::start(&mut command).map_err(|error| format!("cannot be started: {error}"))?;
    let guard = Guard(started.leader);
    match guard.0.wait().await {
        ExitStatus::Code(0) => Ok("exit code 0".to_owned()),
        status => Err(status.to_string()),
    }
}

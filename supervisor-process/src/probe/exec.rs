//! A command as a probe: run like a service's program, killed with everything it started at the timeout.

use supervisor_core::exit::ExitStatus;
use supervisor_core::ports::{ProbeRequest, SpawnRequest};
use supervisor_core::{ProcessIdentity, Signal};

use crate::command::{environment, find_program, path_in};
use crate::os::{self, Command, Entry, Leader, Pinned, Snapshot};

/// Rounds in which what a probe started is looked for; each is frozen, so that nothing new comes of it.
const SWEEPS: usize = 3;

/// Kills what is left of the probe when it is over, however it is over.
struct Guard {
    leader: Leader,
    identity: Option<ProcessIdentity>,
    answered: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // One that answered in time cleans up after itself, but for what it left in its group; looking at every process
        // of the system for each answer would cost more than the probe.
        if !self.answered {
            self.sweep();
        }
        drop(self.leader.signal_group(Signal::Kill));
        self.leader.reap_within(std::time::Duration::from_millis(200));
    }
}

impl Guard {
    /// Kills the descendants that left the group, while their parents are still there to find them by.
    fn sweep(&self) {
        let Some(identity) = &self.identity else { return };
        let mut pinned: Vec<(u32, Pinned)> = Vec::new();
        drop(self.leader.signal_group(Signal::Stop));
        for _ in 0..SWEEPS {
            let snapshot = Snapshot::take();
            let mut picked: Vec<Entry> = snapshot
                .entries
                .iter()
                .filter(|entry| entry.group == identity.pid)
                .filter(|entry| entry.start_time >= identity.start_time)
                .cloned()
                .collect();
            snapshot.close_over_descendants(&mut picked);
            picked.retain(|entry| !pinned.iter().any(|(known, _)| *known == entry.pid));
            if picked.is_empty() {
                break;
            }
            for entry in picked {
                if let Some(process) = Pinned::new(&entry.identity()) {
                    // One that is gone already is what was wanted.
                    drop(process.signal(Signal::Stop));
                    pinned.push((entry.pid, process));
                }
            }
        }
        for (_, process) in pinned {
            drop(process.signal(Signal::Kill));
        }
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
    let path = path_in(&variables);
    let program = find_program(program, path, request.spec.working_dir.as_deref())
        .map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(variables);
    os::no_stdio(&mut command);
    if let Some(directory) = &request.spec.working_dir {
        command.current_dir(directory);
    }
    os::own_group(&mut command);
    let started = os::start(&mut command).map_err(|error| format!("cannot be started: {error}"))?;
    let identity = os::identity_of_started(&started);
    let mut guard = Guard { leader: started.leader, identity, answered: false };
    let status = guard.leader.wait().await;
    guard.answered = true;
    match status {
        ExitStatus::Code(0) => Ok("exit code 0".to_owned()),
        status => Err(status.to_string()),
    }
}

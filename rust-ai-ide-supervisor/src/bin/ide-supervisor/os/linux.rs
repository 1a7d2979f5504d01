//! Linux: what the kernel offers for watching and containing processes.

use std::fs;

use rustix::process::{PidfdFlags, getpid, pidfd_open};
use supervisor_process::Cgroups;

use crate::commands::doctor::Check;

/// Checks what the kernel offers.
pub(super) fn kernel_checks() -> Vec<Check> {
    vec![pidfd(), boot_id(), cgroup()]
}

fn pidfd() -> Check {
    match pidfd_open(getpid(), PidfdFlags::empty()) {
        Ok(_) => Check::ok("pidfd", "deaths are reported by the kernel"),
        Err(error) => Check::fail(
            "pidfd",
            format!("pidfd_open is refused: {error}"),
            "Linux 5.3 or newer is needed, and a sandbox must allow pidfd_open(2)",
        ),
    }
}

fn boot_id() -> Check {
    match fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(id) => Check::ok("process identity", format!("boot id {}", id.trim())),
        Err(error) => Check::fail(
            "process identity",
            format!("the boot id cannot be read: {error}"),
            "mount /proc; without it a process cannot be told from a later one with its pid",
        ),
    }
}

/// Tries to take a cgroup v2 of our own.
fn cgroup() -> Check {
    const NAME: &str = "cgroup v2";
    const HELP: &str = "sets are contained by process group and descendant sweep instead; for the stronger layer run \
                        inside `systemd-run --user --scope -p Delegate=yes`";
    // Taken for a moment, as a supervisor would.
    match Cgroups::find("doctor") {
        Ok(cgroups) => {
            let parent = cgroups.directory().parent().unwrap_or(cgroups.directory());
            Check::ok(NAME, format!("every run gets a group of its own below {}", parent.display()))
        }
        Err(error) => Check::warn(NAME, error.to_string(), HELP),
    }
}

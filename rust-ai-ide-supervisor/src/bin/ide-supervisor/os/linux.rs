//! Linux: what the kernel offers for watching and containing processes.

use std::fs;
use std::path::Path;

use rustix::process::{PidfdFlags, getpid, pidfd_open};

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

/// Looks for a cgroup v2 directory of our own that we may divide.
fn cgroup() -> Check {
    const NAME: &str = "cgroup v2";
    const HELP: &str = "sets are contained by process group and descendant sweep instead; for the stronger layer run \
                        inside `systemd-run --user --scope -p Delegate=yes`";
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return Check::warn(NAME, "not in use on this machine", HELP);
    };
    let dir = Path::new("/sys/fs/cgroup").join(path);
    if !dir.join("cgroup.controllers").exists() {
        return Check::warn(NAME, "not mounted at /sys/fs/cgroup", HELP);
    }
    let writable = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    if writable(&dir) && writable(&dir.join("cgroup.procs")) {
        Check::ok(NAME, format!("delegated at {}", dir.display()))
    } else {
        Check::warn(NAME, format!("{} is not delegated to this user", dir.display()), HELP)
    }
}

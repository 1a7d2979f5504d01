//! Linux: the resource limits of this process and of what it starts.

use std::io;
use std::sync::OnceLock;

use rustix::process::{Pid, Resource, Rlimit};
use supervisor_core::config::ResourceLimits;
use supervisor_core::text::ByteSize;

/// The limit of open descriptors as it was before it was raised.
static OPEN_FILES: OnceLock<Rlimit> = OnceLock::new();

/// Gives the most descriptors the system lets one process have; the hard limit is never above it here.
pub(super) const fn descriptors_ceiling() -> Option<u64> {
    None
}

/// Raises the soft limit of open descriptors to the hard one and gives the new one; services get the old one back.
pub(crate) fn raise_open_files() -> io::Result<u64> {
    let was = OPEN_FILES.get_or_init(|| rustix::process::getrlimit(Resource::Nofile));
    let raised = super::unix::raised(was);
    rustix::process::setrlimit(Resource::Nofile, raised)?;
    Ok(raised.current.unwrap_or(u64::MAX))
}

/// Sets the resource limits of a process that was just started.
///
/// From outside, because a hook between fork and exec would make the standard library fork. The first instructions
/// of the program run without them; a guardian sets them before there is a program.
pub(crate) fn limit(pid: u32, limits: &ResourceLimits) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let fixed = |value| Rlimit { current: Some(value), maximum: Some(value) };
    let wanted = [
        (Resource::Nofile, limits.open_files.map(fixed).or_else(|| OPEN_FILES.get().copied())),
        (Resource::Core, limits.core_dump.map(ByteSize::bytes).map(fixed)),
        (Resource::Fsize, limits.file_size.map(ByteSize::bytes).map(fixed)),
        (Resource::Nproc, limits.processes.map(fixed)),
    ];
    for (resource, new) in wanted {
        let Some(new) = new else { continue };
        if let Err(error) = rustix::process::prlimit(Some(pid), resource, new) {
            // One that has ended already needs none.
            tracing::debug!(?resource, ?new, %error, "a resource limit could not be set");
        }
    }
}

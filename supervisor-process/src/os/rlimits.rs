//! Linux: the resource limits of this process and of what it starts.

use std::io;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit};

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

/// Gives the limit of open descriptors as the system names it, as it was before it was raised, if it was.
pub(super) fn open_files_before() -> Option<(u32, u64, u64)> {
    let was = OPEN_FILES.get()?;
    let infinite = libc::RLIM_INFINITY;
    Some((libc::RLIMIT_NOFILE, was.current.unwrap_or(infinite), was.maximum.unwrap_or(infinite)))
}

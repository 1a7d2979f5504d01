//! macOS and Windows: how a process is served among others, and how soon it is ended for want of memory.

use std::io;

use supervisor_core::config::ResourceLimits;

use crate::importance::Refusals;

/// Ranks a process that was just started; it must be our unreaped child, so that its pid is its own.
///
/// From outside, as the limits are.
pub(crate) fn rank(pid: u32, limits: &ResourceLimits) -> Refusals {
    Refusals {
        nice: limits.nice.and_then(|nice| renice(pid, nice).err()),
        oom_score_adj: limits.oom_score_adj.and_then(|score| score_oom(pid, score).err()),
    }
}

#[cfg(unix)]
fn renice(pid: u32, nice: i32) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::setpriority_process(pid, nice).map_err(Into::into)
}

#[cfg(not(unix))]
fn renice(_pid: u32, _nice: i32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn score_oom(_pid: u32, _score: i32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

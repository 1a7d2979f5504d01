//! How a process is served among others, and how soon it is ended for want of memory.

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

/// Niceness belongs to a thread, and the program may have begun some by now, so each it has is changed; one it begins
/// from then on inherits.
#[cfg(target_os = "linux")]
fn renice(pid: u32, nice: i32) -> io::Result<()> {
    use rustix::process::{Pid, setpriority_process};
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten();
    let threads = threads.filter_map(|thread| thread.file_name().to_str()?.parse().ok());
    for thread in threads.filter_map(Pid::from_raw) {
        match setpriority_process(Some(thread), nice) {
            // A thread, or all of it, may have ended.
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(all(unix, not(target_os = "linux")))]
fn renice(pid: u32, nice: i32) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::setpriority_process(pid, nice).map_err(Into::into)
}

#[cfg(not(unix))]
fn renice(_pid: u32, _nice: i32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
fn score_oom(pid: u32, score: i32) -> io::Result<()> {
    use std::io::Write;
    let path = format!("/proc/{pid}/oom_score_adj");
    let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
    file.write_all(score.to_string().as_bytes())
}

#[cfg(not(target_os = "linux"))]
fn score_oom(_pid: u32, _score: i32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

//! Windows: console events; there is no notify socket.

use std::io;
use std::path::Path;

use crate::commands::doctor::Check;

/// Gives a future that ends when somebody asks this process to end (Ctrl-C, Ctrl-Break or a closed console).
pub(crate) fn asked_to_end() -> io::Result<impl Future<Output = ()> + Send> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    let mut stop = tokio::signal::windows::ctrl_break()?;
    let mut close = tokio::signal::windows::ctrl_close()?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = stop.recv() => {}
            _ = close.recv() => {}
        }
    })
}

/// Does nothing: sd_notify(3) needs a Unix socket.
pub(crate) fn notify(_: &str) -> io::Result<()> {
    Ok(())
}

/// Checks the state directory, which need not exist yet; who may enter it is inherited from the user's profile.
pub(crate) fn state_dir_checks(dir: &Path) -> Vec<Check> {
    let shown = dir.display();
    let check = if !dir.exists() {
        Check::ok("state directory", format!("{shown} will be made"))
    } else if dir.is_dir() {
        Check::ok("state directory", format!("{shown} exists"))
    } else {
        Check::fail(
            "state directory",
            format!("{shown} is not a directory"),
            "remove it, or name another with --state-dir",
        )
    };
    vec![check]
}

/// Checks what the system offers: job objects are part of every supported version.
pub(crate) fn system_checks() -> Vec<Check> {
    vec![Check::ok("containment", "job objects")]
}

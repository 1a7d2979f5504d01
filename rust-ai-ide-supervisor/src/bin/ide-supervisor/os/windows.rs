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

/// Gives a future that never ends: a console that closes is a request to end.
pub(crate) fn hung_up() -> io::Result<impl Future<Output = ()> + Send> {
    Ok(std::future::pending())
}

/// Gives a future that never ends: a console that closes is a request to end.
pub(crate) fn terminal_gone() -> io::Result<impl Future<Output = ()> + Send> {
    Ok(std::future::pending())
}

/// Where the client's bytes come from.
pub(crate) type ClientInput = Box<dyn tokio::io::AsyncRead + Unpin + Send>;
/// Where the client's bytes go.
pub(crate) type ClientOutput = Box<dyn tokio::io::AsyncWrite + Unpin + Send>;

/// Takes over standard input; a thread reads it.
pub(crate) fn client_input() -> io::Result<ClientInput> {
    Ok(Box::new(tokio::io::stdin()))
}

/// Takes over standard output; a thread writes it.
pub(crate) fn client_output() -> io::Result<ClientOutput> {
    Ok(Box::new(tokio::io::stdout()))
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

/// Requests to read the configuration again; there is no signal for it here, `ide-supervisor reload` does it.
pub(crate) struct Reloads;

impl Reloads {
    /// Waits for ever.
    pub(crate) async fn next(&mut self) {
        std::future::pending::<()>().await;
    }
}

/// Listens for requests to read the configuration again.
pub(crate) fn asked_to_reload() -> io::Result<Reloads> {
    Ok(Reloads)
}

/// Opens an empty file; who may read it is inherited from its directory.
pub(crate) fn own_file(path: &Path) -> io::Result<std::fs::File> {
    std::fs::File::create(path)
}

/// Lets a command start without a console of ours.
pub(crate) fn own_session(command: &mut tokio::process::Command) {
    const DETACHED_PROCESS: u32 = 0x8;
    command.creation_flags(DETACHED_PROCESS);
}

/// Kills a process of the demo by its pid.
pub(crate) fn kill(pid: u32) {
    let mut command = std::process::Command::new("taskkill");
    drop(command.args(["/F", "/PID", &pid.to_string()]).status());
}

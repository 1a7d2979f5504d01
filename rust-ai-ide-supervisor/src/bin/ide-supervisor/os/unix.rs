//! Unix: signals, the notify socket, ownership and limits.

use std::env;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};

use crate::commands::doctor::Check;

/// Gives a future that ends when somebody asks this process to end (SIGTERM or SIGINT).
pub(crate) fn asked_to_end() -> io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Gives a future that ends when the terminal is gone (SIGHUP), or when a stopped process lost its last parent.
pub(crate) fn hung_up() -> io::Result<impl Future<Output = ()> + Send> {
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move { _ = hangup.recv().await })
}

/// Where the client's bytes come from.
pub(crate) type ClientInput = Box<dyn tokio::io::AsyncRead + Unpin + Send>;
/// Where the client's bytes go.
pub(crate) type ClientOutput = Box<dyn tokio::io::AsyncWrite + Unpin + Send>;

/// What a standard stream is connected to.
enum Stream {
    Pipe,
    Socket,
    Other,
}

fn kind_of(stream: impl AsFd) -> io::Result<Stream> {
    use rustix::fs::FileType;
    Ok(match FileType::from_raw_mode(rustix::fs::fstat(stream)?.st_mode) {
        FileType::Fifo => Stream::Pipe,
        FileType::Socket => Stream::Socket,
        _ => Stream::Other,
    })
}

/// Lets a pipe hold a megabyte, so that a large message passes in few pieces; whatever is no pipe, or may not, stays as
/// it is.
fn widen(stream: impl AsFd) {
    #[cfg(target_os = "linux")]
    {
        _ = rustix::pipe::fcntl_setpipe_size(&stream, 1 << 20);
    }
    #[cfg(not(target_os = "linux"))]
    {
        drop(stream);
    }
}

/// Takes over standard input, without a thread between where the system can tell when there is something to read.
///
/// A pipe is opened once more, because whether reading it may block is a property of the opened file, which the
/// process that started us may share.
pub(crate) fn client_input() -> io::Result<ClientInput> {
    let stdin = io::stdin();
    let copy = || stdin.as_fd().try_clone_to_owned();
    widen(&stdin);
    Ok(match kind_of(&stdin)? {
        Stream::Pipe => match pipe::OpenOptions::new().open_receiver("/proc/self/fd/0") {
            Ok(receiver) => Box::new(receiver),
            Err(_) => Box::new(pipe::Receiver::from_file(copy()?.into())?),
        },
        Stream::Socket => Box::new(socket(copy()?)?),
        Stream::Other => Box::new(tokio::io::stdin()),
    })
}

/// Takes over standard output, in the same way.
pub(crate) fn client_output() -> io::Result<ClientOutput> {
    let stdout = io::stdout();
    let copy = || stdout.as_fd().try_clone_to_owned();
    widen(&stdout);
    Ok(match kind_of(&stdout)? {
        Stream::Pipe => match pipe::OpenOptions::new().open_sender("/proc/self/fd/1") {
            Ok(sender) => Box::new(sender),
            Err(_) => Box::new(pipe::Sender::from_file(copy()?.into())?),
        },
        Stream::Socket => Box::new(socket(copy()?)?),
        Stream::Other => Box::new(tokio::io::stdout()),
    })
}

/// Node gives its children sockets where others give pipes.
fn socket(stream: OwnedFd) -> io::Result<tokio::net::UnixStream> {
    let stream = std::os::unix::net::UnixStream::from(stream);
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}

/// Sends `message` to the socket named by NOTIFY_SOCKET (sd_notify(3)); does nothing where there is none.
pub(crate) fn notify(message: &str) -> io::Result<()> {
    let Some(path) = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => abstract_address(name)?,
        _ => SocketAddr::from_pathname(&path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address).map(drop)
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Bytes a path of a Unix socket may have everywhere (sun_path is 104 bytes on macOS, its end included).
const SOCKET_PATH_MAX: usize = 103;
/// Free bytes below which a state directory is worth a warning: room for a database and a few checkpoints.
const FREE_BYTES_LOW: u64 = 256 * 1024 * 1024;
/// Descriptors below which a hundred services with captured output are too many.
const OPEN_FILES_LOW: u64 = 4096;

/// Checks the state directory, which need not exist yet.
pub(crate) fn state_dir_checks(dir: &Path) -> Vec<Check> {
    vec![ownership(dir), space(dir), socket_path(dir)]
}

fn ownership(dir: &Path) -> Check {
    const NAME: &str = "state directory";
    let shown = dir.display();
    let metadata = match fs::symlink_metadata(dir) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Check::ok(NAME, format!("{shown} will be made with mode 0700"));
        }
        Err(error) => {
            return Check::fail(NAME, format!("{shown}: {error}"), "name another with --state-dir");
        }
    };
    let mode = metadata.mode() & 0o7777;
    if !metadata.is_dir() {
        Check::fail(
            NAME,
            format!("{shown} is not a directory"),
            "remove it, or name another with --state-dir",
        )
    } else if metadata.uid() != rustix::process::geteuid().as_raw() {
        Check::fail(
            NAME,
            format!("{shown} belongs to user {}", metadata.uid()),
            "run as its owner, or name another with --state-dir",
        )
    } else if mode & 0o077 != 0 {
        Check::warn(
            NAME,
            format!("{shown} has mode {mode:04o}: others can look inside"),
            format!("chmod 700 {shown}"),
        )
    } else {
        Check::ok(NAME, format!("{shown}, mode {mode:04o}, yours"))
    }
}

fn space(dir: &Path) -> Check {
    const NAME: &str = "disk space";
    // The nearest directory that exists is on the file system the state will be on.
    let existing = dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(dir);
    match rustix::fs::statvfs(existing) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let detail = format!("{} MiB free", free / (1024 * 1024));
            if free < FREE_BYTES_LOW {
                Check::warn(NAME, detail, "make room: what cannot be stored cannot be acknowledged")
            } else {
                Check::ok(NAME, detail)
            }
        }
        Err(error) => Check::warn(
            NAME,
            format!("unknown: {error}"),
            "check the file system of the state directory",
        ),
    }
}

fn socket_path(dir: &Path) -> Check {
    const NAME: &str = "control socket";
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let length = absolute.join("control.sock").as_os_str().len();
    if length > SOCKET_PATH_MAX && cfg!(target_os = "linux") {
        Check::ok(
            NAME,
            format!("its path is long ({length} bytes) and is reached through its directory"),
        )
    } else if length > SOCKET_PATH_MAX {
        Check::warn(
            NAME,
            format!("its path has {length} bytes, the system allows {SOCKET_PATH_MAX}"),
            "name a shorter directory with --state-dir",
        )
    } else {
        Check::ok(NAME, format!("its path fits ({length} of {SOCKET_PATH_MAX} bytes)"))
    }
}

/// Checks what the system offers.
pub(crate) fn system_checks() -> Vec<Check> {
    let mut checks = vec![open_files()];
    #[cfg(target_os = "linux")]
    checks.extend(super::linux::kernel_checks());
    #[cfg(target_os = "macos")]
    checks.extend(super::macos::kernel_checks());
    checks
}

fn open_files() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let words =
        |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |limit| limit.to_string());
    let detail = format!(
        "soft {}, hard {} (the soft one is raised at start)",
        words(limit.current),
        words(limit.maximum)
    );
    if limit.maximum.is_some_and(|hard| hard < OPEN_FILES_LOW) {
        Check::warn(
            "open files",
            detail,
            "raise the hard limit (ulimit -Hn) for more than a few dozen services",
        )
    } else {
        Check::ok("open files", detail)
    }
}

/// Requests to read the configuration again: SIGHUP, unless it says that the terminal is gone.
pub(crate) struct Reloads(Hangups);

impl Reloads {
    /// Waits for the next request.
    pub(crate) async fn next(&mut self) {
        while self.0.next().await {}
    }
}

/// Listens for requests to read the configuration again.
pub(crate) fn asked_to_reload() -> io::Result<Reloads> {
    Hangups::listen().map(Reloads)
}

/// Gives a future that ends when the terminal this process was started at is gone: its window was closed, its user
/// logged off. Without one it never ends.
pub(crate) fn terminal_gone() -> io::Result<impl Future<Output = ()> + Send> {
    let mut hangups = Hangups::listen()?;
    Ok(async move { while !hangups.next().await {} })
}

/// SIGHUP, which the kernel sends when a terminal goes and people send to have a configuration read.
struct Hangups {
    signal: tokio::signal::unix::Signal,
    had_terminal: bool,
}

impl Hangups {
    fn listen() -> io::Result<Self> {
        Ok(Self { signal: signal(SignalKind::hangup())?, had_terminal: has_terminal() })
    }

    /// Waits for the next one, and tells whether the terminal is gone.
    async fn next(&mut self) -> bool {
        self.signal.recv().await;
        self.had_terminal && !has_terminal()
    }
}

/// Tells whether this process has a terminal that it belongs to; one that hung up belongs to nobody.
fn has_terminal() -> bool {
    fs::File::open("/dev/tty").is_ok()
}

/// Opens an empty file that only its owner reads; one that is there loses its content.
pub(crate) fn own_file(path: &Path) -> io::Result<fs::File> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};

    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // One that an earlier version made is open to others.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Lets a command start in a group of its own, so that the terminal's signals do not reach it.
pub(crate) fn own_session(command: &mut tokio::process::Command) {
    command.process_group(0);
}

/// Kills a process of the demo by its pid.
pub(crate) fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        // It may be gone already, which is what was wanted.
        _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

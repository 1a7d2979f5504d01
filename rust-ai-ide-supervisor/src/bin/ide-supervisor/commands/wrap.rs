//! `wrap`: one server behind one client, restarted so that the client does not notice.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use rust_ai_ide_supervisor::config_file::ConfigFile;
use rust_ai_ide_supervisor::wrap::{
    LocalFiles, Observed, Observer, Recorder, Requeue, Wrap as Session, WrapEnd, WrapOptions,
};
use supervisor_core::config::{FramingKind, ServiceSpec};
use supervisor_core::error::chain;
use supervisor_core::ports::Entropy as _;
use supervisor_ipc::lsp::{LspOptions, LspRelay};
use supervisor_ipc::mcp::{McpOptions, McpRelay};
use supervisor_ipc::relay::Relay;
use supervisor_process::{SystemClock, SystemEntropy, SystemSpawner};
use tokio::sync::{Notify, mpsc};

use crate::args::wrap::{Wrap, WrapProtocol};
use crate::exit_code::{Exit, Failure};
use crate::os;
use crate::output::{self, progress};

/// Sessions of one program that may share a state directory without a name of their own.
const SAME_NAME_MAX: u32 = 64;
/// Dead letters the session was asked to try again and has not looked at; who asks for more waits.
const REQUEUES_MAX: usize = 16;

/// Runs the session and ends the process, with the server's own exit code where it ended by itself.
///
/// Where the system allows it a second process watches this one, so that a kill of either ends the server.
pub(crate) fn run(wrap: &Wrap, watcher: Option<u32>) -> ExitCode {
    if watcher.is_none()
        && let Some(code) = os::watch()
    {
        return ExitCode::from(code);
    }
    let ended = session(wrap, watcher).and_then(|(end, name)| judge(end, &name));
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            output::report(&failure);
            failure.exit.into()
        }
    }
}

fn session(wrap: &Wrap, watcher: Option<u32>) -> Result<(WrapEnd, String), Failure> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Failure::new(Exit::Failed, format!("{what}: {error}"))
    };
    let (spec, by_policy) = specification(wrap)?;
    let mut options = WrapOptions::new(spec, framing(wrap.protocol))
        .map_err(|error| Failure::new(Exit::Usage, chain(&error)))?;
    options.by_policy = by_policy;
    output::start_logging(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed("cannot start", &error))?;
    let end = runtime.block_on(async {
        let entropy = SystemEntropy::new();
        let mark = format!("wrap-{}-{:016x}", std::process::id(), entropy.next_u64());
        let watcher = watcher.map(os::Watcher::find).transpose();
        let mut watcher = watcher.map_err(|error| failed("cannot start", &error))?;
        let restart = Arc::new(Notify::new());
        let (ask, requeue) = mpsc::channel(REQUEUES_MAX);
        let operator = Operator { restart: Arc::clone(&restart), requeue: ask };
        let recorder = match &wrap.state_dir {
            Some(dir) => {
                Some(recorder(dir, &mut options.spec, wrap.name.is_some(), &operator).await?)
            }
            None => None,
        };
        let name = options.spec.id.clone();
        let logs = recorder.as_ref().map(Recorder::log_dir);
        let spawner = SystemSpawner::new(mark, logs, true)
            .map_err(|error| failed("cannot start", &error))?
            .pass_stderr();
        let spawner = Arc::new(spawner);
        if let Some(recorder) = &recorder {
            recorder.show_output_of(Arc::clone(&spawner));
        }
        let stop =
            os::asked_to_end().map_err(|error| failed("cannot listen for signals", &error))?;
        let hung_up = os::hung_up().map_err(|error| failed("cannot listen for signals", &error))?;
        let input =
            os::client_input().map_err(|error| failed("cannot read standard input", &error))?;
        let output =
            os::client_output().map_err(|error| failed("cannot write standard output", &error))?;
        let session = Session {
            relay: relay(wrap),
            options,
            spawner: Arc::clone(&spawner) as Arc<_>,
            clock: Arc::new(SystemClock::new()),
            entropy: Arc::new(entropy),
            restart,
            requeue: recorder.is_some().then_some(requeue),
        };
        let down = recorder.as_ref().map(Recorder::asked_to_end);
        let down = async move {
            match down {
                Some(down) => down.await,
                None => std::future::pending().await,
            }
        };
        let stop = async move {
            tokio::select! { () = stop => {}, () = hung_up => {}, () = down => {} }
        };
        let mut told = Told { name: name.clone(), recorder };
        let end = tokio::select! {
            end = session.run(input, output, &mut told, stop) => end,
            // Dropped with it, the server's set is killed.
            () = gone(watcher.as_mut()) => WrapEnd::ClientLeft(None),
        };
        os::end_descendants().await;
        if let Some(recorder) = told.recorder.take() {
            recorder.close().await;
        }
        // Its thread may wait for somebody to read our standard error; it ends with the process.
        std::mem::forget(spawner);
        Ok::<_, Failure>((end, name))
    });
    // A thread that waits for standard input cannot be woken; it ends with the process.
    runtime.shutdown_background();
    end
}

/// What somebody at the control socket may ask of the session.
#[derive(Clone)]
struct Operator {
    restart: Arc<Notify>,
    requeue: mpsc::Sender<Requeue>,
}

/// Opens the server's place in a state directory. A name that nobody chose gets a number when others have it.
async fn recorder(
    dir: &Path,
    spec: &mut ServiceSpec,
    named: bool,
    operator: &Operator,
) -> Result<Recorder, Failure> {
    let plain = spec.id.clone();
    for number in 1..=SAME_NAME_MAX {
        if number > 1 {
            spec.id = numbered(&plain, number);
        }
        let id = spec.service_id().map_err(|error| Failure::new(Exit::Usage, chain(&error)))?;
        let Operator { restart, requeue } = operator.clone();
        let failure = match Recorder::open(dir, &id, restart, requeue).await {
            Ok(recorder) => return Ok(recorder),
            Err(error) => super::up::failure(&error),
        };
        if failure.exit != Exit::OwnedByAnother {
            return Err(failure);
        }
        if named {
            let text = format!(
                "a wrapped server named {plain} runs already in {}: {}",
                dir.display(),
                failure.message
            );
            return Err(Failure::new(failure.exit, text).help("give this one another --name"));
        }
    }
    let text =
        format!("{SAME_NAME_MAX} wrapped servers named {plain} run already in {}", dir.display());
    Err(Failure::new(Exit::OwnedByAnother, text)
        .help("give this one a --name or another --state-dir"))
}

/// Makes another id of an id.
fn numbered(id: &str, number: u32) -> String {
    let end = format!("-{number}");
    let begin: String = id.chars().take(supervisor_core::SERVICE_ID_LEN_MAX - end.len()).collect();
    begin + &end
}

/// Waits for the end of the process that watches this one.
async fn gone(watcher: Option<&mut os::Watcher>) {
    match watcher {
        Some(watcher) => watcher.ended().await,
        None => std::future::pending().await,
    }
}

/// Gives what to run, and whether its own restart policy was asked for.
fn specification(wrap: &Wrap) -> Result<(ServiceSpec, bool), Failure> {
    let usage =
        |error: supervisor_core::error::ConfigError| Failure::new(Exit::Usage, chain(&error));
    if let (Some(path), Some(name)) = (&wrap.config, &wrap.name) {
        let file = ConfigFile::load(path)?;
        let found = file.services.into_iter().find(|service| service.id == name.as_str());
        let mut spec = found.ok_or_else(|| {
            Failure::new(Exit::NoSuchService, format!("{} names no service {name}", path.display()))
                .help("--name has to be the id of one of its services")
        })?;
        if let Some((command, args)) = wrap.command.split_first() {
            spec.command.clone_from(command);
            spec.args = args.to_vec();
        }
        return Ok((spec, true));
    }
    let (command, args) = wrap.command.split_first().ok_or_else(|| {
        Failure::new(Exit::Usage, "there is no server to run").help("put it after `--`")
    })?;
    let name = wrap.name.as_ref().map_or_else(|| name_of(command), ToString::to_string);
    Ok((WrapOptions::plain_spec(&name, command, args.to_vec()).map_err(usage)?, false))
}

/// Makes an id of a program's name.
fn name_of(command: &str) -> String {
    let name = Path::new(command).file_stem().map(|name| name.to_string_lossy().into_owned());
    let mut name: String = name
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "_-.".contains(c) { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(supervisor_core::SERVICE_ID_LEN_MAX)
        .collect();
    if name.is_empty() {
        name.push_str("server");
    }
    name
}

const fn framing(protocol: WrapProtocol) -> FramingKind {
    match protocol {
        WrapProtocol::Lsp => FramingKind::Lsp,
        WrapProtocol::Mcp => FramingKind::Mcp,
    }
}

fn relay(wrap: &Wrap) -> Box<dyn Relay> {
    match wrap.protocol {
        WrapProtocol::Lsp => {
            let options =
                LspOptions { process_id: Some(std::process::id()), ..LspOptions::default() };
            let relay = LspRelay::new(options.judging_silence_by(wrap.silence));
            Box::new(relay.looking_at(Box::new(LocalFiles)))
        }
        WrapProtocol::Mcp => {
            Box::new(McpRelay::new(McpOptions::default().judging_silence_by(wrap.silence)))
        }
    }
}

fn judge(end: WrapEnd, name: &str) -> Result<u8, Failure> {
    match end {
        WrapEnd::ClientLeft(status) => {
            let code = status.and_then(supervisor_core::exit::ExitStatus::code).unwrap_or(0);
            Ok(u8::try_from(code).unwrap_or(1))
        }
        WrapEnd::GaveUp(reason) => Err(Failure::new(Exit::Failed, format!("{name}: {reason}"))
            .help("run the server by itself to see what it says; many need an option such as `--stdio` to talk to a client")),
        WrapEnd::BadClient(reason) => Err(Failure::new(Exit::Usage, reason)),
        WrapEnd::NoServer(error) => Err(Failure::new(Exit::Failed, chain(&error))),
    }
}

/// Tells the person on standard error, one line each, and the state directory if there is one.
struct Told {
    name: String,
    recorder: Option<Recorder>,
}

impl Observer for Told {
    fn observe(&mut self, what: &Observed<'_>) {
        if let Some(recorder) = &mut self.recorder {
            recorder.observe(what);
        }
        let line = match what {
            Observed::Report(report) => report.to_string(),
            Observed::Notice(text) => (*text).to_owned(),
            Observed::Started { .. }
            | Observed::Lost { .. }
            | Observed::State { .. }
            | Observed::DeadLetter(_) => return,
        };
        // What a server wrote may hold anything; a line stays a line.
        let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        progress(&format!("ide-supervisor wrap {}: {line}", self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_name_becomes_an_id() {
        assert_eq!(name_of("/usr/bin/clangd"), "clangd");
        assert_eq!(name_of("./-my server.exe"), "my-server");
        assert_eq!(name_of("/"), "server");
        assert_eq!(numbered("clangd", 2), "clangd-2");
        let long = numbered(&"x".repeat(supervisor_core::SERVICE_ID_LEN_MAX), 64);
        assert!(supervisor_core::ServiceId::new(long).is_ok());
        assert!(supervisor_core::ServiceId::new(name_of(&"ä".repeat(300))).is_ok());
    }
}

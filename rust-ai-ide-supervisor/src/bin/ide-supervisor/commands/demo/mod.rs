//! `demo`: three real services, a supervisor in a process of its own, and a story of faults told as it happens.

mod language_client;
mod story;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rust_ai_ide_supervisor::GuardianChoice;
use rust_ai_ide_supervisor::config_file::ConfigFile;

use crate::args::Target;
use crate::args::running::Demo;
use crate::exit_code::{Exit, Failure};
use crate::os;
use crate::output::Output;

/// Longest time the end of the demo waits for its supervisor before it is killed.
const END_LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn run(demo: &Demo, output: Output) -> Result<(), Failure> {
    super::block_on(tell(demo, output))
}

async fn tell(demo: &Demo, output: Output) -> Result<(), Failure> {
    let failed =
        |what: &str, error: std::io::Error| Failure::new(Exit::Failed, format!("{what}: {error}"));
    let directory = tempfile::Builder::new()
        .prefix("ide-supervisor-demo-")
        .tempdir()
        .map_err(|error| failed("cannot make a temporary directory", error))?;
    let place = Place::prepare(directory.path())
        .map_err(|error| failed("cannot prepare the demo", error))?;
    let mut story = story::Story::new(place, demo.json, output);
    let ended = {
        let interrupted =
            os::asked_to_end().map_err(|error| failed("cannot listen for signals", error))?;
        tokio::pin!(interrupted);
        tokio::select! {
            told = story.tell(demo.length) => told,
            () = &mut interrupted => Ok(()),
        }
    };
    let cleaned = tokio::time::timeout(END_LIMIT, story.end()).await;
    directory.close().map_err(|error| failed("cannot remove the temporary directory", error))?;
    ended?;
    cleaned.unwrap_or_else(|_| {
        Err(Failure::new(Exit::Failed, "the demo's supervisor did not end in time and was killed"))
    })
}

/// Where the demo keeps everything, and what it tells its supervisor.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) config: PathBuf,
    pub(super) state: PathBuf,
    pub(super) model_manager: u16,
    pub(super) webhooks: u16,
}

impl Place {
    fn prepare(directory: &Path) -> std::io::Result<Self> {
        let place = Self {
            config: directory.join("ide-supervisor.toml"),
            state: directory.join("state"),
            model_manager: free_port()?,
            webhooks: free_port()?,
        };
        let program = std::env::current_exe()?;
        std::fs::write(&place.config, place.configuration(&program, directory))?;
        Ok(place)
    }

    /// A configuration like any user's; `toml` quotes the paths.
    fn configuration(&self, program: &Path, directory: &Path) -> String {
        let quoted =
            |path: &Path| toml::Value::String(path.to_string_lossy().into_owned()).to_string();
        let (program, store) = (quoted(program), quoted(&directory.join("webhooks.ndjson")));
        let (model_manager, webhooks) = (self.model_manager, self.webhooks);
        format!(
            r#"[supervisor]
health_check_interval = "1s"

[[service]]
id = "language_server"
name = "Language server"
command = {program}
args = ["demo-service", "language-server"]
restart_policy = {{ type = "always" }}
channel = {{ transport = "stdio", framing = "lsp" }}

[[service]]
id = "model_manager"
name = "Model manager"
command = {program}
args = ["demo-service", "model-manager", "--port", "{model_manager}", "--load", "1s"]
restart_policy = {{ type = "exponential_backoff", base_delay = "200ms", max_delay = "5s", max_attempts = 5 }}
shutdown_timeout = "1s"

[[service.probe]]
role = "startup"
kind = "http"
target = "http://127.0.0.1:{model_manager}/health"
period = "100ms"
timeout = "500ms"
failure_threshold = 100

[[service.probe]]
role = "liveness"
kind = "http"
target = "http://127.0.0.1:{model_manager}/health"
period = "300ms"
timeout = "300ms"

[[service]]
id = "webhooks"
name = "Webhook receiver"
command = {program}
args = ["demo-service", "webhooks", "--port", "{webhooks}", "--store", {store}]
restart_policy = {{ type = "always" }}
capture = {{ max_bytes = "1MiB", files = 2 }}

[[service.probe]]
role = "readiness"
kind = "http"
target = "http://127.0.0.1:{webhooks}/health"
period = "200ms"
timeout = "500ms"
"#
        )
    }
}

/// Finds a port nobody uses now. Somebody else could take it first; the demo then says that a service does not come up.
fn free_port() -> std::io::Result<u16> {
    std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr().map(|address| address.port())
}

/// Runs the supervisor the demo watches: `up`, with an editor's side of the language server's channel, and an end
/// when the demo that started it is gone.
pub(crate) fn supervise(target: &Target, output: Output) -> Result<(), Failure> {
    let file = ConfigFile::load(&target.config_path()?)?;
    let state_dir = target.state_dir()?;
    let choice = GuardianChoice::IfPossible;
    super::block_on(super::up::supervise(
        file,
        state_dir,
        choice,
        (true, output),
        |supervisor| async move {
            language_client::attach(&supervisor, output).await?;
            tokio::spawn(watch::end_with_parent(supervisor));
            Ok(())
        },
    ))
}

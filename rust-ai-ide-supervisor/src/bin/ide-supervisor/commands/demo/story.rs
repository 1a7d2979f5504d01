//! The story: what is done to the services, and what the supervisor did about it.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use rust_ai_ide_supervisor::daemon::ControlClient;
use rust_ai_ide_supervisor::daemon::protocol::{Body, Call};
use serde_json::Value;
use supervisor_core::event::{EventKind, SupervisorEvent};
use supervisor_core::ports::ProcessTable;
use supervisor_core::status::{ServiceStatus, StatusReport};
use supervisor_process::SystemProcessTable;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::Place;
use crate::exit_code::{Exit, Failure};
use crate::os;
use crate::output::Output;
use crate::render;

/// Longest time any step of the story may take.
const STEP_LIMIT: Duration = Duration::from_secs(30);
/// Pause between two looks at something that is about to happen.
const LOOK: Duration = Duration::from_millis(20);

/// What was heard from the supervisor so far.
#[derive(Debug, Default)]
struct Heard {
    events: u64,
    restarts: u64,
    answers: u64,
    unanswered: u64,
    generation: u64,
    recovered: Option<String>,
}

/// The demo's supervisor and what it has told.
#[derive(Debug)]
pub(super) struct Story {
    place: Place,
    json: bool,
    output: Output,
    supervisor: Option<(Child, JoinHandle<()>)>,
    heard: Arc<Mutex<Heard>>,
    recoveries: Vec<(String, Duration)>,
    began: Instant,
}

fn failed(message: impl Into<String>) -> Failure {
    Failure::new(Exit::Failed, message)
}

impl Story {
    pub(super) fn new(place: Place, json: bool, output: Output) -> Self {
        let (heard, recoveries) = (Arc::default(), Vec::new());
        Self { place, json, output, supervisor: None, heard, recoveries, began: Instant::now() }
    }

    fn say(&self, text: &str) -> Result<(), Failure> {
        if self.json { Ok(()) } else { self.output.line(text) }
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the story once, and again until `length` is over if one was given.
    pub(super) async fn tell(&mut self, length: Option<Duration>) -> Result<(), Failure> {
        let told = self.tell_once();
        match length {
            None => told.await,
            Some(length) => {
                // At the end of the time the story stops where it is; what follows cleans up as always.
                if let Ok(told) = tokio::time::timeout(length, told).await {
                    told?;
                    let left = length.saturating_sub(self.began.elapsed());
                    drop(tokio::time::timeout(left, self.go_on()).await);
                }
                self.summary()
            }
        }
    }

    async fn go_on(&mut self) -> Result<(), Failure> {
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            self.kill_one("webhooks").await?;
        }
    }

    async fn tell_once(&mut self) -> Result<(), Failure> {
        self.say("Three services: a language server (LSP over stdio), a model manager and a webhook receiver (HTTP).\n")?;
        self.start().await?;
        self.all_ready().await?;
        self.answers_beyond(0).await?;
        self.say("  the language server answers completion and hover about two open documents\n")?;

        self.say(
            "1. The language server is killed (SIGKILL) while the editor has questions in flight.",
        )?;
        self.kill_one("language_server").await?;
        let answers = self.heard().answers;
        self.answers_beyond(answers + 1).await?;
        let (unanswered, generation) = {
            let heard = self.heard();
            (heard.unanswered, heard.generation)
        };
        self.say(&format!("   its documents were opened again before anything else flowed; connection {generation} answers, {unanswered} questions were lost\n"))?;

        self.say(
            "2. The model manager hangs: its process lives, its port accepts, nothing answers.",
        )?;
        self.hang_model_manager().await?;

        self.say("3. The webhook receiver floods its output with 64 MiB, keeps what was posted, and is killed.")?;
        self.flood_and_kill_webhooks().await?;

        self.say("4. A checkpoint is taken, and then the supervisor itself is killed.")?;
        self.kill_supervisor().await?;
        self.summary()
    }

    /// Starts a supervisor in a process of its own; what it prints is read by a task that ends with it.
    async fn start(&mut self) -> Result<(), Failure> {
        let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let mut command = Command::new(program);
        command
            .arg("demo-supervisor")
            .arg("--config")
            .arg(&self.place.config)
            .arg("--state-dir")
            .arg(&self.place.state);
        // Its input is ours to hold: when this process is gone, however, the supervisor sees the end of it.
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        os::own_session(&mut command);
        let mut child = command
            .spawn()
            .map_err(|error| failed(format!("cannot start the supervisor: {error}")))?;
        let stdout = child.stdout.take().ok_or_else(|| failed("the supervisor has no output"))?;
        let (heard, json, output) = (Arc::clone(&self.heard), self.json, self.output);
        let reading = tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                hear(&line, &heard, json, output);
            }
        });
        self.supervisor = Some((child, reading));
        Ok(())
    }

    async fn status(&self) -> Option<StatusReport> {
        let mut client = ControlClient::connect(&self.place.state).await.ok()?;
        match client.call(Call::Status).await.ok()? {
            Body::Status(report) => Some(*report),
            _ => None,
        }
    }

    /// Waits until the services look as `wanted` says.
    async fn until(
        &self,
        what: &str,
        wanted: impl Fn(&StatusReport) -> bool,
    ) -> Result<StatusReport, Failure> {
        let deadline = Instant::now() + STEP_LIMIT;
        loop {
            if let Some(report) = self.status().await.filter(|report| wanted(report)) {
                return Ok(report);
            }
            if Instant::now() > deadline {
                return Err(failed(format!("{what} did not happen within {STEP_LIMIT:?}")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn all_ready(&self) -> Result<StatusReport, Failure> {
        let ready = |report: &StatusReport| {
            report.services.len() == 3 && report.services.iter().all(|service| service.ready)
        };
        self.until("all services being ready", ready).await
    }

    async fn service(&self, id: &str) -> Result<ServiceStatus, Failure> {
        let report = self.until("an answer of the supervisor", |_| true).await?;
        let found = report.services.into_iter().find(|service| service.id.as_str() == id);
        found.ok_or_else(|| failed(format!("the supervisor does not know {id}")))
    }

    async fn ready_after(&mut self, id: &str, incarnation: u64) -> Result<ServiceStatus, Failure> {
        let began = Instant::now();
        let back = |report: &StatusReport| {
            report.services.iter().any(|service| {
                service.id.as_str() == id
                    && service.ready
                    && service.incarnation.get() > incarnation
            })
        };
        let report = self.until(&format!("the return of {id}"), back).await?;
        let took = began.elapsed();
        self.recoveries.push((id.to_owned(), took));
        let service = report.services.into_iter().find(|service| service.id.as_str() == id);
        let service = service.ok_or_else(|| failed(format!("the supervisor lost {id}")))?;
        let cause = service
            .last_exit
            .as_ref()
            .map_or_else(String::new, |exit| format!(" after a {}", exit.reason));
        self.say(&format!(
            "   {id} is ready again{cause}: incarnation {}, {} ms",
            service.incarnation,
            took.as_millis()
        ))?;
        Ok(service)
    }

    async fn kill_one(&mut self, id: &str) -> Result<(), Failure> {
        let before = self.service(id).await?;
        os::kill(before.pid.ok_or_else(|| failed(format!("{id} has no process")))?);
        self.ready_after(id, before.incarnation.get()).await.map(drop)
    }

    async fn answers_beyond(&self, answers: u64) -> Result<(), Failure> {
        let deadline = Instant::now() + STEP_LIMIT;
        while self.heard().answers <= answers {
            if Instant::now() > deadline {
                return Err(failed("the language server does not answer"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn hang_model_manager(&mut self) -> Result<(), Failure> {
        let before = self.service("model_manager").await?;
        let infer =
            http(self.place.model_manager, "POST", "/infer", r#"{"prompt":"the supervisor"}"#)
                .await?;
        self.say(&format!(
            "   before: {}",
            infer.chars().take(90).collect::<String>().replace('\n', " ")
        ))?;
        http(self.place.model_manager, "POST", "/fault?kind=hang", "").await?;
        self.ready_after("model_manager", before.incarnation.get()).await?;
        self.say("")
    }

    async fn flood_and_kill_webhooks(&mut self) -> Result<(), Failure> {
        for n in 1..=3 {
            http(self.place.webhooks, "POST", "/hooks/demo", &format!(r#"{{"n":{n}}}"#)).await?;
        }
        http(self.place.webhooks, "POST", "/fault?kind=flood", "").await?;
        self.kill_one("webhooks").await?;
        let stored = http(self.place.webhooks, "GET", "/hooks", "").await?;
        let stored: Value = serde_json::from_str(&stored).unwrap_or_default();
        let kept: u64 = bytes_below(&self.place.state.join("logs").join("webhooks"));
        self.say(&format!("   {} posted hooks are still stored; its output took {} KiB of disk, 1024 are allowed\n", stored["stored"], kept / 1024))
    }

    async fn kill_supervisor(&mut self) -> Result<(), Failure> {
        let mut client = ControlClient::connect(&self.place.state)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let taken =
            client.call(Call::CheckpointCreate).await.map_err(|error| failed(error.to_string()))?;
        let Body::CheckpointCreated(checkpoint) = taken else {
            return Err(failed("no checkpoint was taken"));
        };
        drop(client);
        let restarts_before = self.heard().restarts;
        let began = Instant::now();
        if let Some((mut child, reading)) = self.supervisor.take() {
            child.kill().await.map_err(|error| failed(error.to_string()))?;
            drop(reading.await);
        }
        self.say(&format!("   checkpoint {checkpoint} taken, supervisor killed; another one is started in its place"))?;
        self.start().await?;
        self.all_ready().await?;
        let took = began.elapsed();
        self.recoveries.push(("supervisor".to_owned(), took));
        let processes = SystemProcessTable::new().marked(&mark(&self.place.state)).len();
        let recovered =
            self.heard().recovered.clone().unwrap_or_else(|| "nothing was told".to_owned());
        self.say(&format!("   {recovered}"))?;
        self.say(&format!(
            "   all services ready again after {} ms, {processes} processes for 3 services: no second copy of anything ({restarts_before} earlier restarts remembered)\n",
            took.as_millis()
        ))
    }

    fn summary(&self) -> Result<(), Failure> {
        let heard = self.heard();
        let times =
            self.recoveries.iter().map(|(name, took)| format!("{name} {} ms", took.as_millis()));
        self.say(&format!("Recovered: {}.", times.collect::<Vec<_>>().join(", ")))?;
        self.say(&format!(
            "The language server answered {} questions, {} were lost; {} events in {:.1} s.",
            heard.answers,
            heard.unanswered,
            heard.events,
            self.began.elapsed().as_secs_f64()
        ))
    }

    /// Ends the supervisor and checks that nothing is left.
    pub(super) async fn end(&mut self) -> Result<(), Failure> {
        let Some((mut child, reading)) = self.supervisor.take() else {
            return Ok(());
        };
        // The end of its input is what it waits for.
        drop(child.stdin.take());
        let ended = child.wait().await.map_err(|error| failed(error.to_string()))?;
        drop(reading.await);
        let left = SystemProcessTable::new().marked(&mark(&self.place.state));
        if !left.is_empty() {
            return Err(failed(format!("{} processes were left behind", left.len())));
        }
        if !ended.success() {
            return Err(failed(format!("the demo's supervisor ended with {ended}")));
        }
        self.say("Everything is stopped; no process and no file is left.")
    }
}

/// The mark the supervisor of this state directory gives its processes.
fn mark(state: &std::path::Path) -> String {
    rust_ai_ide_supervisor::state_dir::StateDir::open(state)
        .map(|dir| dir.mark())
        .unwrap_or_default()
}

/// Takes in one line of the supervisor: an event, or an answer of the language server.
fn hear(line: &str, heard: &Mutex<Heard>, json: bool, output: Output) {
    let Ok(value) = serde_json::from_str::<Value>(line) else {
        return;
    };
    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    if value["demo"] == "language_answer" {
        heard.generation = value["generation"].as_u64().unwrap_or(0).max(heard.generation);
        if value["answered"] == true {
            heard.answers += 1;
        } else {
            heard.unanswered += 1;
        }
        return;
    }
    let Ok(event) = serde_json::from_value::<SupervisorEvent>(value) else {
        return;
    };
    heard.events += 1;
    match &event.kind {
        EventKind::ServiceRestarted { .. } => heard.restarts += 1,
        EventKind::Recovered { source, services, pending_operations, swept, .. } => {
            heard.recovered = Some(format!(
                "it recovered from {source}: {services} services with their counters, {pending_operations} pending operations, {swept} processes of its predecessor ended"
            ));
        }
        _ => {}
    }
    // Whoever reads the demo may leave; its supervisor is cleaned up all the same.
    if json {
        drop(output.json(&event));
    } else if is_told(&event.kind) {
        drop(output.line(&format!("   | {}", render::event::line(&event, output))));
    }
}

const fn is_told(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::ServiceRestarted { .. }
            | EventKind::ServiceDegraded { .. }
            | EventKind::ServiceGaveUp { .. }
            | EventKind::ChannelRecovered { .. }
            | EventKind::CheckpointCreated { .. }
            | EventKind::Recovered { .. }
            | EventKind::ModeChanged { .. }
            | EventKind::ServiceStateChanged { exit: Some(_), .. }
    )
}

fn bytes_below(directory: &std::path::Path) -> u64 {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|found| found.len()).sum()
}

/// Asks one of the demo's own services.
async fn http(port: u16, method: &str, path: &str, body: &str) -> Result<String, Failure> {
    let ask = async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "127.0.0.1")
            .body(Full::<bytes::Bytes>::from(body.to_owned()))
            .map_err(std::io::Error::other)?;
        let answer = sender.send_request(request).await.map_err(std::io::Error::other)?;
        let bytes = answer.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
        connection.abort();
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let limited = tokio::time::timeout(Duration::from_secs(5), ask).await;
    limited
        .map_err(|_| failed(format!("{path} did not answer")))?
        .map_err(|error| failed(format!("{path}: {error}")))
}

//! Starting services with the system's fast path.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use supervisor_core::ServiceId;
use supervisor_core::config::TransportKind;
use supervisor_core::error::{ProcessError, SpawnError, SpawnErrorKind};
use supervisor_core::ports::{ChildHandle, ChildStdio, ProcessSpawner, SpawnRequest};
use supervisor_core::status::{DroppedOutput, LogLine, OutputStream};

use crate::capture::{CaptureThread, DropWatch, Output, Owner, Pipes, read_tail};
use crate::child::SystemChild;
use crate::command::{environment, judge_spawn_error, path_in, service_program};
use crate::os::{self, Census, Command};
use crate::scan::SetKey;

/// Starts services as children of this process.
///
/// Nothing of this process is copied for it, neither its memory (from a host of 4 GB a fork takes 300 ms) nor, on Linux,
/// its table of descriptors, so a start costs the same whatever the host holds. On Linux a service inherits no descriptor
/// and no blocked or ignored signal, and its limits are in force from its first instruction on. Every child carries the supervisor's mark, its service and its incarnation in its environment,
/// which is how whatever it starts is found again.
#[derive(Debug)]
pub struct SystemSpawner {
    mark: Arc<str>,
    log_dir: Option<PathBuf>,
    pass_stderr: bool,
    subreaper: bool,
    census: Arc<Census>,
    capture: CaptureThread,
    outputs: Mutex<HashMap<ServiceId, Output>>,
    drops: DropWatch,
}

impl SystemSpawner {
    /// Makes a spawner whose children carry `mark` and whose output is kept below `log_dir`, one directory a service.
    ///
    /// With `subreaper` orphaned descendants become children of this process; that is a setting of the whole
    /// process, and from then on this spawner reaps every child that nobody here started.
    ///
    /// # Errors
    /// [`ProcessError::Os`] when the capture thread cannot be started or the setting is refused.
    pub fn new(
        mark: impl Into<Arc<str>>,
        log_dir: Option<PathBuf>,
        subreaper: bool,
    ) -> Result<Self, ProcessError> {
        let failed = |action: &str, source: std::io::Error| ProcessError::Os {
            action: action.to_owned(),
            source: source.into(),
        };
        if subreaper {
            os::become_subreaper().map_err(|error| failed("becoming a sub-reaper", error))?;
        }
        let capture =
            CaptureThread::start().map_err(|error| failed("starting the capture thread", error))?;
        os::reserve_descriptors();
        let (census, outputs) = (Arc::new(Census::new(subreaper)), Mutex::default());
        let mark = mark.into();
        let drops = DropWatch::default();
        Ok(Self { mark, log_dir, pass_stderr: false, subreaper, census, capture, outputs, drops })
    }

    /// Passes what children write to standard error on to our own, byte for byte, as well as capturing it.
    ///
    /// Without a log directory only the last lines are kept then, and no file is written. While nobody reads our
    /// standard error, nobody reads the children's.
    #[must_use]
    pub const fn pass_stderr(mut self) -> Self {
        self.pass_stderr = true;
        self
    }

    /// Gives the last `limit` captured lines of a service, oldest first.
    ///
    /// # Errors
    /// What the system said about the files.
    pub fn logs(&self, service: &ServiceId, limit: usize) -> std::io::Result<Vec<LogLine>> {
        let known =
            self.outputs.lock().unwrap_or_else(PoisonError::into_inner).get(service).cloned();
        match (known, &self.log_dir) {
            (Some(output), _) => output.tail(limit),
            (None, Some(directory)) => {
                read_tail(&[directory.join(service.as_str()).join("output.log")], limit)
            }
            (None, None) => Ok(Vec::new()),
        }
    }

    /// Gives what of each service's output was not kept, as far as anything was not.
    #[must_use]
    pub fn dropped_output(&self) -> HashMap<ServiceId, DroppedOutput> {
        let outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = outputs.iter().map(|(id, output)| (id.clone(), output.dropped()));
        counts.filter(|(_, dropped)| *dropped != DroppedOutput::default()).collect()
    }

    /// Sets who is told when output of a run begins to be dropped.
    pub(crate) const fn drops(&self) -> &DropWatch {
        &self.drops
    }

    fn output(&self, request: &SpawnRequest) -> Output {
        let (service, spec) = (&request.service, &request.spec);
        let mut outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        let output = outputs.entry(service.clone()).or_insert_with(|| {
            let directory = match &self.log_dir {
                Some(directory) => Some(directory.clone()),
                None if self.pass_stderr => None,
                None => Some(std::env::temp_dir()),
            };
            Output::new(directory.map(|directory| directory.join(service.as_str())))
        });
        let secrets = spec.secret_environment.iter().filter_map(|name| {
            spec.environment.get(name).cloned().or_else(|| std::env::var(name).ok())
        });
        let (incarnation, watch) = (request.incarnation, self.drops.clone());
        let owner = Owner { service: service.clone(), incarnation, watch };
        output.begin_run(&spec.capture, secrets.collect(), Some(owner));
        output.clone()
    }

    fn command(&self, request: &SpawnRequest, channel: bool) -> Result<Command, SpawnError> {
        let spec = &request.spec;
        let environment = environment(request, &self.mark);
        let path = path_in(&environment);
        let program = service_program(spec, path)?;
        let mut command = Command::new(program);
        command.args(&spec.args).env_clear().envs(environment);
        if let Some(directory) = &spec.working_dir {
            command.current_dir(directory);
        }
        os::own_group(&mut command);
        os::set_stdio(&mut command, channel);
        os::set_limits(&mut command, &spec.limits);
        Ok(command)
    }

    fn start(&self, request: &SpawnRequest) -> Result<SystemChild, SpawnError> {
        let spec = &request.spec;
        let channel =
            spec.channel.as_ref().is_some_and(|channel| channel.transport == TransportKind::Stdio);
        let mut command = self.command(request, channel)?;
        let born = self.census.moment();
        let mut started =
            os::start(&mut command).map_err(|error| judge_spawn_error(spec, error))?;
        let identity = os::identity_of_started(&started).ok_or_else(|| SpawnError {
            kind: SpawnErrorKind::Other,
            program: spec.command.clone(),
            reason: "its identity cannot be read".to_owned(),
            source: None,
        })?;
        os::limit_started(&started, &spec.limits).report(spec);
        let output = self.output(request);
        let mut pipes = Pipes::default();
        let mut stdio = None;
        match (started.stdin.take(), started.stdout.take()) {
            (Some(stdin), Some(stdout)) if channel => stdio = Some(ChildStdio { stdin, stdout }),
            (_, Some(stdout)) => {
                self.capture.read(stdout, OutputStream::Stdout, &output, &mut pipes, false);
            }
            _ => {}
        }
        if let Some(stderr) = started.stderr.take() {
            let (stream, pass) = (OutputStream::Stderr, self.pass_stderr);
            self.capture.read(stderr, stream, &output, &mut pipes, pass);
        }
        let key = SetKey {
            mark: Arc::clone(&self.mark),
            service: request.service.clone(),
            incarnation: request.incarnation,
        };
        Ok(SystemChild {
            identity,
            leader: started.leader,
            key,
            census: Arc::clone(&self.census),
            born,
            output,
            pipes,
            stdio: Mutex::new(stdio),
            emptied: AtomicBool::new(false),
            seen: Mutex::default(),
        })
    }
}

#[async_trait]
impl ProcessSpawner for SystemSpawner {
    async fn spawn(&self, request: SpawnRequest) -> Result<Box<dyn ChildHandle>, SpawnError> {
        // The call takes a tenth of a millisecond; a hop to another thread would cost more than it hides.
        self.start(&request).map(|child| Box::new(child) as Box<dyn ChildHandle>)
    }

    fn containment(&self) -> Vec<String> {
        os::containment(self.subreaper)
    }
}

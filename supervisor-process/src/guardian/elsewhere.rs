//! Systems without a guardian: the same names, and a sentence that says so.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use supervisor_core::error::{ProcessError, SpawnError};
use supervisor_core::exit::ExitStatus;
use supervisor_core::ports::{ChildHandle, ProcessSpawner, SpawnRequest};
use supervisor_core::status::LogLine;
use supervisor_core::{Incarnation, ProcessIdentity, ServiceId};
use tokio::sync::watch;

use super::{GuardianNews, GuardianProgram};

/// What whoever asks for one is told.
const NONE: &str = "there are no guardians on this system; services are children of this process";

/// Returns at once: nobody is asked to be a guardian here.
pub fn run_if_asked() {}

/// Says that there can be no guardian here.
///
/// # Errors
/// Always, with the reason.
pub fn available(_state_dir: &Path, _program: &GuardianProgram) -> Result<(), String> {
    Err(NONE.to_owned())
}

/// Gives the pid of the guardian of a state directory: there is none here.
#[must_use]
pub fn running(_state_dir: &Path) -> Option<u32> {
    None
}

/// A set that outlived its host; there is none here.
#[derive(Debug)]
pub struct Outlived {
    /// The service it was started for.
    pub service: ServiceId,
    /// The run.
    pub incarnation: Incarnation,
    /// Its leader.
    pub identity: ProcessIdentity,
    /// How its leader ended, if it has.
    pub status: Option<ExitStatus>,
    never: Infallible,
}

impl Outlived {
    /// Takes it over.
    #[must_use]
    pub fn into_child(self) -> Box<dyn ChildHandle> {
        match self.never {}
    }
}

/// Starts services through a guardian; there is none here.
#[derive(Debug)]
pub struct GuardianSpawner(Infallible);

impl GuardianSpawner {
    /// Says that there is none.
    ///
    /// # Errors
    /// Always.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn open(
        _state_dir: &Path,
        _mark: impl Into<Arc<str>>,
        _log_dir: PathBuf,
        _program: GuardianProgram,
    ) -> Result<Self, ProcessError> {
        Err(ProcessError::Os {
            action: "starting a guardian".to_owned(),
            source: std::io::Error::new(std::io::ErrorKind::Unsupported, NONE).into(),
        })
    }

    /// Tells how it stands with the guardian.
    #[must_use]
    pub fn news(&self) -> watch::Receiver<GuardianNews> {
        match self.0 {}
    }

    /// Names the sets that outlived the host before this one.
    ///
    /// # Errors
    /// Never: there is no value to call it on.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn outlived(&self) -> Result<Vec<Outlived>, ProcessError> {
        match self.0 {}
    }

    /// Forgets the records of ends that were read.
    pub fn forget_recorded(&self) {
        match self.0 {}
    }

    /// Lets the guardian go.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn close(&self) {
        match self.0 {}
    }

    /// Gives the last captured lines of a service.
    ///
    /// # Errors
    /// Never: there is no value to call it on.
    pub fn logs(&self, _service: &ServiceId, _limit: usize) -> std::io::Result<Vec<LogLine>> {
        match self.0 {}
    }
}

#[async_trait]
impl ProcessSpawner for GuardianSpawner {
    async fn spawn(&self, _request: SpawnRequest) -> Result<Box<dyn ChildHandle>, SpawnError> {
        match self.0 {}
    }

    fn containment(&self) -> Vec<String> {
        match self.0 {}
    }
}

//! The short form of a service: the ten fields most callers need.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{RestartPolicy, ServiceSpec};
use crate::ServiceId;
use crate::error::ConfigError;
use crate::text::duration_text;

/// The short form of a service; [`ServiceSpec`] is the whole model, and `From` fills the rest.
///
/// ```
/// use supervisor_core::config::{RestartPolicy, ServiceConfig, ServiceSpec};
///
/// let config = ServiceConfig {
///     args: vec!["--stdio".into()],
///     restart_policy: RestartPolicy::Always,
///     ..ServiceConfig::new("lsp", "my-language-server")?
/// };
/// let spec = ServiceSpec::from(config);
/// spec.validate()?;
/// # Ok::<(), supervisor_core::error::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// Unique name: 1-64 of `a-z A-Z 0-9 _ - .`, starting with a letter or digit.
    pub id: String,
    /// Name shown to people; the id when empty.
    #[serde(default)]
    pub name: String,
    /// Program, executed directly and never through a shell; looked up in the child's PATH if it holds no slash.
    pub command: String,
    /// Arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Working directory; the supervisor's own when absent.
    #[serde(default)]
    pub working_dir: Option<PathBuf>,
    /// Variables set on top of what is inherited.
    #[serde(default)]
    pub environment: HashMap<String, String>,
    /// How long a health check may take, and how long a start may take to become ready.
    #[serde(default = "health_check_timeout", with = "duration_text")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
    pub health_check_timeout: Duration,
    /// When and how soon to restart.
    #[serde(default)]
    pub restart_policy: RestartPolicy,
    /// Grace period between the stop signal and the kill.
    #[serde(default = "shutdown_timeout", with = "duration_text")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
    pub shutdown_timeout: Duration,
    /// Whether giving up on this service shuts the whole system down safely.
    #[serde(default)]
    pub critical: bool,
}

pub(super) fn health_check_timeout() -> Duration {
    Duration::from_secs(30)
}

pub(super) fn shutdown_timeout() -> Duration {
    Duration::from_secs(10)
}

impl ServiceConfig {
    /// Makes a service of an id and a program, everything else at its default.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] naming `id` or `command`. A retry does not help.
    pub fn new(id: impl Into<String>, command: impl Into<String>) -> Result<Self, ConfigError> {
        let id = String::from(ServiceId::new(id)?);
        let command = command.into();
        super::check_text("command", &command, super::spec::ARG_LEN_MAX)?;
        Ok(Self {
            name: id.clone(),
            id,
            command,
            args: Vec::new(),
            working_dir: None,
            environment: HashMap::new(),
            health_check_timeout: health_check_timeout(),
            restart_policy: RestartPolicy::default(),
            shutdown_timeout: shutdown_timeout(),
            critical: false,
        })
    }

    /// Checks every field, as registering the service does.
    ///
    /// # Errors
    /// [`ConfigError`] naming the field, the value and what would be accepted. A retry does not help.
    pub fn validate(&self) -> Result<(), ConfigError> {
        ServiceSpec::from(self.clone()).validate()
    }
}

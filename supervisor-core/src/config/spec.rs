//! The whole model of a service.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::service::{health_check_timeout, shutdown_timeout};
use super::{
    CaptureLimits, ChannelBinding, Dependency, EnvironmentInheritance, Group, HostDeathPolicy,
    ProbeSpec, ResourceLimits, RestartIntensity, RestartOn, RestartPolicy, ServiceConfig, StopStep,
};
use crate::error::ConfigError;
use crate::text::{duration_text, optional_duration_text};
use crate::{ServiceId, Signal};

/// Longest argument, program name or variable, in bytes (Linux's MAX_ARG_STRLEN).
pub(crate) const ARG_LEN_MAX: usize = 128 * 1024;

/// The whole model of a service; [`ServiceConfig`] is its short form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<PathBuf>,
    /// Variables set on top of what is inherited.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
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
    /// Whether the service is started when monitoring starts.
    #[serde(default = "yes")]
    pub autostart: bool,
    /// Random part of the restart delay that may be cut from it, 0.0 to 1.0; 0.1 for exponential backoff and 0 otherwise when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_jitter: Option<f64>,
    /// Time of being ready after which the service counts as stable and its attempts start from 0.
    #[serde(default = "stable_after", with = "duration_text")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
    pub stable_after: Duration,
    /// Restarts in a window, and what happens beyond.
    #[serde(default)]
    pub restart_intensity: RestartIntensity,
    /// Pause after giving up before one more try; none when absent.
    #[serde(default, with = "optional_duration_text", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::text::DurationText>"))]
    pub half_open_after: Option<Duration>,
    /// Which exits lead to a restart.
    #[serde(default)]
    pub restart_on: RestartOn,
    /// Exit codes that mean success.
    #[serde(default = "success_exit_codes")]
    pub success_exit_codes: Vec<i32>,
    /// Exit codes after which a restart is pointless.
    #[serde(default)]
    pub permanent_exit_codes: Vec<i32>,
    /// Services that must have reached a condition first.
    #[serde(default)]
    pub depends_on: Vec<Dependency>,
    /// Services restarted together with this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    /// The signal that asks the service to end.
    #[serde(default = "stop_signal")]
    pub stop_signal: Signal,
    /// Steps of the stop instead of `stop_signal` and `shutdown_timeout`; a kill always follows the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop_sequence: Vec<StopStep>,
    /// Signal that makes the service's runtime dump its stacks, such as `SIGQUIT`; sent to one that hangs, a second before it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dump_signal: Option<Signal>,
    /// What becomes of the service when the host dies.
    #[serde(default)]
    pub on_host_death: HostDeathPolicy,
    /// What is inherited of the supervisor's environment.
    #[serde(default)]
    pub inherit_environment: EnvironmentInheritance,
    /// Names of variables whose values appear in no state, event, log, audit row or error.
    #[serde(default)]
    pub secret_environment: Vec<String>,
    /// Ceilings on what the service may use.
    #[serde(default)]
    pub limits: ResourceLimits,
    /// What is kept of its output.
    #[serde(default)]
    pub capture: CaptureLimits,
    /// How its health is asked for.
    #[serde(default, rename = "probe", skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<ProbeSpec>,
    /// How it is talked to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelBinding>,
}

fn yes() -> bool {
    true
}

fn stable_after() -> Duration {
    Duration::from_secs(60)
}

fn success_exit_codes() -> Vec<i32> {
    vec![0]
}

fn stop_signal() -> Signal {
    Signal::Term
}

impl From<ServiceConfig> for ServiceSpec {
    fn from(config: ServiceConfig) -> Self {
        Self {
            name: if config.name.is_empty() { config.id.clone() } else { config.name },
            id: config.id,
            command: config.command,
            args: config.args,
            working_dir: config.working_dir,
            environment: config.environment.into_iter().collect(),
            health_check_timeout: config.health_check_timeout,
            restart_policy: config.restart_policy,
            shutdown_timeout: config.shutdown_timeout,
            critical: config.critical,
            autostart: yes(),
            restart_jitter: None,
            stable_after: stable_after(),
            restart_intensity: RestartIntensity::default(),
            half_open_after: None,
            restart_on: RestartOn::default(),
            success_exit_codes: success_exit_codes(),
            permanent_exit_codes: Vec::new(),
            depends_on: Vec::new(),
            group: None,
            stop_signal: stop_signal(),
            stop_sequence: Vec::new(),
            dump_signal: None,
            on_host_death: HostDeathPolicy::default(),
            inherit_environment: EnvironmentInheritance::default(),
            secret_environment: Vec::new(),
            limits: ResourceLimits::default(),
            capture: CaptureLimits::default(),
            probes: Vec::new(),
            channel: None,
        }
    }
}

impl ServiceSpec {
    /// Makes a service of an id and a program, everything else at its default.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] naming `id` or `command`. A retry does not help.
    pub fn new(id: impl Into<String>, command: impl Into<String>) -> Result<Self, ConfigError> {
        ServiceConfig::new(id, command).map(Self::from)
    }

    /// Gives the id, judged.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] naming `id`.
    pub fn service_id(&self) -> Result<ServiceId, ConfigError> {
        ServiceId::new(self.id.clone())
    }

    /// Gives the name shown to people.
    #[must_use]
    pub fn display_name(&self) -> &str {
        if self.name.is_empty() { &self.id } else { &self.name }
    }

    /// Gives the random part of a restart delay that may be cut from it, 0.0 to 1.0.
    #[must_use]
    pub fn jitter(&self) -> f64 {
        let default = if matches!(self.restart_policy, RestartPolicy::ExponentialBackoff { .. }) {
            0.1
        } else {
            0.0
        };
        self.restart_jitter.unwrap_or(default)
    }

    /// Gives the steps of a stop; the kill that follows the last is not among them.
    #[must_use]
    pub fn stop_steps(&self) -> Vec<StopStep> {
        if self.stop_sequence.is_empty() {
            vec![StopStep { signal: self.stop_signal, wait: self.shutdown_timeout }]
        } else {
            self.stop_sequence.clone()
        }
    }

    /// Tells whether the value of the variable `name` must never be shown.
    #[must_use]
    pub fn is_secret(&self, name: &str) -> bool {
        self.secret_environment.iter().any(|secret| secret == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_form_fills_every_default_of_the_whole_model() {
        let spec = ServiceSpec::from(ServiceConfig::new("a", "b").unwrap());
        let read: ServiceSpec =
            serde_json::from_str(r#"{"id":"a","name":"a","command":"b"}"#).unwrap();
        assert_eq!(spec, read);
        spec.validate().unwrap();
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<ServiceSpec>(&text).unwrap(), spec);
    }

    #[test]
    fn every_field_out_of_bounds_is_named() {
        let base = || ServiceSpec::new("a", "b").unwrap();
        let cases: Vec<(&str, ServiceSpec)> = vec![
            ("id", ServiceSpec { id: "/".into(), ..base() }),
            ("command", ServiceSpec { command: String::new(), ..base() }),
            ("args", ServiceSpec { args: vec!["\0".into()], ..base() }),
            ("name", ServiceSpec { name: "\u{1b}[31m".into(), ..base() }),
            ("working_dir", ServiceSpec { working_dir: Some("".into()), ..base() }),
            (
                "environment",
                ServiceSpec { environment: [("A=B".into(), String::new())].into(), ..base() },
            ),
            (
                "health_check_timeout",
                ServiceSpec { health_check_timeout: Duration::ZERO, ..base() },
            ),
            ("shutdown_timeout", ServiceSpec { shutdown_timeout: Duration::MAX, ..base() }),
            ("restart_jitter", ServiceSpec { restart_jitter: Some(f64::NAN), ..base() }),
            (
                "capture.files",
                ServiceSpec {
                    capture: CaptureLimits { files: 1, ..CaptureLimits::default() },
                    ..base()
                },
            ),
            (
                "restart_policy.base_delay",
                ServiceSpec {
                    restart_policy: RestartPolicy::ExponentialBackoff {
                        base_delay: Duration::ZERO,
                        max_delay: Duration::ZERO,
                        max_attempts: 1,
                    },
                    ..base()
                },
            ),
        ];
        for (field, spec) in cases {
            assert_eq!(spec.validate().expect_err(field).field(), field);
        }
    }

    #[test]
    fn a_secret_value_never_reaches_an_error() {
        let spec = ServiceSpec {
            environment: [("KEY".into(), "hunter2\0".into())].into(),
            ..ServiceSpec::new("a", "b").unwrap()
        };
        assert!(!spec.validate().unwrap_err().to_string().contains("hunter2"));
    }
}

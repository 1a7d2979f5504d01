//! The whole model of a service.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::service::{health_check_timeout, shutdown_timeout};
use super::{
    CaptureLimits, ChannelBinding, Dependency, EnvironmentInheritance, Group, HostDeathPolicy,
    ProbeSpec, ResourceLimits, RestartIntensity, RestartOn, RestartPolicy, ServiceConfig, StopStep,
    check_duration, check_text,
};
use crate::error::ConfigError;
use crate::text::{duration_text, optional_duration_text};
use crate::{ServiceId, Signal};

/// Longest argument, program name or variable, in bytes (Linux's MAX_ARG_STRLEN).
pub(crate) const ARG_LEN_MAX: usize = 128 * 1024;
/// Most arguments, variables, dependencies or probes one service may have.
const ITEMS_MAX: usize = 4096;

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
    #[serde(
        default,
        with = "optional_duration_text",
        skip_serializing_if = "Option::is_none"
    )]
    #[cfg_attr(
        feature = "schema",
        schemars(with = "Option<crate::text::DurationText>")
    )]
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
            name: if config.name.is_empty() {
                config.id.clone()
            } else {
                config.name
            },
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
        if self.name.is_empty() {
            &self.id
        } else {
            &self.name
        }
    }

    /// Gives the random part of a restart delay that may be cut from it, 0.0 to 1.0.
    #[must_use]
    pub fn jitter(&self) -> f64 {
        let default = if matches!(
            self.restart_policy,
            RestartPolicy::ExponentialBackoff { .. }
        ) {
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
            vec![StopStep {
                signal: self.stop_signal,
                wait: self.shutdown_timeout,
            }]
        } else {
            self.stop_sequence.clone()
        }
    }

    /// Tells whether the value of the variable `name` must never be shown.
    #[must_use]
    pub fn is_secret(&self, name: &str) -> bool {
        self.secret_environment.iter().any(|secret| secret == name)
    }

    /// Checks every field; registering a service does this first.
    ///
    /// # Errors
    /// [`ConfigError`] naming the field, the value and what would be accepted. A retry does not help.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let id = self.service_id()?;
        if self.name.len() > 256 || self.name.contains(char::is_control) {
            return Err(ConfigError::invalid(
                "name",
                &self.name,
                "at most 256 bytes without control characters",
            ));
        }
        self.validate_program()?;
        self.validate_environment()?;
        let least = Duration::from_millis(1);
        check_duration("health_check_timeout", self.health_check_timeout, least)?;
        check_duration("shutdown_timeout", self.shutdown_timeout, Duration::ZERO)?;
        check_duration("stable_after", self.stable_after, Duration::ZERO)?;
        if let Some(pause) = self.half_open_after {
            check_duration("half_open_after", pause, least)?;
        }
        self.restart_policy.validate()?;
        self.restart_intensity.validate()?;
        if self
            .restart_jitter
            .is_some_and(|jitter| !(0.0..=1.0).contains(&jitter))
        {
            let given = self.restart_jitter.unwrap_or_default().to_string();
            return Err(ConfigError::invalid("restart_jitter", given, "0.0 to 1.0"));
        }
        self.limits.validate()?;
        self.capture.validate()?;
        self.validate_relations(&id)?;
        if let Some(channel) = &self.channel {
            channel.validate()?;
        }
        Ok(())
    }

    fn validate_program(&self) -> Result<(), ConfigError> {
        check_text("command", &self.command, ARG_LEN_MAX)?;
        if self.args.len() > ITEMS_MAX {
            return Err(ConfigError::invalid(
                "args",
                format!("{} items", self.args.len()),
                "at most 4096 arguments",
            ));
        }
        for argument in &self.args {
            if argument.contains('\0') || argument.len() > ARG_LEN_MAX {
                return Err(ConfigError::invalid(
                    "args",
                    argument,
                    "at most 128 KiB each, without NUL characters",
                ));
            }
        }
        if let Some(dir) = &self.working_dir {
            let shown = dir.to_string_lossy();
            if shown.is_empty() || shown.contains('\0') {
                return Err(ConfigError::invalid("working_dir", shown, "a directory"));
            }
        }
        Ok(())
    }

    fn validate_environment(&self) -> Result<(), ConfigError> {
        if self.environment.len() > ITEMS_MAX {
            return Err(ConfigError::invalid(
                "environment",
                format!("{} items", self.environment.len()),
                "at most 4096 variables",
            ));
        }
        let inherited = match &self.inherit_environment {
            EnvironmentInheritance::List(names) => names.as_slice(),
            _ => &[],
        };
        for name in self
            .environment
            .keys()
            .chain(&self.secret_environment)
            .chain(inherited)
        {
            if name.is_empty() || name.contains(['=', '\0']) || name.len() > ARG_LEN_MAX {
                return Err(ConfigError::invalid(
                    "environment",
                    name,
                    "variable names without = and NUL",
                ));
            }
        }
        for (name, value) in &self.environment {
            if value.contains('\0') || value.len() > ARG_LEN_MAX {
                // The value may be secret: only the name is repeated.
                return Err(ConfigError::invalid(
                    "environment",
                    name,
                    "values of at most 128 KiB without NUL characters",
                ));
            }
        }
        Ok(())
    }

    fn validate_relations(&self, id: &ServiceId) -> Result<(), ConfigError> {
        if self.depends_on.len() > ITEMS_MAX
            || self.probes.len() > 64
            || self.stop_sequence.len() > 16
        {
            return Err(ConfigError::invalid(
                "depends_on",
                format!(
                    "{} dependencies, {} probes, {} stop steps",
                    self.depends_on.len(),
                    self.probes.len(),
                    self.stop_sequence.len()
                ),
                "at most 4096 dependencies, 64 probes and 16 stop steps",
            ));
        }
        if self
            .depends_on
            .iter()
            .any(|dependency| dependency.id == *id)
        {
            return Err(ConfigError::DependencyCycle {
                cycle: vec![id.to_string(), id.to_string()],
            });
        }
        if let Some(group) = &self.group {
            check_text("group.name", &group.name, 64)?;
        }
        if self.stop_signal == Signal::Stop || self.stop_signal == Signal::Cont {
            return Err(ConfigError::invalid(
                "stop_signal",
                self.stop_signal.name(),
                "a signal that ends a process",
            ));
        }
        for (n, step) in self.stop_sequence.iter().enumerate() {
            check_duration(
                &format!("stop_sequence[{n}].wait"),
                step.wait,
                Duration::ZERO,
            )?;
        }
        for (n, probe) in self.probes.iter().enumerate() {
            probe
                .validate()
                .map_err(|error| error.within(&format!("probe[{n}]")))?;
        }
        Ok(())
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
            (
                "id",
                ServiceSpec {
                    id: "/".into(),
                    ..base()
                },
            ),
            (
                "command",
                ServiceSpec {
                    command: String::new(),
                    ..base()
                },
            ),
            (
                "args",
                ServiceSpec {
                    args: vec!["\0".into()],
                    ..base()
                },
            ),
            (
                "name",
                ServiceSpec {
                    name: "\u{1b}[31m".into(),
                    ..base()
                },
            ),
            (
                "working_dir",
                ServiceSpec {
                    working_dir: Some("".into()),
                    ..base()
                },
            ),
            (
                "environment",
                ServiceSpec {
                    environment: [("A=B".into(), String::new())].into(),
                    ..base()
                },
            ),
            (
                "health_check_timeout",
                ServiceSpec {
                    health_check_timeout: Duration::ZERO,
                    ..base()
                },
            ),
            (
                "shutdown_timeout",
                ServiceSpec {
                    shutdown_timeout: Duration::MAX,
                    ..base()
                },
            ),
            (
                "restart_jitter",
                ServiceSpec {
                    restart_jitter: Some(f64::NAN),
                    ..base()
                },
            ),
            (
                "capture.files",
                ServiceSpec {
                    capture: CaptureLimits {
                        files: 1,
                        ..CaptureLimits::default()
                    },
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

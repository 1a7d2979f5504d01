//! Checking a service field by field.

use std::time::Duration;

use super::spec::ARG_LEN_MAX;
use super::{EnvironmentInheritance, ServiceSpec, check_duration, check_text};
use crate::error::ConfigError;
use crate::{ServiceId, Signal};

/// Most arguments, variables or dependencies one service may have.
const ITEMS_MAX: usize = 4096;

impl ServiceSpec {
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
        if self.restart_jitter.is_some_and(|jitter| !(0.0..=1.0).contains(&jitter)) {
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
        for name in self.environment.keys().chain(&self.secret_environment).chain(inherited) {
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
        if self.depends_on.iter().any(|dependency| dependency.id == *id) {
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
            check_duration(&format!("stop_sequence[{n}].wait"), step.wait, Duration::ZERO)?;
        }
        for (n, probe) in self.probes.iter().enumerate() {
            probe.validate().map_err(|error| error.within(&format!("probe[{n}]")))?;
        }
        Ok(())
    }
}

//! Checking a service field by field.

use std::time::Duration;

use super::spec::ARG_LEN_MAX;
use super::{EnvironmentInheritance, ServiceSpec, check_duration, check_text};
use crate::error::ConfigError;
use crate::{ServiceId, Signal};

/// Most arguments, variables or dependencies one service may have.
const ITEMS_MAX: usize = 4096;
/// Most probes one service may have.
const PROBES_MAX: usize = 64;
/// Most steps of a stop.
const STOP_STEPS_MAX: usize = 16;
/// Most codes in a list of exit codes: there are no more.
const EXIT_CODES_MAX: usize = 256;
/// Longest name of a variable, in bytes.
const NAME_LEN_MAX: usize = 1024;
/// Longest path the system takes, in bytes (Linux's PATH_MAX without its NUL).
pub(super) const PATH_LEN_MAX: usize = 4095;
/// Names that start like this are the supervisor's own.
const RESERVED_PREFIX: &str = "IDE_SUPERVISOR_";

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
        self.validate_stop()?;
        if let Some(channel) = &self.channel {
            channel.validate()?;
        }
        Ok(())
    }

    fn validate_program(&self) -> Result<(), ConfigError> {
        check_text("command", &self.command, ARG_LEN_MAX)?;
        check_count("args", self.args.len(), ITEMS_MAX)?;
        for (n, argument) in self.args.iter().enumerate() {
            if argument.contains('\0') || argument.len() > ARG_LEN_MAX {
                // An argument may hold a secret: only its place is repeated.
                return Err(ConfigError::invalid(
                    "args",
                    format!("argument {n} of {} bytes", argument.len()),
                    "at most 128 KiB each, without NUL characters",
                ));
            }
        }
        if let Some(dir) = &self.working_dir {
            let shown = dir.to_string_lossy();
            if shown.is_empty() || shown.contains('\0') || shown.len() > PATH_LEN_MAX {
                return Err(ConfigError::invalid(
                    "working_dir",
                    shown,
                    "a directory, at most 4095 bytes without NUL characters",
                ));
            }
        }
        check_exit_codes("success_exit_codes", &self.success_exit_codes)?;
        check_exit_codes("permanent_exit_codes", &self.permanent_exit_codes)?;
        let both = self.permanent_exit_codes.iter().find(|it| self.success_exit_codes.contains(it));
        both.map_or(Ok(()), |code| {
            Err(ConfigError::invalid(
                "permanent_exit_codes",
                code.to_string(),
                "a code that is not in success_exit_codes too",
            ))
        })
    }

    fn validate_environment(&self) -> Result<(), ConfigError> {
        let inherited = match &self.inherit_environment {
            EnvironmentInheritance::List(names) => names.as_slice(),
            _ => &[],
        };
        check_count("environment", self.environment.len(), ITEMS_MAX)?;
        check_count("secret_environment", self.secret_environment.len(), ITEMS_MAX)?;
        check_count("inherit_environment", inherited.len(), ITEMS_MAX)?;
        self.environment.keys().try_for_each(|name| check_name("environment", name))?;
        let secret = &self.secret_environment;
        secret.iter().try_for_each(|name| check_name("secret_environment", name))?;
        inherited.iter().try_for_each(|name| check_name("inherit_environment", name))?;
        for (name, value) in &self.environment {
            if name.starts_with(RESERVED_PREFIX) {
                return Err(ConfigError::invalid(
                    "environment",
                    name,
                    "another name: those that start with IDE_SUPERVISOR_ are set by the supervisor",
                ));
            }
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
        check_count("depends_on", self.depends_on.len(), ITEMS_MAX)?;
        check_count("probe", self.probes.len(), PROBES_MAX)?;
        if self.depends_on.iter().any(|dependency| dependency.id == *id) {
            return Err(ConfigError::DependencyCycle {
                cycle: vec![id.to_string(), id.to_string()],
            });
        }
        if let Some(group) = &self.group {
            check_text("group.name", &group.name, 64)?;
            if group.name.contains(char::is_control) {
                return Err(ConfigError::invalid(
                    "group.name",
                    &group.name,
                    "text without control characters",
                ));
            }
        }
        for (n, probe) in self.probes.iter().enumerate() {
            probe.validate().map_err(|error| error.within(&format!("probe[{n}]")))?;
        }
        Ok(())
    }

    fn validate_stop(&self) -> Result<(), ConfigError> {
        check_count("stop_sequence", self.stop_sequence.len(), STOP_STEPS_MAX)?;
        let suspends = |signal| matches!(signal, Signal::Stop | Signal::Cont);
        let refused = |field: &str, signal: Signal, expected: &str| {
            Err(ConfigError::invalid(field, signal.name(), expected))
        };
        if suspends(self.stop_signal) {
            return refused("stop_signal", self.stop_signal, "a signal that ends a process");
        }
        if let Some(signal) = self.dump_signal
            && (suspends(signal) || signal == Signal::Kill)
        {
            return refused(
                "dump_signal",
                signal,
                "a signal a runtime can answer, such as SIGQUIT",
            );
        }
        for (n, step) in self.stop_sequence.iter().enumerate() {
            if step.signal == Signal::Stop {
                let field = format!("stop_sequence[{n}].signal");
                return refused(&field, step.signal, "a signal that does not suspend the service");
            }
            check_duration(&format!("stop_sequence[{n}].wait"), step.wait, Duration::ZERO)?;
        }
        Ok(())
    }
}

fn check_count(field: &str, count: usize, max: usize) -> Result<(), ConfigError> {
    if count <= max {
        return Ok(());
    }
    Err(ConfigError::invalid(field, format!("{count} items"), format!("at most {max}")))
}

/// Refuses what the system takes for no variable's name.
fn check_name(field: &str, name: &str) -> Result<(), ConfigError> {
    if !name.is_empty() && !name.contains(['=', '\0']) && name.len() <= NAME_LEN_MAX {
        return Ok(());
    }
    // Whoever wrote `NAME=value` here by mistake may have written a secret: only the name is repeated.
    let shown =
        name.split_once('=').map_or_else(|| name.to_owned(), |(name, _)| format!("{name}=…"));
    Err(ConfigError::invalid(field, shown, "variable names of 1 to 1024 bytes without = and NUL"))
}

fn check_exit_codes(field: &str, codes: &[i32]) -> Result<(), ConfigError> {
    check_count(field, codes.len(), EXIT_CODES_MAX)?;
    // Windows has all of 32 bits, the others what wait(2) reports.
    let possible = |code: &i32| cfg!(windows) || (0..=255).contains(code);
    match codes.iter().find(|code| !possible(code)) {
        Some(code) => {
            Err(ConfigError::invalid(field, code.to_string(), "exit codes from 0 to 255"))
        }
        None => Ok(()),
    }
}

//! What users configure: services, the supervisor, channel recovery.
//!
//! Every type is plain data with serde forms and a `validate` that names the field at fault.

mod channel;
mod dependency;
mod environment;
mod limits;
mod probe;
mod recovery;
mod restart;
mod service;
mod spec;
mod stop;
mod supervisor;
mod validate;

pub use channel::{ChannelBinding, FramingKind, TransportKind};
pub use dependency::{Dependency, DependencyCondition, Group, GroupStrategy, start_layers};
pub use environment::{BASE_ENVIRONMENT, BASE_ENVIRONMENT_PREFIXES, EnvironmentInheritance};
pub use limits::{BeyondLimit, CaptureLimits, ResourceLimits};
pub use probe::{ProbeKind, ProbeRole, ProbeSpec};
pub use recovery::{BackoffConfig, BreakerConfig, HeartbeatConfig, OverflowPolicy, RecoveryConfig};
pub use restart::{BeyondIntensity, RestartIntensity, RestartOn, RestartPolicy};
pub use service::ServiceConfig;
pub use spec::ServiceSpec;
pub use stop::{HostDeathPolicy, StopStep};
pub use supervisor::SupervisorConfig;

use std::time::Duration;

use crate::error::ConfigError;
use crate::text::{DURATION_MAX, format_duration};

/// Refuses a duration outside `min..=DURATION_MAX`, naming the field.
pub(crate) fn check_duration(
    field: &str,
    value: Duration,
    min: Duration,
) -> Result<(), ConfigError> {
    if value >= min && value <= DURATION_MAX {
        return Ok(());
    }
    Err(ConfigError::invalid(
        field,
        format_duration(value),
        format!("a duration from {:?} to \"365days\"", format_duration(min)),
    ))
}

/// Refuses text that is empty, too long, or holds a NUL character.
pub(crate) fn check_text(field: &str, value: &str, len_max: usize) -> Result<(), ConfigError> {
    if value.is_empty() || value.len() > len_max || value.contains('\0') {
        return Err(ConfigError::invalid(
            field,
            value,
            format!("1 to {len_max} bytes of text without NUL characters"),
        ));
    }
    Ok(())
}

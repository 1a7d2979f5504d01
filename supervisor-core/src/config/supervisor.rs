//! Settings of the supervisor itself.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::check_duration;
use crate::error::ConfigError;
use crate::text::duration_text;

/// Settings of the supervisor itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct SupervisorConfig {
    /// Services that may be up at once, 1 to 10,000; one more is refused.
    pub max_concurrent_services: usize,
    /// Default probe period.
    #[serde(with = "duration_text")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
    pub health_check_interval: Duration,
    /// Deadline of the whole shutdown, after which everything left is killed.
    #[serde(with = "duration_text")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
    pub global_shutdown_timeout: Duration,
    /// The database, relative to the state directory.
    pub database_path: PathBuf,
    /// Where checkpoint files go, relative to the state directory.
    pub checkpoint_dir: PathBuf,
    /// Debug-level tracing of every step.
    pub enable_detailed_logging: bool,
    /// Whether backups are taken by themselves.
    pub enable_auto_backup: bool,
    /// Time between two backups.
    #[serde(with = "duration_text")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
    pub backup_interval: Duration,
}

impl Default for SupervisorConfig {
    fn default() -> Self {
        Self {
            max_concurrent_services: 10,
            health_check_interval: Duration::from_secs(5),
            global_shutdown_timeout: Duration::from_secs(30),
            database_path: "supervisor.db".into(),
            checkpoint_dir: "checkpoints".into(),
            enable_detailed_logging: false,
            enable_auto_backup: true,
            backup_interval: Duration::from_secs(3600),
        }
    }
}

impl SupervisorConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] naming the field. A retry does not help.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !(1..=10_000).contains(&self.max_concurrent_services) {
            return Err(ConfigError::invalid(
                "max_concurrent_services",
                self.max_concurrent_services.to_string(),
                "1 to 10000",
            ));
        }
        check_duration(
            "health_check_interval",
            self.health_check_interval,
            Duration::from_millis(10),
        )?;
        check_duration(
            "global_shutdown_timeout",
            self.global_shutdown_timeout,
            Duration::from_millis(100),
        )?;
        check_duration("backup_interval", self.backup_interval, Duration::from_secs(1))?;
        for (field, path) in
            [("database_path", &self.database_path), ("checkpoint_dir", &self.checkpoint_dir)]
        {
            let inside =
                path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
            if path.as_os_str().is_empty() || !inside || path.to_string_lossy().contains('\0') {
                return Err(ConfigError::invalid(
                    field,
                    path.to_string_lossy(),
                    "a path below the state directory, without .. and without a leading slash",
                ));
            }
        }
        Ok(())
    }
}

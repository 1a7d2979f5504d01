//! How a service is stopped, and what becomes of it when the host dies.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Signal;
use crate::text::duration_text;

/// One step of a stop: a signal to the whole set, and how long to wait for it to be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StopStep {
    /// The signal.
    pub signal: Signal,
    /// How long to wait before the next step.
    #[serde(with = "duration_text")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
    pub wait: Duration,
}

/// What becomes of a service when the process that hosts the supervisor dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum HostDeathPolicy {
    /// The whole set is killed.
    #[default]
    Die,
    /// It runs on, and the next supervisor deals with it.
    Outlive,
}

//! Ceilings on what a service may use, and on what is kept of its output.

use serde::{Deserialize, Serialize};

use crate::error::ConfigError;
use crate::text::{ByteSize, CpuPercent};

/// What is done about a service that exceeds a ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum BeyondLimit {
    /// An event says so, nothing else.
    Report,
    /// Stopped and started again, the exit labelled with the ceiling.
    #[default]
    Restart,
    /// Stopped for good, with the ceiling as the reason.
    Fail,
}

/// Ceilings over the whole set of a service; absent means none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ResourceLimits {
    /// Resident memory of the set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Processor time of the set, in percent of one core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuPercent>,
    /// Open descriptors of each process (RLIMIT_NOFILE).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Size of a core dump (RLIMIT_CORE).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core_dump: Option<ByteSize>,
    /// Size of any file written (RLIMIT_FSIZE).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_size: Option<ByteSize>,
    /// Processes of the user (RLIMIT_NPROC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Niceness, -20 (served first) to 19 (served last); inherited when absent. A negative one takes a privilege
    /// (Linux: CAP_SYS_NICE or RLIMIT_NICE); where it is refused the service runs with what it inherited, and that is logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = -20, max = 19)))]
    pub nice: Option<i32>,
    /// Linux: how soon the kernel ends it for want of memory, -1000 (never) to 1000 (first); inherited when absent. Below
    /// what is inherited it takes CAP_SYS_RESOURCE; where it is refused the service runs with what it inherited, and that
    /// is logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = -1000, max = 1000)))]
    pub oom_score_adj: Option<i32>,
    /// What is done beyond `memory` or `cpu`.
    pub beyond: BeyondLimit,
}

impl ResourceLimits {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if self.memory.is_some_and(|memory| memory < ByteSize::mib(1)) {
            let given = self.memory.unwrap_or_default().to_string();
            return Err(ConfigError::invalid("limits.memory", given, "1MiB or more"));
        }
        if self.open_files.is_some_and(|files| files < 16) {
            let given = self.open_files.unwrap_or_default().to_string();
            return Err(ConfigError::invalid("limits.open_files", given, "16 or more"));
        }
        if self.cpu.is_some_and(|cpu| !(1..=102_400).contains(&cpu.0)) {
            let given = self.cpu.map(|cpu| cpu.to_string()).unwrap_or_default();
            return Err(ConfigError::invalid("limits.cpu", given, "1% to 102400%"));
        }
        if self.processes == Some(0) {
            return Err(ConfigError::invalid("limits.processes", "0", "1 or more"));
        }
        if let Some(nice) = self.nice.filter(|nice| !(-20..=19).contains(nice)) {
            return Err(ConfigError::invalid("limits.nice", nice.to_string(), "-20 to 19"));
        }
        if let Some(score) = self.oom_score_adj.filter(|score| !(-1000..=1000).contains(score)) {
            let given = score.to_string();
            return Err(ConfigError::invalid("limits.oom_score_adj", given, "-1000 to 1000"));
        }
        Ok(())
    }
}

/// What is kept of a service's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CaptureLimits {
    /// Bytes kept on disk over all files of the service, 64 KiB to 1 TiB.
    pub max_bytes: ByteSize,
    /// Files those bytes are spread over, 2 to 100.
    pub files: u32,
    /// Longest line kept whole, 256 bytes to 16 MiB; the rest of a longer one is dropped and marked.
    pub max_line: ByteSize,
    /// Bytes kept a second, 1 KiB or more; lines beyond are dropped, counted and marked. Absent means no cap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rate: Option<ByteSize>,
}

impl Default for CaptureLimits {
    fn default() -> Self {
        Self { max_bytes: ByteSize::mib(16), files: 4, max_line: ByteSize::kib(64), max_rate: None }
    }
}

impl CaptureLimits {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if !(ByteSize::kib(64)..=ByteSize::mib(1 << 20)).contains(&self.max_bytes) {
            return Err(ConfigError::invalid(
                "capture.max_bytes",
                self.max_bytes.to_string(),
                "64KiB to 1TiB",
            ));
        }
        if !(2..=100).contains(&self.files) {
            return Err(ConfigError::invalid("capture.files", self.files.to_string(), "2 to 100"));
        }
        if !(ByteSize(256)..=ByteSize::mib(16)).contains(&self.max_line) {
            return Err(ConfigError::invalid(
                "capture.max_line",
                self.max_line.to_string(),
                "256B to 16MiB",
            ));
        }
        if let Some(rate) = self.max_rate.filter(|rate| *rate < ByteSize::kib(1)) {
            return Err(ConfigError::invalid("capture.max_rate", rate.to_string(), "1KiB or more"));
        }
        Ok(())
    }
}

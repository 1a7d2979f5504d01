//! The section `plugins.supervisor-tauri` of `tauri.conf.json`.

use std::time::Duration;

use serde::Deserialize;
use supervisor_core::error::ConfigError;

use crate::batch::BatchLimits;

/// Bytes of events in one batch. At the bound the oldest are dropped and counted, as at the bound on their number:
/// a batch becomes one script that a web view evaluates.
pub(crate) const BATCH_BYTES_MAX: usize = 512 * 1024;

/// What an application may set under `plugins.supervisor-tauri`; the whole section may be absent.
///
/// ```json
/// { "plugins": { "supervisor-tauri": { "tick_ms": 250, "batch_max": 512 } } }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Milliseconds for which events are collected before they are sent as one batch: 50 to 2000, 200 when absent.
    #[serde(default)]
    pub tick_ms: Option<u64>,
    /// Most events in one batch: 1 to 4096, 256 when absent. At the bound the oldest are dropped and counted.
    #[serde(default)]
    pub batch_max: Option<usize>,
}

impl Settings {
    pub(crate) fn limits(&self) -> Result<BatchLimits, ConfigError> {
        let tick_ms = self.tick_ms.unwrap_or(200);
        if !(50..=2000).contains(&tick_ms) {
            return Err(ConfigError::invalid(
                "plugins.supervisor-tauri.tick_ms",
                tick_ms.to_string(),
                "50 to 2000 milliseconds",
            ));
        }
        let events_max = self.batch_max.unwrap_or(256);
        if !(1..=4096).contains(&events_max) {
            return Err(ConfigError::invalid(
                "plugins.supervisor-tauri.batch_max",
                events_max.to_string(),
                "1 to 4096 events",
            ));
        }
        Ok(BatchLimits {
            tick: Duration::from_millis(tick_ms),
            events_max,
            bytes_max: BATCH_BYTES_MAX,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_section_means_the_documented_defaults() {
        let limits = Settings::default().limits().unwrap();
        assert_eq!(limits.tick, Duration::from_millis(200));
        assert_eq!(limits.events_max, 256);
    }

    #[test]
    fn a_setting_out_of_range_is_named() {
        for (settings, field) in [
            (Settings { tick_ms: Some(0), batch_max: None }, "tick_ms"),
            (Settings { tick_ms: Some(u64::MAX), batch_max: None }, "tick_ms"),
            (Settings { tick_ms: None, batch_max: Some(0) }, "batch_max"),
            (Settings { tick_ms: None, batch_max: Some(4097) }, "batch_max"),
        ] {
            let error = settings.limits().unwrap_err();
            assert!(error.field().ends_with(field), "{error}");
        }
    }
}

//! When and how soon a service is restarted, and when to stop trying.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::check_duration;
use crate::error::ConfigError;
use crate::text::duration_text;

/// When and how soon a service that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum RestartPolicy {
    /// Never of itself.
    Never,
    /// At once, for ever (restart intensity still slows it down).
    Always,
    /// After the same delay every time, for ever.
    FixedDelay {
        /// The delay.
        #[serde(with = "duration_text")]
        #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
        delay: Duration,
    },
    /// After `min(base_delay * 2^attempt, max_delay)`, attempts counted from 0, and not at all after `max_attempts` in a row.
    ExponentialBackoff {
        /// Delay before the first restart.
        #[serde(with = "duration_text")]
        #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
        base_delay: Duration,
        /// Longest delay.
        #[serde(with = "duration_text")]
        #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
        max_delay: Duration,
        /// Restarts without a stable stretch between them before giving up.
        max_attempts: u32,
    },
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self::ExponentialBackoff {
            base_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(60),
            max_attempts: 5,
        }
    }
}

impl RestartPolicy {
    /// Gives the delay before restart number `attempt` (from 0), or nothing if the policy gives up there.
    ///
    /// Never overflows, and never falls as `attempt` grows.
    #[must_use]
    pub fn delay(&self, attempt: u32) -> Option<Duration> {
        match *self {
            Self::Never => None,
            Self::Always => Some(Duration::ZERO),
            Self::FixedDelay { delay } => Some(delay),
            Self::ExponentialBackoff { max_attempts, .. } if attempt >= max_attempts => None,
            Self::ExponentialBackoff { base_delay, max_delay, .. } => {
                let nanos = base_delay.as_nanos();
                // Shifting is exact while no set bit leaves the top; past that the delay exceeds every cap.
                let delay = if nanos == 0 {
                    Duration::ZERO
                } else if attempt < nanos.leading_zeros() {
                    let grown = nanos << attempt;
                    let subsec = u32::try_from(grown % 1_000_000_000).unwrap_or(0);
                    u64::try_from(grown / 1_000_000_000)
                        .map_or(Duration::MAX, |secs| Duration::new(secs, subsec))
                } else {
                    Duration::MAX
                };
                Some(delay.min(max_delay))
            }
        }
    }

    /// Tells whether the policy never gives up of itself.
    #[must_use]
    pub const fn endless(&self) -> bool {
        matches!(self, Self::Always | Self::FixedDelay { .. })
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        match *self {
            Self::Never | Self::Always => Ok(()),
            Self::FixedDelay { delay } => {
                check_duration("restart_policy.delay", delay, Duration::ZERO)
            }
            Self::ExponentialBackoff { base_delay, max_delay, max_attempts } => {
                check_duration("restart_policy.base_delay", base_delay, Duration::from_millis(1))?;
                check_duration("restart_policy.max_delay", max_delay, base_delay)?;
                if max_attempts == 0 {
                    return Err(ConfigError::invalid(
                        "restart_policy.max_attempts",
                        "0",
                        "1 or more; use { type = \"never\" } for no restart at all",
                    ));
                }
                Ok(())
            }
        }
    }
}

/// What happens to restarts beyond the restart intensity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum BeyondIntensity {
    /// Restarts go on, spaced by 1 s doubling to 30 s, until the service is stable.
    Slow,
    /// The service fails for good.
    GiveUp,
}

/// N restarts in a window before something else happens; `"unlimited"` for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum RestartIntensity {
    /// At most `max_restarts` in any `window`.
    Limited(LimitedIntensity),
    /// No limit.
    Unlimited(UnlimitedWord),
}

/// The word `unlimited`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum UnlimitedWord {
    /// No limit.
    Unlimited,
}

/// At most `max_restarts` in any `window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LimitedIntensity {
    /// Restarts allowed in the window, 0 to 10,000.
    #[serde(default = "default_max_restarts")]
    pub max_restarts: u32,
    /// Length of the window.
    #[serde(default = "default_window", with = "duration_text")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
    pub window: Duration,
    /// What happens beyond; by default `slow` for policies that never give up of themselves, else `give_up`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beyond: Option<BeyondIntensity>,
}

fn default_max_restarts() -> u32 {
    5
}

fn default_window() -> Duration {
    Duration::from_secs(180)
}

impl Default for RestartIntensity {
    /// 5 in 180 s, the number the language server protocol's own text suggests.
    fn default() -> Self {
        Self::limited(default_max_restarts(), default_window(), None)
    }
}

impl RestartIntensity {
    /// No limit.
    pub const UNLIMITED: Self = Self::Unlimited(UnlimitedWord::Unlimited);

    /// At most `max_restarts` in any `window`.
    #[must_use]
    pub const fn limited(
        max_restarts: u32,
        window: Duration,
        beyond: Option<BeyondIntensity>,
    ) -> Self {
        Self::Limited(LimitedIntensity { max_restarts, window, beyond })
    }

    /// Gives the limit, the window and what happens beyond for a service with `policy`; nothing if unlimited.
    #[must_use]
    pub fn resolve(&self, policy: &RestartPolicy) -> Option<(u32, Duration, BeyondIntensity)> {
        match self {
            Self::Unlimited(_) => None,
            Self::Limited(limited) => {
                let default =
                    if policy.endless() { BeyondIntensity::Slow } else { BeyondIntensity::GiveUp };
                Some((limited.max_restarts, limited.window, limited.beyond.unwrap_or(default)))
            }
        }
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let Self::Limited(limited) = self else {
            return Ok(());
        };
        check_duration("restart_intensity.window", limited.window, Duration::from_millis(1))?;
        if limited.max_restarts > 10_000 {
            return Err(ConfigError::invalid(
                "restart_intensity.max_restarts",
                limited.max_restarts.to_string(),
                "0 to 10000, or restart_intensity = \"unlimited\"",
            ));
        }
        Ok(())
    }
}

/// Which exits lead to a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RestartOn {
    /// Any exit nobody asked for.
    #[default]
    Any,
    /// Only exits that are failures (a signal, or a code outside `success_exit_codes`).
    Failure,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_from_attempt_zero_and_stops_at_the_cap() {
        let policy = RestartPolicy::ExponentialBackoff {
            base_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(1),
            max_attempts: 10,
        };
        let delays: Vec<_> = (0..6).map(|n| policy.delay(n).unwrap().as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(policy.delay(10), None);
    }

    #[test]
    fn backoff_never_overflows_or_falls() {
        for base in [1, 7, 1_000_000, u64::MAX] {
            let policy = RestartPolicy::ExponentialBackoff {
                base_delay: Duration::from_nanos(base),
                max_delay: Duration::MAX,
                max_attempts: u32::MAX,
            };
            let mut last = Duration::ZERO;
            for attempt in (0..300).chain([u32::MAX - 1]) {
                let delay = policy.delay(attempt).unwrap();
                assert!(delay >= last, "base {base} attempt {attempt}: {delay:?} after {last:?}");
                last = delay;
            }
        }
    }

    #[test]
    fn intensity_reads_both_of_its_forms() {
        let limited: RestartIntensity =
            serde_json::from_str(r#"{"max_restarts":3,"window":"1m"}"#).unwrap();
        assert_eq!(
            limited.resolve(&RestartPolicy::Always),
            Some((3, Duration::from_secs(60), BeyondIntensity::Slow))
        );
        assert_eq!(
            limited.resolve(&RestartPolicy::default()),
            Some((3, Duration::from_secs(60), BeyondIntensity::GiveUp))
        );
        let unlimited: RestartIntensity = serde_json::from_str(r#""unlimited""#).unwrap();
        assert_eq!(unlimited, RestartIntensity::UNLIMITED);
    }
}

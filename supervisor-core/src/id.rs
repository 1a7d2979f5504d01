//! Names and numbers that identify things: services, incarnations, generations, sequences.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::ConfigError;

/// Longest accepted [`ServiceId`], in characters.
pub const SERVICE_ID_LEN_MAX: usize = 64;

/// Names one service: 1-64 characters of `a-z A-Z 0-9 _ - .`, starting with a letter or digit.
///
/// The alphabet is narrow on purpose: an id becomes a file name, a log field, a channel name and a
/// cgroup name, and needs no escaping in any of them.
///
/// ```
/// use supervisor_core::ServiceId;
/// let id: ServiceId = "model_manager".parse()?;
/// assert_eq!(id.as_str(), "model_manager");
/// assert!("../etc".parse::<ServiceId>().is_err());
/// # Ok::<(), supervisor_core::error::ConfigError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct ServiceId(
    #[cfg_attr(
        feature = "schema",
        schemars(regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$"))
    )]
    String,
);

impl ServiceId {
    /// Accepts a valid id.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for field `id` when the text is empty, too long, starts with a
    /// punctuation character or holds any other character. A retry does not help.
    pub fn new(text: impl Into<String>) -> Result<Self, ConfigError> {
        let text = text.into();
        let valid = !text.is_empty()
            && text.len() <= SERVICE_ID_LEN_MAX
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
        if valid {
            return Ok(Self(text));
        }
        Err(ConfigError::invalid(
            "id",
            &text,
            "1-64 characters of a-z A-Z 0-9 _ - . starting with a letter or digit",
        ))
    }

    /// Gives the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for ServiceId {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl TryFrom<String> for ServiceId {
    type Error = ConfigError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text)
    }
}

impl From<ServiceId> for String {
    fn from(id: ServiceId) -> Self {
        id.0
    }
}

impl AsRef<str> for ServiceId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ServiceId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The number before the first one ever given out.
            pub const ZERO: Self = Self(0);

            /// Gives the number after this one; stays at the top rather than wrapping.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }

            /// Gives the bare number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

counter! {
    /// Numbers the runs of one service.
    ///
    /// **Invariant:** only grows, across supervisor restarts too. Every exit, probe result and timer
    /// carries it, and one that carries another number than the current is inert.
    Incarnation
}
counter! {
    /// Counts the successful connections of one channel, starting at 1.
    ///
    /// **Invariant:** a reply that belongs to one generation can never complete a request of another.
    Generation
}
counter! {
    /// Orders journal rows, events and audit rows. Wall-clock time never does.
    Sequence
}
counter! {
    /// Ties one command given to a service to its one reply.
    CommandId
}

/// Names one checkpoint or savepoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CheckpointId(pub Uuid);

impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for CheckpointId {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self).map_err(|_| {
            ConfigError::invalid(
                "checkpoint",
                text,
                "a checkpoint id such as `checkpoint list` prints",
            )
        })
    }
}

/// Makes a version-7 id (time-ordered) out of a wall-clock time and random bits that the caller supplies.
///
/// Core has neither a clock nor a source of randomness, so both are arguments.
#[must_use]
pub fn time_ordered_id(at: chrono::DateTime<chrono::Utc>, random: [u64; 2]) -> Uuid {
    let millis = u64::try_from(at.timestamp_millis()).unwrap_or(0);
    let mut bytes = [0_u8; 10];
    bytes[..8].copy_from_slice(&random[0].to_le_bytes());
    bytes[8..].copy_from_slice(&random[1].to_le_bytes()[..2]);
    uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_at_the_edges_of_the_alphabet_are_judged() {
        for good in ["a", "0", "a.b-c_D", &"x".repeat(64)] {
            assert!(ServiceId::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "_a", "a b", "a/b", "ä", "a\0", &"x".repeat(65)] {
            let error = ServiceId::new(bad).expect_err(bad);
            assert_eq!(error.field(), "id");
        }
    }

    #[test]
    fn ids_made_later_sort_later() {
        let at = chrono::DateTime::from_timestamp_millis(1_000).unwrap();
        let later = chrono::DateTime::from_timestamp_millis(1_001).unwrap();
        assert!(time_ordered_id(at, [u64::MAX; 2]) < time_ordered_id(later, [0; 2]));
    }
}

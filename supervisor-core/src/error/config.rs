//! What is wrong with a configuration value, and what would be accepted.

use super::{Classified, ErrorClass};

/// Longest piece of a refused value that an error repeats, in characters.
///
/// A refused value may be megabytes of noise; the point of repeating it is to be recognised.
const VALUE_SHOWN_MAX: usize = 80;

/// A configuration value that was refused; nothing was changed. A retry does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A field holds a value outside what is accepted.
    #[error("invalid {field} {value:?}: expected {expected}")]
    Invalid {
        /// Path of the field, such as `restart_policy.base_delay`.
        field: String,
        /// The value as given, shortened.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// Two services have the same id.
    #[error("duplicate id {id:?}: every service needs an id of its own")]
    DuplicateId {
        /// The id given twice.
        id: String,
    },
    /// A service depends on one that does not exist.
    #[error("depends_on of {id:?} names {missing:?}, which is no service here")]
    UnknownDependency {
        /// The service with the dependency.
        id: String,
        /// The id nobody has.
        missing: String,
    },
    /// Services depend on each other in a circle.
    #[error("dependency cycle: {}", cycle.join(" -> "))]
    DependencyCycle {
        /// The ids along the circle, the first repeated at the end.
        cycle: Vec<String>,
    },
}

impl ConfigError {
    /// Says that `field` holds `value` where `expected` was wanted; a long value is shortened.
    #[must_use]
    pub fn invalid(
        field: impl Into<String>,
        value: impl AsRef<str>,
        expected: impl Into<String>,
    ) -> Self {
        let value = value.as_ref();
        let mut shown: String = value.chars().take(VALUE_SHOWN_MAX).collect();
        if shown.len() < value.len() {
            shown.push('…');
        }
        Self::Invalid { field: field.into(), value: shown, expected: expected.into() }
    }

    /// Gives the path of the field at fault.
    #[must_use]
    pub fn field(&self) -> &str {
        match self {
            Self::Invalid { field, .. } => field,
            Self::DuplicateId { .. } => "id",
            Self::UnknownDependency { .. } | Self::DependencyCycle { .. } => "depends_on",
        }
    }

    /// Puts `prefix.` before the path of the field, for a value inside a larger one.
    #[must_use]
    pub fn within(self, prefix: &str) -> Self {
        match self {
            Self::Invalid { field, value, expected } => {
                Self::Invalid { field: format!("{prefix}.{field}"), value, expected }
            }
            other => other,
        }
    }
}

impl Classified for ConfigError {
    fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "config_invalid",
            Self::DuplicateId { .. } => "config_duplicate_id",
            Self::UnknownDependency { .. } => "config_unknown_dependency",
            Self::DependencyCycle { .. } => "config_dependency_cycle",
        }
    }

    fn class(&self) -> ErrorClass {
        ErrorClass::Permanent
    }
}

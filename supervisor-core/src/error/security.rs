//! What was refused because it came from outside and could do harm.

use super::{Classified, ErrorClass};

/// Input that was refused; nothing was done with it. A retry does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecurityError {
    /// A path leaves its root, names a device, holds a NUL or uses a reserved name.
    #[error("path {path:?} refused: {reason}")]
    Path {
        /// The path as given, shortened.
        path: String,
        /// Which rule it broke.
        reason: String,
    },
    /// An argument from a web page or socket peer is outside what is accepted.
    #[error("argument {argument} refused: {reason}")]
    Input {
        /// The argument's name.
        argument: String,
        /// Which rule it broke.
        reason: String,
    },
    /// A file or directory has an owner or mode that others could abuse.
    #[error("{subject} refused: {reason}")]
    Ownership {
        /// The file or directory.
        subject: String,
        /// What is wrong, with the way out.
        reason: String,
    },
    /// The peer of a control socket is not allowed.
    #[error("peer refused: {reason}")]
    Peer {
        /// Why.
        reason: String,
    },
    /// The caller may not do this.
    #[error("{action} is not permitted: {reason}")]
    NotPermitted {
        /// What was asked for.
        action: String,
        /// Why, with the way out.
        reason: String,
    },
}

impl Classified for SecurityError {
    fn code(&self) -> &'static str {
        match self {
            Self::Path { .. } => "security_path",
            Self::Input { .. } => "security_input",
            Self::Ownership { .. } => "security_ownership",
            Self::Peer { .. } => "security_peer",
            Self::NotPermitted { .. } => "security_not_permitted",
        }
    }

    fn class(&self) -> ErrorClass {
        ErrorClass::Permanent
    }
}

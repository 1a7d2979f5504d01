//! Where a start can fail.

/// What could not be done between fork and exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    /// No process could be made.
    Fork = 0,
    /// The working directory could not be entered.
    WorkingDir = 1,
    /// A descriptor could not be put in its place.
    Descriptors = 2,
    /// A resource limit was refused.
    Limit = 3,
    /// The program could not be executed.
    Exec = 4,
}

impl Step {
    /// Gives the step with this number.
    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Fork,
            1 => Self::WorkingDir,
            2 => Self::Descriptors,
            3 => Self::Limit,
            4 => Self::Exec,
            _ => return None,
        })
    }
}

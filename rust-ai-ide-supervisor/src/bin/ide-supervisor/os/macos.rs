//! macOS: what the system offers for watching and containing processes.

use crate::commands::doctor::Check;

/// Says what contains a set here; there is nothing to find out.
pub(super) fn kernel_checks() -> Vec<Check> {
    vec![
        Check::ok("process ends", "deaths are reported by the kernel"),
        Check::ok(
            "containment",
            "group, session, living parents and marks; what leaves all of them is not found, nor are the marks of the \
             system's own programs",
        ),
    ]
}

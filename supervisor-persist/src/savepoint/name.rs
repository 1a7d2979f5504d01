//! Names of savepoints, which become names of files on every system.

use supervisor_core::error::DatabaseError;

/// Longest name, in characters.
const LENGTH_MAX: usize = 64;

/// Accepts a name: 1-64 characters of `a-z A-Z 0-9 _ - .`, beginning with a letter or digit, not ending with a dot,
/// and none that Windows reserves for a device.
pub(super) fn judge(name: &str) -> Result<(), DatabaseError> {
    let refused = |reason: &str| {
        let shown: String = name.chars().filter(|c| !c.is_control()).take(LENGTH_MAX).collect();
        Err(DatabaseError::Refused {
            subject: format!("savepoint name {shown:?}"),
            reason: format!(
                "{reason}; use 1 to {LENGTH_MAX} of a-z A-Z 0-9 _ - . beginning with a letter or digit"
            ),
        })
    };
    if name.is_empty() {
        return refused("it is empty");
    }
    if name.len() > LENGTH_MAX {
        return refused("it is too long");
    }
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return refused("it begins with something else than a letter or digit");
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')) {
        return refused("it holds another character");
    }
    if name.ends_with('.') {
        return refused("it ends with a dot, which other systems drop");
    }
    if crate::paths::is_reserved(name) {
        return refused("it is reserved for a device on other systems");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_leave_its_directory_or_mean_something_else_is_refused() {
        for bad in [
            "",
            ".",
            "..",
            "...",
            "a/b",
            "../a",
            "a\\b",
            "/a",
            "a\0b",
            "a\nb",
            "CON",
            "nul",
            "nul.txt",
            "Com1.a",
            "lpt9",
            "a.",
            "a ",
            " a",
            "-a",
            ".a",
            "ä",
            "a\u{202e}b",
            "a:b",
            "ａ",
            "e\u{301}",
            &"x".repeat(65),
        ] {
            assert!(judge(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["a", "before-upgrade", "v1.2_rc", "2026-11-23", "console", &"x".repeat(64)] {
            assert!(judge(good).is_ok(), "{good:?} was refused");
        }
    }
}

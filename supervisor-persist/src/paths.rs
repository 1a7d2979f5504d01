//! Judging paths that come from outside.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use supervisor_core::error::SecurityError;

/// Names Windows reserves for devices, whatever their ending; the digits of ports may be superscript too.
const RESERVED: [&str; 31] = [
    "con", "prn", "aux", "nul", "clock$", "conin$", "conout$", "com1", "com2", "com3", "com4",
    "com5", "com6", "com7", "com8", "com9", "com¹", "com²", "com³", "lpt1", "lpt2", "lpt3", "lpt4",
    "lpt5", "lpt6", "lpt7", "lpt8", "lpt9", "lpt¹", "lpt²", "lpt³",
];
/// Longest path that is looked at, in bytes.
const PATH_MAX: usize = 4096;

/// Gives the real place of `path` if it lies below one of `roots` and names nothing that could do harm.
///
/// A relative path is taken from the first root. What does not exist yet is judged by its nearest existing parent.
/// Links are followed here, so what is returned holds none: open that, not the path that came in.
///
/// # Errors
/// [`SecurityError::Path`] naming the rule that was broken. A retry does not help.
///
/// # Platform
/// Names reserved on Windows are refused everywhere, so that what is written on one system can be read on another.
pub fn validate_secure_path(
    path: impl AsRef<Path>,
    roots: &[PathBuf],
) -> Result<PathBuf, SecurityError> {
    let path = path.as_ref();
    let refused = |reason: &str| {
        let shown = path.to_string_lossy();
        let path = shown.chars().filter(|c| !c.is_control()).take(120).collect();
        SecurityError::Path { path, reason: reason.to_owned() }
    };
    judge_text(path).map_err(refused)?;
    let first = roots.first().ok_or_else(|| refused("no root is allowed"))?;
    let whole = if path.is_absolute() { path.to_owned() } else { first.join(path) };
    let real = resolve(&whole).map_err(refused)?;
    let there: Vec<_> = roots.iter().filter_map(|root| std::fs::canonicalize(root).ok()).collect();
    if there.is_empty() {
        return Err(refused("the directory it would have to be in does not exist"));
    }
    if !there.iter().any(|root| real.starts_with(root)) {
        return Err(refused("it lies outside of the allowed directories"));
    }
    match std::fs::symlink_metadata(&real) {
        Ok(found) if !found.is_file() && !found.is_dir() => {
            Err(refused("it is a device, a pipe or a socket"))
        }
        _ => Ok(real),
    }
}

fn judge_text(path: &Path) -> Result<(), &'static str> {
    let bytes = path.as_os_str().as_encoded_bytes();
    if bytes.is_empty() {
        return Err("it is empty");
    }
    if bytes.len() > PATH_MAX {
        return Err("it is longer than 4096 bytes");
    }
    if bytes.contains(&0) {
        return Err("it holds a NUL character");
    }
    let Some(text) = path.to_str() else {
        return Err("it is not UTF-8");
    };
    if text.chars().any(char::is_control) {
        return Err("it holds a control character");
    }
    if text.chars().any(is_invisible) {
        return Err("it holds a character that is not seen or turns the text around");
    }
    if text.chars().any(is_lookalike) {
        return Err("it holds a character that looks like a separator or a dot");
    }
    if text.contains('\\') && !cfg!(windows) {
        return Err("it holds a backslash, a separator on other systems");
    }
    for component in path.components() {
        match component {
            Component::ParentDir => return Err("it holds .."),
            Component::Normal(name) => judge_name(name)?,
            _ => {}
        }
    }
    // `components` leaves these out without a word.
    if text.split('/').any(|part| part == ".") {
        return Err("it holds a . segment");
    }
    Ok(())
}

/// Characters that are not seen, join or turn what is around them; some file systems drop them.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Characters that are shown, or folded by some systems, as a separator, a dot or a colon.
fn is_lookalike(c: char) -> bool {
    matches!(
        c,
        '\u{2024}'
            ..='\u{2026}'
                | '\u{2044}'
                | '\u{2215}'
                | '\u{2216}'
                | '\u{29f5}'
                | '\u{29f8}'
                | '\u{29f9}'
                | '\u{a789}'
                | '\u{fe52}'
                | '\u{fe55}'
                | '\u{fe68}'
                | '\u{ff0e}'
                | '\u{ff0f}'
                | '\u{ff1a}'
                | '\u{ff3c}'
    )
}

/// Tells whether a name stands for a device on Windows, whatever its case and its ending.
pub(crate) fn is_reserved(name: &str) -> bool {
    let text = name.to_lowercase();
    let stem = text.split('.').next().unwrap_or_default().trim_end();
    RESERVED.contains(&stem)
}

fn judge_name(name: &OsStr) -> Result<(), &'static str> {
    let text = name.to_str().unwrap_or_default();
    if is_reserved(text) {
        return Err("it uses a name reserved for a device");
    }
    if text.ends_with(' ') || text.ends_with('.') {
        return Err("a name ends with a space or a dot, which other systems drop");
    }
    if text.contains(':') {
        return Err("a name holds a colon, which other systems read as a stream or drive");
    }
    Ok(())
}

/// Follows links as far as the path exists and joins the rest, which then holds no link.
fn resolve(path: &Path) -> Result<PathBuf, &'static str> {
    let mut missing = Vec::new();
    let mut existing = path;
    loop {
        if let Ok(real) = std::fs::canonicalize(existing) {
            return Ok(missing.iter().rev().fold(real, |path, name| path.join(name)));
        }
        if std::fs::symlink_metadata(existing).is_ok() {
            return Err("it is a link that leads nowhere");
        }
        let (Some(parent), Some(name)) = (existing.parent(), existing.file_name()) else {
            return Err("no part of it exists");
        };
        missing.push(name);
        existing = parent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_do_harm_is_refused_by_rule() {
        let root = tempfile::tempdir().unwrap();
        let roots = [root.path().to_owned()];
        for bad in [
            "",
            "..",
            "a/../b",
            "../a",
            "/etc/passwd",
            "a\0b",
            "a\nb",
            "CON",
            "nul.txt",
            "a/com1",
            "a ",
            "a.",
            "c:x",
            "a\\..\\b",
            "./a",
            "a/./b",
            &"x".repeat(5000),
        ] {
            assert!(validate_secure_path(bad, &roots).is_err(), "{bad:?} was accepted");
        }
        for good in ["a", "a/b.json", "checkpoints/one", "console"] {
            assert!(validate_secure_path(good, &roots).is_ok(), "{good:?} was refused");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_out_of_the_root_is_refused_and_one_inside_is_followed() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let roots = [root.path().to_owned()];
        std::fs::write(root.path().join("real"), "").unwrap();
        symlink(outside.path(), root.path().join("out")).unwrap();
        symlink(root.path().join("real"), root.path().join("in")).unwrap();
        symlink("/nowhere/at/all", root.path().join("dangling")).unwrap();
        assert!(validate_secure_path("out/file", &roots).is_err());
        assert!(validate_secure_path("dangling", &roots).is_err());
        let real = std::fs::canonicalize(root.path()).unwrap().join("real");
        assert_eq!(validate_secure_path("in", &roots).unwrap(), real);
    }
}

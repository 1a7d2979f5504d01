//! Rules for Rust files.

use super::Violation;
use super::source::{Source, has_token};

/// Above this a file says in its module doc why it is one file.
const LINES_MAX: usize = 500;

const README_DOC: &str = "#![doc = include_str!(";

/// Checks one Rust file; `path` is relative to the root, with forward slashes.
pub(crate) fn check(path: &str, text: &str) -> Vec<Violation> {
    let source = Source::new(text);
    let mut found = Vec::new();
    found.extend(module_doc(path, &source));
    found.extend(size(path, &source));
    found.extend(unfinished(path, &source));
    found.extend(silenced(path, &source));
    found.extend(ignored(path, &source));
    found.extend(unsafe_place(path, &source));
    found.extend(sleeping_test(path, &source));
    found
}

fn module_doc(path: &str, source: &Source<'_>) -> Option<Violation> {
    // A crate whose README is its doc opens with that line instead.
    let documented = !source.module_doc().is_empty() || source.text.starts_with(README_DOC);
    let message = "a file opens with a `//!` module doc that says what it is for";
    (!documented).then(|| Violation::new(path, 1, "module-doc", message))
}

fn size(path: &str, source: &Source<'_>) -> Option<Violation> {
    let lines = source.text.lines().count();
    let explained = source.module_doc().contains("Size:");
    let message =
        format!("{lines} lines: split it, or say why not after `Size:` in the module doc");
    (lines > LINES_MAX && !explained).then(|| Violation::new(path, 1, "size", message))
}

fn unfinished(path: &str, source: &Source<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for (line, _, code) in source.lines() {
        for token in ["todo!", "unimplemented!", "dbg!"] {
            if has_token(code, token) {
                found.push(Violation::new(path, line, "unfinished", format!("`{token}` is left")));
            }
        }
    }
    found
}

fn silenced(path: &str, source: &Source<'_>) -> Vec<Violation> {
    let message = "use `#[expect(lint, reason = \"...\")]`: it is removed when it stops being true";
    let is_attribute = |code: &str| code.contains("#[") || code.contains("#![");
    let lines = source.lines();
    let found = lines.filter(|(_, _, code)| is_attribute(code) && has_token(code, "allow("));
    found.map(|(line, _, _)| Violation::new(path, line, "no-allow", message)).collect()
}

fn ignored(path: &str, source: &Source<'_>) -> Vec<Violation> {
    let message = "an ignored test says why: `#[ignore = \"reason\"]`";
    let found = source.lines().filter(|(_, _, code)| code.contains("#[ignore]"));
    found.map(|(line, _, _)| Violation::new(path, line, "ignored", message)).collect()
}

fn unsafe_place(path: &str, source: &Source<'_>) -> Vec<Violation> {
    if path.split('/').any(|part| part == "os" || part == "os.rs") {
        return Vec::new();
    }
    let tokens =
        ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "unsafe trait", "unsafe("];
    let lines = source.lines();
    let found = lines.filter(|(_, _, code)| tokens.iter().any(|token| has_token(code, token)));
    let message = "unsafe code belongs in the crate's `os` module";
    found.map(|(line, _, _)| Violation::new(path, line, "unsafe-place", message)).collect()
}

fn sleeping_test(path: &str, source: &Source<'_>) -> Vec<Violation> {
    if !path.split('/').any(|part| part == "tests") {
        return Vec::new();
    }
    let sleeps = |code: &str| code.contains("thread::sleep(") || code.contains("time::sleep(");
    let unexplained = |line: usize| !source.explained_by(line, "// poll:");
    let lines = source.lines();
    let found = lines.filter(|(line, _, code)| sleeps(code) && unexplained(*line));
    let message =
        "a fixed sleep: poll a condition (and say so in a `// poll:` comment), or pause time";
    found.map(|(line, _, _)| Violation::new(path, line, "sleeping-test", message)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOC: &str = "//! What it is for.\n";

    fn rules(path: &str, body: &str) -> Vec<&'static str> {
        let found = check(path, &format!("{DOC}{body}"));
        found.into_iter().map(|violation| violation.rule).collect()
    }

    #[test]
    fn a_clean_file_passes() {
        assert!(rules("a/src/lib.rs", "pub fn f() {}\n").is_empty());
    }

    #[test]
    fn a_file_without_a_module_doc_is_found() {
        let found = check("a/src/lib.rs", "use std::io;\n");
        assert_eq!(found.first().map(|violation| violation.rule), Some("module-doc"));
    }

    #[test]
    fn a_long_file_needs_a_reason() {
        let long = "fn f() {}\n".repeat(LINES_MAX);
        assert_eq!(rules("a/src/lib.rs", &long), ["size"]);
        assert!(rules("a/src/lib.rs", &format!("//! Size: one table.\n{long}")).is_empty());
    }

    #[test]
    fn unfinished_code_is_found_but_not_the_word() {
        assert_eq!(rules("a/src/lib.rs", "fn f() { todo!() }\n"), ["unfinished"]);
        assert_eq!(rules("a/src/lib.rs", "fn f() { unimplemented!() }\n"), ["unfinished"]);
        assert_eq!(rules("a/src/lib.rs", "fn f() { dbg!(1); }\n"), ["unfinished"]);
        assert!(rules("a/src/lib.rs", "// no todo!() here\nfn f() {}\n").is_empty());
    }

    #[test]
    fn allow_attributes_are_found_in_every_form() {
        for attribute in ["#[allow(dead_code)]", "#![allow(x)]", "#[cfg_attr(test, allow(x))]"] {
            assert_eq!(rules("a/src/lib.rs", &format!("{attribute}\nfn f() {{}}\n")), ["no-allow"]);
        }
        assert!(rules("a/src/lib.rs", "fn f() { allow(1); }\n").is_empty());
    }

    #[test]
    fn an_ignored_test_needs_a_reason() {
        assert_eq!(rules("a/tests/x.rs", "#[test]\n#[ignore]\nfn f() {}\n"), ["ignored"]);
        assert!(rules("a/tests/x.rs", "#[ignore = \"slow\"]\nfn f() {}\n").is_empty());
    }

    #[test]
    fn unsafe_code_is_found_outside_os() {
        let body = "fn f() { unsafe { g() } }\n";
        assert_eq!(rules("a/src/spawn.rs", body), ["unsafe-place"]);
        assert_eq!(rules("a/src/most/x.rs", "unsafe impl Send for X {}\n"), ["unsafe-place"]);
        assert!(rules("a/src/os/linux.rs", body).is_empty());
        assert!(rules("a/src/os.rs", body).is_empty());
    }

    #[test]
    fn a_sleep_in_a_test_needs_to_be_a_poll() {
        let sleep = "fn f() { tokio::time::sleep(d).await; }\n";
        assert_eq!(rules("a/tests/x.rs", sleep), ["sleeping-test"]);
        assert_eq!(
            rules("a/tests/common/mod.rs", "fn f() { thread::sleep(d); }\n"),
            ["sleeping-test"]
        );
        assert!(
            rules("a/tests/x.rs", &format!("// poll: every 10 ms,\n// at most 5 s.\n{sleep}"))
                .is_empty()
        );
        assert!(rules("a/src/x.rs", sleep).is_empty());
    }
}

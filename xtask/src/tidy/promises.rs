//! A promise in a table names the test that would fail; the test has to be there.

use std::collections::BTreeSet;

use super::Violation;

/// Words a name has at least before it is taken for a test's sentence and not for a command or a field.
const WORDS_MIN: usize = 5;

/// Adds the functions that a Rust file defines.
pub(crate) fn collect(text: &str, functions: &mut BTreeSet<String>) {
    for rest in text.split("fn ").skip(1) {
        let end = rest.find(|c: char| !is_name(c)).unwrap_or(rest.len());
        functions.insert(rest[..end].to_owned());
    }
}

/// Finds tests that a table of a Markdown file names and no Rust file has.
pub(crate) fn check(path: &str, text: &str, functions: &BTreeSet<String>) -> Vec<Violation> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| line.starts_with('|')) {
        for name in line.split('`').skip(1).step_by(2).filter(|name| is_sentence(name)) {
            if !functions.contains(name) {
                let message = format!("no test is named `{name}`");
                found.push(Violation::new(path, index + 1, "promise", message));
            }
        }
    }
    found
}

fn is_name(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
}

fn is_sentence(name: &str) -> bool {
    name.chars().all(is_name) && name.split('_').count() >= WORDS_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_names_a_test_nobody_wrote_is_found() {
        let mut functions = BTreeSet::new();
        collect("async fn a_kill_loses_nothing_at_all() {}\n", &mut functions);
        let text =
            "| kept | `a_kill_loses_nothing_at_all` |\n| lost | `a_kill_loses_what_it_likes` |\n";
        let lines: Vec<usize> =
            check("README.md", text, &functions).iter().map(|violation| violation.line).collect();
        assert_eq!(lines, [2]);
    }

    #[test]
    fn commands_fields_and_prose_are_no_tests() {
        let text = "| `get_supervisor_health` | `Some_Type_With_Five_Words` |\nsee `not_in_any_table_at_all`\n";
        assert!(check("README.md", text, &BTreeSet::new()).is_empty());
    }
}

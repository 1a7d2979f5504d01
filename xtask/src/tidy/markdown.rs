//! Rules for Markdown files.

use std::path::Path;

use super::Violation;

/// Finds links to files that are not there; `file` is where `text` was read from.
pub(crate) fn check(path: &str, file: &Path, text: &str) -> Vec<Violation> {
    let directory = file.parent().unwrap_or(file);
    let mut found = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for target in targets(line) {
            if !directory.join(target).exists() {
                let message = format!("a link to `{target}`, which is not there");
                found.push(Violation::new(path, index + 1, "link", message));
            }
        }
    }
    found
}

/// The files a line links to, without anchors; addresses and links inside the page are not files.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    let links = line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ', '#']).next());
    links.filter(|target| !target.is_empty() && !target.contains(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<usize> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("there.md"), "").unwrap();
        let violations = check("README.md", &directory.path().join("README.md"), text);
        violations.into_iter().map(|violation| violation.line).collect()
    }

    #[test]
    fn links_to_missing_files_are_found() {
        assert_eq!(found("[a](there.md), [b](gone.md)\n[c](there.md#part)\n[d](gone/)\n"), [1, 3]);
    }

    #[test]
    fn addresses_anchors_and_code_are_not_files() {
        assert!(found("[a](https://docs.rs) [b](#part) [c](mailto:x@y)\n").is_empty());
        assert!(found("```\na[0](x)\n```\n").is_empty());
    }
}

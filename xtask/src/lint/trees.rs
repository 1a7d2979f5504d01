//! What must not be reachable from a crate, read off `cargo tree`.
//!
//! The tree of one selected package is resolved as cargo would build that package alone, so a
//! feature that another member switches on does not blur the answer.

use std::path::Path;

use anyhow::bail;

use crate::shell::Cmd;

/// A package of a tree, with the features that are on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    name: String,
    features: Vec<String>,
}

/// The core decides and never acts: no runtime, no database, no window, no operating system.
const CORE_FORBIDDEN: [&str; 8] =
    ["tokio", "rusqlite", "tauri", "mio", "libc", "rustix", "windows-sys", "getrandom"];

/// Features through which chrono asks for the time. In the core, time is an argument.
const CLOCK_FEATURES: [&str; 3] = ["clock", "now", "wasmbind"];

pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let mut found = Vec::new();
    for flags in [&[][..], &["--all-features"][..]] {
        let nodes = tree(root, "supervisor-core", flags)?;
        found.extend(core_violations(&nodes).iter().map(|what| {
            format!("supervisor-core {}: {what}", flags.first().unwrap_or(&"(default features)"))
        }));
    }
    let nodes = tree(root, "rust-ai-ide-supervisor", &[])?;
    found.extend(forbidden(&nodes, &["mockall"]).iter().map(|name| {
        format!("rust-ai-ide-supervisor: the shipped program reaches {name}, a test library")
    }));
    if !found.is_empty() {
        found.dedup();
        bail!("dependency trees (see: cargo tree -p CRATE -e normal):\n  {}", found.join("\n  "));
    }
    Ok(())
}

fn core_violations(nodes: &[Node]) -> Vec<String> {
    let reached = forbidden(nodes, &CORE_FORBIDDEN);
    let mut found: Vec<String> = reached.iter().map(|name| format!("reaches {name}")).collect();
    for node in nodes.iter().filter(|node| node.name == "chrono") {
        for feature in &node.features {
            if CLOCK_FEATURES.contains(&feature.as_str()) {
                found.push(format!("chrono has the feature `{feature}`, which reads the clock"));
            }
        }
    }
    found
}

fn forbidden<'a>(nodes: &[Node], names: &[&'a str]) -> Vec<&'a str> {
    let reached = |name: &&&str| nodes.iter().any(|node| node.name == **name);
    names.iter().filter(reached).copied().collect()
}

/// The normal dependencies of `package`, itself included.
fn tree(root: &Path, package: &str, flags: &[&str]) -> anyhow::Result<Vec<Node>> {
    let format = ["--prefix", "none", "--format", "{p}|{f}", "--no-dedupe"];
    let text = Cmd::cargo()
        .args(["tree", "--package", package, "--edges", "normal"])
        .args(format)
        .args(flags)
        .dir(root)
        .read()?;
    Ok(parse(&text))
}

fn parse(text: &str) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (package, features) = line.split_once('|').unwrap_or((line, ""));
        let name = package.split_whitespace().next().unwrap_or_default().to_owned();
        let features = features.split(',').filter(|f| !f.is_empty()).map(str::to_owned).collect();
        let node = Node { name, features };
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "supervisor-core v0.1.0 (/x)|mock\nchrono v0.4.45|alloc,std\nserde v1|\n";

    #[test]
    fn a_tree_is_read_with_its_features() {
        let nodes = parse(TREE);
        assert_eq!(nodes.len(), 3);
        assert_eq!(nodes[1].name, "chrono");
        assert_eq!(nodes[1].features, ["alloc", "std"]);
        assert!(core_violations(&nodes).is_empty());
    }

    #[test]
    fn a_runtime_or_a_database_below_the_core_is_found() {
        for name in CORE_FORBIDDEN {
            let nodes = parse(&format!("{TREE}{name} v1.0.0|rt\n"));
            assert_eq!(core_violations(&nodes), [format!("reaches {name}")]);
        }
    }

    #[test]
    fn a_clock_in_the_core_is_found() {
        for feature in CLOCK_FEATURES {
            let nodes = parse(&format!("chrono v0.4.45|alloc,{feature}\n"));
            assert_eq!(core_violations(&nodes).len(), 1);
        }
    }

    #[test]
    fn a_test_library_in_the_program_is_found() {
        assert_eq!(forbidden(&parse("mockall v0.15.0|\n"), &["mockall"]), ["mockall"]);
    }
}

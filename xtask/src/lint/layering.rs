//! Which crate may depend on which: normal, build and dev edges alike.

use anyhow::bail;

use crate::workspace::{Workspace, relative};

/// Directory of a crate, and the directories of the crates it may depend on.
///
/// The four middle crates know the core only; the composition root joins them.
/// Cross-crate integration tests live in the composition root for the same reason.
pub(crate) const ALLOWED: &[(&str, &[&str])] = &[
    ("supervisor-core", &[]),
    ("supervisor-process", &["supervisor-core"]),
    ("supervisor-persist", &["supervisor-core"]),
    ("supervisor-ipc", &["supervisor-core"]),
    ("supervisor-tauri", &["supervisor-core"]),
    (
        "rust-ai-ide-supervisor",
        &["supervisor-core", "supervisor-process", "supervisor-persist", "supervisor-ipc"],
    ),
    ("supervisor-tauri/examples/dashboard", &["supervisor-tauri", "rust-ai-ide-supervisor"]),
    ("xtask", &[]),
];

/// One dependency inside the workspace, by directories.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Edge {
    from: String,
    to: String,
    kind: String,
}

pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let members: Vec<String> =
        workspace.members().iter().map(|package| workspace.directory(package)).collect();
    let found = check(&members, &edges(workspace));
    if !found.is_empty() {
        bail!("{} to mend:\n  {}", found.len(), found.join("\n  "));
    }
    Ok(())
}

fn edges(workspace: &Workspace) -> Vec<Edge> {
    let mut edges = Vec::new();
    for package in workspace.members() {
        for dependency in &package.dependencies {
            let Some(path) = &dependency.path else {
                continue;
            };
            edges.push(Edge {
                from: workspace.directory(package),
                to: relative(workspace.root(), path.as_std_path()),
                kind: format!("{:?}", dependency.kind).to_lowercase(),
            });
        }
    }
    edges
}

fn check(members: &[String], edges: &[Edge]) -> Vec<String> {
    let mut found = Vec::new();
    for member in members {
        if allowed(member).is_none() {
            found.push(format!("{member} is not in the table: decide what it may depend on"));
        }
    }
    for Edge { from, to, kind } in edges {
        let Some(allowed) = allowed(from) else {
            continue;
        };
        // A crate may depend on itself for its tests: that is how test features are switched on.
        let own_features = from == to && kind == "development";
        if !own_features && !allowed.contains(&to.as_str()) {
            found.push(format!("{from} must not depend on {to} ({kind} dependency)"));
        }
    }
    found
}

fn allowed(directory: &str) -> Option<&'static [&'static str]> {
    ALLOWED.iter().find(|(from, _)| *from == directory).map(|(_, to)| *to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(from: &str, to: &str, kind: &str) -> Edge {
        Edge { from: from.to_owned(), to: to.to_owned(), kind: kind.to_owned() }
    }

    #[test]
    fn the_workspace_keeps_its_layers() {
        run(&Workspace::load().unwrap()).unwrap();
    }

    #[test]
    fn a_forbidden_edge_of_any_kind_is_found() {
        for kind in ["normal", "build", "development"] {
            let found = check(&[], &[edge("supervisor-process", "supervisor-persist", kind)]);
            assert_eq!(found.len(), 1, "{kind}");
        }
        assert!(check(&[], &[edge("supervisor-ipc", "supervisor-core", "normal")]).is_empty());
    }

    #[test]
    fn a_crate_may_test_itself_but_nothing_else_is_an_exception() {
        let own = |kind| [edge("supervisor-core", "supervisor-core", kind)];
        assert!(check(&[], &own("development")).is_empty());
        assert_eq!(check(&[], &own("normal")).len(), 1);
    }

    #[test]
    fn a_crate_missing_from_the_table_is_found() {
        assert_eq!(check(&["supervisor-extra".to_owned()], &[]).len(), 1);
    }

    #[test]
    fn the_table_has_no_cycle() {
        // Leaves are taken away until nothing is left; a cycle never becomes a leaf.
        let mut rest: Vec<_> = ALLOWED.to_vec();
        while !rest.is_empty() {
            let names: Vec<&str> = rest.iter().map(|(name, _)| *name).collect();
            let before = rest.len();
            rest.retain(|(_, to)| to.iter().any(|name| names.contains(name)));
            assert!(rest.len() < before, "a cycle among {names:?}");
        }
    }
}

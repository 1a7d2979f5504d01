//! The optional programs that some tests drive, and how to get each.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::report;
use crate::shell::Cmd;
use crate::workspace;

/// A program the workspace can do without, at the price of some tests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    /// What is left out without it.
    pub(crate) used_for: &'static str,
    /// Whether every system has it; a run that leaves nothing out is content without one that not every system has.
    pub(crate) everywhere: bool,
}

impl Tool {
    const fn new(program: &'static str, used_for: &'static str) -> Self {
        Self { program, used_for, everywhere: true }
    }
}

/// Programs that tests start when they are there.
pub(crate) const TEST_TOOLS: &[Tool] = &[
    Tool::new("python3", "the services written in Python that tests supervise"),
    Tool::new("node", "the peers written in JavaScript that tests talk to"),
    Tool::new("npm", "what tests need from npm"),
    Tool::new("ruff", "the tests on a real Python language server"),
    Tool::new("clangd", "the tests on a real C++ language server"),
    Tool {
        program: "rust-analyzer",
        used_for: "the tests on a real Rust language server",
        everywhere: false,
    },
];

/// Packages from npm that tests use, each at a tested release, and what is left out without it. They are run by node
/// and are no programs of their own, so that being there is having their files.
pub(crate) const NODE_PACKAGES: &[(&str, &str, &str)] = &[
    ("bash-language-server", "5.8.1", "the tests on a language server written in JavaScript"),
    ("@modelcontextprotocol/sdk", "1.32.2", "the tests with a real MCP client"),
    ("@modelcontextprotocol/server-everything", "2026.8.31", "the tests on a real MCP server"),
    (
        "@modelcontextprotocol/server-memory",
        "2026.8.31",
        "the tests on a real MCP server with state",
    ),
    ("@types/node", "20.19.43", "the check that the TypeScript endpoint is the program beside it"),
    ("typescript", "5.9.3", "the check that the TypeScript endpoint is the program beside it"),
];

/// Where `setup --tools` puts programs that do not come from the system: below the build directory,
/// so that nothing outside the checkout is changed and deleting the directory takes them away.
pub(crate) fn directory() -> PathBuf {
    workspace::root().join("target").join("tools")
}

/// The virtual environment that holds the Python tools.
pub(crate) fn venv() -> PathBuf {
    directory().join("venv")
}

/// Where the packages from npm are.
pub(crate) fn node() -> PathBuf {
    directory().join("node")
}

/// Whether a package from npm is there in the release tests were written against.
pub(crate) fn has_node_package(name: &str, version: &str) -> bool {
    let manifest = node().join("node_modules").join(name).join("package.json");
    std::fs::read(manifest)
        .ok()
        .and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok())
        .is_some_and(|manifest| manifest["version"] == version)
}

/// Where the Python tools' programs are; goes in front of `PATH` for tests. Nothing need be there.
pub(crate) fn programs() -> PathBuf {
    venv().join(if cfg!(windows) { "Scripts" } else { "bin" })
}

/// The test tools this machine lacks. A tool is present when it runs, not when a file has its name:
/// version managers leave stubs behind.
pub(crate) fn missing() -> Vec<Tool> {
    let present =
        |tool: &Tool| Cmd::new(tool.program).arg("--version").path_first(programs()).succeeds();
    let programs = TEST_TOOLS.iter().filter(|tool| !present(tool)).copied();
    let packages =
        NODE_PACKAGES.iter().filter(|(name, version, _)| !has_node_package(name, version));
    programs.chain(packages.map(|(name, _, used_for)| Tool::new(name, used_for))).collect()
}

/// Names each missing tool once, with what is left out and how to get it.
pub(crate) fn name_missing(tools: &[Tool]) {
    let mut named = BTreeSet::new();
    for tool in tools.iter().filter(|tool| named.insert(tool.program)) {
        report::warning(&format!("`{}` not found: left out are {}", tool.program, tool.used_for));
    }
    if !tools.is_empty() {
        report::note("         get them with: cargo xtask setup --tools");
    }
}

/// Says loudly which members cannot be compiled here, and the command that changes that.
pub(crate) fn name_left_out(members: &[&cargo_metadata::Package]) {
    let names: Vec<&str> = members.iter().map(|package| package.name.as_str()).collect();
    report::warning(&format!(
        "LEFT OUT: {}: pkg-config finds no webkit2gtk-4.1, which Tauri needs to compile",
        names.join(", ")
    ));
    report::note("         include them with: cargo xtask setup");
}

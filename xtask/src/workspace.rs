//! What cargo knows about this workspace.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use cargo_metadata::{Metadata, MetadataCommand, Package};

use crate::shell::Cmd;

/// The workspace as cargo describes it, without its dependencies' own metadata.
#[derive(Debug)]
pub(crate) struct Workspace {
    metadata: Metadata,
}

impl Workspace {
    pub(crate) fn load() -> anyhow::Result<Self> {
        let metadata = MetadataCommand::new()
            .manifest_path(manifest())
            .no_deps()
            .exec()
            .context("could not read the workspace's manifests")?;
        Ok(Self { metadata })
    }

    pub(crate) fn root(&self) -> &Path {
        self.metadata.workspace_root.as_std_path()
    }

    /// Every member, in the order of their names.
    pub(crate) fn members(&self) -> Vec<&Package> {
        let mut members = self.metadata.workspace_packages();
        members.sort_by_key(|package| package.name.to_string());
        members
    }

    /// The members that compile on a bare machine.
    pub(crate) fn default_members(&self) -> Vec<&Package> {
        let mut members = self.metadata.workspace_default_packages();
        members.sort_by_key(|package| package.name.to_string());
        members
    }

    /// The members left out of the default set: the Tauri plugin and its example.
    pub(crate) fn window_members(&self) -> Vec<&Package> {
        let default = &self.metadata.workspace_default_members;
        let mut members = self.members();
        members.retain(|package| !default.contains(&package.id));
        members
    }

    /// The members this machine can compile.
    pub(crate) fn buildable_members(&self) -> Vec<&Package> {
        if window_files_present() { self.members() } else { self.default_members() }
    }

    /// A member's directory below the root, with forward slashes.
    pub(crate) fn directory(&self, package: &Package) -> String {
        let directory = package.manifest_path.parent().unwrap_or(&package.manifest_path);
        relative(self.root(), directory.as_std_path())
    }
}

/// The root of this checkout: where xtask was built, unless it was moved since.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// Whether Tauri can compile here. Only Linux needs development files for it.
pub(crate) fn window_files_present() -> bool {
    !cfg!(target_os = "linux")
        || Cmd::new("pkg-config").args(["--exists", "webkit2gtk-4.1"]).succeeds()
}

/// `path` below `root`, with forward slashes on every system.
pub(crate) fn relative(root: &Path, path: &Path) -> String {
    let below = path.strip_prefix(root).unwrap_or(path);
    below.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// `-p NAME` for each package.
pub(crate) fn package_args(packages: &[&Package]) -> Vec<String> {
    packages.iter().flat_map(|package| ["-p".to_owned(), package.name.to_string()]).collect()
}

fn manifest() -> PathBuf {
    root().join("Cargo.toml")
}

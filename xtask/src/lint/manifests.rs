//! Rules on `Cargo.toml` files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use cargo_metadata::Package;

use crate::workspace::Workspace;

/// What the rules look at in one manifest.
#[derive(Debug, Clone)]
struct Facts {
    directory: String,
    version: String,
    described: bool,
    licensed: bool,
    rust_version: bool,
    inherits_lints: bool,
    published_library: bool,
    readme: bool,
}

pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let mut found = Vec::new();
    let mut facts = Vec::new();
    for package in workspace.members() {
        facts.push(read(workspace, package)?);
    }
    found.extend(facts.iter().flat_map(check));
    found.extend(one_version(&facts));
    found.extend(unsorted(&fs::read_to_string(workspace.root().join("Cargo.toml"))?));
    if !found.is_empty() {
        bail!("{} to mend:\n  {}", found.len(), found.join("\n  "));
    }
    Ok(())
}

fn read(workspace: &Workspace, package: &Package) -> anyhow::Result<Facts> {
    let text = fs::read_to_string(&package.manifest_path)?;
    let manifest: toml::Table =
        toml::from_str(&text).with_context(|| format!("{} is not valid", package.manifest_path))?;
    let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
    let beside = |name: &str| package.manifest_path.with_file_name(name);
    // `publish = false` is an empty list of registries.
    let published = package.publish.as_ref().is_none_or(|registries| !registries.is_empty());
    let has_library = package.targets.iter().any(cargo_metadata::Target::is_lib);
    Ok(Facts {
        directory: workspace.directory(package),
        version: package.version.to_string(),
        described: package.description.as_ref().is_some_and(|text| !text.trim().is_empty()),
        licensed: package.license.is_some(),
        rust_version: package.rust_version.is_some(),
        inherits_lints: lints.and_then(toml::Value::as_bool) == Some(true),
        published_library: published && has_library,
        readme: Path::new(beside("README.md").as_std_path()).is_file(),
    })
}

fn check(facts: &Facts) -> Vec<String> {
    let rules = [
        (facts.described, "has no `description`"),
        (facts.licensed, "has no `license`"),
        (facts.rust_version, "has no `rust-version`"),
        (facts.inherits_lints, "lacks `[lints] workspace = true`"),
        (facts.readme || !facts.published_library, "is a library without a README.md"),
    ];
    let broken = rules.into_iter().filter(|(kept, _)| !kept);
    broken.map(|(_, what)| format!("{} {what}", facts.directory)).collect()
}

/// One version for all: users match one number, and a release is one tag.
fn one_version(facts: &[Facts]) -> Option<String> {
    let versions: BTreeSet<&str> = facts.iter().map(|facts| facts.version.as_str()).collect();
    let list = versions.iter().copied().collect::<Vec<_>>().join(", ");
    (versions.len() > 1).then(|| format!("the crates have different versions: {list}"))
}

/// The root's dependencies from outside stand in the order of their names; our own come first.
fn unsorted(root_manifest: &str) -> Option<String> {
    let section = root_manifest.lines().skip_while(|line| *line != "[workspace.dependencies]");
    let entries = section.skip(1).take_while(|line| !line.starts_with('['));
    let names: Vec<&str> = entries
        .filter(|line| !line.contains("path = ") && !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = ").map(|(name, _)| name))
        .collect();
    let pair = names.windows(2).find(|pair| pair.first() > pair.last())?;
    Some(format!("[workspace.dependencies] is not sorted: {}", pair.join(" before ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            directory: "a".to_owned(),
            version: "0.1.0".to_owned(),
            described: true,
            licensed: true,
            rust_version: true,
            inherits_lints: true,
            published_library: true,
            readme: true,
        }
    }

    #[test]
    fn a_complete_manifest_passes() {
        assert!(check(&good()).is_empty());
        assert!(check(&Facts { readme: false, published_library: false, ..good() }).is_empty());
    }

    #[test]
    fn each_missing_field_is_found() {
        let broken = [
            Facts { described: false, ..good() },
            Facts { licensed: false, ..good() },
            Facts { rust_version: false, ..good() },
            Facts { inherits_lints: false, ..good() },
            Facts { readme: false, ..good() },
        ];
        for facts in broken {
            assert_eq!(check(&facts).len(), 1, "{facts:?}");
        }
    }

    #[test]
    fn two_versions_are_found() {
        assert!(one_version(&[good(), good()]).is_none());
        let newer = Facts { version: "0.2.0".to_owned(), ..good() };
        assert!(one_version(&[good(), newer]).is_some_and(|text| text.contains("0.1.0, 0.2.0")));
    }

    #[test]
    fn unsorted_dependencies_are_found() {
        let start = "[workspace.dependencies]\nz-own = { path = \"z\" }\n\n";
        assert_eq!(unsorted(&format!("{start}a = \"1\"\n# why\nb = \"1\"\n[x]\na = 1\n")), None);
        let found = unsorted(&format!("{start}b = \"1\"\na = \"1\"\n")).unwrap();
        assert!(found.ends_with("b before a"), "{found}");
    }
}

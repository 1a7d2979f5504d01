//! `cargo xtask setup`: installs what the window parts and some tests need, or prints how.

use std::io::IsTerminal as _;
use std::path::Path;

use anyhow::bail;

use crate::flags::SetupFlags;
use crate::shell::Cmd;
use crate::{report, tools};

/// What Tauri needs to compile on Debian and Ubuntu, and what shows and photographs its window in a
/// test.
const DEBIAN_WINDOW: &[&str] = &[
    "pkg-config",
    "libwebkit2gtk-4.1-dev",
    "webkit2gtk-driver",
    "xvfb",
    "xdotool",
    "x11-utils",
    "imagemagick",
    "fonts-dejavu-core",
];

/// Programs of [`tools::TEST_TOOLS`], and the packages that bring them. ruff is not in Debian, but the
/// virtual environment it goes into needs a package.
const DEBIAN_TOOLS: &[(&str, &[&str])] = &[
    ("python3", &["python3"]),
    ("ruff", &["python3-venv"]),
    ("node", &["nodejs"]),
    ("npm", &["npm"]),
    ("clangd", &["clangd"]),
    ("rust-analyzer", &[DEBIAN_RUST_ANALYZER]),
];

/// Not in every release of Debian and Ubuntu, and a name that is not there makes apt-get install nothing at all.
const DEBIAN_RUST_ANALYZER: &str = "rust-web-analyzer";

const FEDORA: &str = "sudo dnf install pkgconf-pkg-config webkit2gtk4.1-devel \
    xorg-x11-server-Xvfb xdotool xorg-x11-utils ImageMagick dejavu-sans-fonts";
const FEDORA_TOOLS: &str = "sudo dnf install python3 nodejs npm clang-tools-extra rust-analyzer";
const ARCH: &str = "sudo pacman -S --needed pkgconf webkit2gtk-4.1 xorg-server-xvfb xdotool \
    xorg-xprop xorg-xwininfo imagemagick ttf-dejavu";
const ARCH_TOOLS: &str = "sudo pacman -S --needed python nodejs npm clang rust-analyzer";

/// A tested release, so that two machines test against the same server.
const PYTHON_TOOLS: &[&str] = &["ruff==0.17.6"];

pub(crate) fn run(flags: &SetupFlags) -> anyhow::Result<()> {
    if !cfg!(target_os = "linux") {
        report::note("this system needs no packages to compile Tauri");
    } else if Cmd::new("apt-get").arg("--version").succeeds() {
        debian(flags)?;
    } else {
        other_linux(flags)?;
    }
    if flags.tools {
        python_tools(flags.print)?;
        node_tools(flags.print)?;
        let missing = if flags.print { Vec::new() } else { tools::missing() };
        tools::name_missing(&missing);
        if missing.iter().any(|tool| tool.everywhere) {
            bail!("some test tools are still missing");
        }
    } else {
        report::note("for the programs that some tests drive: cargo xtask setup --tools");
    }
    Ok(())
}

fn debian(flags: &SetupFlags) -> anyhow::Result<()> {
    let mut wanted = DEBIAN_WINDOW.to_vec();
    if flags.tools {
        // A program that is there already, from wherever, is not installed a second time.
        let missing = tools::missing();
        let lacks = |program: &str| missing.iter().any(|tool| tool.program == program);
        let needed = DEBIAN_TOOLS.iter().filter(|(program, _)| lacks(program));
        wanted.extend(needed.flat_map(|(_, packages)| packages.iter()));
    }
    if flags.print || !may_install() {
        wanted.retain(|package| !is_installed(package));
        if wanted.is_empty() {
            report::note("every system package is installed already");
            return Ok(());
        }
        let (update, install) = apt(&wanted);
        report::result(&update.to_string());
        report::result(&install.to_string());
        if !flags.print {
            bail!("installing needs root: run the two commands above");
        }
        return Ok(());
    }
    let extra = wanted.iter().position(|package| *package == DEBIAN_RUST_ANALYZER);
    let extra = extra.map(|at| wanted.remove(at));
    install(&wanted)?;
    if let Some(extra) = extra
        && let Err(error) = install(&[extra])
    {
        report::warning(&format!("{extra} is not installed: {error:#}"));
    }
    Ok(())
}

/// Installs those of the system packages that are not there yet.
pub(crate) fn install(packages: &[&str]) -> anyhow::Result<()> {
    let wanted: Vec<&str> = packages.iter().copied().filter(|name| !is_installed(name)).collect();
    if wanted.is_empty() {
        report::note("every system package is installed already");
        return Ok(());
    }
    let (update, install) = apt(&wanted);
    // Mirrors fail now and then, and a list can be older than what it lists: once more, afresh.
    let once = || update.run_quietly().and_then(|()| install.run_quietly());
    once().or_else(|error| {
        report::warning(&format!("{error:#}; once more"));
        once()
    })
}

fn apt(packages: &[&str]) -> (Cmd, Cmd) {
    let update = privileged("apt-get").args(["update", "-qq"]);
    let install = privileged("apt-get")
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(packages.iter().copied());
    (update, install)
}

fn other_linux(flags: &SetupFlags) -> anyhow::Result<()> {
    report::note("no apt-get here; the same packages elsewhere:");
    for (system, window, test) in [("Fedora", FEDORA, FEDORA_TOOLS), ("Arch", ARCH, ARCH_TOOLS)] {
        report::result(&format!("{system}: {window}"));
        if flags.tools {
            report::result(&format!("{system}: {test}"));
        }
    }
    if flags.print {
        return Ok(());
    }
    bail!("install them with your system's package manager, as above");
}

/// A virtual environment of our own: it needs no root and does not touch the system's Python.
fn python_tools(print: bool) -> anyhow::Result<()> {
    let venv = tools::venv();
    let python = venv.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let create = Cmd::new(if cfg!(windows) { "python" } else { "python3" })
        .args(["-m", "venv"])
        .arg(venv.as_os_str());
    let install = Cmd::new(python.as_os_str())
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(PYTHON_TOOLS.iter().copied());
    if print {
        report::result(&create.to_string());
        report::result(&install.to_string());
        return Ok(());
    }
    if !Cmd::new(python.as_os_str()).args(["-m", "pip", "--version"]).succeeds() {
        create.run()?;
    }
    install.run()
}

/// Packages from npm in a directory of our own, without running what they would run when they are installed.
fn node_tools(print: bool) -> anyhow::Result<()> {
    let wanted = |(name, version, _): &(&str, &str, &str)| !tools::has_node_package(name, version);
    if !print && !tools::NODE_PACKAGES.iter().any(wanted) {
        report::note("every package from npm is installed already");
        return Ok(());
    }
    let packages =
        tools::NODE_PACKAGES.iter().map(|(name, version, _)| format!("{name}@{version}"));
    let install = Cmd::new(if cfg!(windows) { "npm.cmd" } else { "npm" })
        .args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"])
        .arg(tools::node().as_os_str())
        .args(packages);
    if print {
        report::result(&install.to_string());
        return Ok(());
    }
    std::fs::create_dir_all(tools::node())?;
    // A registry fails now and then: once more.
    install.run().or_else(|error| {
        report::warning(&format!("{error:#}; once more"));
        install.run()
    })
}

fn is_installed(package: &str) -> bool {
    let status = Cmd::new("dpkg-query").args(["--show", "--showformat", "${db:Status-Abbrev}"]);
    status.arg(package).read().is_ok_and(|text| text.starts_with("ii"))
}

fn is_root() -> bool {
    Cmd::new("id").arg("-u").read().is_ok_and(|id| id.trim() == "0")
}

/// A program run as root, with nothing that asks questions.
pub(crate) fn privileged(program: &str) -> Cmd {
    let command = if is_root() {
        Cmd::new("env")
    } else if std::io::stdin().is_terminal() {
        Cmd::new("sudo").arg("env")
    } else {
        // Nobody is there to type a password.
        Cmd::new("sudo").args(["-n", "env"])
    };
    command.arg("DEBIAN_FRONTEND=noninteractive").arg(program)
}

fn may_install() -> bool {
    is_root() || Path::new("/usr/bin/sudo").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_a_test_drives_can_be_installed() {
        for tool in tools::TEST_TOOLS {
            let system = DEBIAN_TOOLS.iter().any(|(program, _)| *program == tool.program);
            assert!(system, "{} is named as missing but setup does not install it", tool.program);
        }
    }
}

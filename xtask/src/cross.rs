//! `cargo xtask cross`: builds for other systems on a Debian machine.
//!
//! A toolchain for another target is not always to be had, so this compiles Rust's standard library
//! from source, with the compiler and library source that Debian packages, unpacked below
//! `target/cross` and not installed. Windows programs are linked by mingw and run by Wine; for macOS,
//! which has no free linker, code is type-checked. The normal toolchain is not touched, and deleting
//! `target/cross` takes everything away but mingw and Wine.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use crate::flags::{CrossFlags, System};
use crate::shell::Cmd;
use crate::{report, setup, workspace};

/// Debian's compiler of the newest Rust, made for building web browsers, and its library source.
const RUST_PACKAGES: &[&str] = &["rustc-web", "rust-web-src"];
const WINDOWS_PACKAGES: &[&str] = &["gcc-mingw-w64-x86-64", "wine", "wine64"];
const BUILD_STD: &str = "-Zbuild-std=std,panic_abort,panic_unwind,test,proc_macro";
const WINE: &str = "/usr/lib/wine/wine64";

pub(crate) fn run(flags: &CrossFlags) -> anyhow::Result<()> {
    let (command, arguments) = match flags.cargo.split_first() {
        Some((command, arguments)) => (command.as_str(), arguments),
        None => ("check", &[][..]),
    };
    let known: &[&str] = match flags.system {
        System::Windows => &["check", "build", "test", "run"],
        System::Macos => &["check"],
    };
    ensure!(
        known.contains(&command),
        "`{command}` is not possible for {:?}; possible: {}",
        flags.system,
        known.join(", ")
    );
    let place = Place { directory: workspace::root().join("target").join("cross") };
    place.prepare_rust()?;
    let cargo = match flags.system {
        System::Windows => {
            place.prepare_windows()?;
            place.windows(command)
        }
        System::Macos => {
            place.prepare_macos()?;
            place.macos(command)
        }
    };
    cargo.args(arguments).run()
}

/// The directory that holds the other toolchain. Each part is prepared once.
struct Place {
    directory: PathBuf,
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn rustc(&self) -> PathBuf {
        self.path("rust/usr/bin/rustc")
    }

    fn prepare_rust(&self) -> anyhow::Result<()> {
        let library = self.path("rust/usr/lib/rustlib/src/rust/library");
        if library.join("std").is_dir() {
            return Ok(());
        }
        report::heading("cross: Debian's compiler and library source, about 500 MB, once");
        let archives = self.path("archives");
        fs::create_dir_all(archives.join("partial"))?;
        setup::privileged("apt-get").args(["update", "-qq"]).run_quietly()?;
        // Downloads what is not on the machine, dependencies included, and of the compiler what is there too (a language
        // server of Debian's brings its library along); installs nothing.
        let mut cache = std::ffi::OsString::from("Dir::Cache::archives=");
        cache.push(&archives);
        setup::privileged("apt-get")
            .args(["install", "-y", "-qq", "--no-install-recommends", "--download-only"])
            .args(["--reinstall", "--option"])
            .arg(cache)
            .args(RUST_PACKAGES.iter().copied())
            .args(compiler_parts()?)
            .run_quietly()?;
        for archive in entries(&archives, "deb")? {
            Cmd::new("dpkg-deb").arg("--extract").arg(archive).arg(self.path("rust")).run()?;
        }
        let source = entries(&self.path("rust/usr/src"), "")?
            .into_iter()
            .map(|path| path.join("library"))
            .find(|path| path.join("std").is_dir())
            .context("Debian's package holds no library source where it used to")?;
        // Where cargo looks for it. Debian's own link at this place points outside our directory.
        let parent = library.parent().context("a path with a parent")?;
        remove(parent)?;
        fs::create_dir_all(parent)?;
        fs::rename(&source, &library)
            .with_context(|| format!("could not move {}", source.display()))?;
        remove(&archives)
    }

    fn prepare_windows(&self) -> anyhow::Result<()> {
        let library = self.path("wine/drive_c/windows/system32/bcryptprimitives.dll");
        if library.is_file() {
            return Ok(());
        }
        report::heading("cross: mingw and Wine, once");
        setup::install(WINDOWS_PACKAGES)?;
        let wine = self.path("wine");
        // wineboot may complain that there is no display; what counts is the directory it makes.
        let boot = Cmd::new(WINE).args(["wineboot", "--init"]);
        if !boot.env("WINEPREFIX", &wine).env("WINEDEBUG", "-all").succeeds() {
            report::note("wineboot reported an error; looking at what it made");
        }
        let system = library.parent().context("a path with a parent")?;
        ensure!(system.is_dir(), "Wine made no {}", system.display());
        let source = self.write("prng.c", include_str!("../cross/prng.c"))?;
        Cmd::new("x86_64-w64-mingw32-gcc")
            .args(["-shared", "-o"])
            .arg(&library)
            .arg(source)
            .arg("-ladvapi32")
            .run()
    }

    fn prepare_macos(&self) -> anyhow::Result<()> {
        self.write("no-cc", include_str!("../cross/no-cc.sh"))?;
        self.write("no-ar", include_str!("../cross/no-ar.sh"))?;
        Ok(())
    }

    fn windows(&self, command: &str) -> Cmd {
        self.cargo(command, "x86_64-pc-windows-gnu")
            .env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER", WINE)
            .env("WINEPREFIX", self.path("wine"))
            .env("WINEDEBUG", "-all")
    }

    fn macos(&self, command: &str) -> Cmd {
        self.cargo(command, "aarch64-apple-darwin")
            .env("CC_aarch64_apple_darwin", self.path("no-cc"))
            .env("AR_aarch64_apple_darwin", self.path("no-ar"))
    }

    fn cargo(&self, command: &str, target: &str) -> Cmd {
        Cmd::cargo()
            .args([command, BUILD_STD, "--target", target])
            .env("LD_LIBRARY_PATH", self.path("rust/usr/lib/x86_64-linux-gnu"))
            .env("RUSTC", self.rustc())
            // Building the standard library is unstable; our own code still compiles as on stable.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_DIR", self.path("build"))
            .dir(&workspace::root())
    }

    /// Writes a helper, executable.
    fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(&self.directory)?;
        fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))?;
        Cmd::new("chmod").arg("+x").arg(&path).run_quietly()?;
        Ok(path)
    }
}

/// Names the packages that Debian's compiler consists of, beside itself; they carry its version in their names.
fn compiler_parts() -> anyhow::Result<Vec<String>> {
    let listed = Cmd::new("apt-cache")
        .args(["depends", "--recurse", "--important"])
        .args(RUST_PACKAGES.iter().copied())
        .read()?;
    let parts: Vec<String> = listed
        .lines()
        .filter(|line| line.starts_with("libstd-rust") || line.starts_with("libllvm"))
        .map(str::to_owned)
        .collect();
    ensure!(!parts.is_empty(), "Debian's compiler needs neither its library nor LLVM any more");
    Ok(parts)
}

/// What a directory holds, of one ending or all.
fn entries(directory: &Path, ending: &str) -> anyhow::Result<Vec<PathBuf>> {
    let list = fs::read_dir(directory)
        .with_context(|| format!("could not list {}", directory.display()))?;
    let mut paths = Vec::new();
    for entry in list {
        let path = entry?.path();
        if ending.is_empty() || path.extension().is_some_and(|found| found == ending) {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        bail!("{} is empty", directory.display());
    }
    Ok(paths)
}

/// Takes away a file, a link or a directory; nothing there is fine.
fn remove(path: &Path) -> anyhow::Result<()> {
    let outcome = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return Ok(()),
    };
    outcome.with_context(|| format!("could not remove {}", path.display()))
}

//! Runs other programs, echoing each command first.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::report;

/// A program to run, printable as the shell line that repeats it.
#[derive(Debug, Clone)]
pub(crate) struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    path_first: Option<PathBuf>,
    dir: Option<PathBuf>,
}

impl Cmd {
    /// A program found in `PATH`.
    pub(crate) fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            envs: Vec::new(),
            path_first: None,
            dir: None,
        }
    }

    /// The cargo that runs this task.
    pub(crate) fn cargo() -> Self {
        Self::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    }

    pub(crate) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub(crate) fn args<I: IntoIterator<Item: Into<OsString>>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub(crate) fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.envs.push((name.into(), value.into()));
        self
    }

    /// Puts a directory in front of `PATH`, for the program and for what it starts.
    pub(crate) fn path_first(mut self, directory: impl Into<PathBuf>) -> Self {
        self.path_first = Some(directory.into());
        self
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// Echoes and runs; a status other than success is an error.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        report::command(&self.to_string());
        let status =
            self.command().status().with_context(|| format!("could not start `{self}`"))?;
        if !status.success() {
            bail!("`{self}` failed with {status}");
        }
        Ok(())
    }

    /// Echoes and runs; what the program says is shown only when it fails.
    pub(crate) fn run_quietly(&self) -> anyhow::Result<()> {
        report::command(&self.to_string());
        let output = self.output()?;
        if !output.status.success() {
            report::note(&String::from_utf8_lossy(&output.stdout));
            report::note(&String::from_utf8_lossy(&output.stderr));
            bail!("`{self}` failed with {}", output.status);
        }
        Ok(())
    }

    /// Runs in silence; true when it started and succeeded.
    pub(crate) fn succeeds(&self) -> bool {
        self.command()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    /// Runs in silence and returns what it wrote, whatever its status.
    pub(crate) fn output(&self) -> anyhow::Result<std::process::Output> {
        self.command()
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("could not start `{self}`"))
    }

    /// Runs in silence and returns its stdout; a status other than success is an error.
    pub(crate) fn read(&self) -> anyhow::Result<String> {
        let output = self.output()?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("`{self}` failed with {}: {}", output.status, stderr.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The command for callers that need its pipes.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.envs.iter().map(|(name, value)| (name, value)));
        if let Some(first) = &self.path_first {
            let inherited = std::env::var_os("PATH").unwrap_or_default();
            let parts = std::iter::once(first.clone()).chain(std::env::split_paths(&inherited));
            command.env("PATH", std::env::join_paths(parts).unwrap_or(inherited));
        }
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }
}

impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.envs {
            write!(f, "{}={} ", name.to_string_lossy(), quote(value))?;
        }
        if let Some(first) = &self.path_first {
            write!(f, "PATH={}:$PATH ", quote(first.as_os_str()))?;
        }
        // `CARGO` holds the full path of the toolchain's cargo: noise to a reader.
        let program = Path::new(&self.program);
        match program.file_stem() {
            Some(stem) if stem == "cargo" => write!(f, "cargo")?,
            _ => write!(f, "{}", quote(&self.program))?,
        }
        for arg in &self.args {
            write!(f, " {}", quote(arg))?;
        }
        Ok(())
    }
}

fn quote(text: &OsStr) -> String {
    let text = text.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_prints_as_a_line_a_shell_accepts() {
        let command = Cmd::new("cargo").arg("doc").env("RUSTDOCFLAGS", "-D warnings").arg("it's");
        assert_eq!(command.to_string(), r"RUSTDOCFLAGS='-D warnings' cargo doc 'it'\''s'");
    }

    #[test]
    fn a_failing_program_is_an_error_that_names_it() {
        let error = Cmd::cargo().arg("no-such-subcommand").read().unwrap_err().to_string();
        assert!(error.contains("cargo no-such-subcommand"), "{error}");
    }
}

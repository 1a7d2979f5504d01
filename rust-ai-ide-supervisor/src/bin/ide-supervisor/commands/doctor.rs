//! `doctor`: what of the promises holds on this machine, checked without a running supervisor.

use std::borrow::Cow;
use std::path::Path;

use rust_ai_ide_supervisor::config_file::{ConfigFile, ConfigFileError};
use rust_ai_ide_supervisor::guardian::{self, GuardianProgram};
use serde::Serialize;
use serde_json::json;
use supervisor_persist::{DoctorVerdict, examine};

use super::source::places;
use crate::args::{Doctor, Target};
use crate::exit_code::{Exit, Failure};
use crate::os;
use crate::output::{Output, Style, Table, clean, count};

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// As it should be.
    Ok,
    /// It works, with less than is promised elsewhere.
    Warn,
    /// Something will not work.
    Fail,
}

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    name: Cow<'static, str>,
    verdict: Verdict,
    detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

impl Check {
    pub(crate) fn ok(name: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), verdict: Verdict::Ok, detail: detail.into(), help: None }
    }

    pub(crate) fn warn(
        name: impl Into<Cow<'static, str>>,
        detail: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Warn, help: Some(help.into()), ..Self::ok(name, detail) }
    }

    pub(crate) fn fail(
        name: impl Into<Cow<'static, str>>,
        detail: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Fail, ..Self::warn(name, detail, help) }
    }
}

pub(crate) fn run(doctor: &Doctor, output: Output) -> Result<(), Failure> {
    let mut checks = vec![configuration(&doctor.target)];
    if let Ok(dir) = doctor.target.state_dir() {
        checks.extend(os::state_dir_checks(&dir));
        checks.extend(storage(&doctor.target, &dir));
        checks.push(guardian(&dir));
    }
    checks.extend(os::system_checks());
    let failed = checks.iter().filter(|check| check.verdict == Verdict::Fail).count();
    if doctor.json {
        output.json(&json!({ "version": 1, "ok": failed == 0, "checks": checks }))?;
    } else {
        show(&checks, output)?;
    }
    match failed {
        0 => Ok(()),
        n => {
            let message = format!("{} failed", count(n, "check"));
            Err(Failure::new(Exit::Failed, message).help("what to do stands below the table"))
        }
    }
}

fn show(checks: &[Check], output: Output) -> Result<(), Failure> {
    let mut table = Table::new(&["CHECK", "", "FOUND"]);
    for check in checks {
        let verdict = match check.verdict {
            Verdict::Ok => (Style::Good, "ok".to_owned()),
            Verdict::Warn => (Style::Warn, "warning".to_owned()),
            Verdict::Fail => (Style::Bad, "FAILED".to_owned()),
        };
        table.row(vec![
            (Style::Bold, check.name.clone().into_owned()),
            verdict,
            (Style::Plain, check.detail.clone()),
        ]);
    }
    output.table(&table)?;
    for check in checks {
        if let Some(help) = &check.help {
            let help = format!("{}: {}", check.name, clean(help));
            output.line(&output.paint(Style::Dim, &help))?;
        }
    }
    Ok(())
}

/// Examines what a supervisor has stored; one that runs is not disturbed.
fn storage(target: &Target, dir: &Path) -> Vec<Check> {
    let Some((database, checkpoints)) = places(target, dir) else {
        return Vec::new();
    };
    let report = examine(&database, &checkpoints, chrono::Utc::now());
    let checks = report.lines.into_iter().map(|line| {
        let name = format!("storage: {}", line.name);
        let help = match command_for(&line.name, line.verdict) {
            Some(command) => format!("{}: `ide-supervisor {command}`", line.advice),
            None => line.advice,
        };
        match line.verdict {
            DoctorVerdict::Ok => Check::ok(name, line.found),
            DoctorVerdict::Warn => Check::warn(name, line.found, help),
            DoctorVerdict::Fail => Check::fail(name, line.found, help),
        }
    });
    checks.collect()
}

/// The command that carries out the advice of a line.
fn command_for(line: &str, verdict: DoctorVerdict) -> Option<&'static str> {
    match (line, verdict) {
        ("database", DoctorVerdict::Fail) => Some("backup restore NAME --replace-refused"),
        ("recovery", _) => Some("recovery show`, `ide-supervisor recovery settle"),
        ("backups", _) => Some("backup create"),
        ("checkpoints", _) => Some("checkpoint create"),
        ("audit", DoctorVerdict::Fail) => Some("audit verify"),
        _ => None,
    }
}

/// Says who owns the services' processes here, or would.
fn guardian(dir: &Path) -> Check {
    const NAME: &str = "guardian";
    if let Some(pid) = guardian::running(dir) {
        return Check::ok(NAME, format!("process {pid} owns the services' processes"));
    }
    match guardian::available(dir, &GuardianProgram::Itself) {
        Ok(()) => Check::ok(NAME, "a process of its own will own the services' processes"),
        Err(reason) => Check::warn(
            NAME,
            reason,
            "what a killed supervisor leaves behind is ended by the next start, if at all, and no service outlives it",
        ),
    }
}

fn configuration(target: &Target) -> Check {
    const NAME: &str = "configuration";
    match target.config_path().and_then(ConfigFile::load) {
        Ok(config) => Check::ok(
            NAME,
            format!(
                "{} is valid, {}",
                config.path.display(),
                count(config.services.len(), "service")
            ),
        ),
        Err(ConfigFileError::NotFound { .. }) => Check::warn(
            NAME,
            "none from here upwards",
            "`ide-supervisor config init` writes one to start from",
        ),
        Err(error) => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default().to_owned();
            Check::fail(NAME, first, "`ide-supervisor config check` shows the line")
        }
    }
}

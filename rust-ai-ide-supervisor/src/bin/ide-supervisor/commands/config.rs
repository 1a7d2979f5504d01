//! `config init`, `config check`, `config schema`.

use rust_ai_ide_supervisor::config_file::{
    ConfigFile, ConfigFileError, Problem, config_schema, write_template,
};
use serde_json::json;

use crate::args::{ConfigCommand, Target};
use crate::exit_code::{Exit, Failure};
use crate::output::{Output, Style, clean, count};

pub(crate) fn run(command: &ConfigCommand, output: Output) -> Result<(), Failure> {
    match command {
        ConfigCommand::Init { config } => {
            write_template(config)
                // Nothing is wrong with a configuration: the command could not do its work.
                .map_err(|error| Failure {
                    exit: Exit::Failed,
                    ..Failure::from(error)
                })?;
            output.line(&format!(
                "{} written; edit it, then `ide-supervisor config check` and `ide-supervisor up`",
                clean(&config.display().to_string())
            ))
        }
        ConfigCommand::Check { config, json } => {
            let target = Target { config: config.clone(), state_dir: None };
            let loaded = target.config_path().and_then(ConfigFile::load);
            if *json {
                return check_json(loaded, output);
            }
            check(&loaded?, output)
        }
        ConfigCommand::Schema => {
            let text = format!("{:#}", config_schema());
            output.line(&text)
        }
    }
}

fn check(config: &ConfigFile, output: Output) -> Result<(), Failure> {
    let ids: Vec<&str> = config.services.iter().map(|service| service.id.as_str()).collect();
    output.line(&format!(
        "{}: {} ({}: {})",
        clean(&config.path.display().to_string()),
        output.paint(Style::Good, "valid"),
        count(ids.len(), "service"),
        ids.join(", ")
    ))
}

fn check_json(loaded: Result<ConfigFile, ConfigFileError>, output: Output) -> Result<(), Failure> {
    let error = match loaded {
        Ok(config) => {
            let ids: Vec<&str> =
                config.services.iter().map(|service| service.id.as_str()).collect();
            return output.json(&json!({
                "version": 1, "valid": true, "path": config.path, "services": ids,
            }));
        }
        Err(error) => error,
    };
    let mut report = json!({ "version": 1, "valid": false, "text": error.to_string() });
    if let ConfigFileError::Problems(problems) = &error {
        let all: Vec<_> = problems.shown().iter().map(problem_json).collect();
        // The first stands at the top too, for a reader that wants one place to jump to.
        if let (Some(report), Some(first)) = (report.as_object_mut(), all.first()) {
            report.extend(
                first.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())),
            );
        }
        report["problems"] = all.into();
        report["problems_not_shown"] = json!(problems.more());
    }
    output.json(&report)?;
    Err(error.into())
}

fn problem_json(problem: &Problem) -> serde_json::Value {
    json!({
        "path": problem.path(),
        "line": problem.line(),
        "column": problem.column(),
        "message": problem.message(),
        "expected": problem.expected(),
    })
}

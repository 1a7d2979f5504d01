//! The meaning of a file whose shape is right: values in range, services that fit together, programs that exist.

use std::collections::BTreeMap;
use std::ops::Range;

use supervisor_core::config::{
    GroupStrategy, ProbeKind, ServiceSpec, SupervisorConfig, start_layers,
};
use supervisor_core::error::ConfigError;
use toml::Spanned;
use toml::de::DeValue;

use super::document::{key_span, service_name, span_at};
use super::error::Finding;
use super::program::find_program;
use super::shape::suggestion;

/// Finds the first value of `[supervisor]` that is out of range.
pub(super) fn check_supervisor(
    config: &SupervisorConfig,
    table: Option<&Spanned<DeValue<'_>>>,
) -> Option<Finding> {
    let error = config.validate().err()?;
    let span = table.map_or(0..0, |table| span_at(table, error.field()));
    Some(finding(span, &error, " in [supervisor]"))
}

/// Finds the first mistake in the values of a service, the one in the table with this index.
pub(super) fn check_values(
    index: usize,
    service: &ServiceSpec,
    table: &Spanned<DeValue<'_>>,
) -> Option<Finding> {
    let error = service.validate().err()?;
    let owner = format!(" in {}", service_name(index, table.get_ref()));
    let mut span = span_at(table, error.field());
    if let ConfigError::Invalid { field, value, .. } = &error
        && field == "environment"
    {
        span = key_span(table.get_ref(), field, value).unwrap_or(span);
    }
    Some(Finding { hide_line: error.field() == "environment", ..finding(span, &error, &owner) })
}

/// Finds the mistakes between services: ids, dependencies, groups, how many there may be.
pub(super) fn check_relations(
    supervisor: &SupervisorConfig,
    services: &[ServiceSpec],
    tables: &[&Spanned<DeValue<'_>>],
    text: &str,
    found: &mut Vec<Finding>,
) {
    let before = found.len();
    unique_ids(services, tables, text, found);
    known_dependencies(services, tables, found);
    if found.len() == before {
        found.extend(cycle(services, tables));
    }
    groups_agree(services, tables, found);
    let autostart: Vec<usize> =
        (0..services.len()).filter(|index| services[*index].autostart).collect();
    let most = supervisor.max_concurrent_services;
    if let Some(first_beyond) = autostart.get(most) {
        let message = format!(
            "{} services start by themselves, but only {most} may be up at once",
            autostart.len()
        );
        let expected =
            format!("no more services with autostart than max_concurrent_services = {most}");
        let help = format!(
            "set max_concurrent_services = {} under [supervisor], or autostart = false here",
            autostart.len()
        );
        let span = tables[*first_beyond].span();
        found.push(Finding::new(span, message).expected(expected).help(Some(help)));
    }
}

/// Finds the directory and the programs of a service that do not exist on this machine.
pub(super) fn check_machine(
    service: &ServiceSpec,
    table: &Spanned<DeValue<'_>>,
    found: &mut Vec<Finding>,
) {
    let owner = format!("service {:?}", service.id);
    if let Some(dir) = &service.working_dir
        && !dir.is_dir()
    {
        let message = format!("the working_dir of {owner} does not exist: {}", dir.display());
        found.push(
            Finding::new(span_at(table, "working_dir"), message)
                .expected("a directory; a relative one is relative to this file"),
        );
        // Programs may be relative to it.
        return;
    }
    let programs = std::iter::once(("command".to_owned(), service.command.as_str())).chain(
        service.probes.iter().enumerate().filter_map(|(n, probe)| {
            let program = probe.command.first()?;
            (probe.kind == ProbeKind::Exec)
                .then(|| (format!("probe[{n}].command[0]"), program.as_str()))
        }),
    );
    for (field, program) in programs {
        if let Err(reason) = find_program(service, program) {
            let what = if field == "command" { "program" } else { "probe program" };
            let message = format!("the {what} of {owner} cannot be run: {reason}");
            found.push(Finding::new(span_at(table, &field), message).expected(
                "a program in the service's PATH, or a path (a relative one is relative to this file)",
            ));
        }
    }
}

fn finding(span: Range<usize>, error: &ConfigError, owner: &str) -> Finding {
    match error {
        ConfigError::Invalid { field, value, expected } => {
            Finding::new(span, format!("invalid {field} {value:?}{owner}"))
                .expected(expected.as_str())
        }
        ConfigError::DependencyCycle { .. } => Finding::new(span, error.to_string())
            .expected("dependencies that end somewhere; remove one arrow of the circle"),
        other => Finding::new(span, other.to_string()),
    }
}

fn unique_ids(
    services: &[ServiceSpec],
    tables: &[&Spanned<DeValue<'_>>],
    text: &str,
    found: &mut Vec<Finding>,
) {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, service) in services.iter().enumerate() {
        if let Some(first) = seen.insert(&service.id, index) {
            let first = span_at(tables[first], "id").start;
            let line = text[..first].matches('\n').count() + 1;
            let message = format!("duplicate id {:?}: line {line} has it already", service.id);
            found.push(
                Finding::new(span_at(tables[index], "id"), message)
                    .expected("an id of its own for every service"),
            );
        }
    }
}

fn known_dependencies(
    services: &[ServiceSpec],
    tables: &[&Spanned<DeValue<'_>>],
    found: &mut Vec<Finding>,
) {
    let ids: Vec<&str> = services.iter().map(|service| service.id.as_str()).collect();
    for (service, table) in services.iter().zip(tables) {
        for (n, dependency) in service.depends_on.iter().enumerate() {
            let id = dependency.id.as_str();
            if !ids.contains(&id) {
                let message =
                    format!("service {:?} depends on {id:?}, which is no service here", service.id);
                let others = ids.iter().copied().filter(|other| *other != service.id);
                found.push(
                    Finding::new(span_at(table, &format!("depends_on[{n}].id")), message)
                        .expected("the id of another service in this file")
                        .help(suggestion(id, others)),
                );
            }
        }
    }
}

fn cycle(services: &[ServiceSpec], tables: &[&Spanned<DeValue<'_>>]) -> Option<Finding> {
    let mut graph = BTreeMap::new();
    for service in services {
        let Ok(id) = service.service_id() else {
            continue;
        };
        let needs = service.depends_on.iter().map(|needed| needed.id.clone());
        graph.insert(id, needs.collect());
    }
    let error = start_layers(&graph).err()?;
    let ConfigError::DependencyCycle { cycle } = &error else {
        return Some(finding(0..0, &error, ""));
    };
    // The circle is told from its first member in the file, where the caret stands.
    let first = services.iter().position(|service| cycle.contains(&service.id)).unwrap_or(0);
    let mut around = cycle[..cycle.len().saturating_sub(1)].to_vec();
    let turn = around.iter().position(|id| *id == services[first].id).unwrap_or(0);
    around.rotate_left(turn);
    around.extend(around.first().cloned());
    let error = ConfigError::DependencyCycle { cycle: around };
    Some(finding(span_at(tables[first], "depends_on"), &error, ""))
}

fn groups_agree(
    services: &[ServiceSpec],
    tables: &[&Spanned<DeValue<'_>>],
    found: &mut Vec<Finding>,
) {
    let mut strategies: BTreeMap<&str, (GroupStrategy, &str)> = BTreeMap::new();
    for (service, table) in services.iter().zip(tables) {
        let Some(group) = &service.group else {
            continue;
        };
        let first = *strategies.entry(&group.name).or_insert((group.strategy, &service.id));
        if first.0 != group.strategy {
            let message = format!(
                "services {:?} and {:?} give group {:?} different strategies",
                first.1, service.id, group.name
            );
            found.push(
                Finding::new(span_at(table, "group.strategy"), message)
                    .expected("the same strategy at every member of a group"),
            );
        }
    }
}

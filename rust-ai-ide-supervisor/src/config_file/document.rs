//! A parsed file whose every value knows where it stands.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Gives the value of `key` in `table`.
pub(super) fn entry<'t, 'i>(table: &'t DeTable<'i>, key: &str) -> Option<&'t Spanned<DeValue<'i>>> {
    table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
}

/// Gives the items of `[[key]]` that are tables.
pub(super) fn tables<'t, 'i>(table: &'t DeTable<'i>, key: &str) -> Vec<&'t Spanned<DeValue<'i>>> {
    entry(table, key)
        .and_then(|value| value.get_ref().as_array())
        .map(|items| items.iter().filter(|item| item.get_ref().is_table()).collect())
        .unwrap_or_default()
}

/// Gives the place of the value at `path` (`probe[0].timeout`), or of the nearest value around it that is written out.
pub(super) fn span_at(root: &Spanned<DeValue<'_>>, path: &str) -> Range<usize> {
    let mut span = root.span();
    let mut at = root.get_ref();
    for part in path.split(['.', '[']) {
        let index = part.strip_suffix(']').and_then(|n| n.parse::<usize>().ok());
        let next = match (at, index) {
            (DeValue::Array(items), Some(index)) => items.get(index),
            (DeValue::Table(table), None) => entry(table, part),
            _ => None,
        };
        let Some(next) = next else { break };
        span = next.span();
        at = next.get_ref();
    }
    span
}

/// Gives the place of the key `name` in the table at `path`, if it is written out.
pub(super) fn key_span(root: &DeValue<'_>, path: &str, name: &str) -> Option<Range<usize>> {
    let table = entry(root.as_table()?, path)?.get_ref().as_table()?;
    table.keys().find(|key| key.get_ref() == name).map(Spanned::span)
}

/// Gives the text at `key`, if it is text.
pub(super) fn text_at<'t>(table: &'t DeValue<'_>, key: &str) -> Option<&'t str> {
    entry(table.as_table()?, key)?.get_ref().as_str()
}

/// Names a service for people: by its id where it has one, else by its place in the file.
pub(super) fn service_name(index: usize, service: &DeValue<'_>) -> String {
    match text_at(service, "id") {
        Some(id) if !id.is_empty() && id.len() <= 64 => format!("service {id:?}"),
        _ => format!("service number {}", index + 1),
    }
}

/// Names the kind of a value the way the file's author knows it.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

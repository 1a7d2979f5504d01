//! What a schema accepts, in the words of a message.

use std::str::FromStr;

use serde_json::Value;
use supervisor_core::error::ConfigError;
use supervisor_core::text::{ByteSize, CpuPercent, parse_duration};
use supervisor_core::{ServiceId, Signal};

use super::schema::resolve;

/// Longest unknown word or key that is repeated in a message, in characters.
const WORD_SHOWN_MAX: usize = 60;

/// Lays alternatives that are alternatives themselves side by side.
pub(super) fn flatten(branches: &'static [Value]) -> Vec<&'static Value> {
    let mut flat = Vec::new();
    for branch in branches {
        let (branch, _) = resolve(branch);
        match inner(branch) {
            Some(branches) => flat.extend(flatten(branches)),
            None => flat.push(branch),
        }
    }
    flat
}

/// Gives the alternatives of a schema that has some.
pub(super) fn inner(schema: &'static Value) -> Option<&'static [Value]> {
    schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array).map(Vec::as_slice)
}

/// Reads the text form of a named definition of the schema, such as a duration.
#[derive(Clone, Copy)]
pub(super) struct Reader {
    pub(super) form: &'static str,
    pub(super) parse: fn(&str) -> Result<(), ConfigError>,
}

pub(super) fn reader(name: &str) -> Option<Reader> {
    fn with<T: FromStr<Err = ConfigError>>(text: &str) -> Result<(), ConfigError> {
        text.parse::<T>().map(drop)
    }
    let (form, parse): (_, fn(&str) -> _) = match name {
        "Duration" => ("a duration as text, such as \"250ms\", \"5s\" or \"1m 30s\"", |text| {
            parse_duration("duration", text).map(drop)
        }),
        "ByteSize" => ("a size as text, such as \"64KiB\" or \"2GiB\"", with::<ByteSize>),
        "CpuPercent" => ("a percentage of one core as text, such as \"150%\"", with::<CpuPercent>),
        "Signal" => ("a signal as text, such as \"SIGTERM\"", with::<Signal>),
        "ServiceId" => ("the id of a service as text", with::<ServiceId>),
        _ => return None,
    };
    Some(Reader { form, parse })
}

/// Says what a value of this schema looks like.
pub(super) fn describe(schema: &'static Value) -> String {
    let (schema, name) = resolve(schema);
    if let Some(read) = name.and_then(reader) {
        return read.form.to_owned();
    }
    if let Some(branches) = inner(schema) {
        return describe_all(&flatten(branches));
    }
    match schema["type"].as_str() {
        Some("string") => words(schema)
            .first()
            .map_or_else(|| "text in quotes".to_owned(), |word| format!("{word:?}")),
        Some("boolean") => "true or false".to_owned(),
        Some("integer") => "a whole number".to_owned(),
        Some("number") => "a number".to_owned(),
        Some("array") => match resolve(&schema["items"]).0["type"].as_str() {
            Some("object") => "a list of tables".to_owned(),
            Some("integer") => "a list of whole numbers, such as [0]".to_owned(),
            _ => "a list of texts, such as [\"a\", \"b\"]".to_owned(),
        },
        _ => {
            let required: Vec<&str> = strings(&schema["required"]).collect();
            let keys: Vec<&str> = schema["properties"]
                .as_object()
                .map(|keys| keys.keys().map(String::as_str).collect())
                .unwrap_or_default();
            let keys = if required.is_empty() { keys } else { required };
            match (tag(schema), keys.is_empty()) {
                (Some(tag), _) => {
                    let rest: String = keys
                        .iter()
                        .filter(|key| **key != "type")
                        .map(|key| format!(", {key} = ..."))
                        .collect();
                    format!("{{ type = {tag:?}{rest} }}")
                }
                (None, false) => format!(
                    "a table such as {{ {} }}",
                    keys.iter().map(|key| format!("{key} = ...")).collect::<Vec<_>>().join(", ")
                ),
                (None, true) => "a table such as { NAME = \"value\" }".to_owned(),
            }
        }
    }
}

pub(super) fn describe_all(branches: &[&'static Value]) -> String {
    let said: Vec<String> = branches
        .iter()
        .flat_map(|branch| {
            let words = words(branch);
            if words.is_empty() {
                vec![describe(branch)]
            } else {
                words.iter().map(|word| format!("{word:?}")).collect()
            }
        })
        .collect();
    join_or(&said)
}

/// Gives the words a schema accepts, if it accepts only words.
pub(super) fn words(schema: &'static Value) -> Vec<&'static str> {
    let constant = schema.get("const").and_then(Value::as_str);
    constant.into_iter().chain(strings(&schema["enum"])).collect()
}

/// Gives the value of `type` that chooses this branch.
pub(super) fn tag(schema: &'static Value) -> Option<&'static str> {
    words(schema["properties"].get("type")?).first().copied()
}

pub(super) fn strings(value: &'static Value) -> impl Iterator<Item = &'static str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// The range of a Rust integer by the name schemars gives its format.
pub(super) fn integer_range(schema: &Value) -> (i128, i128) {
    match schema["format"].as_str() {
        Some("int32") => (i32::MIN.into(), i32::MAX.into()),
        Some("uint32") => (0, u32::MAX.into()),
        // TOML's own integers end at 2^63-1.
        Some("uint" | "uint64") => (0, i64::MAX.into()),
        _ => (i64::MIN.into(), i64::MAX.into()),
    }
}

pub(super) fn shorten(word: &str) -> String {
    let mut chars = word.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    let mut short: String = chars.by_ref().take(WORD_SHOWN_MAX).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}

pub(super) fn one_of(names: &[&str]) -> String {
    match names {
        [] => "nothing here".to_owned(),
        [only] => format!("`{only}`"),
        names => format!("one of {}", names.join(", ")),
    }
}

pub(super) fn one_of_quoted(words: &[&str]) -> String {
    join_or(&words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>())
}

pub(super) fn join_or(said: &[String]) -> String {
    match said {
        [] => String::new(),
        [only] => only.clone(),
        [head @ .., last] => format!("{} or {last}", head.join(", ")),
    }
}

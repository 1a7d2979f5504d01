//! The shape of a file: keys that exist, types that fit, words and units that can be read.
//!
//! Walks the document beside the JSON Schema of the configuration types. Deserialising alone would find the same
//! mistakes, but for tagged and untagged alternatives only as "data did not match any variant" without a place.

use std::ops::Range;
use std::str::FromStr;
use std::sync::LazyLock;

use serde_json::{Map, Value};
use supervisor_core::error::ConfigError;
use supervisor_core::text::{ByteSize, CpuPercent, parse_duration};
use supervisor_core::{ServiceId, Signal};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::{entry, kind, service_name};
use super::error::Finding;
use super::schema::{config_schema, resolve};

/// Longest unknown word or key that is repeated in a message, in characters.
const WORD_SHOWN_MAX: usize = 60;

/// Most keys listed beside a suggestion; a longer list buries it.
const KEYS_SHOWN_MAX: usize = 10;

/// What a schema without `properties` knows.
static NO_KEYS: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

/// Finds the first mistake of shape in the order of the file.
pub(super) fn check(root: &Spanned<DeTable<'_>>) -> Option<Finding> {
    let mut walker = Walker {
        findings: Vec::new(),
    };
    walker.table(
        config_schema(),
        root.get_ref(),
        &root.span(),
        &Place::default(),
    );
    walker
        .findings
        .into_iter()
        .min_by_key(|finding| finding.span.start)
}

/// Suggests the candidate somebody probably meant by `given`.
pub(super) fn suggestion<'a>(
    given: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(given, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}

/// Says that there is nothing to do.
pub(super) fn no_services(span: Range<usize>) -> Finding {
    Finding::new(span, "no services: there is nothing to supervise")
        .expected("at least one [[service]] with an id and a command")
        .help(Some(
            "`ide-supervisor config init` writes an example to start from".to_owned(),
        ))
}

/// Where in the configuration a value stands, in words.
#[derive(Debug, Clone, Default)]
struct Place {
    /// Path inside the service or the supervisor settings, such as `probe[0].timeout`.
    field: String,
    /// ` in service "a"`, or nothing.
    owner: String,
}

impl Place {
    fn key(&self, key: &str) -> Self {
        let field = if self.field.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.field)
        };
        Self {
            field,
            owner: self.owner.clone(),
        }
    }

    fn item(&self, index: usize, value: &DeValue<'_>) -> Self {
        if self.field == "service" && self.owner.is_empty() {
            return Self {
                field: String::new(),
                owner: format!(" in {}", service_name(index, value)),
            };
        }
        Self {
            field: format!("{}[{index}]", self.field),
            owner: self.owner.clone(),
        }
    }

    /// Says what a key here is a key of.
    fn holder(&self) -> String {
        match self.field.as_str() {
            "" if self.owner.is_empty() => " at the top of the file".to_owned(),
            "" => self.owner.clone(),
            "supervisor" => " in [supervisor]".to_owned(),
            field => format!(" in {field}{}", self.owner),
        }
    }

    /// Tells whether values here may be secret.
    fn secret(&self) -> bool {
        self.field == "environment" || self.field.starts_with("environment.")
    }
}

struct Walker {
    findings: Vec<Finding>,
}

impl Walker {
    fn report(&mut self, place: &Place, finding: Finding) {
        let hide_line = place.secret();
        self.findings.push(Finding {
            hide_line,
            ..finding
        });
    }

    fn value(&mut self, schema: &'static Value, value: &Spanned<DeValue<'_>>, place: &Place) {
        let (schema, name) = resolve(schema);
        if let Some(read) = name.and_then(reader) {
            return self.text(read, value, place);
        }
        if let Some(branches) = inner(schema) {
            return self.alternatives(branches, value, place);
        }
        match (schema["type"].as_str(), value.get_ref()) {
            (Some("object"), DeValue::Table(table)) => {
                self.table(schema, table, &value.span(), place);
            }
            (Some("array"), DeValue::Array(items)) => {
                for (n, item) in items.iter().enumerate() {
                    self.value(&schema["items"], item, &place.item(n, item.get_ref()));
                }
            }
            (Some("string"), DeValue::String(_))
            | (Some("boolean"), DeValue::Boolean(_))
            | (Some("number"), DeValue::Integer(_) | DeValue::Float(_)) => {}
            (Some("integer"), DeValue::Integer(number)) => {
                let (least, most) = integer_range(schema);
                let fits = i128::from_str_radix(number.as_str(), number.radix())
                    .is_ok_and(|number| (least..=most).contains(&number));
                if !fits {
                    let message = format!("{}{} is out of range", place.field, place.owner);
                    let expected = format!("a whole number from {least} to {most}");
                    self.report(
                        place,
                        Finding::new(value.span(), message).expected(expected),
                    );
                }
            }
            _ => self.wrong_type(&describe(schema), value, place),
        }
    }

    fn table(
        &mut self,
        schema: &'static Value,
        table: &DeTable<'_>,
        span: &Range<usize>,
        place: &Place,
    ) {
        let known = schema["properties"].as_object().unwrap_or(&NO_KEYS);
        let mut unknown = false;
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            match known.get(name) {
                Some(schema) => self.value(schema, value, &place.key(name)),
                None if schema["additionalProperties"].is_object() => {
                    self.value(&schema["additionalProperties"], value, &place.key(name));
                }
                None => {
                    unknown = true;
                    self.unknown_key(key.span(), name, known, place);
                }
            }
        }
        // A key that is missing is most often the one that is misspelt; one message is enough.
        if !unknown {
            for required in strings(&schema["required"]) {
                if entry(table, required).is_none() {
                    self.missing(required, &known[required], span, place);
                }
            }
        }
    }

    fn missing(&mut self, key: &str, schema: &'static Value, span: &Range<usize>, place: &Place) {
        let finding = if place.owner.is_empty() && key == "service" {
            no_services(span.clone())
        } else {
            let holder = place.holder();
            Finding::new(span.clone(), format!("`{key}` is missing{holder}"))
                .expected(format!("{key} = {}", describe(schema)))
        };
        self.report(place, finding);
    }

    fn unknown_key(
        &mut self,
        span: Range<usize>,
        name: &str,
        known: &'static Map<String, Value>,
        place: &Place,
    ) {
        let name = shorten(name);
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        let meant = suggestion(&name, names.iter().copied());
        let expected = if meant.is_some() && names.len() > KEYS_SHOWN_MAX {
            "one of the keys `ide-supervisor config schema` lists".to_owned()
        } else {
            one_of(&names)
        };
        let message = format!("unknown key `{name}`{}", place.holder());
        self.report(
            place,
            Finding::new(span, message).expected(expected).help(meant),
        );
    }

    fn text(&mut self, read: Reader, value: &Spanned<DeValue<'_>>, place: &Place) {
        let Some(text) = value.get_ref().as_str() else {
            return self.wrong_type(read.form, value, place);
        };
        if let Err(ConfigError::Invalid {
            value: given,
            expected,
            ..
        }) = (read.parse)(text)
        {
            let message = format!("invalid {} {given:?}{}", place.field, place.owner);
            self.report(
                place,
                Finding::new(value.span(), message).expected(expected),
            );
        }
    }

    fn alternatives(
        &mut self,
        branches: &'static [Value],
        value: &Spanned<DeValue<'_>>,
        place: &Place,
    ) {
        let branches = flatten(branches);
        let words: Vec<&'static str> = branches.iter().flat_map(|branch| words(branch)).collect();
        let objects: Vec<&'static Value> = branches
            .iter()
            .copied()
            .filter(|branch| branch["type"] == "object")
            .collect();
        match value.get_ref() {
            DeValue::String(text) if !words.is_empty() => {
                if !words.contains(&text.as_ref()) {
                    let text = shorten(text);
                    let message = format!("invalid {} {text:?}{}", place.field, place.owner);
                    let finding = Finding::new(value.span(), message)
                        .expected(describe_all(&branches))
                        .help(suggestion(&text, words));
                    self.report(place, finding);
                }
            }
            DeValue::Table(table) if objects.len() == 1 => {
                self.table(objects[0], table, &value.span(), place);
            }
            DeValue::Table(table) if !objects.is_empty() => {
                self.tagged(&objects, table, &value.span(), place);
            }
            DeValue::Array(_) if branches.iter().any(|branch| branch["type"] == "array") => {
                for branch in branches.iter().filter(|branch| branch["type"] == "array") {
                    self.value(branch, value, place);
                }
            }
            _ => self.wrong_type(&describe_all(&branches), value, place),
        }
    }

    /// Checks a table whose `type` says which keys it has.
    fn tagged(
        &mut self,
        objects: &[&'static Value],
        table: &DeTable<'_>,
        span: &Range<usize>,
        place: &Place,
    ) {
        let tags: Vec<&str> = objects.iter().filter_map(|object| tag(object)).collect();
        let Some(given) = entry(table, "type") else {
            let message = format!("`type` is missing in {}{}", place.field, place.owner);
            let finding = Finding::new(span.clone(), message)
                .expected(format!("type = {}", one_of_quoted(&tags)));
            return self.report(place, finding);
        };
        let chosen = given
            .get_ref()
            .as_str()
            .and_then(|text| objects.iter().find(|object| tag(object) == Some(text)));
        if let Some(object) = chosen {
            return self.table(object, table, span, place);
        }
        let text = shorten(given.get_ref().as_str().unwrap_or_default());
        let message = format!("invalid {}.type {text:?}{}", place.field, place.owner);
        let finding = Finding::new(given.span(), message)
            .expected(one_of_quoted(&tags))
            .help(suggestion(&text, tags));
        self.report(place, finding);
    }

    fn wrong_type(&mut self, expected: &str, value: &Spanned<DeValue<'_>>, place: &Place) {
        let given = kind(value.get_ref());
        let field = if place.field.is_empty() {
            "service"
        } else {
            place.field.as_str()
        };
        let message = format!("{field}{} has the wrong type: found {given}", place.owner);
        self.report(
            place,
            Finding::new(value.span(), message)
                .expected(expected)
                .help(form_meant(expected, value.get_ref(), place)),
        );
    }
}

/// Guesses what somebody meant who wrote a value of the wrong type.
fn form_meant(expected: &str, value: &DeValue<'_>, place: &Place) -> Option<String> {
    match value {
        // `[x]` where `[[x]]` was meant is the mistake everybody makes once.
        DeValue::Table(_) if expected.starts_with("a list of tables") => {
            let header = if place.owner.is_empty() {
                place.field.clone()
            } else {
                format!("service.{}", place.field)
            };
            Some(format!(
                "write the header as [[{header}]], with two brackets"
            ))
        }
        DeValue::String(word) if expected.contains(&format!("{{ type = {word:?}")) => {
            Some(format!("write {} = {{ type = {word:?} }}", place.field))
        }
        DeValue::Integer(number) if expected.starts_with("a duration") => Some(format!(
            "write \"{number}s\" for seconds, \"{number}ms\" for milliseconds"
        )),
        _ => None,
    }
}

/// Lays alternatives that are alternatives themselves side by side.
fn flatten(branches: &'static [Value]) -> Vec<&'static Value> {
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
fn inner(schema: &'static Value) -> Option<&'static [Value]> {
    schema
        .get("oneOf")
        .or_else(|| schema.get("anyOf"))
        .and_then(Value::as_array)
        .map(Vec::as_slice)
}

/// Reads the text form of a named definition.
#[derive(Clone, Copy)]
struct Reader {
    form: &'static str,
    parse: fn(&str) -> Result<(), ConfigError>,
}

fn reader(name: &str) -> Option<Reader> {
    fn with<T: FromStr<Err = ConfigError>>(text: &str) -> Result<(), ConfigError> {
        text.parse::<T>().map(drop)
    }
    let (form, parse): (_, fn(&str) -> _) = match name {
        "Duration" => (
            "a duration as text, such as \"250ms\", \"5s\" or \"1m 30s\"",
            |text| parse_duration("duration", text).map(drop),
        ),
        "ByteSize" => (
            "a size as text, such as \"64KiB\" or \"2GiB\"",
            with::<ByteSize>,
        ),
        "CpuPercent" => (
            "a percentage of one core as text, such as \"150%\"",
            with::<CpuPercent>,
        ),
        "Signal" => ("a signal as text, such as \"SIGTERM\"", with::<Signal>),
        "ServiceId" => ("the id of a service as text", with::<ServiceId>),
        _ => return None,
    };
    Some(Reader { form, parse })
}

/// Says what a value of this schema looks like.
fn describe(schema: &'static Value) -> String {
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
                    keys.iter()
                        .map(|key| format!("{key} = ..."))
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
                (None, true) => "a table such as { NAME = \"value\" }".to_owned(),
            }
        }
    }
}

fn describe_all(branches: &[&'static Value]) -> String {
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
fn words(schema: &'static Value) -> Vec<&'static str> {
    let constant = schema.get("const").and_then(Value::as_str);
    constant
        .into_iter()
        .chain(strings(&schema["enum"]))
        .collect()
}

/// Gives the value of `type` that chooses this branch.
fn tag(schema: &'static Value) -> Option<&'static str> {
    words(schema["properties"].get("type")?).first().copied()
}

fn strings(value: &'static Value) -> impl Iterator<Item = &'static str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// The range of a Rust integer by the name schemars gives its format.
fn integer_range(schema: &Value) -> (i128, i128) {
    match schema["format"].as_str() {
        Some("int32") => (i32::MIN.into(), i32::MAX.into()),
        Some("uint32") => (0, u32::MAX.into()),
        // TOML's own integers end at 2^63-1.
        Some("uint" | "uint64") => (0, i64::MAX.into()),
        _ => (i64::MIN.into(), i64::MAX.into()),
    }
}

fn shorten(word: &str) -> String {
    let mut chars = word
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c });
    let mut short: String = chars.by_ref().take(WORD_SHOWN_MAX).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}

fn one_of(names: &[&str]) -> String {
    match names {
        [] => "nothing here".to_owned(),
        [only] => format!("`{only}`"),
        names => format!("one of {}", names.join(", ")),
    }
}

fn one_of_quoted(words: &[&str]) -> String {
    join_or(
        &words
            .iter()
            .map(|word| format!("{word:?}"))
            .collect::<Vec<_>>(),
    )
}

fn join_or(said: &[String]) -> String {
    match said {
        [] => String::new(),
        [only] => only.clone(),
        [head @ .., last] => format!("{} or {last}", head.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(text: &str) -> Option<Finding> {
        check(&DeTable::parse(text).unwrap())
    }

    #[test]
    fn the_first_mistake_in_the_file_is_the_one_reported() {
        let text = "[[service]]\nid = \"a\"\ncommand = 1\nzzz = 1\n[supervisor]\naaa = 1\n";
        assert!(first(text).unwrap().message.contains("command"));
    }

    #[test]
    fn every_type_of_the_schema_is_understood() {
        // A definition the walker cannot describe would be reported to a user as an empty expectation.
        for (name, definition) in config_schema()["definitions"].as_object().unwrap() {
            assert!(!describe(definition).is_empty(), "{name}");
        }
    }

    #[test]
    fn a_word_close_enough_is_suggested_and_another_is_not() {
        let known = ["restart_policy", "restart_on", "id"];
        assert_eq!(
            suggestion("restart_polcy", known).unwrap(),
            "did you mean `restart_policy`?"
        );
        assert_eq!(suggestion("qqq", known), None);
    }
}

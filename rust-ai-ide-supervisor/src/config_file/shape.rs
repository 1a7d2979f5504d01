//! The shape of a file: keys that exist, types that fit, words and units that can be read.
//!
//! Walks the document beside the JSON Schema of the configuration types. Deserialising alone would find the same
//! mistakes, but for tagged and untagged alternatives only as "data did not match any variant" without a place.

use std::ops::Range;
use std::sync::LazyLock;

use serde_json::{Map, Value};
use supervisor_core::error::ConfigError;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::{entry, kind, service_name};
use super::error::Finding;
use super::schema::{config_schema, resolve};
use super::wording::{
    Reader, describe, describe_all, flatten, inner, integer_range, one_of, one_of_quoted, reader,
    shorten, strings, tag, words,
};

/// Most keys listed beside a suggestion; a longer list buries it.
const KEYS_SHOWN_MAX: usize = 10;

/// What a schema without `properties` knows.
static NO_KEYS: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

/// Finds the mistakes of shape.
pub(super) fn check(root: &Spanned<DeTable<'_>>) -> Vec<Finding> {
    let mut walker = Walker { findings: Vec::new() };
    walker.table(config_schema(), root.get_ref(), &root.span(), &Place::default());
    walker.findings
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
        .help(Some("`ide-supervisor config init` writes an example to start from".to_owned()))
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
        let field =
            if self.field.is_empty() { key.to_owned() } else { format!("{}.{key}", self.field) };
        Self { field, owner: self.owner.clone() }
    }

    fn item(&self, index: usize, value: &DeValue<'_>) -> Self {
        if self.field == "service" && self.owner.is_empty() {
            return Self {
                field: String::new(),
                owner: format!(" in {}", service_name(index, value)),
            };
        }
        Self { field: format!("{}[{index}]", self.field), owner: self.owner.clone() }
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
        self.findings.push(Finding { hide_line, ..finding });
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
                    self.report(place, Finding::new(value.span(), message).expected(expected));
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
        self.report(place, Finding::new(span, message).expected(expected).help(meant));
    }

    fn text(&mut self, read: Reader, value: &Spanned<DeValue<'_>>, place: &Place) {
        let Some(text) = value.get_ref().as_str() else {
            return self.wrong_type(read.form, value, place);
        };
        if let Err(ConfigError::Invalid { value: given, expected, .. }) = (read.parse)(text) {
            let message = format!("invalid {} {given:?}{}", place.field, place.owner);
            self.report(place, Finding::new(value.span(), message).expected(expected));
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
        let objects: Vec<&'static Value> =
            branches.iter().copied().filter(|branch| branch["type"] == "object").collect();
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
        let field = if place.field.is_empty() { "service" } else { place.field.as_str() };
        let message = format!("{field}{} has the wrong type: found {given}", place.owner);
        self.report(
            place,
            Finding::new(value.span(), message).expected(expected).help(form_meant(
                expected,
                value.get_ref(),
                place,
            )),
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
            Some(format!("write the header as [[{header}]], with two brackets"))
        }
        DeValue::String(word) if expected.contains(&format!("{{ type = {word:?}")) => {
            Some(format!("write {} = {{ type = {word:?} }}", place.field))
        }
        DeValue::Integer(number) if expected.starts_with("a duration") => {
            Some(format!("write \"{number}s\" for seconds, \"{number}ms\" for milliseconds"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(suggestion("restart_polcy", known).unwrap(), "did you mean `restart_policy`?");
        assert_eq!(suggestion("qqq", known), None);
    }
}

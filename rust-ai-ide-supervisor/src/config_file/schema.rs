//! The JSON Schema of the configuration file, made of the configuration types themselves.

use std::sync::LazyLock;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value};
use supervisor_core::config::{ServiceSpec, SupervisorConfig};

/// The whole file; only its schema is used.
#[derive(JsonSchema)]
#[schemars(
    title = "ide-supervisor.toml",
    deny_unknown_fields,
    description = "Services kept alive by ide-supervisor. Durations are text such as \"5s\", sizes text such as \"16MiB\"."
)]
#[expect(dead_code, reason = "stands for the file's shape; its parts are read one by one")]
struct Root {
    /// Settings of the supervisor itself.
    #[serde(default)]
    supervisor: SupervisorConfig,
    /// The services, each under its own `[[service]]`.
    service: Vec<ServiceSpec>,
}

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let mut schema = SchemaSettings::draft07()
        .for_deserialize()
        .into_generator()
        .into_root_schema_for::<Root>()
        .to_value();
    forget_null(&mut schema);
    schema
});

/// Gives the JSON Schema (draft 7, which editors' TOML plugins read) of `ide-supervisor.toml`.
#[must_use]
pub fn config_schema() -> &'static Value {
    &SCHEMA
}

/// Gives the definition a `$ref` points to, and its name.
pub(super) fn resolve(schema: &'static Value) -> (&'static Value, Option<&'static str>) {
    // draft 7 forbids siblings of `$ref`, so one with a description is wrapped in an `allOf` of its own.
    let direct = schema.get("allOf").and_then(|all| all.get(0)).unwrap_or(schema);
    let Some(name) = direct
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|reference| reference.strip_prefix("#/definitions/"))
    else {
        return (direct, None);
    };
    (&SCHEMA["definitions"][name], Some(name))
}

/// TOML has no null: an absent key is absent, so the schema should not offer it.
fn forget_null(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(forget_null),
        Value::Object(map) => {
            if let Some(Value::Array(kinds)) = map.get_mut("type") {
                kinds.retain(|kind| kind != "null");
                if let [only] = kinds.as_slice() {
                    let only = only.clone();
                    map.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(branches)) = map.get_mut("anyOf") {
                branches.retain(|branch| branch.get("type") != Some(&Value::from("null")));
                if let [only] = branches.as_slice() {
                    let only = only.clone();
                    map.remove("anyOf");
                    merge(map, only);
                }
            }
            if map.get("default") == Some(&Value::Null) {
                map.remove("default");
            }
            map.values_mut().for_each(forget_null);
        }
        _ => {}
    }
}

/// Puts the one branch left of an `anyOf` in the place of the `anyOf`.
fn merge(map: &mut Map<String, Value>, only: Value) {
    if only.get("$ref").is_some() && !map.is_empty() {
        map.insert("allOf".into(), Value::Array(vec![only]));
    } else if let Value::Object(only) = only {
        map.extend(only);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_names_the_keys_of_the_types_and_no_null() {
        let schema = config_schema();
        let text = schema.to_string();
        assert!(!text.contains("\"null\"") && !text.contains(":null"), "{text}");
        let service = &schema["definitions"]["ServiceSpec"];
        assert_eq!(service["additionalProperties"], Value::Bool(false));
        for key in ["id", "command", "restart_policy", "probe", "channel"] {
            assert!(service["properties"].get(key).is_some(), "{key}");
        }
        assert_eq!(resolve(&service["properties"]["half_open_after"]).1, Some("Duration"));
    }
}

//! What the sanitiser accepts and refuses.

use proptest::prelude::*;
use serde_json::{Value, json};
use supervisor_core::error::{Classified as _, SecurityError};
use supervisor_core::ports::CheckpointSelector;
use supervisor_tauri::TauriInputSanitizer as Sanitize;
use supervisor_tauri::sanitize::{LIMIT_DEFAULT, NAME_LEN_MAX, SEQUENCE_MAX, SPEC_LEN_MAX};

fn hostile_texts() -> Vec<Value> {
    vec![
        json!(""),
        json!("../../etc/passwd"),
        json!(".."),
        json!("a/b"),
        json!("C:\\Windows"),
        json!("a\0b"),
        json!("a\nb"),
        json!("\u{1b}[2Jx"),
        json!("a\u{202e}b"),
        json!("a\u{200b}b"),
        json!("x".repeat(10_000_000)),
        json!(1),
        json!(true),
        json!(["lsp"]),
        json!({"id": "lsp"}),
    ]
}

#[test]
fn a_hostile_service_id_is_refused_without_being_repeated() {
    for value in hostile_texts() {
        let error = Sanitize::service_id("service", Some(&value)).unwrap_err();
        assert_eq!(error.code(), "security_input");
        let said = error.to_string();
        assert!(said.starts_with("argument service refused"), "{said}");
        assert!(said.len() < 200, "a refusal is one short sentence");
        assert!(!said.contains(char::is_control));
    }
    for bad in ["-a", "_a", ".a", "ä", "a b"] {
        Sanitize::service_id("service", Some(&json!(bad))).unwrap_err();
    }
    Sanitize::service_id("service", None).unwrap_err();
    assert_eq!(
        Sanitize::service_id("service", Some(&json!("a.b-c_D"))).unwrap().as_str(),
        "a.b-c_D"
    );
}

#[test]
fn a_name_may_hold_any_visible_text_that_is_no_path() {
    for value in hostile_texts() {
        assert!(Sanitize::name("name", Some(&value)).is_err());
    }
    assert!(Sanitize::name("name", Some(&json!("   "))).is_err());
    assert!(Sanitize::name("name", Some(&json!("x".repeat(NAME_LEN_MAX + 1)))).is_err());
    for good in ["Sprachserver für Zoë", "言語サーバー", "a b"] {
        assert_eq!(Sanitize::name("name", Some(&json!(good))).unwrap(), good);
    }
}

#[test]
fn a_limit_is_a_whole_number_in_range() {
    assert_eq!(Sanitize::limit("limit", None).unwrap(), LIMIT_DEFAULT);
    for (value, expected) in [(json!(1), 1), (json!(10_000), 10_000)] {
        assert_eq!(Sanitize::limit("limit", Some(&value)).unwrap(), expected);
    }
    for bad in [
        json!(0),
        json!(-1),
        json!(10_001),
        json!(1.5),
        json!("5"),
        json!(1e300),
        json!([]),
        json!(u64::MAX),
    ] {
        Sanitize::limit("limit", Some(&bad)).unwrap_err();
    }
}

#[test]
fn a_sequence_is_one_that_javascript_can_count() {
    assert_eq!(Sanitize::sequence("after", None).unwrap(), None);
    assert_eq!(
        Sanitize::sequence("after", Some(&json!(SEQUENCE_MAX))).unwrap().map(|s| s.get()),
        Some(SEQUENCE_MAX)
    );
    for bad in [json!(-1), json!(SEQUENCE_MAX + 1), json!(0.5), json!("1"), json!({})] {
        Sanitize::sequence("after", Some(&bad)).unwrap_err();
    }
}

#[test]
fn a_checkpoint_is_named_by_the_one_form_of_its_id() {
    assert_eq!(Sanitize::checkpoint("checkpoint", None).unwrap(), CheckpointSelector::Latest);
    let id = "0190b6f2-7c3a-7def-8123-456789abcdef";
    assert!(matches!(
        Sanitize::checkpoint("checkpoint", Some(&json!(id))).unwrap(),
        CheckpointSelector::Id(_)
    ));
    let braced = format!("{{{id}}}");
    let urn = format!("urn:uuid:{id}");
    let simple = id.replace('-', "");
    for bad in [
        "latest",
        "../checkpoint",
        braced.as_str(),
        urn.as_str(),
        simple.as_str(),
        "0190b6f2-7c3a-7def-8123-456789abcdeg",
    ] {
        Sanitize::checkpoint("checkpoint", Some(&json!(bad))).unwrap_err();
    }
    for value in hostile_texts() {
        Sanitize::checkpoint("checkpoint", Some(&value)).unwrap_err();
    }
}

#[test]
fn a_specification_is_refused_by_field_and_its_values_are_not_repeated() {
    let good = json!({"id": "lsp", "command": "server"});
    assert_eq!(Sanitize::spec("spec", &good).unwrap().command, "server");
    let cases = [
        (json!({"id": "lsp", "command": "server", "shell": "hunter2"}), "shell"),
        (json!({"id": "lsp"}), "command"),
        (json!({"id": "lsp", "command": "server", "args": "hunter2"}), "wrong type"),
        (
            json!({"id": "lsp", "command": "server", "environment": {"KEY": "hunter2\0"}}),
            "environment",
        ),
        (json!({"id": "../lsp", "command": "hunter2"}), "id"),
        (json!("hunter2"), "wrong type"),
        (json!(null), "wrong type"),
    ];
    for (value, expected) in cases {
        let said = Sanitize::spec("spec", &value).unwrap_err().to_string();
        assert!(said.contains(expected), "{said} should name {expected}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn a_specification_too_large_or_too_deep_is_refused() {
    let large = json!({"id": "a", "command": "b", "args": ["x".repeat(SPEC_LEN_MAX)]});
    assert!(Sanitize::spec("spec", &large).unwrap_err().to_string().contains("256 KiB"));
    let mut deep = json!(1);
    for _ in 0..100 {
        deep = json!([deep]);
    }
    assert!(Sanitize::spec("spec", &deep).unwrap_err().to_string().contains("nested"));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,80}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map(".{0,12}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_is_accepted_within_the_rules_or_refused(value in any_json()) {
        if let Ok(id) = Sanitize::service_id("service", Some(&value)) {
            prop_assert_eq!(value.as_str(), Some(id.as_str()));
            prop_assert!(id.as_str().chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)));
        }
        if let Ok(name) = Sanitize::name("name", Some(&value)) {
            prop_assert!(!name.contains(char::is_control) && !name.contains(['/', '\\']));
        }
        if let Ok(limit) = Sanitize::limit("limit", Some(&value)) {
            prop_assert!((1..=10_000).contains(&limit));
        }
        if let Err(SecurityError::Input { argument, .. }) = Sanitize::spec("spec", &value) {
            prop_assert_eq!(argument, "spec");
        }
    }
}

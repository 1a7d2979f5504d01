//! What an error about a service repeats, and what it must not.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use supervisor_core::config::{
    EnvironmentInheritance, ProbeKind, ProbeRole, ProbeSpec, ServiceSpec,
};
use supervisor_core::error::ConfigError;

type Change = Box<dyn Fn(&mut ServiceSpec)>;

fn set(change: impl Fn(&mut ServiceSpec) + 'static) -> Change {
    Box::new(change)
}

fn changed(change: &Change) -> ConfigError {
    let mut spec = ServiceSpec::new("svc", "program").unwrap();
    change(&mut spec);
    spec.validate().unwrap_err()
}

#[test]
fn no_value_that_may_be_a_secret_is_repeated_in_an_error() {
    let secret = "hunter2";
    let wrong: Vec<Change> = vec![
        set(move |spec| spec.args = vec![format!("--token={secret}\0")]),
        set(move |spec| drop(spec.environment.insert("KEY".into(), format!("{secret}\0")))),
        set(move |spec| spec.secret_environment = vec![format!("KEY={secret}")]),
        set(move |spec| {
            spec.inherit_environment = EnvironmentInheritance::List(vec![format!("KEY={secret}")]);
        }),
        set(move |spec| drop(spec.environment.insert(format!("KEY={secret}"), "x".into()))),
        set(move |spec| {
            let command = vec!["check".into(), format!("{secret}\0")];
            spec.probes =
                vec![ProbeSpec { command, ..ProbeSpec::new(ProbeRole::Liveness, ProbeKind::Exec) }];
        }),
    ];
    for change in wrong {
        let error = changed(&change);
        assert!(!format!("{error} {error:?}").contains(secret), "{error}");
    }
}

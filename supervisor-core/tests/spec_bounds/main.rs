//! Every field of a service at its bounds, just inside and just outside.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod targets;

use std::time::Duration;

use supervisor_core::Signal;
use supervisor_core::config::{
    CaptureLimits, EnvironmentInheritance, Group, GroupStrategy, ProbeKind, ProbeRole, ProbeSpec,
    ResourceLimits, RestartIntensity, RestartPolicy, ServiceSpec, StopStep,
};
use supervisor_core::error::{Classified, ErrorClass};
use supervisor_core::text::{ByteSize, CpuPercent, DURATION_MAX};

const KIB: usize = 1024;
const NANO: Duration = Duration::from_nanos(1);
const MILLI: Duration = Duration::from_millis(1);

/// A change to a valid service.
type Change = Box<dyn Fn(&mut ServiceSpec)>;

fn set(change: impl Fn(&mut ServiceSpec) + 'static) -> Change {
    Box::new(change)
}

fn changed(change: &Change) -> ServiceSpec {
    let mut spec = ServiceSpec::new("svc", "program").unwrap();
    change(&mut spec);
    spec
}

/// Checks that the field takes these values and refuses those, naming itself.
fn bounds(field: &str, accepted: Vec<Change>, refused: Vec<Change>) {
    for (n, change) in accepted.iter().enumerate() {
        let result = changed(change).validate();
        assert!(result.is_ok(), "{field}, accepted value {n}: {}", result.unwrap_err());
    }
    for (n, change) in refused.iter().enumerate() {
        let error = changed(change).validate().expect_err(&format!("{field}, refused value {n}"));
        assert_eq!(error.field(), field, "{error}");
        assert_eq!(error.class(), ErrorClass::Permanent);
        let said = error.to_string();
        assert!(said.len() < 1000, "{field}: an error of {} bytes", said.len());
        assert!(said.contains("expected") || said.contains("cycle"), "{said}");
    }
}

fn durations(
    field: &str,
    least: Duration,
    put: impl Fn(&mut ServiceSpec, Duration) + Clone + 'static,
) {
    let of = |value: Duration| {
        let put = put.clone();
        set(move |spec| put(spec, value))
    };
    let mut refused = vec![of(DURATION_MAX + NANO), of(Duration::MAX)];
    if !least.is_zero() {
        refused.push(of(least - NANO));
        refused.push(of(Duration::ZERO));
    }
    bounds(
        field,
        vec![of(least), of(least + NANO), of(DURATION_MAX - NANO), of(DURATION_MAX)],
        refused,
    );
}

fn texts(field: &str, longest: usize, put: impl Fn(&mut ServiceSpec, String) + Clone + 'static) {
    let of = |value: String| {
        let put = put.clone();
        set(move |spec| put(spec, value.clone()))
    };
    bounds(
        field,
        vec![of("x".repeat(longest)), of("x".repeat(longest - 1)), of("x".into()), of("ü".into())],
        vec![
            of("x".repeat(longest + 1)),
            of("a\0b".into()),
            of("\0".into()),
            of("x".repeat(10 << 20)),
        ],
    );
}

#[test]
fn an_id_is_short_plain_and_goes_nowhere() {
    let of = |id: &str| {
        let id = id.to_owned();
        set(move |spec| spec.id.clone_from(&id))
    };
    let hostile = [
        "",
        " ",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "-x",
        "_x",
        "a b",
        "a\nb",
        "a\0",
        "é",
        "a\u{202e}b",
        "a;rm",
        "$(x)",
        "%s",
        "\u{1b}[31m",
        "x\u{0}",
        "con:",
    ];
    let mut refused: Vec<_> = hostile.iter().map(|id| of(id)).collect();
    refused.push(of(&"x".repeat(65)));
    refused.push(of(&"x".repeat(10 << 20)));
    bounds(
        "id",
        vec![of("x"), of("0"), of("a.b_c-9"), of(&"x".repeat(63)), of(&"x".repeat(64))],
        refused,
    );
}

#[test]
fn texts_have_a_longest_length_and_no_nul() {
    texts("command", 128 * KIB, |spec, value| spec.command = value);
    texts("args", 128 * KIB, |spec, value| spec.args = vec!["ok".into(), value]);
    texts("name", 256, |spec, value| spec.name = value);
    texts("group.name", 64, |spec, name| {
        spec.group = Some(Group { name, strategy: GroupStrategy::OneForAll });
    });
    texts("working_dir", 4095, |spec, value| spec.working_dir = Some(value.into()));
    texts("environment", 1024, |spec, name| drop(spec.environment.insert(name, "value".into())));
    texts("environment", 128 * KIB, |spec, value| {
        drop(spec.environment.insert("NAME".into(), value));
    });
    texts("secret_environment", 1024, |spec, name| spec.secret_environment = vec![name]);
    texts("inherit_environment", 1024, |spec, name| {
        spec.inherit_environment = EnvironmentInheritance::List(vec![name]);
    });
    bounds(
        "command",
        vec![set(|spec| spec.command = "/bin/a program".into())],
        vec![set(|spec| spec.command = String::new())],
    );
    bounds(
        "name",
        vec![set(|spec| spec.name = String::new())],
        vec![set(|spec| spec.name = "a\nb".into()), set(|spec| spec.name = "\u{1b}[31m".into())],
    );
    bounds(
        "group.name",
        vec![],
        vec![set(|spec| {
            spec.group = Some(Group { name: "a\nb".into(), strategy: GroupStrategy::OneForAll });
        })],
    );
    bounds("working_dir", vec![], vec![set(|spec| spec.working_dir = Some("".into()))]);
}

#[test]
fn lists_have_a_greatest_length() {
    let words = |n: usize| (0..n).map(|n| format!("V{n}")).collect::<Vec<_>>();
    bounds(
        "args",
        vec![set(move |spec| spec.args = words(4096))],
        vec![set(move |spec| spec.args = words(4097))],
    );
    bounds(
        "environment",
        vec![set(move |spec| {
            spec.environment = words(4096).into_iter().map(|n| (n, "v".into())).collect();
        })],
        vec![set(move |spec| {
            spec.environment = words(4097).into_iter().map(|n| (n, "v".into())).collect();
        })],
    );
    bounds(
        "secret_environment",
        vec![set(move |spec| spec.secret_environment = words(4096))],
        vec![set(move |spec| spec.secret_environment = words(4097))],
    );
    bounds(
        "inherit_environment",
        vec![set(move |spec| spec.inherit_environment = EnvironmentInheritance::List(words(4096)))],
        vec![set(move |spec| spec.inherit_environment = EnvironmentInheritance::List(words(4097)))],
    );
    let probes = |n| vec![ProbeSpec::new(ProbeRole::Liveness, ProbeKind::Process); n];
    bounds(
        "probe",
        vec![set(move |spec| spec.probes = probes(64))],
        vec![set(move |spec| spec.probes = probes(65))],
    );
    let steps = |n| vec![StopStep { signal: Signal::Term, wait: MILLI }; n];
    bounds(
        "stop_sequence",
        vec![set(move |spec| spec.stop_sequence = steps(16))],
        vec![set(move |spec| spec.stop_sequence = steps(17))],
    );
    let needs = |n: usize| {
        let list: Vec<_> = (0..n).map(|n| serde_json::json!({ "id": format!("d{n}") })).collect();
        serde_json::from_value(list.into()).unwrap()
    };
    bounds(
        "depends_on",
        vec![set(move |spec| spec.depends_on = needs(4096))],
        vec![
            set(move |spec| spec.depends_on = needs(4097)),
            set(|spec| spec.depends_on = serde_json::from_str(r#"[{"id":"svc"}]"#).unwrap()),
        ],
    );
}

#[test]
fn names_of_variables_are_names_and_not_the_supervisors_own() {
    let of = |name: &str| {
        let name = name.to_owned();
        set(move |spec| drop(spec.environment.insert(name.clone(), "v".into())))
    };
    bounds(
        "environment",
        vec![of("A"), of("a b"), of("A\nB"), of("IDE_SUPERVISORX")],
        vec![of(""), of("="), of("A=B"), of("IDE_SUPERVISOR_MARK"), of("IDE_SUPERVISOR_X")],
    );
}

#[test]
fn durations_have_a_least_and_a_greatest_value() {
    durations("health_check_timeout", MILLI, |spec, value| spec.health_check_timeout = value);
    durations("shutdown_timeout", Duration::ZERO, |spec, value| spec.shutdown_timeout = value);
    durations("stable_after", Duration::ZERO, |spec, value| spec.stable_after = value);
    durations("half_open_after", MILLI, |spec, value| spec.half_open_after = Some(value));
    durations("restart_policy.delay", Duration::ZERO, |spec, delay| {
        spec.restart_policy = RestartPolicy::FixedDelay { delay };
    });
    durations("restart_policy.base_delay", MILLI, |spec, base_delay| {
        let max_delay = base_delay.min(DURATION_MAX);
        spec.restart_policy =
            RestartPolicy::ExponentialBackoff { base_delay, max_delay, max_attempts: 1 };
    });
    durations("restart_policy.max_delay", Duration::from_secs(1), |spec, max_delay| {
        let base_delay = Duration::from_secs(1);
        spec.restart_policy =
            RestartPolicy::ExponentialBackoff { base_delay, max_delay, max_attempts: 1 };
    });
    durations("restart_intensity.window", MILLI, |spec, window| {
        spec.restart_intensity = RestartIntensity::limited(1, window, None);
    });
    durations("stop_sequence[1].wait", Duration::ZERO, |spec, wait| {
        let step = StopStep { signal: Signal::Term, wait: MILLI };
        spec.stop_sequence = vec![step, StopStep { wait, ..step }];
    });
    let probe = || ProbeSpec::new(ProbeRole::Liveness, ProbeKind::Process);
    durations("probe[0].initial_delay", Duration::ZERO, move |spec, initial_delay| {
        spec.probes = vec![ProbeSpec { initial_delay, ..probe() }];
    });
    durations("probe[0].period", MILLI, move |spec, value| {
        spec.probes = vec![ProbeSpec { period: Some(value), ..probe() }];
    });
    durations("probe[1].timeout", MILLI, move |spec, value| {
        spec.probes = vec![probe(), ProbeSpec { timeout: Some(value), ..probe() }];
    });
}

#[test]
fn numbers_have_a_least_and_a_greatest_value() {
    let jitter = |value| set(move |spec| spec.restart_jitter = Some(value));
    bounds(
        "restart_jitter",
        vec![jitter(0.0), jitter(0.5), jitter(1.0), set(|spec| spec.restart_jitter = None)],
        vec![jitter(-0.001), jitter(1.001), jitter(f64::NAN), jitter(f64::INFINITY)],
    );
    let intensity =
        |max| set(move |spec| spec.restart_intensity = RestartIntensity::limited(max, MILLI, None));
    bounds(
        "restart_intensity.max_restarts",
        vec![intensity(0), intensity(1), intensity(9_999), intensity(10_000)],
        vec![intensity(10_001), intensity(u32::MAX)],
    );
    let attempts = |max_attempts| {
        let delay = Duration::from_secs(1);
        let policy =
            RestartPolicy::ExponentialBackoff { base_delay: delay, max_delay: delay, max_attempts };
        set(move |spec| spec.restart_policy = policy)
    };
    bounds(
        "restart_policy.max_attempts",
        vec![attempts(1), attempts(2), attempts(u32::MAX)],
        vec![attempts(0)],
    );
    let threshold = |success, failure| {
        set(move |spec| {
            let probe = ProbeSpec::new(ProbeRole::Readiness, ProbeKind::Process);
            spec.probes =
                vec![ProbeSpec { success_threshold: success, failure_threshold: failure, ..probe }];
        })
    };
    let (ok, zero, many) = (threshold(1, 1000), threshold(0, 1), threshold(1001, 1));
    bounds("probe[0].success_threshold", vec![ok, threshold(1000, 1)], vec![zero, many]);
    bounds(
        "probe[0].failure_threshold",
        vec![threshold(1, 1)],
        vec![threshold(1, 0), threshold(1, 1001)],
    );
    let codes = |value: i32| set(move |spec| spec.permanent_exit_codes = vec![78, value]);
    if cfg!(unix) {
        bounds(
            "permanent_exit_codes",
            vec![codes(1), codes(255)],
            vec![codes(-1), codes(256), codes(0)],
        );
        bounds(
            "success_exit_codes",
            vec![
                set(|spec| spec.success_exit_codes = vec![]),
                set(|spec| spec.success_exit_codes = vec![0, 255]),
            ],
            vec![
                set(|spec| spec.success_exit_codes = vec![256]),
                set(|spec| spec.success_exit_codes = vec![0; 257]),
            ],
        );
    }
}

#[test]
fn ceilings_and_capture_have_a_least_and_a_greatest_value() {
    let limits = |change: fn(&mut ResourceLimits, u64), value: u64| {
        set(move |spec| change(&mut spec.limits, value))
    };
    let memory = |n| limits(|of, n| of.memory = Some(ByteSize(n)), n);
    bounds(
        "limits.memory",
        vec![memory(1 << 20), memory(u64::MAX)],
        vec![memory((1 << 20) - 1), memory(0)],
    );
    let cpu = |n| limits(|of, n| of.cpu = Some(CpuPercent(u32::try_from(n).unwrap())), n);
    bounds(
        "limits.cpu",
        vec![cpu(1), cpu(102_400)],
        vec![cpu(0), cpu(102_401), cpu(u64::from(u32::MAX))],
    );
    let files = |n| limits(|of, n| of.open_files = Some(n), n);
    bounds("limits.open_files", vec![files(16), files(u64::MAX)], vec![files(15), files(0)]);
    let processes = |n| limits(|of, n| of.processes = Some(n), n);
    bounds("limits.processes", vec![processes(1), processes(u64::MAX)], vec![processes(0)]);
    let nice = |n: i32| set(move |spec| spec.limits.nice = Some(n));
    bounds(
        "limits.nice",
        vec![nice(-20), nice(0), nice(19)],
        vec![nice(-21), nice(20), nice(i32::MIN), nice(i32::MAX)],
    );
    let score = |n: i32| set(move |spec| spec.limits.oom_score_adj = Some(n));
    bounds(
        "limits.oom_score_adj",
        vec![score(-1000), score(0), score(1000)],
        vec![score(-1001), score(1001), score(i32::MIN), score(i32::MAX)],
    );
    let capture = |change: fn(&mut CaptureLimits, u64), value: u64| {
        set(move |spec| change(&mut spec.capture, value))
    };
    let bytes = |n| capture(|of, n| of.max_bytes = ByteSize(n), n);
    bounds(
        "capture.max_bytes",
        vec![bytes(64 << 10), bytes(1 << 40)],
        vec![bytes((64 << 10) - 1), bytes((1 << 40) + 1)],
    );
    let count = |n| capture(|of, n| of.files = u32::try_from(n).unwrap(), n);
    bounds("capture.files", vec![count(2), count(100)], vec![count(0), count(1), count(101)]);
    let rate = |n| capture(|of, n| of.max_rate = Some(ByteSize(n)), n);
    bounds(
        "capture.max_rate",
        vec![rate(1024), rate(u64::MAX), set(|spec| spec.capture.max_rate = None)],
        vec![rate(1023), rate(0)],
    );
    let line = |n| capture(|of, n| of.max_line = ByteSize(n), n);
    bounds(
        "capture.max_line",
        vec![line(256), line(16 << 20)],
        vec![line(255), line((16 << 20) + 1), line(0)],
    );
}

#[test]
fn signals_do_what_their_field_means() {
    let stop = |signal| set(move |spec| spec.stop_signal = signal);
    bounds(
        "stop_signal",
        vec![stop(Signal::Term), stop(Signal::Kill), stop(Signal::Hup)],
        vec![stop(Signal::Stop), stop(Signal::Cont)],
    );
    let dump = |signal| set(move |spec| spec.dump_signal = Some(signal));
    bounds(
        "dump_signal",
        vec![dump(Signal::Quit), dump(Signal::Abrt), dump(Signal::Usr1)],
        vec![dump(Signal::Kill), dump(Signal::Stop), dump(Signal::Cont)],
    );
    bounds(
        "stop_sequence[0].signal",
        vec![set(|spec| spec.stop_sequence = vec![StopStep { signal: Signal::Hup, wait: MILLI }])],
        vec![set(|spec| spec.stop_sequence = vec![StopStep { signal: Signal::Stop, wait: MILLI }])],
    );
}

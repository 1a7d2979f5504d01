//! A host that lives: the promises of a spawner, and what a child starts with.

use std::time::Duration;

use supervisor_core::config::HostDeathPolicy::{Die, Outlive};
use supervisor_core::config::{
    ChannelBinding, FramingKind, HostDeathPolicy, ServiceSpec, TransportKind,
};
use supervisor_core::error::SpawnErrorKind;
use supervisor_core::exit::ExitStatus;
use supervisor_core::ports::ProcessSpawner;
use supervisor_core::testing::process_contract;

use super::support::*;

#[tokio::test]
async fn the_guardian_keeps_every_promise_of_a_spawner() {
    let den = Den::new();
    let spawner = den.spawner().await;
    for policy in [Die, Outlive] {
        let mut lasting = ServiceSpec::new("svc", "sleep").unwrap();
        lasting.args = vec!["600".into()];
        lasting.on_host_death = policy;
        let missing = ServiceSpec::new("svc", "no-such-program-anywhere").unwrap();
        within(process_contract::spawner(&spawner, lasting, missing)).await;
    }
    within(spawner.close()).await;
    den.nothing_left().await;
}

#[tokio::test]
async fn exit_codes_signals_and_last_words_come_with_the_end() {
    let den = Den::new();
    let spawner = den.spawner().await;
    let child = spawn(&spawner, sh("a", "echo one; echo two >&2; exit 7", Die), 1).await;
    assert_eq!(within(child.wait()).await, ExitStatus::Code(7));
    assert!(child.set_is_empty(), "known with the end, nobody has to ask again");
    let mut lines = child.last_lines(20);
    lines.sort();
    assert_eq!(lines, ["one", "two"]);
    let child = spawn(&spawner, sh("b", "kill -SEGV $$", Die), 1).await;
    assert_eq!(within(child.wait()).await, ExitStatus::Signal(11));
    drop(child);
    within(spawner.close()).await;
    den.nothing_left().await;
}

#[tokio::test]
async fn what_forks_twice_into_a_session_of_its_own_without_its_environment_is_killed_with_its_set()
{
    let den = Den::new();
    let spawner = den.spawner().await;
    // The numbers are this test's own, so that what it looks for is nobody else's.
    let unique = 100_000 + std::process::id();
    let script = format!(
        "(setsid env -i $(command -v sleep) {unique}1 & setsid sh -c 'trap \"\" TERM; sleep {unique}2; :' &); sleep 613; :"
    );
    let child = spawn(&spawner, sh("svc", &script, Die), 1).await;
    let escaped = eventually("both escaped", || {
        let of = |n: u32| pids_with(&format!("sleep\0{unique}{n}\0"));
        let (a, b) = (of(1), of(2));
        (!a.is_empty() && !b.is_empty()).then(|| [a, b].concat())
    })
    .await;
    let report = within(child.kill_set(Duration::from_secs(10))).await;
    assert!(report.survivors.is_empty(), "{report:?}");
    for pid in escaped {
        assert!(!is_alive(pid), "{pid} survived");
    }
    drop(child);
    within(spawner.close()).await;
    den.nothing_left().await;
}

fn pids_with(command_line: &str) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.ends_with(command_line.as_bytes()))
        })
        .filter(|pid| is_alive(*pid))
        .collect()
}

#[tokio::test]
async fn why_a_program_did_not_start_stays_distinguishable() {
    let den = Den::new();
    let spawner = den.spawner().await;
    let write = |name: &str, text: &str, mode: u32| {
        let path = den.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode))
            .unwrap();
        path.to_str().unwrap().to_owned()
    };
    let cases = [
        ("no-such-program-anywhere".to_owned(), SpawnErrorKind::NotFound),
        (write("plain", "echo", 0o600), SpawnErrorKind::PermissionDenied),
        (write("lost", "#!/no/such/interpreter\n", 0o700), SpawnErrorKind::BadExecutable),
        (write("noise", "\x7fELFnot", 0o700), SpawnErrorKind::BadExecutable),
    ];
    for (program, kind) in cases {
        let spec = ServiceSpec::new("svc", program.as_str()).unwrap();
        let refused = within(spawner.spawn(request(spec, 1))).await.unwrap_err();
        assert_eq!(refused.kind, kind, "{program}: {refused}");
    }
    let mut spec = ServiceSpec::new("svc", "true").unwrap();
    spec.working_dir = Some(den.path().join("nowhere"));
    let refused = within(spawner.spawn(request(spec, 1))).await.unwrap_err();
    assert_eq!(refused.kind, SpawnErrorKind::BadWorkingDir);
    within(spawner.close()).await;
    den.nothing_left().await;
}

#[tokio::test]
async fn a_child_starts_with_clean_signals_its_own_session_and_no_descriptor_of_ours() {
    let den = Den::new();
    let spawner = den.spawner().await;
    let file = den.path().join("seen");
    let script = format!(
        "grep -E '^Sig(Blk|Ign)' /proc/self/status > {0}; ls /proc/self/fd | tr '\\n' ' ' >> {0}; umask >> {0}; ulimit -n >> {0}; echo done >> {0}",
        file.display()
    );
    let child = spawn(&spawner, sh("svc", &script, Die), 1).await;
    assert_eq!(within(child.wait()).await, ExitStatus::Code(0));
    let seen = std::fs::read_to_string(&file).unwrap();
    let zeros = "0000000000000000";
    assert!(seen.contains(&format!("SigBlk:\t{zeros}")), "{seen}");
    assert!(seen.contains(&format!("SigIgn:\t{zeros}")), "{seen}");
    // ls has the directory itself open as the fourth.
    assert!(seen.contains("0 1 2 3 "), "{seen}");
    assert!(!seen.contains(" 4 "), "{seen}");
    let own = std::process::Command::new("sh").args(["-c", "umask; ulimit -n"]).output().unwrap();
    let own = String::from_utf8(own.stdout).unwrap();
    assert!(seen.contains(&own), "mask and limit are the host's: {seen} {own}");
    drop(child);
    within(spawner.close()).await;
    den.nothing_left().await;
}

#[tokio::test]
async fn niceness_and_oom_score_are_a_programs_from_its_first_instruction_on() {
    let den = Den::new();
    let spawner = den.spawner().await;
    let seen = den.path().join("seen");
    let script = format!("nice > {0}; cat /proc/self/oom_score_adj >> {0}", seen.display());
    let before = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let mut spec = sh("svc", &script, Die);
    (spec.limits.nice, spec.limits.oom_score_adj) = (Some(15), Some(900));
    // A limit that leaves no descriptor to open with must not be in the way.
    spec.limits.open_files = Some(16);
    let child = spawn(&spawner, spec, 1).await;
    assert_eq!(within(child.wait()).await, ExitStatus::Code(0));
    assert_eq!(std::fs::read_to_string(&seen).unwrap(), "15\n900\n");
    let child = spawn(&spawner, sh("svc", &script, Die), 2).await;
    assert_eq!(within(child.wait()).await, ExitStatus::Code(0));
    let inherited = std::fs::read_to_string(&seen).unwrap();
    assert!(!inherited.starts_with("15\n"), "what one service asks for is not the next one's");
    assert!(inherited.ends_with(&format!("\n{before}")), "{inherited}");
    drop(child);
    within(spawner.close()).await;
    den.nothing_left().await;
}

pub(crate) fn with_channel(mut spec: ServiceSpec) -> ServiceSpec {
    spec.channel = Some(ChannelBinding::new(TransportKind::Stdio, FramingKind::Length));
    spec
}

#[tokio::test]
async fn a_channel_of_a_service_is_handed_to_the_host() {
    use std::io::{Read, Write};
    let den = Den::new();
    let spawner = den.spawner().await;
    let child = spawn(&spawner, with_channel(sh("svc", "cat; exit 3", Die)), 1).await;
    let stdio = child.take_stdio().expect("a channel");
    assert!(child.take_stdio().is_none(), "it is handed over once");
    let talked = tokio::task::spawn_blocking(move || {
        let (mut stdin, mut stdout) = (stdio.stdin, stdio.stdout);
        stdin.write_all(b"hello").unwrap();
        drop(stdin);
        let mut heard = String::new();
        stdout.read_to_string(&mut heard).unwrap();
        heard
    });
    assert_eq!(within(talked).await.unwrap(), "hello");
    assert_eq!(within(child.wait()).await, ExitStatus::Code(3), "it saw the end of its input");
    drop(child);
    within(spawner.close()).await;
    den.nothing_left().await;
}

#[tokio::test]
async fn a_flood_is_kept_within_its_cap_while_other_services_start_and_end() {
    let den = Den::new();
    let spawner = den.spawner().await;
    let mut spec = sh("flood", "yes 0123456789012345678901234567890123456789", Die);
    spec.capture.max_bytes = supervisor_core::text::ByteSize::kib(256);
    let flood = spawn(&spawner, spec, 1).await;
    for n in 1..=20 {
        let child = spawn(&spawner, sh("other", "exit 5", Die), n).await;
        assert_eq!(within(child.wait()).await, ExitStatus::Code(5));
    }
    within(flood.kill_set(Duration::from_secs(10))).await;
    let logs = std::fs::read_dir(den.path().join("logs/flood")).unwrap().flatten();
    let bytes: u64 = logs.map(|entry| entry.metadata().unwrap().len()).sum();
    assert!(bytes > 0 && bytes <= 256 * 1024, "{bytes}");
    assert!(!spawner.logs(&service("flood"), 5).unwrap().is_empty());
    drop(flood);
    within(spawner.close()).await;
    den.nothing_left().await;
}

#[tokio::test]
async fn a_dropped_child_is_killed_unless_it_outlives_its_host() {
    let den = Den::new();
    let spawner = den.spawner().await;
    let alive = |policy: HostDeathPolicy, id: &'static str| sh(id, "sleep 600; :", policy);
    let dies = spawn(&spawner, alive(Die, "dies"), 1).await;
    let stays = spawn(&spawner, alive(Outlive, "stays"), 1).await;
    let (a, b) = (dies.identity().pid, stays.identity().pid);
    drop((dies, stays));
    eventually("the one is killed", || (!is_alive(a)).then_some(())).await;
    assert!(is_alive(b));
    let found = within(spawner.outlived()).await.unwrap();
    assert_eq!(found.len(), 1);
    let child = found.into_iter().next().unwrap().into_child();
    assert_eq!(child.identity().pid, b);
    within(child.kill_set(Duration::from_secs(10))).await;
    drop(child);
    within(spawner.close()).await;
    den.nothing_left().await;
}

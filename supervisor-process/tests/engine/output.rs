//! What services write: kept, bounded, without secrets, and never in the way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use supervisor_core::event::EventKind;
use supervisor_core::state::Phase;
use supervisor_core::status::{DroppedOutput, OutputStream};
use supervisor_core::text::ByteSize;
use supervisor_process::guardian::{GuardianProgram, GuardianSpawner};

use crate::fixture;
use crate::support::{LIMIT, World, eventually, is_alive, own_dir};

#[tokio::test(flavor = "multi_thread")]
async fn the_last_lines_are_in_the_exit_report() {
    let world = World::new();
    let id = world
        .up(world.sh(
            "svc",
            "for i in $(seq 100); do echo line $i; done; echo broken; echo oops >&2; exit 1",
        ))
        .await;
    let exit = world.until_phase(&id, Phase::Failed).await.last_exit.unwrap();
    assert_eq!(exit.last_lines.len(), 20);
    assert!(exit.last_lines.contains(&"broken".to_owned()), "{:?}", exit.last_lines);
    assert!(exit.last_lines.contains(&"line 100".to_owned()), "{:?}", exit.last_lines);
    let logs = world.engine.logs(&id, 1000).await.unwrap();
    // The two streams are two pipes: which one is read first is nobody's promise, so only one line is on the other.
    assert_eq!(logs.len(), 102);
    assert_eq!(logs.iter().filter(|line| line.stream == OutputStream::Stderr).count(), 1);
    assert_eq!(world.engine.logs(&id, 3).await.unwrap().len(), 3);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_is_told_although_somebody_else_holds_the_output_open() {
    let world = World::new();
    let script = "setsid sleep 1000 & echo $! > deep; echo last words; exit 4";
    let id = world.up(world.sh("svc", script)).await;
    let began = Instant::now();
    let exit = world.until_phase(&id, Phase::Failed).await.last_exit.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(exit.last_lines, ["last words"]);
    assert!(!is_alive(world.pid_in("deep").await), "what the service left is gone too");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_stand_neither_in_logs_nor_in_reports() {
    let world = World::new();
    let mut spec = world.sh("svc", "echo \"a=$TOKEN b=$TOKEN\"; echo \"$TOKEN\" >&2; exit 1");
    spec.environment.insert("TOKEN".to_owned(), "hunter2-hunter2".to_owned());
    spec.secret_environment = vec!["TOKEN".to_owned()];
    let id = world.up(spec).await;
    let state = world.until_phase(&id, Phase::Failed).await;
    let logs = world.engine.logs(&id, 10).await.unwrap();
    assert!(logs.iter().any(|line| line.text == "a=[redacted] b=[redacted]"), "{logs:?}");
    let everything = format!("{state:?}{logs:?}{:?}", world.events());
    assert!(!everything.contains("hunter2"), "{everything}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_kept_within_its_bound_and_does_not_delay_others() {
    let world = World::new();
    let mut flood =
        world.sh("flood", "echo go > go; exec yes 'a line of a flood that does not end by itself'");
    flood.capture.max_bytes = ByteSize::kib(256);
    let flood = world.up(flood).await;
    world.line_in("go").await;
    let other = world.up(world.sh("other", "echo heard; exit 1")).await;
    let exit = tokio::time::timeout(LIMIT, world.until_phase(&other, Phase::Failed))
        .await
        .unwrap()
        .last_exit
        .unwrap();
    drop(exit);
    let size = || {
        let files = std::fs::read_dir(world.path("logs/flood")).into_iter().flatten().flatten();
        files.filter_map(|file| file.metadata().ok()).map(|found| found.len()).sum::<u64>()
    };
    eventually("a full log", || (size() > 192 * 1024).then_some(())).await;
    world.engine.stop(&flood).await.unwrap();
    assert!(size() <= 256 * 1024, "{}", size());
    assert!(!world.engine.logs(&flood, 10).await.unwrap().is_empty());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_of_a_run_holds_no_lines_of_the_one_before() {
    let world = World::new();
    let id = world.up(world.sh("svc", "echo run $IDE_SUPERVISOR_INCARNATION; exit 1")).await;
    world.until_phase(&id, Phase::Failed).await;
    world.engine.start(&id).await.unwrap();
    let state = world
        .until(&id, |state| state.phase == Phase::Failed && state.incarnation.get() == 2)
        .await;
    assert_eq!(state.last_exit.unwrap().last_lines, ["run 2"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_above_the_rate_cap_is_dropped_counted_and_marked() {
    let world = World::new();
    let mut spec = world.sh(
        "svc",
        "i=0; while [ $i -lt 400 ]; do echo \"line $i of forty characters, more or less\"; i=$((i+1)); done; exit 1",
    );
    spec.capture.max_rate = Some(ByteSize::kib(4));
    let id = world.up(spec).await;
    world.until_phase(&id, Phase::Failed).await;
    let logs = world.engine.logs(&id, 1000).await.unwrap();
    let marks: Vec<_> =
        logs.iter().filter(|line| line.stream == OutputStream::Supervisor).collect();
    let dropped: usize = marks
        .iter()
        .map(|line| line.text.split(' ').next().unwrap().parse::<usize>().unwrap())
        .sum();
    assert!(dropped > 0, "{logs:?}");
    assert_eq!(logs.len() - marks.len() + dropped, 400, "every line is kept or counted");
    let counts = world.engine.dropped_output().await[&id];
    let rest = DroppedOutput { rate_lines: 0, rate_bytes: 0, ..counts };
    assert_eq!((counts.rate_lines, rest), (dropped as u64, DroppedOutput::default()));
    assert!(counts.rate_bytes > 40 * counts.rate_lines - 10, "{counts:?}");
    assert_eq!(told(&world, "capture.max_rate"), 1, "it is said when it begins, once a run");
    // The counts go on over runs; that it begins is said again.
    world.engine.start(&id).await.unwrap();
    world.until(&id, |it| it.phase == Phase::Failed && it.incarnation.get() == 2).await;
    let more = world.engine.dropped_output().await[&id].rate_lines;
    assert!(more > counts.rate_lines, "{more}");
    assert_eq!(told(&world, "capture.max_rate"), 2);
    world.finish().await;
}

/// How often it was said that output is dropped for this reason.
fn told(world: &World, why: &str) -> usize {
    let degraded = |event: &EventKind| matches!(event, EventKind::ServiceDegraded { reason, .. } if reason.contains(why));
    world.events().iter().filter(|event| degraded(event)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guardian_drops_is_counted_and_told_as_what_its_host_drops_itself() {
    let dir = own_dir();
    let mark = format!("test-{}-{:016x}", std::process::id(), fastrand::u64(..));
    let program = GuardianProgram::Named(env!("CARGO_BIN_EXE_ide-guardian").into());
    let logs = dir.path().join("logs");
    let guardian = GuardianSpawner::open(dir.path(), mark.as_str(), logs, program).await.unwrap();
    let guardian = Arc::new(guardian);
    let world = World::with(|builder| builder.mark(mark).guardian(Arc::clone(&guardian)));
    // It lives on, for a guardian forgets the counts with the last run.
    let mut spec = world.sh(
        "svc",
        "head -c 1000 /dev/zero; echo; for i in $(seq 400); do echo line $i of forty characters, more or less; done
        exec sleep 1000",
    );
    spec.capture.max_rate = Some(ByteSize::kib(4));
    spec.capture.max_line = ByteSize(256);
    let id = world.up(spec).await;
    for why in ["capture.max_rate", "capture.max_line"] {
        eventually("that it is said", || (told(&world, why) == 1).then_some(())).await;
    }
    let deadline = Instant::now() + LIMIT;
    loop {
        let counts = world.engine.dropped_output().await.get(&id).copied().unwrap_or_default();
        let kept = world.engine.logs(&id, 1000).await.unwrap();
        let kept = kept.iter().filter(|line| line.stream == OutputStream::Stdout).count() as u64;
        if kept + counts.rate_lines == 401 {
            assert_eq!((counts.cut_lines, counts.cut_bytes), (1, 744));
            break;
        }
        assert!(Instant::now() < deadline, "{counts:?}, {kept} kept");
    }
    world.finish().await;
    guardian.close().await;
}

/// Lines of the flood, and the bytes of each without its end.
const FLOOD: (u64, u64) = (300_000, 99);

#[test]
#[ignore = "started by another test as a service"]
fn gusher() {
    use std::io::Write;
    if std::env::var(fixture::BEHAVIOUR).is_err() {
        return;
    }
    let line = [vec![b'x'; usize::try_from(FLOOD.1).unwrap()], vec![b'\n']].concat();
    let many = line.repeat(500);
    let mut stdout = std::fs::File::from(rustix::io::dup(rustix::stdio::stdout()).unwrap());
    let mut longest = Duration::ZERO;
    for _ in 0..FLOOD.0 / 500 {
        let began = Instant::now();
        stdout.write_all(&many).unwrap();
        longest = longest.max(began.elapsed());
    }
    std::fs::write("longest", format!("{}\n", longest.as_millis())).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_writes_as_fast_as_it_can_is_never_held_up_for_long_and_every_byte_is_kept_or_counted()
 {
    let world = World::new();
    let mut spec = fixture::service(&world, "svc", "output::gusher", "floods");
    spec.capture.max_bytes = ByteSize::mib(1);
    let before = resident();
    let id = world.up(spec).await;
    let size = || {
        let files = std::fs::read_dir(world.path("logs/svc")).into_iter().flatten().flatten();
        files.filter_map(|file| file.metadata().ok()).map(|found| found.len()).sum::<u64>()
    };
    let (mut most, mut largest) = (0, 0);
    let over = || {
        (most, largest) = (most.max(resident()), largest.max(size()));
        (world.state(&id).phase == Phase::Stopped).then_some(())
    };
    eventually("the end of the flood", over).await;
    assert!(most.saturating_sub(before) < 32 << 20, "{before} before, {most} at most");
    assert!(largest <= 1 << 20, "{largest} bytes in its files");
    let longest: u64 = world.line_in("longest").await.parse().unwrap();
    assert!(longest < 5000, "one write of 50 KB took {longest} ms");
    let counts = world.engine.dropped_output().await[&id];
    // What the test's own harness says stands among it; it is short.
    let head = "1700000000000 O ".len() as u64;
    let (written, found) = (FLOOD.0 * (FLOOD.1 + 1 + head), size() + counts.aged_bytes);
    assert!(
        (written..written + 2000).contains(&found),
        "{written} written, {found} found: {counts:?}"
    );
    let nothing = DroppedOutput { aged_bytes: counts.aged_bytes, ..DroppedOutput::default() };
    assert_eq!(counts, nothing);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_are_kept_as_they_came() {
    let world = World::new();
    let id = world.up(world.sh("svc", r"printf 'a\377\300b\n\000c\n'; exit 1")).await;
    let exit = world.until_phase(&id, Phase::Failed).await.last_exit.unwrap();
    assert_eq!(exit.last_lines, ["a\u{fffd}\u{fffd}b", "\0c"]);
    let kept = std::fs::read(world.path("logs/svc/output.log")).unwrap();
    assert!(kept.windows(6).any(|bytes| bytes == b" a\xff\xc0b\n"), "{kept:?}");
    world.finish().await;
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_without_a_line_end_is_cut_counted_and_costs_no_memory() {
    let world = World::new();
    let script = "head -c 1000000000 /dev/zero; echo; echo the end; exit 1";
    let before = resident();
    let id = world.up(world.sh("svc", script)).await;
    let mut most = 0;
    let over = || {
        most = most.max(resident());
        (world.state(&id).phase == Phase::Failed).then_some(())
    };
    eventually("the end of the line", over).await;
    assert!(most.saturating_sub(before) < 64 << 20, "{before} before, {most} at most");
    let logs = world.engine.logs(&id, 10).await.unwrap();
    let texts: Vec<_> = logs.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(texts.len(), 3);
    assert_eq!(texts[0].len(), 64 * 1024);
    assert!(texts[1].starts_with("999934464 bytes of the line above were dropped"), "{}", texts[1]);
    assert_eq!(texts[2], "the end");
    let counts = world.engine.dropped_output().await[&id];
    assert_eq!((counts.cut_lines, counts.cut_bytes), (1, 999_934_464));
    assert_eq!(told(&world, "capture.max_line"), 1);
    world.finish().await;
}

//! Hosts and guardians that are none: the protocol spoken by hand, to say what no host and no guardian of ours says.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::support::*;

fn u32s(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap().to_le_bytes()
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&u32s(body.len()), body].concat()
}

fn text(bytes: &[u8]) -> Vec<u8> {
    frame(bytes)
}

fn list(items: &[&[u8]]) -> Vec<u8> {
    let mut bytes = u32s(items.len()).to_vec();
    bytes.extend(items.iter().flat_map(|item| text(item)));
    bytes
}

/// A greeted connection to the guardian of a den.
fn greeted(den: &Den, newest: u16) -> (UnixStream, Vec<u8>) {
    let mut stream = UnixStream::connect(den.path().join("guardian.sock")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let versions = [1_u16.to_le_bytes(), newest.to_le_bytes()].concat();
    stream.write_all(&frame(&[text(b"IDEGUARD"), versions, text(b"a test")].concat())).unwrap();
    let welcome = answer(&mut stream);
    (stream, welcome)
}

fn answer(stream: &mut UnixStream) -> Vec<u8> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).unwrap();
    let mut body = vec![0; u32::from_le_bytes(head) as usize];
    stream.read_exact(&mut body).unwrap();
    body
}

/// A request to start `sh -c SCRIPT`, and whether it outlives its host.
fn start(den: &Den, service: &str, outlives: bool, script: &str) -> Vec<u8> {
    let mark = format!("IDE_SUPERVISOR_MARK={}", den.mark());
    let id = format!("IDE_SUPERVISOR_SERVICE={service}");
    let environment = list(&[
        mark.as_bytes(),
        id.as_bytes(),
        b"IDE_SUPERVISOR_INCARNATION=1",
        b"PATH=/usr/bin:/bin",
    ]);
    let logs = den.path().join("logs").join(service);
    frame(
        &[
            &[1, 7, 0, 0, 0][..],
            &text(service.as_bytes()),
            &1_u64.to_le_bytes(),
            &[outlives.into()],
            &text(b"/bin/sh"),
            &list(&[b"sh", b"-c", script.as_bytes()]),
            &environment,
            &text(b"/"),
            &[0],
            &u32s(0),
            &[0; 10],
            &text(logs.to_str().unwrap().as_bytes()),
            &(1_u64 << 20).to_le_bytes(),
            &u32s(2),
            &(1_u64 << 16).to_le_bytes(),
            &0_u64.to_le_bytes(),
            &u32s(0),
        ]
        .concat(),
    )
}

/// A guardian without a host of ours, kept alive by what it guards.
async fn guarded_outliving(den: &Den) -> u32 {
    let spawner = den.spawner().await;
    let guardian = guardian_of(&spawner);
    let keeps = spawn(
        &spawner,
        sh("keeps", "exec sleep 600", supervisor_core::config::HostDeathPolicy::Outlive),
        1,
    )
    .await;
    drop(keeps);
    drop(spawner);
    guardian
}

async fn end_all(den: &Den) {
    let spawner = within(den.spawner()).await;
    for one in within(spawner.outlived()).await.unwrap() {
        within(one.into_child().kill_set(LIMIT)).await;
    }
    within(spawner.close()).await;
    den.nothing_left().await;
}

#[tokio::test]
async fn a_host_that_talks_nonsense_is_a_host_that_is_gone() {
    let nonsense: [(&str, Vec<u8>); 4] = [
        ("an oversized frame", u32s(5 << 20).to_vec()),
        ("an unknown request", frame(&[99, 1, 0, 0, 0])),
        ("a start cut short", frame(&[1, 7, 0, 0, 0, 3, 0, 0, 0, b's'])),
        ("a list longer than its frame", frame(&[[1, 7, 0, 0, 0].as_slice(), &[255; 60]].concat())),
    ];
    for (what, bytes) in nonsense {
        let den = Den::new();
        let guardian = guarded_outliving(&den).await;
        let (mut host, _) = greeted(&den, 1);
        host.write_all(&start(&den, "dies", false, "(setsid sleep 600 &); sleep 600; :")).unwrap();
        host.write_all(&start(&den, "stays", true, "exec sleep 600")).unwrap();
        let pids: Vec<u32> = (0..2)
            .map(|_| {
                let started = answer(&mut host);
                assert_eq!(started[0], 1, "{what}: {started:?}");
                u32::from_le_bytes(started[9..13].try_into().unwrap())
            })
            .collect();
        host.write_all(&bytes).unwrap();
        let mut rest = Vec::new();
        // A reset is an end as well.
        drop(host.read_to_end(&mut rest));
        eventually(what, || (!is_alive(pids[0])).then_some(())).await;
        assert!(is_alive(pids[1]) && is_alive(guardian), "{what}");
        let log = std::fs::read_to_string(den.path().join("guardian.log")).unwrap();
        assert!(log.contains("a connection was closed"), "{what}: {log}");
        end_all(&den).await;
    }
}

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_host_that_asks_and_never_reads_costs_no_memory_and_hinders_nothing() {
    let den = Den::new();
    let guardian = guarded_outliving(&den).await;
    let (mut host, _) = greeted(&den, 1);
    let go = den.path().join("go");
    let script = format!("while ! test -e {}; do sleep 0.01; done; exit 41", go.display());
    host.write_all(&start(&den, "ends", true, &script)).unwrap();
    assert_eq!(answer(&mut host)[0], 1);
    host.set_nonblocking(true).unwrap();
    let ping = frame(&[7, 1, 0, 0, 0]);
    let lists = frame(&[4, 1, 0, 0, 0]);
    let (mut sent, mut full) = (0, 0);
    // Taken for as long as it goes on, and until nothing was taken for a while.
    while full < 40 {
        let bytes = if sent % 2 == 0 { &ping } else { &lists };
        match host.write(bytes) {
            Ok(written) if written == bytes.len() => (sent, full) = (sent + 1, 0),
            Ok(written) => {
                host.set_nonblocking(false).unwrap();
                drop(host.set_write_timeout(Some(Duration::from_millis(200))));
                assert!(host.write_all(&bytes[written..]).is_err(), "nothing more is taken");
                break;
            }
            Err(_) => {
                full += 1;
                // poll: whether the guardian takes more; forty times in a row it does not.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        assert!(sent < 1_000_000, "the guardian takes requests without end");
    }
    assert!(resident(guardian) < 16 * 1024, "{} KiB", resident(guardian));
    std::fs::write(&go, "").unwrap();
    let recorded = den.path().join("guardian.exits");
    eventually("an end is recorded meanwhile", || {
        std::fs::read_to_string(&recorded).ok()?.contains(" C 41 ").then_some(())
    })
    .await;
    drop(host);
    assert!(is_alive(guardian));
    end_all(&den).await;
}

#[tokio::test]
async fn a_newer_host_is_answered_in_the_version_both_speak() {
    let den = Den::new();
    let _guardian = guarded_outliving(&den).await;
    let (mut host, welcome) = greeted(&den, 900);
    let version = u16::from_le_bytes(welcome[12..14].try_into().unwrap());
    assert_eq!(version, 1, "{welcome:?}");
    host.write_all(&frame(&[7, 9, 0, 0, 0])).unwrap();
    assert_eq!(answer(&mut host), [3, 9, 0, 0, 0, 0, 0, 0, 0], "and serves it");
    drop(host);
    end_all(&den).await;
}

/// Plays a guardian that accepts one host and answers its question for sets with `sets`, as the process `pid`.
fn play(den: &Den, version: u16, pid: u32, sets: Vec<u8>) -> std::thread::JoinHandle<()> {
    let listener = UnixListener::bind(den.path().join("guardian.sock")).unwrap();
    std::thread::spawn(move || {
        let (mut host, _) = listener.accept().unwrap();
        drop(answer(&mut host));
        let accepted = [
            text(b"IDEGUARD"),
            version.to_le_bytes().to_vec(),
            pid.to_le_bytes().to_vec(),
            started(pid).to_le_bytes().to_vec(),
            text(b"a guardian of a test"),
        ];
        host.write_all(&frame(&accepted.concat())).unwrap();
        let mut head = [0; 4];
        while host.read_exact(&mut head).is_ok() {
            let mut body = vec![0; u32::from_le_bytes(head) as usize];
            host.read_exact(&mut body).unwrap();
            if body[0] == 4 {
                let reply = [&[5], &body[1..5], sets.as_slice()].concat();
                host.write_all(&frame(&reply)).unwrap();
            }
        }
    })
}

/// When a process was started, in clock ticks after the boot.
fn started(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap().parse().unwrap()
}

fn sleeping() -> Stranger {
    Stranger::start(Command::new("sleep").arg("600").stdin(Stdio::null()))
}

#[tokio::test]
async fn a_guardian_that_answers_in_a_version_we_did_not_offer_is_refused_and_left_alone() {
    let den = Den::new();
    let mut guardian = sleeping();
    let playing = play(&den, 7, guardian.pid(), Vec::new());
    let refused = within(open(den.path())).await.unwrap_err();
    let said = supervisor_core::error::chain(&refused);
    assert!(said.contains("answers in version 7") && said.contains("speaks 1 to 1"), "{said}");
    assert!(guardian.0.try_wait().unwrap().is_none(), "it is not signalled");
    playing.join().unwrap();
}

#[tokio::test]
async fn a_set_whose_pid_is_somebody_elses_by_now_is_neither_adopted_nor_signalled() {
    let den = Den::new();
    let (guardian, ours, mut stranger) = (sleeping(), sleeping(), sleeping());
    let held = |set: usize, id: &str, pid: u32, start_time: u64| {
        [
            u32s(set).to_vec(),
            text(id.as_bytes()),
            1_u64.to_le_bytes().to_vec(),
            vec![1],
            pid.to_le_bytes().to_vec(),
            start_time.to_le_bytes().to_vec(),
            vec![0, 0],
        ]
        .concat()
    };
    let sets = [
        u32s(3).to_vec(),
        held(1, "ours", ours.pid(), started(ours.pid())),
        held(2, "recycled", stranger.pid(), started(stranger.pid()) - 1),
        held(3, "gone", u32::MAX / 4, 1),
    ];
    let playing = play(&den, 1, guardian.pid(), sets.concat());
    let spawner = within(open(den.path())).await.unwrap();
    let found = within(spawner.outlived()).await.unwrap();
    let found: Vec<_> = found.iter().map(|one| one.service.as_str()).collect();
    assert_eq!(found, ["ours"]);
    drop(spawner);
    playing.join().unwrap();
    assert!(stranger.0.try_wait().unwrap().is_none(), "the stranger lives");
}

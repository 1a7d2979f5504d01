//! The guardian: hosts that are killed, guardians that are killed, strangers.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use supervisor_core::config::{ChannelBinding, FramingKind, HostDeathPolicy, TransportKind};
use supervisor_core::error::ProcessError;
use supervisor_core::exit::ExitStatus;
use supervisor_core::ports::{ChildStdio, ProcessSpawner, ProcessTable};
use supervisor_core::{Incarnation, ProcessIdentity};
use supervisor_process::SystemProcessTable;
use supervisor_process::guardian::{self, GuardianNews, GuardianProgram, GuardianSpawner};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::role::{process, service};
use super::support::*;

/// Opens the guardian of a directory.
pub(crate) async fn open(dir: &Path) -> Result<GuardianSpawner, ProcessError> {
    let program = GuardianProgram::Named(PathBuf::from(env!("CARGO_BIN_EXE_ide-guardian")));
    GuardianSpawner::open(dir, format!("mark-{}", dir.display()), dir.join("logs"), program).await
}

fn guardian_of(spawner: &GuardianSpawner) -> ProcessIdentity {
    match &*spawner.news().borrow() {
        GuardianNews::Guarding { identity, .. } => identity.clone(),
        GuardianNews::Lost => panic!("no guardian"),
    }
}

/// A host that was killed with a set of each kind; gives their processes, the one that lives on last.
async fn killed_host(dir: &TempDir) -> Vec<ProcessIdentity> {
    let ready = dir.path().join("ready");
    let mut host = process("is a host with a guardian", &ready).spawn().unwrap();
    let told = eventually("the host is ready", || std::fs::read_to_string(&ready).ok()).await;
    let members = heard(&told);
    assert!(members.len() >= 3, "{told}");
    host.kill().unwrap();
    host.wait().unwrap();
    members
}

async fn guardian_is_gone(dir: &TempDir) {
    eventually("the guardian is gone", || guardian::running(dir.path()).is_none().then_some(()))
        .await;
}

#[tokio::test]
async fn a_killed_hosts_sets_die_or_live_on_and_are_taken_over_with_their_output() {
    let dir = tempfile::tempdir().unwrap();
    let mut dying = killed_host(&dir).await;
    let living = dying.pop().unwrap();
    all_gone(&dying).await;
    let table = SystemProcessTable::new();
    assert!(table.is_alive(&living));
    let spawner = open(dir.path()).await.unwrap();
    assert_eq!(spawner.containment(), ["guardian", "job_object"]);
    let mut outlived = spawner.outlived().await.unwrap();
    assert_eq!(outlived.len(), 1, "{outlived:?}");
    let one = outlived.remove(0);
    assert_eq!((one.service.as_str(), one.incarnation), ("lives", Incarnation(1)));
    assert_eq!((&one.identity, one.status), (&living, None));
    let id = one.service.clone();
    let child = one.into_child();
    assert!(child.members().contains(&living), "{:?}", child.members());
    std::fs::write(dir.path().join("lives.may"), "").unwrap();
    assert_eq!(child.wait().await, ExitStatus::Code(7));
    let lines = spawner.logs(&id, 100).unwrap();
    assert!(lines.iter().any(|line| line.text.ends_with("still here")), "{lines:?}");
    eventually("its set is empty", || child.set_is_empty().then_some(())).await;
    drop(child);
    spawner.close().await;
    guardian_is_gone(&dir).await;
}

#[tokio::test]
async fn an_end_between_two_hosts_is_told_to_the_second_with_its_code() {
    let dir = tempfile::tempdir().unwrap();
    let living = killed_host(&dir).await.pop().unwrap();
    std::fs::write(dir.path().join("lives.may"), "").unwrap();
    all_gone(std::slice::from_ref(&living)).await;
    // Nothing is left to guard, so what is told is what was written down.
    guardian_is_gone(&dir).await;
    let spawner = open(dir.path()).await.unwrap();
    let outlived = spawner.outlived().await.unwrap();
    let told: Vec<_> = outlived.iter().map(|one| (one.identity.clone(), one.status)).collect();
    assert_eq!(told, [(living, Some(ExitStatus::Code(7)))]);
    spawner.forget_recorded();
    assert_eq!(spawner.outlived().await.unwrap().len(), 0);
    spawner.close().await;
}

#[tokio::test]
async fn a_killed_guardian_is_known_at_once_its_sets_are_ended_and_the_next_start_has_another() {
    let dir = tempfile::tempdir().unwrap();
    let spawner = open(dir.path()).await.unwrap();
    let first = guardian_of(&spawner);
    assert_eq!(guardian::running(dir.path()), Some(first.pid));
    let mut members = Vec::new();
    let mut children = Vec::new();
    for (id, policy) in [("dies", HostDeathPolicy::Die), ("lives", HostDeathPolicy::Outlive)] {
        let ready = dir.path().join(id);
        let mut spec = service(id, "starts another and waits", &ready);
        spec.on_host_death = policy;
        let child = spawn(&spawner, spec).await;
        eventually("it runs", || ready.exists().then_some(())).await;
        assert!(child.members().len() >= 2, "{:?}", child.members());
        members.extend(child.members());
        children.push(child);
    }
    let mut news = spawner.news();
    SystemProcessTable::new().end(std::slice::from_ref(&first), Duration::ZERO).await.unwrap();
    let lost = tokio::time::timeout(LIMIT, news.wait_for(|news| *news == GuardianNews::Lost));
    drop(lost.await.unwrap().unwrap());
    for child in &children {
        child.wait().await;
        eventually("its set is empty", || child.set_is_empty().then_some(())).await;
    }
    all_gone(&members).await;
    let ready = dir.path().join("next");
    let child = spawn(&spawner, service("next", "waits", &ready)).await;
    assert_ne!(guardian_of(&spawner), first);
    assert!(child.kill_set(LIMIT).await.survivors.is_empty());
    drop((child, children));
    spawner.close().await;
    guardian_is_gone(&dir).await;
}

#[tokio::test]
async fn a_second_host_is_refused_while_the_first_one_lives_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).await.unwrap();
    let ready = dir.path().join("runs");
    let child = spawn(&first, service("svc", "waits", &ready)).await;
    let error = supervisor_core::error::chain(&open(dir.path()).await.unwrap_err());
    assert!(error.contains("another host"), "{error}");
    assert!(SystemProcessTable::new().is_alive(&child.identity()));
    drop(child);
    // A host that goes makes room for the next one in the same process.
    drop(first);
    open(dir.path()).await.unwrap().close().await;
    guardian_is_gone(&dir).await;
}

#[tokio::test]
async fn nonsense_ends_its_own_connection_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let spawner = open(dir.path()).await.unwrap();
    let name = pipe_of(dir.path());
    for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[255; 64], &[4, 0, 0, 0, 1, 2, 3, 4]] {
        let mut pipe = std::fs::File::options().read(true).write(true).open(&name).unwrap();
        pipe.write_all(nonsense).unwrap();
        // It is closed without an answer.
        assert!(!matches!(pipe.read(&mut [0; 16]), Ok(read) if read > 0));
    }
    let child = spawn(&spawner, service("svc", "ends with 7", dir.path())).await;
    assert_eq!(child.wait().await, ExitStatus::Code(7));
    drop(child);
    spawner.close().await;
}

#[tokio::test]
async fn a_channel_is_handed_over_and_outlives_the_host_that_had_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).await.unwrap();
    let mut spec = service("svc", "answers", dir.path());
    spec.on_host_death = HostDeathPolicy::Outlive;
    spec.channel = Some(ChannelBinding::new(TransportKind::Stdio, FramingKind::Lsp));
    let child = spawn(&first, spec).await;
    assert_eq!(asked(child.take_stdio().unwrap(), "one").await, "heard one");
    drop(child);
    drop(first);
    let second = open(dir.path()).await.unwrap();
    let child = second.outlived().await.unwrap().remove(0).into_child();
    assert_eq!(asked(child.take_stdio().unwrap(), "two").await, "heard two");
    assert!(child.kill_set(LIMIT).await.survivors.is_empty());
    drop(child);
    second.close().await;
    guardian_is_gone(&dir).await;
}

/// Says a line over a channel and gives the answer to it.
async fn asked(stdio: ChildStdio, line: &str) -> String {
    let mut stdin = tokio::process::ChildStdin::from_std(stdio.stdin).unwrap();
    stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    stdin.flush().await.unwrap();
    let stdout = tokio::process::ChildStdout::from_std(stdio.stdout).unwrap();
    let mut lines = BufReader::new(stdout).lines();
    loop {
        let next = tokio::time::timeout(LIMIT, lines.next_line()).await.unwrap();
        let said = next.unwrap().expect("an answer before the end");
        if let Some(at) = said.find("heard ") {
            return said[at..].trim_end().to_owned();
        }
    }
}

/// The pipe of a directory's guardian.
fn pipe_of(dir: &Path) -> String {
    let full = std::fs::canonicalize(dir).unwrap().to_string_lossy().to_lowercase();
    let number = full.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!(r"\\.\pipe\ide-supervisor-guardian-{number:016x}")
}

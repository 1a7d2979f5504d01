//! Strangers, nonsense and forgeries: refused, written down, and nothing else happens.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use supervisor_core::config::HostDeathPolicy::{Die, Outlive};
use supervisor_core::exit::ExitStatus;

use super::support::*;

fn socket(den: &Den) -> UnixStream {
    let stream = UnixStream::connect(den.path().join("guardian.sock")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_le_bytes(), body].concat()
}

fn text(bytes: &[u8]) -> Vec<u8> {
    frame(bytes)
}

fn hello(oldest: u16, newest: u16) -> Vec<u8> {
    let versions = [oldest.to_le_bytes(), newest.to_le_bytes()].concat();
    frame(&[text(b"IDEGUARD"), versions, text(b"a test")].concat())
}

/// What the guardian says until it hangs up.
pub(crate) fn all_of(mut stream: UnixStream) -> Vec<u8> {
    let mut said = Vec::new();
    // A reset is an end as well.
    drop(stream.read_to_end(&mut said));
    said
}

fn log(den: &Den) -> String {
    std::fs::read_to_string(den.path().join("guardian.log")).unwrap_or_default()
}

#[tokio::test]
async fn nonsense_ends_its_own_connection_and_nothing_else() {
    let den = Den::new();
    let spawner = den.spawner().await;
    let child = spawn(&spawner, sh("svc", "exec sleep 600", Die), 1).await;
    let nonsense: [Vec<u8>; 5] = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        u32::MAX.to_le_bytes().to_vec(),
        frame(b""),
        frame(&[0; 200]),
        frame(&text(b"IDEGUARX")),
    ];
    for bytes in nonsense {
        let mut stream = socket(&den);
        stream.write_all(&bytes).unwrap();
        assert!(all_of(stream).is_empty(), "{bytes:?}");
    }
    // Cut off in the middle, and never greeting at all.
    socket(&den).write_all(&hello(1, 1)[..9]).unwrap();
    let mute: Vec<_> = (0..20).map(|_| socket(&den)).collect();
    let other = spawn(&spawner, sh("other", "exit 5", Die), 1).await;
    assert_eq!(within(other.wait()).await, ExitStatus::Code(5));
    drop(mute);
    assert!(is_alive(child.identity().pid));
    assert!(log(&den).contains("a frame is longer than allowed"), "{}", log(&den));
    assert!(log(&den).contains("one connection too many"), "{}", log(&den));
    drop((child, other));
    within(spawner.close()).await;
    den.nothing_left().await;
}

#[tokio::test]
async fn a_second_host_is_refused_while_the_first_one_lives_and_changes_nothing() {
    let den = Den::new();
    let spawner = den.spawner().await;
    let child = spawn(&spawner, sh("svc", "exec sleep 600", Outlive), 1).await;
    let refused = within(open(den.path())).await.unwrap_err();
    let said = supervisor_core::error::chain(&refused);
    assert!(said.contains("another host is connected"), "{said}");
    let mut raw = socket(&den);
    // With the greeting comes a kill, which only the owner may ask for.
    let kill = frame(&[3, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    raw.write_all(&[hello(1, 1), kill].concat()).unwrap();
    assert!(String::from_utf8_lossy(&all_of(raw)).contains("another host"));
    assert!(is_alive(child.identity().pid));
    within(child.kill_set(LIMIT)).await;
    drop(child);
    within(spawner.close()).await;
    den.nothing_left().await;
}

#[tokio::test]
async fn a_host_that_speaks_no_version_of_the_guardians_is_told_both() {
    let den = Den::new();
    let spawner = den.spawner().await;
    for (oldest, newest) in [(900, 901), (0, 0), (9, 2)] {
        let mut stream = socket(&den);
        stream.write_all(&hello(oldest, newest)).unwrap();
        let said = String::from_utf8_lossy(&all_of(stream)).into_owned();
        assert!(said.contains("speaks versions 1 to 1"), "{said:?}");
        assert!(said.contains(&format!("speaks {oldest} to {newest}")), "{said:?}");
    }
    within(spawner.close()).await;
    den.nothing_left().await;
}

#[tokio::test]
async fn a_guardian_that_refuses_our_version_is_reported_with_its_words_and_not_replaced() {
    let den = Den::new();
    let listener = UnixListener::bind(den.path().join("guardian.sock")).unwrap();
    let theirs = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut greeting = [0; 4];
        stream.read_exact(&mut greeting).unwrap();
        let refusal = [text(b"IDEGUARD"), vec![0, 0, 0], text(b"the guardian speaks 7 to 9")];
        stream.write_all(&frame(&refusal.concat())).unwrap();
        // The rest of the greeting is read, so that the answer is not lost to a reset.
        drop(stream.shutdown(std::net::Shutdown::Write));
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest));
    });
    let refused = within(open(den.path())).await.unwrap_err();
    let said = supervisor_core::error::chain(&refused);
    assert!(said.contains("speaks 7 to 9") && said.contains("stop its services"), "{said}");
    theirs.join().unwrap();
    assert!(den.guardians().is_empty());
}

#[tokio::test]
async fn what_listens_in_the_guardians_place_and_is_none_is_not_believed() {
    let den = Den::new();
    let listener = UnixListener::bind(den.path().join("guardian.sock")).unwrap();
    let theirs = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&frame(b"welcome, friend")).unwrap();
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest));
    });
    let refused = within(open(den.path())).await.unwrap_err();
    let said = supervisor_core::error::chain(&refused);
    assert!(said.contains("what listens there is none"), "{said}");
    theirs.join().unwrap();
}

#[tokio::test]
async fn a_forged_lock_a_forged_record_and_an_old_socket_harm_nobody() {
    let den = Den::new();
    let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
    let pid = stranger.id();
    std::fs::write(den.path().join("guardian.lock"), format!("{pid}\n")).unwrap();
    std::fs::write(
        den.path().join("guardian.exits"),
        format!("1 svc 3 {pid} 1 C 0 1 00000000\nnonsense\n\u{0}\n1 svc"),
    )
    .unwrap();
    drop(UnixListener::bind(den.path().join("guardian.sock")).unwrap());
    let spawner = within(den.spawner()).await;
    assert!(within(spawner.outlived()).await.unwrap().is_empty(), "a bad checksum is no record");
    let child = spawn(&spawner, sh("svc", "exec sleep 600", Die), 1).await;
    drop(child);
    within(spawner.close()).await;
    den.nothing_left().await;
    assert!(is_alive(pid));
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

/// Tries to reach the guardian as somebody else: 0 bytes, or no connection at all.
const STRANGER: &str = "import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.settimeout(20)
try:
    print(len(s.recv(1)))
except ConnectionResetError:
    print(0)
";

#[tokio::test]
async fn a_process_of_another_user_is_refused_and_written_down() {
    let root = rustix::process::geteuid().is_root();
    let python = Command::new("python3").arg("--version").stdout(Stdio::null()).status();
    if !root || !python.is_ok_and(|status| status.success()) {
        println!("skipped: it takes root and python3 to be somebody else");
        return;
    }
    let den = Den::new();
    let spawner = den.spawner().await;
    let path = den.path().join("guardian.sock");
    // As if somebody had opened the door: the directory's mode is what keeps others away otherwise.
    std::fs::set_permissions(den.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let mut command = Command::new("python3");
    command.args(["-c", STRANGER]).arg(&path).uid(65534).gid(65534).current_dir("/");
    let asked = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = within(asked).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "0", "{output:?}");
    eventually("a line in the log", || {
        log(&den).contains("of user 65534 was refused").then_some(())
    })
    .await;
    within(spawner.close()).await;
    den.nothing_left().await;
}

#[tokio::test]
async fn a_program_that_is_no_guardian_is_given_up_soon_and_leaves_no_process() {
    use supervisor_process::guardian::{GuardianProgram, GuardianSpawner};
    let den = Den::new();
    for program in ["/bin/true", "/no/such/program"] {
        let opened = GuardianSpawner::open(
            den.path(),
            den.mark(),
            den.path().join("logs"),
            GuardianProgram::Named(program.into()),
        );
        let refused = tokio::time::timeout(Duration::from_secs(10), opened).await.unwrap();
        assert!(refused.is_err(), "{program}");
    }
    let itself = GuardianSpawner::open(
        den.path(),
        den.mark(),
        den.path().join("logs"),
        GuardianProgram::Itself,
    );
    let said = supervisor_core::error::chain(&within(itself).await.unwrap_err());
    assert!(
        said.contains("run_if_asked"),
        "a program that never called it is not run again: {said}"
    );
}

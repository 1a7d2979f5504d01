//! HTTP probes on one core, against a connection, a request and an answer with nothing around them.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    dead_code,
    reason = "a benchmark fails by panicking, reports by printing and uses a part of what all share"
)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::{own_program, report, report_ratio};
use supervisor_core::config::{ProbeKind, ProbeRole, ProbeSpec, ServiceSpec};
use supervisor_core::ports::{ProbeRequest, ProbeRunner};
use supervisor_core::{Incarnation, ProcessIdentity};
use supervisor_process::SystemProbes;

/// Probes measured on each side.
const PROBES: usize = 10_000;
/// Services probed at a time.
const AT_ONCE: usize = 16;
/// What a child is asked to be by its first argument.
const SERVER: &str = "--serve";

/// Answers one request on each connection.
fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap());
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    let mut buffer = [0; 1024];
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        // A prober that went away is none of the server's business.
        if stream.read(&mut buffer).is_ok() {
            drop(stream.write_all(answer));
        }
    }
}

/// Processor time of the calling thread.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

fn floor(server: SocketAddr) -> Duration {
    let before = processor_time();
    let mut buffer = [0; 1024];
    for _ in 0..PROBES {
        let mut stream = TcpStream::connect(server).unwrap();
        let request = b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: floor\r\n\r\n";
        stream.write_all(request).unwrap();
        let read = stream.read(&mut buffer).unwrap();
        assert!(buffer[..read].starts_with(b"HTTP/1.1 200"));
    }
    processor_time() - before
}

fn probes(server: SocketAddr) -> Duration {
    let spec = Arc::new(ServiceSpec::new("svc", "true").unwrap());
    let probe = ProbeSpec {
        target: Some(format!("http://{server}/health")),
        ..ProbeSpec::new(ProbeRole::Readiness, ProbeKind::Http)
    };
    let request = ProbeRequest {
        service: spec.service_id().unwrap(),
        incarnation: Incarnation(1),
        identity: ProcessIdentity { pid: 1, start_time: 0, boot_id: String::new() },
        spec,
        probe,
        timeout: Duration::from_secs(5),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let before = processor_time();
    runtime.block_on(async {
        let each = |_| {
            let request = request.clone();
            async move {
                let runner = SystemProbes::new();
                for _ in 0..PROBES / AT_ONCE {
                    let outcome = runner.run(request.clone()).await;
                    assert!(outcome.passed, "{}", outcome.detail);
                }
            }
        };
        let mut all = tokio::task::JoinSet::new();
        for n in 0..AT_ONCE {
            all.spawn(each(n));
        }
        all.join_all().await;
    });
    processor_time() - before
}

fn main() {
    if std::env::args().nth(1).is_some_and(|first| first == SERVER) {
        return serve();
    }
    let mut server =
        Command::new(own_program()).arg(SERVER).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut out = std::io::BufReader::new(server.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    let address: SocketAddr = line.trim().parse().unwrap();
    let (floor, taken) = (floor(address), probes(address));
    let each = |taken: Duration| taken.as_secs_f64() * 1e6 / PROBES as f64;
    let note = "processor time of a probe with a connection of its own";
    report_ratio("http_probe", (each(taken), each(floor)), "µs", None, note);
    let rate = 1e6 / each(taken);
    report("http_probe_rate", rate, "/s", 10_000.0, true, "probes a second of one core's time");
    server.kill().unwrap();
    server.wait().unwrap();
}

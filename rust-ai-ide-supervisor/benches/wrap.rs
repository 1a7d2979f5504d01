//! What `ide-supervisor wrap` costs: beside a bare pipe to the same server, when the server dies, and in memory.
//!
//! The server is this program itself: it answers every request with its own parameters.
#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a benchmark prints, and ends when it cannot measure"
)]

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Names this program a server.
const SERVE: &str = "serve-for-the-benchmark";
/// Round trips of one block, and blocks of each kind in turn, so that the machine's moods meet both.
const TRIPS: usize = 400;
const BLOCKS: usize = 10;
/// Large messages of one block.
const LARGE: usize = 60;
const DOCUMENTS: usize = 100;
/// A notification that makes the server write without end.
const SPEW: &str = "test/spew";
const CALL: &str = "tools/call";
const RECOVERIES: usize = 15;

/// What client and server speak.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Lsp,
    Mcp,
}

use Protocol::{Lsp, Mcp};

impl Protocol {
    const fn name(self) -> &'static str {
        match self {
            Lsp => "lsp",
            Mcp => "mcp",
        }
    }

    /// Name of a benchmark: what it is called for LSP, and the same with `mcp` for MCP.
    fn bench(self, what: &str) -> String {
        match self {
            Lsp => format!("wrap_{what}"),
            Mcp => format!("wrap_mcp_{what}"),
        }
    }

    const fn greeting(self) -> &'static str {
        match self {
            Lsp => "{\"capabilities\":{}}",
            Mcp => {
                "{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{},\"clientInfo\":{\"name\":\"bench\",\"version\":\"1\"}}"
            }
        }
    }

    const fn greeted(self) -> &'static str {
        match self {
            Lsp => "{\"capabilities\":{\"textDocumentSync\":2}}",
            Mcp => {
                "{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{},\"serverInfo\":{\"name\":\"bench\",\"version\":\"1\"}}"
            }
        }
    }

    const fn initialized(self) -> &'static str {
        match self {
            Lsp => "{\"jsonrpc\":\"2.0\",\"method\":\"initialized\",\"params\":{}}",
            Mcp => "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}",
        }
    }

    /// A request that is asked often, with its parameters.
    const fn usual(self) -> (&'static str, &'static str) {
        match self {
            Lsp => ("textDocument/hover", HOVER),
            Mcp => (CALL, "{\"name\":\"add\",\"arguments\":{\"a\":1,\"b\":2}}"),
        }
    }

    /// A request of about a megabyte, with its parameters.
    fn large(self) -> (&'static str, String) {
        let text = "let some_name = another_name(1, 2, \\\"text\\\");\\n".repeat(21_000);
        match self {
            Lsp => ("textDocument/hover", format!("{{\"text\":\"{text}\"}}")),
            Mcp => (CALL, format!("{{\"name\":\"add\",\"arguments\":{{\"text\":\"{text}\"}}}}")),
        }
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some(SERVE) if arguments.next().as_deref() == Some("mcp") => return serve(Mcp),
        Some(SERVE) => return serve(Lsp),
        _ => {}
    }
    for protocol in [Lsp, Mcp] {
        round_trips(protocol);
        large_messages(protocol);
    }
    recoveries();
    #[cfg(target_os = "linux")]
    memory::run();
}

fn serve(protocol: Protocol) {
    let (mut input, mut output) = (
        BufReader::with_capacity(1 << 16, std::io::stdin()),
        BufWriter::with_capacity(1 << 16, std::io::stdout()),
    );
    let mut body = Vec::new();
    while read(protocol, &mut input, &mut body) {
        let text = std::str::from_utf8(&body).unwrap_or_default();
        let method = between(text, "\"method\":\"", "\"");
        if method == "exit" {
            return;
        }
        if method == SPEW {
            let note = "{\"jsonrpc\":\"2.0\",\"method\":\"note\",\"params\":\"";
            let note = format!("{note}{}\"}}", "x".repeat(60_000));
            // Ends when nobody reads: the pipe is closed, or this process killed.
            while write!(output, "Content-Length: {}\r\n\r\n{note}", note.len()).is_ok() {}
            return;
        }
        let id = between(text, "\"id\":", ",");
        if id.is_empty() {
            continue;
        }
        let head = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":");
        let result = match method {
            "initialize" => protocol.greeted(),
            _ => text
                .split_once("\"params\":")
                .map_or("{}", |(_, params)| &params[..params.len() - 1]),
        };
        if protocol == Lsp {
            let length = head.len() + result.len() + 1;
            drop(write!(output, "Content-Length: {length}\r\n\r\n{head}{result}}}"));
        } else {
            drop(writeln!(output, "{head}{result}}}"));
        }
        drop(output.flush());
    }
}

fn between<'t>(text: &'t str, before: &str, after: &str) -> &'t str {
    let start = &text[..text.len().min(200)];
    let found = start.split_once(before).map(|(_, rest)| rest);
    found.and_then(|rest| rest.split_once(after)).map_or("", |(found, _)| found)
}

/// Reads the body of one message; false at the end.
fn read(protocol: Protocol, input: &mut impl BufRead, body: &mut Vec<u8>) -> bool {
    if protocol == Mcp {
        body.clear();
        return input.read_until(b'\n', body).unwrap_or(0) > 0 && body.pop() == Some(b'\n');
    }
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        if input.read_line(&mut line).unwrap_or(0) == 0 {
            return false;
        }
        match line.trim_end() {
            "" => break,
            header => length = header.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0),
        }
    }
    body.resize(length, 0);
    input.read_exact(body).is_ok()
}

struct Client {
    protocol: Protocol,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    body: Vec<u8>,
    id: u64,
}

impl Client {
    fn start(protocol: Protocol, wrapped: bool) -> Self {
        let server = std::env::current_exe().expect("this program has a path");
        let mut command = if wrapped {
            let mut command = Command::new(env!("CARGO_BIN_EXE_ide-supervisor"));
            command.args(["wrap", "--protocol", protocol.name(), "--"]).arg(server);
            command
        } else {
            Command::new(server)
        };
        command.args([SERVE, protocol.name()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        let stdin = child.stdin.take().expect("it has an input");
        let stdout =
            BufReader::with_capacity(1 << 16, child.stdout.take().expect("it has an output"));
        let mut client = Self { protocol, child, stdin, stdout, body: Vec::new(), id: 0 };
        client.call("initialize", protocol.greeting());
        client.send(protocol.initialized());
        client
    }

    fn send(&mut self, text: &str) {
        send(self.protocol, &mut self.stdin, text);
    }

    fn call(&mut self, method: &str, params: &str) {
        self.id += 1;
        let id = self.id;
        self.send(&request(id, method, params));
        let wanted = format!("\"id\":{id},");
        loop {
            let read = read(self.protocol, &mut self.stdout, &mut self.body);
            assert!(read, "the connection ended");
            if String::from_utf8_lossy(&self.body[..self.body.len().min(60)]).contains(&wanted) {
                return;
            }
        }
    }

    fn open(&mut self, number: usize, text: &str) {
        self.send(&format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"textDocument/didOpen\",\"params\":{{\"textDocument\":{{\"uri\":\"file:///w/{number}.x\",\"languageId\":\"x\",\"version\":1,\"text\":\"{text}\"}}}}}}"
        ));
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn request(id: u64, method: &str, params: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\",\"params\":{params}}}")
}

fn send(protocol: Protocol, to: &mut impl Write, text: &str) {
    let frame = match protocol {
        Lsp => format!("Content-Length: {}\r\n\r\n{text}", text.len()),
        Mcp => format!("{text}\n"),
    };
    to.write_all(frame.as_bytes()).expect("it reads");
}

const HOVER: &str =
    "{\"textDocument\":{\"uri\":\"file:///w/0.x\"},\"position\":{\"line\":1,\"character\":2}}";

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn round_trips(protocol: Protocol) {
    let (mut bare, mut wrapped) = (Client::start(protocol, false), Client::start(protocol, true));
    let (mut floor, mut times) = (Vec::new(), Vec::new());
    let (method, params) = protocol.usual();
    for _ in 0..BLOCKS {
        for (client, into) in [(&mut bare, &mut floor), (&mut wrapped, &mut times)] {
            for _ in 0..TRIPS {
                let began = Instant::now();
                client.call(method, params);
                into.push(began.elapsed());
            }
        }
    }
    let (floor, time) = (micros(median(&mut floor)), micros(median(&mut times)));
    println!(
        "{{\"bench\":\"{}\",\"value\":{:.1},\"unit\":\"us\",\"target\":50,\"note\":\"p50 of {}: {time:.1} wrapped, {floor:.1} bare\"}}",
        protocol.bench("round_trip_added"),
        time - floor,
        TRIPS * BLOCKS,
    );
}

fn large_messages(protocol: Protocol) {
    let (method, params) = protocol.large();
    let run = |client: &mut Client| {
        let began = Instant::now();
        let Client { stdin, stdout, body, .. } = client;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..LARGE).for_each(|id| {
                    send(protocol, stdin, &request(1000 + id as u64, method, &params));
                });
            });
            (0..LARGE).for_each(|_| assert!(read(protocol, stdout, body), "the connection ended"));
        });
        (LARGE * 2 * params.len()) as f64 / 1e6 / began.elapsed().as_secs_f64()
    };
    let (mut bare, mut wrapped) = (Client::start(protocol, false), Client::start(protocol, true));
    let (mut floor, mut speed) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        floor.push(run(&mut bare));
        speed.push(run(&mut wrapped));
    }
    floor.sort_unstable_by(f64::total_cmp);
    speed.sort_unstable_by(f64::total_cmp);
    println!(
        "{{\"bench\":\"{}\",\"value\":{:.0},\"unit\":\"MB/s\",\"floor\":{:.0},\"target\":0.8,\"better\":\"higher\",\"note\":\"median of 7 times {LARGE} echoes of {:.1} MB, both ways\"}}",
        protocol.bench("large_messages"),
        speed[3],
        floor[3],
        params.len() as f64 / 1e6,
    );
}

fn recoveries() {
    let mut own = Vec::new();
    for _ in 0..RECOVERIES {
        let began = Instant::now();
        drop(Client::start(Lsp, false));
        own.push(began.elapsed());
    }
    let own = median(&mut own);
    let mut client = Client::start(Lsp, true);
    let text = "line\\n".repeat(2000);
    (0..DOCUMENTS).for_each(|number| client.open(number, &text));
    let mut times = Vec::new();
    for _ in 0..RECOVERIES {
        client.call("textDocument/hover", HOVER);
        let (_, server) = worker_and_server(client.child.id());
        let began = Instant::now();
        kill(server);
        client.call("textDocument/hover", HOVER);
        times.push(began.elapsed());
    }
    let time = median(&mut times);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{{\"bench\":\"wrap_recovery_100_documents_added\",\"value\":{:.1},\"unit\":\"ms\",\"target\":20,\"note\":\"p50 of {RECOVERIES}: kill to answer {:.1}, the server's own start to its handshake {:.1}; {DOCUMENTS} documents of 10 kB\"}}",
        ms(time.saturating_sub(own)),
        ms(time),
        ms(own),
    );
}

fn kill(pid: u32) {
    drop(Command::new("kill").args(["-9", &pid.to_string()]).status());
}

/// The process below `wrap` that carries the messages, and the server below that.
fn worker_and_server(wrap: u32) -> (u32, u32) {
    let (mut worker, mut server) = (wrap, wrap);
    while let Some(child) = child_of(server) {
        (worker, server) = (server, child);
    }
    (worker, server)
}

fn child_of(pid: u32) -> Option<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children =
        tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    children.collect::<String>().split_ascii_whitespace().next()?.parse().ok()
}

/// What the wrapping process holds, beside what it is allowed to.
#[cfg(target_os = "linux")]
mod memory {
    use super::*;

    const LARGE_DOCUMENTS: usize = 32;

    /// A line of `/proc/PID/status` in megabytes: `VmRSS` is what it holds, `VmHWM` the most it ever held.
    fn megabytes(pid: u32, line: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
        let kilobytes = found.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        kilobytes.expect("Linux tells what a process holds") * 1024.0 / 1e6
    }

    pub(super) fn run() {
        let idle = idle();
        unread(idle);
        documents(idle);
    }

    fn idle() -> f64 {
        let mut client = Client::start(Lsp, true);
        client.call("textDocument/hover", HOVER);
        let (worker, _) = worker_and_server(client.child.id());
        let held = megabytes(worker, "VmRSS");
        let watcher = megabytes(client.child.id(), "VmRSS");
        println!(
            "{{\"bench\":\"wrap_memory_idle\",\"value\":{held:.1},\"unit\":\"MB\",\"note\":\"resident, the program's own pages included; the process that watches it holds {watcher:.1}\"}}"
        );
        held
    }

    /// A client that reads nothing, and a server that writes without end.
    fn unread(idle: f64) {
        const CAP: f64 = (8 << 20) as f64 / 1e6;
        let mut client = Client::start(Lsp, true);
        client.send(&format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{SPEW}\"}}"));
        let (pid, _) = worker_and_server(client.child.id());
        let began = Instant::now();
        let mut held = 0.0;
        // Until it has grown no more for half a second: then the bound holds it.
        let mut grew = Instant::now();
        while grew.elapsed() < Duration::from_millis(500)
            && began.elapsed() < Duration::from_secs(20)
        {
            let now = megabytes(pid, "VmHWM");
            if now > held {
                (held, grew) = (now, Instant::now());
            }
            // poll: how much it holds, for at most 20 s.
            std::thread::park_timeout(Duration::from_millis(20));
        }
        println!(
            "{{\"bench\":\"wrap_memory_unread\",\"value\":{:.1},\"unit\":\"MB\",\"floor\":{CAP:.1},\"target\":1.5,\"note\":\"most it held above idle while the client reads nothing and the server writes without end; floor: the cap\"}}",
            held - idle
        );
    }

    /// Large documents, with a crash: the state is restored from what it holds.
    fn documents(idle: f64) {
        let text = "let some_name = another_name(1, 2, 3);  ".repeat(25_000);
        let all = (LARGE_DOCUMENTS * text.len()) as f64 / 1e6;
        let mut client = Client::start(Lsp, true);
        (0..LARGE_DOCUMENTS).for_each(|number| client.open(number, &text));
        client.call("textDocument/hover", HOVER);
        let (pid, server) = worker_and_server(client.child.id());
        let held = megabytes(pid, "VmRSS") - idle;
        println!(
            "{{\"bench\":\"wrap_memory_documents\",\"value\":{held:.1},\"unit\":\"MB\",\"floor\":{all:.1},\"target\":1.25,\"note\":\"resident above idle with {LARGE_DOCUMENTS} documents of 1 MB open; floor: the documents themselves\"}}"
        );
        kill(server);
        client.call("textDocument/hover", HOVER);
        let most = megabytes(pid, "VmHWM") - idle;
        println!(
            "{{\"bench\":\"wrap_memory_recovery\",\"value\":{most:.1},\"unit\":\"MB\",\"floor\":{all:.1},\"target\":1.5,\"note\":\"most it held above idle until they were restored after a crash; floor: the documents themselves\"}}"
        );
    }
}

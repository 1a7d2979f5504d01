//! What `ide-supervisor wrap` costs: beside a bare pipe to the same server, and when the server dies.
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
const RECOVERIES: usize = 15;

fn main() {
    if std::env::args().nth(1).as_deref() == Some(SERVE) {
        return serve();
    }
    round_trips();
    large_messages();
    recoveries();
}

fn serve() {
    let (mut input, mut output) = (
        BufReader::with_capacity(1 << 16, std::io::stdin()),
        BufWriter::with_capacity(1 << 16, std::io::stdout()),
    );
    let mut body = Vec::new();
    while read(&mut input, &mut body) {
        let text = std::str::from_utf8(&body).unwrap_or_default();
        let method = between(text, "\"method\":\"", "\"");
        if method == "exit" {
            return;
        }
        let id = between(text, "\"id\":", ",");
        if id.is_empty() {
            continue;
        }
        let head = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":");
        let result = match method {
            "initialize" => "{\"capabilities\":{\"textDocumentSync\":2}}",
            _ => text
                .split_once("\"params\":")
                .map_or("null", |(_, params)| &params[..params.len() - 1]),
        };
        let length = head.len() + result.len() + 1;
        drop(write!(output, "Content-Length: {length}\r\n\r\n{head}{result}}}"));
        drop(output.flush());
    }
}

fn between<'t>(text: &'t str, before: &str, after: &str) -> &'t str {
    let start = &text[..text.len().min(200)];
    let found = start.split_once(before).map(|(_, rest)| rest);
    found.and_then(|rest| rest.split_once(after)).map_or("", |(found, _)| found)
}

/// Reads the body of one message; false at the end.
fn read(input: &mut impl BufRead, body: &mut Vec<u8>) -> bool {
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
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    body: Vec<u8>,
    id: u64,
}

impl Client {
    fn start(wrapped: bool) -> Self {
        let server = std::env::current_exe().expect("this program has a path");
        let mut command = if wrapped {
            let mut command = Command::new(env!("CARGO_BIN_EXE_ide-supervisor"));
            command.args(["wrap", "--protocol", "lsp", "--"]).arg(server);
            command
        } else {
            Command::new(server)
        };
        command.arg(SERVE).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        let stdin = child.stdin.take().expect("it has an input");
        let stdout =
            BufReader::with_capacity(1 << 16, child.stdout.take().expect("it has an output"));
        let mut client = Self { child, stdin, stdout, body: Vec::new(), id: 0 };
        client.call("initialize", "{\"capabilities\":{}}");
        client.send("{\"jsonrpc\":\"2.0\",\"method\":\"initialized\",\"params\":{}}");
        client
    }

    fn send(&mut self, text: &str) {
        send(&mut self.stdin, text);
    }

    fn call(&mut self, method: &str, params: &str) {
        self.id += 1;
        let id = self.id;
        self.send(&request(id, method, params));
        let wanted = format!("\"id\":{id},");
        loop {
            assert!(read(&mut self.stdout, &mut self.body), "the connection ended");
            if String::from_utf8_lossy(&self.body[..self.body.len().min(60)]).contains(&wanted) {
                return;
            }
        }
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

fn send(to: &mut impl Write, text: &str) {
    let mut frame = format!("Content-Length: {}\r\n\r\n", text.len()).into_bytes();
    frame.extend_from_slice(text.as_bytes());
    to.write_all(&frame).expect("it reads");
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

fn round_trips() {
    let (mut bare, mut wrapped) = (Client::start(false), Client::start(true));
    let (mut floor, mut times) = (Vec::new(), Vec::new());
    for _ in 0..BLOCKS {
        for (client, into) in [(&mut bare, &mut floor), (&mut wrapped, &mut times)] {
            for _ in 0..TRIPS {
                let began = Instant::now();
                client.call("textDocument/hover", HOVER);
                into.push(began.elapsed());
            }
        }
    }
    let (floor, time) = (micros(median(&mut floor)), micros(median(&mut times)));
    println!(
        "{{\"bench\":\"wrap_round_trip_added\",\"value\":{:.1},\"unit\":\"us\",\"target\":50,\"note\":\"p50 of {}: {time:.1} wrapped, {floor:.1} bare\"}}",
        time - floor,
        TRIPS * BLOCKS,
    );
}

fn large_messages() {
    let text = "let some_name = another_name(1, 2, \\\"text\\\");\\n".repeat(21_000);
    let params = format!("{{\"text\":\"{text}\"}}");
    let run = |client: &mut Client| {
        let began = Instant::now();
        let Client { stdin, stdout, body, .. } = client;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..LARGE).for_each(|id| {
                    send(stdin, &request(1000 + id as u64, "textDocument/hover", &params));
                });
            });
            (0..LARGE).for_each(|_| assert!(read(stdout, body), "the connection ended"));
        });
        (LARGE * 2 * params.len()) as f64 / 1e6 / began.elapsed().as_secs_f64()
    };
    let (mut bare, mut wrapped) = (Client::start(false), Client::start(true));
    let (mut floor, mut speed) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        floor.push(run(&mut bare));
        speed.push(run(&mut wrapped));
    }
    floor.sort_unstable_by(f64::total_cmp);
    speed.sort_unstable_by(f64::total_cmp);
    println!(
        "{{\"bench\":\"wrap_large_messages\",\"value\":{:.0},\"unit\":\"MB/s\",\"floor\":{:.0},\"target\":0.8,\"better\":\"higher\",\"note\":\"median of 7 times {LARGE} echoes of {:.1} MB, both ways\"}}",
        speed[3],
        floor[3],
        params.len() as f64 / 1e6,
    );
}

fn recoveries() {
    let mut own = Vec::new();
    for _ in 0..RECOVERIES {
        let began = Instant::now();
        drop(Client::start(false));
        own.push(began.elapsed());
    }
    let own = median(&mut own);
    let mut client = Client::start(true);
    let text = "line\\n".repeat(2000);
    for number in 0..DOCUMENTS {
        client.send(&format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"textDocument/didOpen\",\"params\":{{\"textDocument\":{{\"uri\":\"file:///w/{number}.x\",\"languageId\":\"x\",\"version\":1,\"text\":\"{text}\"}}}}}}"
        ));
    }
    let mut times = Vec::new();
    for _ in 0..RECOVERIES {
        client.call("textDocument/hover", HOVER);
        let pid = child_of(client.child.id());
        let began = Instant::now();
        drop(Command::new("kill").args(["-9", &pid]).status());
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

fn child_of(pid: u32) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children =
        tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    children.collect::<String>().split_ascii_whitespace().next().unwrap_or("0").to_owned()
}

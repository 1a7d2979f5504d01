//! Starts that come early for the sake of a request that waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rust_ai_ide_supervisor::wrap::{Observed, Observer, Wrap, WrapEnd, WrapOptions};
use serde_json::{Value, json};
use supervisor_core::config::FramingKind;
use supervisor_core::ports::Entropy;
use supervisor_ipc::lsp::{LspOptions, LspRelay};
use supervisor_process::{SystemClock, SystemSpawner};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::Notify;

use crate::fake::DIRECTORY;
use crate::plumbing::{Place, kill};

/// How long a request may wait: longer than the first pauses together, shorter than with the one of 4 s.
const HOLD: Duration = Duration::from_secs(9);
/// Starts that fail, after which the pause is 4 s.
const FAILURES: u32 = 8;

/// Nothing is cut from a delay.
#[derive(Debug)]
struct Steady;

impl Entropy for Steady {
    fn next_u64(&self) -> u64 {
        0
    }
}

/// When servers were started; somebody asks for a restart when so many were lost.
struct Starts(Vec<Instant>, u32, Option<Arc<Notify>>);

impl Observer for Starts {
    fn observe(&mut self, what: &Observed<'_>) {
        match what {
            Observed::Started { .. } => self.0.push(Instant::now()),
            Observed::Lost { .. } => {
                self.1 += 1;
                if let Some(restart) = self.2.as_ref().filter(|_| self.1 == FAILURES + 1) {
                    restart.notify_one();
                }
            }
            _ => {}
        }
    }
}

async fn say(to: &mut DuplexStream, message: &Value) {
    let body = message.to_string();
    let frame = format!("Content-Length: {}\r\n\r\n{body}", body.len());
    to.write_all(frame.as_bytes()).await.unwrap();
}

/// Reads until the answer to a question comes.
async fn answer(from: &mut DuplexStream, id: u64) -> Value {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(from.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.trim_end().strip_prefix("Content-Length: ").unwrap().parse().unwrap();
        let mut body = vec![0; length];
        from.read_exact(&mut body).await.unwrap();
        let message: Value = serde_json::from_slice(&body).unwrap();
        if message["id"] == id && message.get("method").is_none() {
            return message;
        }
    }
}

/// A server that takes a second to start; then starts that fail at once; then one that does not.
fn session(place: &Place) -> Wrap {
    let mut server = Place::command();
    // Ends before it is a server: eight of those take no time that would count.
    let fail = format!(
        "n=$(wc -c 2>/dev/null < \"${DIRECTORY}/runs\" || echo 0); \
         if [ $n -ge 1 ] && [ $n -le {FAILURES} ]; then printf x >> \"${DIRECTORY}/runs\"; exit 1; fi; "
    );
    server[2] = fail + &server[2];
    let mut spec = WrapOptions::plain_spec("early", &server[0], server[1..].to_vec()).unwrap();
    let directory = place.dir.path().display().to_string();
    spec.environment.insert(DIRECTORY.to_owned(), directory);
    let options = LspOptions { hold: HOLD, ..LspOptions::default() };
    let mark = format!("early-{}", std::process::id());
    Wrap {
        relay: Box::new(LspRelay::new(options)),
        options: WrapOptions::new(spec, FramingKind::Lsp).unwrap(),
        spawner: Arc::new(SystemSpawner::new(mark, None, false).unwrap()),
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(Steady),
        restart: Arc::new(Notify::new()),
        requeue: None,
    }
}

// The pauses that have to be there before one is cut short are seven seconds together.
#[tokio::test]
async fn a_start_that_would_come_too_late_for_a_request_that_waits_comes_earlier() {
    let place = Place::new(&json!([{ "late_on": "initialize", "late_ms": 1000 }, {}]));
    let wrap = session(&place);
    let (mut client, theirs) = tokio::io::duplex(1 << 20);
    let (from_client, to_client) = tokio::io::split(theirs);
    let mut starts = Starts(Vec::new(), 0, None);
    let talk = async {
        let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": { "capabilities": {} } });
        say(&mut client, &hello).await;
        assert_eq!(answer(&mut client, 1).await["result"]["run"], 0);
        say(&mut client, &json!({ "jsonrpc": "2.0", "method": "initialized", "params": {} })).await;
        let ask = |id: u64| json!({ "jsonrpc": "2.0", "id": id, "method": "workspace/symbol", "params": {} });
        say(&mut client, &ask(2)).await;
        answer(&mut client, 2).await;
        kill(place.pids()[0]);
        let asked = Instant::now();
        say(&mut client, &ask(3)).await;
        let answered = answer(&mut client, 3).await;
        let waited = asked.elapsed();
        drop(client);
        (answered, waited)
    };
    let run = wrap.run(from_client, to_client, &mut starts, std::future::pending());
    let (end, (answered, waited)) = tokio::join!(run, talk);
    assert!(matches!(end, WrapEnd::ClientLeft(_)), "{end:?}");
    assert!(answered.get("result").is_some(), "{answered} after {waited:?}");
    assert!(waited < HOLD, "{waited:?}");
    assert_eq!(starts.0.len() as u32, FAILURES + 2);
    let pauses: Vec<_> = starts.0.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // As they are planned they are longer together than anybody waits.
    let last = pauses[pauses.len() - 1];
    assert!(last >= Duration::from_secs(1), "never without a pause: {pauses:?}");
    assert!(last < Duration::from_secs(4), "it came when it was planned: {pauses:?}");
}

// The pauses that have to be there before one is cut short are six seconds together.
#[tokio::test]
async fn a_restart_somebody_asks_for_waits_for_no_pause() {
    let place = Place::new(&json!([{}]));
    let wrap = session(&place);
    let mut starts = Starts(Vec::new(), 0, Some(Arc::clone(&wrap.restart)));
    let (mut client, theirs) = tokio::io::duplex(1 << 20);
    let (from_client, to_client) = tokio::io::split(theirs);
    let talk = async {
        let ask = |id: u64, method: &str| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": { "capabilities": {} } });
        say(&mut client, &ask(1, "initialize")).await;
        answer(&mut client, 1).await;
        say(&mut client, &json!({ "jsonrpc": "2.0", "method": "initialized", "params": {} })).await;
        say(&mut client, &ask(2, "workspace/symbol")).await;
        answer(&mut client, 2).await;
        kill(place.pids()[0]);
        // What only its own server can answer is not waited for, so that nothing cuts the pauses short.
        while place.pids().len() < 2 {
            // poll: eight starts that fail and the pauses between them, some seven seconds.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        say(&mut client, &ask(3, "workspace/symbol")).await;
        answer(&mut client, 3).await;
        drop(client);
    };
    let run = wrap.run(from_client, to_client, &mut starts, std::future::pending());
    tokio::join!(run, talk);
    let pauses: Vec<_> = starts.0.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let last = pauses[pauses.len() - 1];
    assert!(last < Duration::from_secs(3), "four seconds were planned: {pauses:?}");
    assert_eq!(starts.0.len() as u32, FAILURES + 2);
}

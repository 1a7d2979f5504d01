//! Peers that stop reading: what waits for them is bounded, and the session goes on, or ends, all the same.

use std::io::BufReader;
use std::process::ChildStdout;

use serde_json::json;

use crate::client::{Client, children_of, read};
use crate::plumbing::{Place, alive, kill, within};

const A: &str = "file:///w/a.x";
/// What the process that carries the messages may hold above what it holds when nothing happens: what may wait for one
/// side (8 MiB), and as much for the message that is being read and for what the allocator keeps.
const HOLDS_MAX: u64 = 16 << 20;
/// Messages in a row, of 64 KiB: far more than may wait.
const MANY: usize = 640;

/// Bytes of memory a process holds; none when it is gone.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kilobytes.map_or(0, |kilobytes| kilobytes.parse::<u64>().unwrap() * 1024)
}

#[test]
fn a_server_that_stops_reading_is_replaced_at_the_write_deadline_and_what_waits_for_it_is_bounded()
{
    // It sleeps over the hover: it reads nothing, and does nothing else.
    let place = Place::new(&json!([{ "late_on": "textDocument/hover", "late_ms": 600_000 }, {}]));
    let mut client = Client::start(&place);
    client.initialize();
    client.open(A, "one");
    assert_eq!(client.texts(), json!({ A: [1, "one"] }));
    let (wrap, worker) = (client.pid(), children_of(client.pid())[0]);
    let idle = resident(worker);
    let hover = client.hover(A);
    let mut most = idle;
    let all_told = std::thread::scope(|scope| {
        let telling = scope.spawn(|| {
            for _ in 0..MANY {
                client.notify("fake/told", json!({ "filling": "x".repeat(1 << 16) }));
            }
        });
        let told = within(|| {
            most = most.max(resident(worker));
            telling.is_finished()
        });
        if !told {
            // Or the telling would wait for ever.
            kill(wrap);
        }
        told
    });
    assert!(all_told, "the client was never listened to again");
    println!("{} KiB idle, {} KiB at most", idle >> 10, most >> 10);
    assert!(most - idle < HOLDS_MAX, "{idle} bytes idle, and then {most}");
    assert_eq!(client.answer(hover)["result"]["contents"], "run 1");
    assert_eq!(client.texts(), json!({ A: [1, "one"] }));
    client.hears("the server takes no more input; recovered in");
    assert_eq!((place.pids().len(), alive(place.pids()[0])), (2, false));
    assert_eq!(client.leave(), Some(0));
}

/// A client that reads nothing while its server talks without end, until that changes nothing any more.
fn talked_at() -> (Place, Client, BufReader<ChildStdout>) {
    let place = Place::new(&json!([{ "flood_on": "textDocument/hover" }]));
    let (mut client, unread) = Client::spawn_deaf(&place, Client::command(&[], &Place::command()));
    let mut unread = BufReader::new(unread);
    client.ask("initialize", json!({ "capabilities": {} }));
    assert!(read(&mut unread).is_some());
    client.notify("initialized", json!({}));
    assert!(within(|| place.seen_of("initialized").len() == 1), "{}", client.said());
    let worker = children_of(client.pid())[0];
    let idle = resident(worker);
    client.hover(A);
    let (mut most, mut steady) = (idle, 0);
    let full = within(|| {
        let now = resident(worker);
        assert!(now < idle + HOLDS_MAX, "{idle} bytes idle, and then {now}");
        steady = if now > most { 0 } else { steady + 1 };
        most = most.max(now);
        steady > 50 && most > idle + HOLDS_MAX / 4
    });
    assert!(full, "it never held what the client does not read: {idle}, {most}");
    println!("{} KiB idle, {} KiB at most", idle >> 10, most >> 10);
    (place, client, unread)
}

#[test]
fn a_client_that_reads_nothing_costs_bounded_memory_and_takes_the_set_with_it() {
    let (place, mut client, unread) = talked_at();
    let worker = children_of(client.pid())[0];
    client.hang_up();
    drop(unread);
    client.ended();
    assert!(within(|| !alive(place.pids()[0]) && !alive(worker)), "{}", client.said());
    assert_eq!(place.pids().len(), 1);
}

#[test]
fn a_client_that_says_no_more_and_reads_nothing_takes_the_set_with_it_too() {
    let (place, mut client, unread) = talked_at();
    let worker = children_of(client.pid())[0];
    client.hang_up();
    client.ended();
    assert!(within(|| !alive(place.pids()[0]) && !alive(worker)), "{}", client.said());
    assert_eq!(place.pids().len(), 1);
    drop(unread);
}

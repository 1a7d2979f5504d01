//! Servers that take long to start.

use super::scenarios::{hover, sync};
use super::*;

/// A session whose server took so long to answer its handshake, and was lost with a request unanswered.
fn after_a_start_of(time: Duration) -> Bench {
    let mut bench = Bench::new();
    bench.start();
    bench.client(&ask(1, "initialize", &json!({ "capabilities": {} })));
    bench.pass(time);
    bench.greet(1, &sync());
    bench.client(&tell("initialized", &json!({})));
    bench.client(&open("file:///a", "x"));
    bench.client(&hover(5, "file:///a"));
    bench.crash();
    bench.client(&hover(6, "file:///a"));
    bench.clear();
    bench.start();
    bench
}

#[test]
fn a_server_that_takes_forty_seconds_to_start_is_waited_for_after_a_crash_too() {
    let mut bench = after_a_start_of(40 * SECOND);
    let (id, _) = bench.asked("initialize");
    for _ in 0..8 {
        bench.pass(5 * SECOND);
        let generation = bench.generation;
        bench.input(Input::ServerSeen { generation, busy: false, stopped: false });
    }
    assert!(bench.to_client.is_empty(), "nobody was told to give up: {:?}", bench.to_client);
    assert!(!bench.orders.iter().any(|order| order.contains("restart")), "{:?}", bench.orders);
    bench.greet(id, &sync());
    bench.answer_probes();
    let asked = bench.to_server.iter().filter(|message| message["method"] == "textDocument/hover");
    assert_eq!(asked.count(), 2, "what waited was asked");
}

#[test]
fn a_request_waits_no_longer_than_twice_the_slowest_start_and_thirty_seconds_for_a_quick_one() {
    for (start, hold) in [(1, 30), (40, 80)] {
        let mut bench = after_a_start_of(start * SECOND);
        let held = bench.relay.held_until().map(|until| until.since(bench.now));
        assert_eq!(held, Some(hold * SECOND), "after a start of {start} s");
        bench.crash();
        bench.pass(hold * SECOND);
        assert_eq!(bench.reply(5)["error"]["code"], -32803);
        assert_eq!(bench.reply(6)["error"]["message"], "no server came back in time");
    }
}

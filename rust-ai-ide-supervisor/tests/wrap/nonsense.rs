//! Peers that talk nonsense, and ends that come in an unusual order.

use serde_json::json;

use crate::client::{Client, children_of};
use crate::plumbing::{Place, alive, kill, within};

const A: &str = "file:///w/a.x";

/// A session in which the first server does this when it is asked for a hover.
fn asked(first: &serde_json::Value) -> (Place, Client, serde_json::Value) {
    let place = Place::new(&json!([first, {}]));
    let mut client = Client::start(&place);
    client.initialize();
    client.open(A, "one");
    let hover = client.hover(A);
    let answer = client.answer(hover);
    (place, client, answer)
}

#[test]
fn a_line_of_junk_on_the_output_is_skipped_and_named() {
    let (place, mut client, answer) = asked(&json!({ "junk_on": "textDocument/hover" }));
    assert_eq!(answer["result"]["contents"], "run 0");
    client.hears(
        "the server wrote something that is no message; such lines are kept from the client: ",
    );
    assert_eq!(client.leave(), Some(0));
    assert_eq!(place.pids().len(), 1);
}

#[test]
fn a_server_that_only_says_how_it_wants_to_be_started_is_quoted_to_the_client() {
    for (script, last) in [
        ("echo 'usage: server --stdio'; echo more", "usage: server --stdio"),
        ("echo 'usage: server --stdio'", "usage: server --stdio"),
        (
            "echo 'error: --stdio is missing' >&2; echo '  at x' >&2; exit 1",
            "error: --stdio is missing",
        ),
    ] {
        let place = Place::new(&json!([]));
        let server = ["sh", "-c", script].map(str::to_owned);
        let mut client = Client::start_with(&place, &["--name", "x"], &server);
        let answer = client.initialize();
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("died 5 times") && message.ends_with(&format!("it said last: {last}")),
            "{message}"
        );
        assert_eq!(client.ended(), Some(1));
        assert!(client.said().contains("`--stdio` to talk to a client"), "{}", client.said());
    }
}

#[test]
fn what_a_client_writes_that_is_no_message_is_named_and_passes_nothing_on() {
    let place = Place::new(&json!([{}]));
    let mut client = Client::start(&place);
    client.raw(b"hello there\n");
    client.hears("the client wrote something that is no message; it was skipped: hello there");
    client.initialize();
    client.raw(b"Content-Length: 100\r\n\r\n{\"jsonrpc\"");
    client.hang_up();
    client.hears("the client's input ended in the middle of a message (at \"Content-Length: 100");
    client.ended();
    assert_eq!(place.pids().len(), 1);
}

#[test]
fn a_huge_length_is_refused_before_anything_is_allocated_and_the_server_is_replaced() {
    let (_place, mut client, answer) = asked(&json!({ "huge_length_on": "textDocument/hover" }));
    assert_eq!(answer["result"]["contents"], "run 1");
    client.hears("the server's output is not readable: ");
    client.hears("9999999999");
    assert_eq!(client.leave(), Some(0));
}

#[test]
fn a_server_that_asks_for_configuration_before_it_answers_is_not_deadlocked_even_while_it_is_restored()
 {
    let place = Place::new(&json!([{}, { "ask_configuration_in": "$/ideSupervisor/alive" }]));
    let mut client = Client::start(&place);
    client.initialize();
    client.open(A, "one");
    client.texts();
    kill(place.pids()[0]);
    assert_eq!(client.texts(), json!({ A: [1, "one"] }));
    // The sign of life comes after the documents; only its answer makes the recovery complete.
    assert_eq!(client.texts(), json!({ A: [1, "one"] }));
    client.hears("recovered in");
    let answers = place.seen().into_iter();
    let answers = answers.filter(|(run, got)| *run == 1 && got.to_string().contains("from"));
    assert_eq!(answers.count(), 1);
    assert_eq!(client.leave(), Some(0));
}

#[test]
fn a_client_that_speaks_another_protocol_or_nonsense_is_told_and_the_server_is_gone() {
    for (bytes, wanted) in [
        (
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\"}\n".as_slice(),
            "`--protocol mcp`",
        ),
        (b"Content-Length: 99999999999\r\n\r\n", "99999999999"),
        (b"Content-Length: -5\r\n\r\n{}", "cannot be read"),
    ] {
        let place = Place::new(&json!([{}]));
        let mut client = Client::start(&place);
        assert!(within(|| !place.pids().is_empty()));
        client.raw(bytes);
        assert_eq!(client.ended(), Some(2));
        assert!(client.said().contains(wanted), "{}", client.said());
        assert!(within(|| place.pids().iter().all(|pid| !alive(*pid))));
    }
}

#[test]
fn a_message_that_cannot_be_read_is_answered_and_the_session_goes_on() {
    let place = Place::new(&json!([{}]));
    let mut client = Client::start(&place);
    client.initialize();
    client.raw(b"Content-Length: 9\r\n\r\n{\"id\":nul");
    let answer = client.wait(|message| message["error"]["code"] == -32700).unwrap();
    assert!(answer["id"].is_null());
    assert_eq!(client.texts(), json!({}));
    assert_eq!(client.leave(), Some(0));
    assert_eq!(place.pids().len(), 1);
}

#[test]
fn a_client_that_hangs_up_takes_the_whole_set_with_it_however_the_server_takes_it() {
    let place = Place::new(&json!([{ "grandchild": true, "ignore_shutdown": true }]));
    let mut client = Client::start(&place);
    client.initialize();
    let server = place.pids()[0];
    let all = children_of(server);
    assert_eq!(all.len(), 1);
    client.hang_up();
    client.ended();
    assert!(within(|| !alive(server) && !alive(all[0])));
}

#[test]
fn a_stopped_server_ends_with_its_client_too() {
    let place = Place::new(&json!([{ "stop_on": "textDocument/hover" }]));
    let mut client = Client::start(&place);
    client.initialize();
    client.hover(A);
    let server = place.pids()[0];
    assert!(within(|| place.seen_of("textDocument/hover").len() == 1));
    client.hang_up();
    client.ended();
    assert!(within(|| !alive(server)));
}

#[test]
fn leaving_while_the_server_is_being_restarted_starts_none_and_leaves_nothing() {
    let place = Place::new(&json!([{}, { "late_on": "initialize", "late_ms": 30_000 }]));
    let mut client = Client::start(&place);
    client.initialize();
    kill(place.pids()[0]);
    assert!(within(|| place.pids().len() == 2));
    client.leave();
    assert_eq!(place.pids().len(), 2);
    assert!(within(|| place.pids().iter().all(|pid| !alive(*pid))));
}

#[test]
fn a_poisonous_document_that_kills_without_a_word_is_held_back_as_well() {
    let place = Place::new(&json!([{ "crash_on_text": "poison", "die_by": "kill" }]));
    let mut client = Client::start(&place);
    client.initialize();
    client.open("file:///w/b.x", "healthy");
    client.open(A, "poison");
    client.hears("is held back until its text changes");
    assert_eq!(client.texts(), json!({ "file:///w/b.x": [1, "healthy"] }));
}

#[test]
fn every_byte_passes_as_it_came_while_nothing_is_wrong() {
    let place = Place::new(&json!([]));
    let echo = ["sh", "-c", "exec cat"].map(str::to_owned);
    let mut client = Client::start_with(&place, &[], &echo);
    // `cat` sends every message back, so that the server says exactly what the client said.
    let odd = "{ \"jsonrpc\" :\"2.0\",\"method\":\"x/y\",\"params\":{\"\\u00e9\":1.0e+2, \"z\" : [ ] },\"own\":null }";
    client.raw(format!("Content-Length: {}\r\n\r\n{odd}", odd.len()).as_bytes());
    let back = client.wait(|message| message["method"] == "x/y").unwrap();
    assert_eq!(back, serde_json::from_str::<serde_json::Value>(odd).unwrap());
    assert_eq!(client.last_body(), odd);
}

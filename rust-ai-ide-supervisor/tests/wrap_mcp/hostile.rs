//! Sides that are wrong.

use serde_json::json;

use crate::client::Client;
use crate::plumbing::{Place, within};

#[test]
fn junk_from_the_server_is_kept_from_the_client_and_said_once() {
    let lines = json!([
        "starting up...",
        "",
        "{\"half\":",
        "\u{7}",
        "[]",
        "[[1]]",
        "{\"jsonrpc\":\"2.0\",\"id\":99,\"result\":{}}"
    ]);
    let place = Place::new(&json!([{"lines_on": "resources/read", "lines": lines}]));
    let mut client = Client::in_session(&place);
    for _ in 0..3 {
        assert_eq!(client.call("resources/read", json!({"uri": "a:1"}))["result"]["run"], 0);
    }
    assert!(client.aside.is_empty(), "{:?}", client.aside);
    client.hears("starting up...");
    assert_eq!(client.said().matches("no message").count(), 1);
    assert_eq!(place.pids().len(), 1);
}

#[test]
fn junk_from_the_client_is_answered_and_kept_from_the_server() {
    let place = Place::new(&json!([{}]));
    let mut client = Client::in_session(&place);
    client.raw(b"what is this\n\xff\xfe\n{\"id\":1\n[]\n");
    for _ in 0..4 {
        let refused = client.wait(|message| message["id"].is_null()).unwrap();
        assert!(refused["error"]["code"].as_i64().unwrap() <= -32600);
    }
    assert_eq!(client.state()["run"], 0);
    assert!(!place.seen().iter().any(|(_, got)| got.get("junk").is_some()));
}

#[test]
fn a_line_without_end_from_the_server_costs_it_its_life_and_not_our_memory() {
    let place = Place::new(&json!([{"huge_on": "resources/read", "huge": 70 << 20}, {}]));
    let mut client = Client::in_session(&place);
    let answer = client.call("resources/read", json!({"uri": "a:1"}));
    assert_eq!(answer["result"]["run"], 1, "{answer}");
    client.hears("not readable");
}

#[test]
fn a_client_of_the_other_protocol_is_told_which_one_to_name() {
    let place = Place::new(&json!([{}]));
    let mut client = Client::start(&place);
    client.raw(b"Content-Length: 2\r\n\r\n{}");
    assert_eq!(client.ended(), Some(2));
    assert!(client.said().contains("--protocol lsp"), "{}", client.said());
}

#[test]
fn a_batch_passes_whole_and_its_requests_survive_a_crash() {
    let place = Place::new(&json!([{"crash_on": "look"}, {}]));
    let mut client = Client::in_session(&place);
    client.send(&json!([
        {"jsonrpc": "2.0", "id": 901, "method": "tools/call", "params": {"name": "look"}},
        {"jsonrpc": "2.0", "id": 902, "method": "tools/call", "params": {"name": "add"}},
    ]));
    assert_eq!(client.answer(901)["result"]["run"], 1);
    assert_eq!(client.answer(902)["error"]["code"], -32070, "the server had both when it died");
    assert!(within(|| place.pids().len() == 2));
}

//! Servers that owe an answer and say nothing.

use serde_json::json;

use crate::client::Client;
use crate::plumbing::{Place, alive, go_on, within};
use crate::shared::State;

const A: &str = "file:///w/a.x";
/// Long enough that a server at work gets some of a busy machine between two looks, which are a sixth of it apart.
const LIMIT: [&str; 2] = ["--silence", "3s"];

/// A session in which the first server does this when it is asked for a hover, and the answer.
fn asked(first: &serde_json::Value) -> (Place, Client, serde_json::Value) {
    let place = Place::new(&json!([first, {}]));
    let mut client = Client::start_with(&place, &LIMIT, &Place::command());
    client.initialize();
    client.open(A, "one");
    assert_eq!(client.texts(), json!({ A: [1, "one"] }));
    let hover = client.hover(A);
    let answer = client.answer(hover);
    (place, client, answer)
}

/// Sees that the session went on with the second server, because the first was silent for about the limit.
fn was_replaced(place: &Place, mut client: Client, answer: &serde_json::Value) {
    assert_eq!(answer["result"]["contents"], "run 1");
    assert_eq!(client.texts(), json!({ A: [1, "one"] }));
    client.hears("and owes an answer; recovered in");
    let said = client.said();
    let silent = said.split_once("the server has been silent for ").map(|(_, rest)| rest);
    let silent = silent.and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    assert!(silent.is_some_and(|secs| (3..15).contains(&secs)), "{said}");
    assert!(within(|| !alive(place.pids()[0])));
    assert_eq!(client.leave(), Some(0));
    assert_eq!(place.pids().len(), 2);
}

#[test]
fn a_length_that_promises_more_than_comes_makes_a_server_mute_and_it_is_replaced() {
    let (place, client, answer) = asked(&json!({ "wrong_length_on": "textDocument/hover" }));
    let asked = place.seen_of("$/ideSupervisor/alive").into_iter().filter(|(run, _)| *run == 0);
    assert!(asked.count() > 1, "it was asked for signs of life, and what it answered was lost");
    was_replaced(&place, client, &answer);
}

#[test]
fn a_server_that_is_silent_and_does_nothing_is_replaced() {
    let (place, client, answer) = asked(&json!({ "mute_from": "textDocument/hover" }));
    was_replaced(&place, client, &answer);
}

#[test]
fn a_server_that_is_silent_and_works_is_left_alone_beyond_the_limit() {
    let busy = json!({ "busy_on": "textDocument/hover", "busy_ms": 7000 });
    let (place, mut client, answer) = asked(&busy);
    assert_eq!(answer["result"]["contents"], "run 0", "{}", client.said());
    assert_eq!(client.texts(), json!({ A: [1, "one"] }));
    assert_eq!(client.leave(), Some(0));
    assert_eq!(place.pids().len(), 1);
}

#[test]
fn a_server_that_is_stopped_is_suspected_and_its_late_answer_counts_when_it_goes_on() {
    let place = Place::new(&json!([{ "stop_on": "textDocument/hover" }]));
    let state = State::of(&place);
    let options = ["--state-dir", &state.0, "--silence", "24s"];
    let mut client = Client::start_with(&place, &options, &Place::command());
    client.initialize();
    client.open(A, "one");
    assert_eq!(client.texts(), json!({ A: [1, "one"] }));
    let hover = client.hover(A);
    let is = |wanted: &str| state.json(&["channels", "--json"])[0]["state"] == wanted;
    assert!(within(|| is("suspect")), "{}", client.said());
    go_on(place.pids()[0]);
    assert_eq!(client.answer(hover)["result"]["contents"], "run 0");
    assert!(within(|| is("ready")));
    assert_eq!(client.texts(), json!({ A: [1, "one"] }));
    assert_eq!(place.pids().len(), 1, "and nothing was restarted");
    assert_eq!(client.leave(), Some(0));
}

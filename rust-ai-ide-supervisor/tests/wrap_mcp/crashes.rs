//! A server that dies or falls silent.

use serde_json::{Value, json};

use crate::client::Client;
use crate::plumbing::{Place, alive, kill, within};

#[test]
fn without_a_crash_every_message_passes_byte_for_byte_and_leaving_ends_the_server() {
    let place = Place::new(&json!([{}]));
    let mut client = Client::in_session(&place);
    let odd = r#"{ "id":  "x\u0041", "method":"tools/call" ,"jsonrpc":"2.0","params":{"name":"add","n":1.50} }"#;
    client.raw(format!("{odd}\n").as_bytes());
    assert_eq!(client.next_line(), r#"{"id":"xA","jsonrpc":"2.0","result":{"run":0}}"#);
    assert_eq!(client.leave(), Some(0));
    assert_eq!(place.pids().len(), 1);
    assert!(within(|| !alive(place.pids()[0])));
}

#[test]
fn a_killed_server_is_back_with_the_session_and_the_client_saw_no_error() {
    let place = Place::new(&json!([{}]));
    let mut client = Client::in_session(&place);
    client.call("logging/setLevel", json!({"level": "warning"}));
    for uri in ["a:1", "a:2", "a:3"] {
        client.call("resources/subscribe", json!({"uri": uri}));
    }
    client.call("resources/unsubscribe", json!({"uri": "a:2"}));
    kill(place.pids()[0]);
    assert_eq!(
        client.state(),
        json!({"run": 1, "level": "warning", "initialized": true, "subscriptions": ["a:1", "a:3"]})
    );
    client.hears("recovered in");
    client.hears("2 subscriptions restored");
    let told: Vec<_> = client.aside.iter().map(|message| message["method"].clone()).collect();
    assert_eq!(told, ["notifications/resources/updated"; 2], "no second greeting, no error");
    assert_eq!(client.leave(), Some(0));
    assert!(within(|| place.pids().iter().all(|pid| !alive(*pid))));
}

#[test]
fn fifty_reads_in_flight_are_asked_again_and_a_call_that_may_have_run_fails_and_says_so() {
    let place = Place::new(&json!([{"mute_on": "resources/read"}, {}]));
    let mut client = Client::in_session(&place);
    let reads: Vec<_> =
        (0..50).map(|_| client.ask("resources/read", json!({"uri": "a:1"}))).collect();
    assert!(within(|| place.count("resources/read") == 50));
    let add = client.tool("add");
    assert_eq!(client.answer(add)["result"]["run"], 0);
    let place_of_death = place.pids()[0];
    kill(place_of_death);
    for read in reads {
        assert_eq!(client.answer(read)["result"]["run"], 1);
    }
    client.hears("50 requests asked again");
}

#[test]
fn a_call_that_may_have_run_is_never_written_again_and_fails_by_name() {
    let place = Place::new(&json!([{"crash_on": "add"}, {}]));
    let mut client = Client::in_session(&place);
    let add = client.tool("add");
    let failed = client.answer(add);
    assert_eq!(failed["error"]["code"], -32070, "{failed}");
    assert_eq!(failed["error"]["data"]["sent"], true);
    assert_eq!(failed["error"]["data"]["tool"], "add");
    assert_eq!(failed["error"]["data"]["generation"], 1);
    assert_eq!(client.state()["run"], 1);
    assert_eq!(place.count("add"), 1);
    client.hears("1 requests failed that may have been carried out");
}

#[test]
fn calls_made_while_the_server_starts_are_held_in_order_and_sent_once() {
    let place =
        Place::new(&json!([{"crash_on": "look"}, {"late_on": "initialize", "late_ms": 300}]));
    let mut client = Client::in_session(&place);
    let look = client.tool("look");
    assert!(within(|| place.pids().len() == 2));
    let adds: Vec<_> = (0..20).map(|_| client.tool("add")).collect();
    assert_eq!(client.answer(look)["result"]["run"], 1, "a tool that only reads is called again");
    for add in adds {
        assert_eq!(client.answer(add)["result"]["run"], 1);
    }
    assert_eq!(place.count("add"), 20);
    let seen = place.seen();
    let second = seen.iter().filter(|(run, got)| *run == 1 && got["method"].is_string());
    let order: Vec<_> = second.map(|(_, got)| got["method"].as_str().unwrap().to_owned()).collect();
    assert_eq!(order[..4], ["initialize", "notifications/initialized", "tools/list", "tools/call"]);
    let ids: Vec<_> = seen
        .iter()
        .filter(|(_, got)| got["params"]["name"] == "add")
        .map(|(_, got)| got["id"].as_i64().unwrap())
        .collect();
    assert!(ids.is_sorted());
}

#[test]
fn a_call_that_kills_every_server_is_given_up_after_the_second() {
    let place = Place::new(&json!([{"crash_on": "look"}]));
    let mut client = Client::in_session(&place);
    let look = client.tool("look");
    let failed = client.answer(look);
    assert_eq!(failed["error"]["code"], -32074, "{failed}");
    assert_eq!(failed["error"]["data"]["outcome"], "dead_lettered");
    assert_eq!(client.state()["run"], 2);
}

#[test]
fn a_server_that_dies_before_it_is_of_use_is_given_up_and_the_client_is_told() {
    let place = Place::new(&json!([{"crash_on": "initialize"}]));
    let mut client = Client::start(&place);
    let failed =
        client.call("initialize", json!({"protocolVersion": "2025-06-18", "capabilities": {}}));
    assert!(
        failed["error"]["message"].as_str().unwrap().contains("died 5 times in a row"),
        "{failed}"
    );
    assert_eq!(client.ended(), Some(1));
    assert_eq!(place.pids().len(), 5);
}

#[test]
fn a_crash_in_the_first_handshake_is_not_seen_by_the_client() {
    let place = Place::new(&json!([{"crash_on": "initialize"}, {}]));
    let mut client = Client::start(&place);
    assert_eq!(client.initialize()["result"]["run"], 1);
    assert_eq!(client.state()["initialized"], true);
}

#[test]
fn a_death_in_the_middle_of_a_restoration_starts_it_anew() {
    let place = Place::new(&json!([{}, {"crash_on": "logging/setLevel"}, {}]));
    let mut client = Client::in_session(&place);
    client.call("logging/setLevel", json!({"level": "error"}));
    client.call("resources/subscribe", json!({"uri": "a:1"}));
    kill(place.pids()[0]);
    let state = client.state();
    assert_eq!(
        (&state["run"], &state["level"], &state["subscriptions"]),
        (&json!(2), &json!("error"), &json!(["a:1"]))
    );
    client.hears("1 failed starts");
}

#[test]
fn a_server_whose_tools_differ_is_announced_and_what_it_does_not_promise_is_not_repeated() {
    let place =
        Place::new(&json!([{"mute_on": "look"}, {"tools": [{"name": "look"}, {"name": "state"}]}]));
    let mut client = Client::in_session(&place);
    let look = client.tool("look");
    assert!(within(|| place.count("look") == 1));
    kill(place.pids()[0]);
    assert!(
        client.wait(|message| message["method"] == "notifications/tools/list_changed").is_some()
    );
    assert_eq!(client.answer(look)["error"]["code"], -32070);
    assert_eq!(place.count("look"), 1);
}

#[test]
fn a_question_of_a_dead_server_is_taken_back_and_its_late_answer_reaches_nobody() {
    let place = Place::new(&json!([{"ask": "roots/list"}]));
    let mut client = Client::in_session(&place);
    let add = client.tool("add");
    let is_question = |message: &Value| message["method"] == "roots/list";
    let first = client.wait(is_question).unwrap();
    kill(place.pids()[0]);
    let back = client.wait(|message| message["method"] == "notifications/cancelled").unwrap();
    assert_eq!(back["params"]["requestId"], first["id"]);
    assert_eq!(client.answer(add)["error"]["code"], -32070);
    let again = client.tool("add");
    let second = client.wait(is_question).unwrap();
    assert_ne!(second["id"], first["id"], "the second server counts from the same beginning");
    client.send(&json!({"jsonrpc": "2.0", "id": first["id"], "result": "late"}));
    client.send(&json!({"jsonrpc": "2.0", "id": second["id"], "result": "right"}));
    assert_eq!(client.answer(again)["result"], "right");
}

#[test]
fn a_grandchild_that_holds_the_output_open_neither_hides_the_death_nor_survives_it() {
    let place = Place::new(&json!([{"grandchild": true}, {}]));
    let mut client = Client::in_session(&place);
    let server = place.pids()[0];
    let child = place.seen().iter().find_map(|(_, got)| got["grandchild"].as_u64()).unwrap();
    let child = u32::try_from(child).unwrap();
    assert!(alive(child));
    kill(server);
    assert_eq!(client.state()["run"], 1);
    assert!(within(|| !alive(child)), "a process of the dead server is left");
}

#[test]
fn a_server_that_closes_its_output_and_lives_on_is_replaced() {
    let place = Place::new(&json!([{"close_output_on": "resources/read"}, {}]));
    let mut client = Client::in_session(&place);
    assert_eq!(client.call("resources/read", json!({"uri": "a:1"}))["result"]["run"], 1);
    assert!(within(|| !alive(place.pids()[0])));
}

#[test]
fn a_client_that_leaves_while_its_server_is_down_leaves_nothing_behind() {
    let place =
        Place::new(&json!([{"crash_on": "look"}, {"late_on": "initialize", "late_ms": 60000}]));
    let mut client = Client::in_session(&place);
    client.tool("look");
    assert!(within(|| place.pids().len() == 2));
    assert!(client.leave().is_some());
    assert!(within(|| place.pids().iter().all(|pid| !alive(*pid))));
    assert_eq!(place.pids().len(), 2, "and nothing is started for nobody");
}

#[test]
fn requests_that_come_through_a_pipe_that_ends_are_answered_before_the_server_is_ended() {
    let place = Place::new(&json!([{"late_on": "tools/list", "late_ms": 200}]));
    let mut client = Client::start(&place);
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18", "capabilities": {}}});
    client.send(&hello);
    client.notify("notifications/initialized", json!({}));
    client.send(&json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}));
    client.send(
        &json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "add"}}),
    );
    assert_eq!(client.leave(), Some(0));
    assert_eq!(client.answer(1)["result"]["run"], 0);
    assert!(client.answer(2)["result"]["tools"].is_array());
    assert_eq!(client.answer(3)["result"]["run"], 0);
}

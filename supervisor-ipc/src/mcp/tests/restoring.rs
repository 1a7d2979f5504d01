//! A new server gets the session before anything else.

use supervisor_core::message::ChannelState;

use super::*;
use crate::relay::Ending;

fn subscribe(desk: &mut Desk, id: u64, uri: &str) {
    let request = json!({"jsonrpc": "2.0", "id": id, "method": "resources/subscribe", "params": {"uri": uri}});
    desk.client(request.to_string());
    desk.answer(id, "{}");
}

fn set_level(desk: &mut Desk, id: u64, level: &str) {
    let request = json!({"jsonrpc": "2.0", "id": id, "method": "logging/setLevel", "params": {"level": level}});
    desk.client(request.to_string());
    desk.answer(id, "{}");
}

fn with_settings() -> Desk {
    let mut desk = Desk::in_session();
    set_level(&mut desk, 10, "debug");
    set_level(&mut desk, 11, "warning");
    subscribe(&mut desk, 12, "a:1");
    subscribe(&mut desk, 13, "a:2");
    subscribe(&mut desk, 14, "a:3");
    desk.client(
        r#"{"jsonrpc":"2.0","id":15,"method":"resources/unsubscribe","params":{"uri":"a:2"}}"#,
    );
    desk.answer(15, "{}");
    desk.clear();
    desk
}

#[test]
fn handshake_level_and_subscriptions_come_first_and_in_this_order() {
    let mut desk = with_settings();
    desk.lost();
    desk.client(call(20, "add"));
    desk.client(r#"{"jsonrpc":"2.0","method":"notifications/x"}"#);
    desk.started();
    assert_eq!(desk.methods(), ["initialize"]);
    assert_eq!(desk.relay.state(), ChannelState::Syncing);
    let hello = desk.asked().remove(0);
    let mut params: Value = serde_json::from_str::<Value>(INITIALIZE).unwrap()["params"].take();
    params["protocolVersion"] = json!("2025-06-18");
    assert_eq!(hello["params"], params, "the client's own parameters, the revision agreed on");
    desk.to_server.clear();
    desk.answer(hello["id"].clone(), GREETED);
    assert_eq!(
        desk.methods(),
        [
            "notifications/initialized",
            "logging/setLevel",
            "resources/subscribe",
            "resources/subscribe",
            "tools/list"
        ]
    );
    let asked = desk.asked();
    assert_eq!(asked[0]["params"]["level"], "warning");
    assert_eq!(asked[1]["params"]["uri"], "a:1");
    assert_eq!(asked[2]["params"]["uri"], "a:3");
    desk.to_server.clear();
    for request in &asked[..3] {
        desk.answer(request["id"].clone(), "{}");
    }
    assert!(desk.to_server.is_empty() && desk.to_client.is_empty());
    desk.answer(asked[3]["id"].clone(), TOOLS);
    assert_eq!(desk.methods(), ["tools/call", "notifications/x"]);
    assert_eq!(desk.relay.state(), ChannelState::Ready);
    let report = &desk.reports[0];
    assert_eq!(report.ending, Ending::Recovered);
    assert_eq!((report.subscriptions, report.messages.held, report.attempts), (2, 1, 1));
}

#[test]
fn the_client_sees_no_second_greeting_and_is_told_to_look_at_what_it_subscribed_to() {
    let mut desk = with_settings();
    desk.lost();
    desk.recover();
    let updated = |uri: &str| json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}});
    assert_eq!(desk.told(), [updated("a:1"), updated("a:3")]);
}

#[test]
fn a_list_that_differs_is_announced_where_the_client_was_promised_to_be_told() {
    let mut desk = Desk::in_session();
    desk.client(r#"{"jsonrpc":"2.0","id":2,"method":"prompts/list"}"#);
    desk.answer(2, r#"{"prompts":[{"name":"p"}]}"#);
    desk.clear();
    desk.lost();
    desk.started();
    desk.restore_with(r#"{"tools":[{"name":"other"}]}"#);
    assert_eq!(
        desk.told(),
        [json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": {}})],
        "the server never promised to tell about prompts"
    );
    let changed = desk.reports[0].changed.join("; ");
    assert!(changed.contains("tools/list differs"), "{changed}");
    assert!(
        changed.contains("prompts/list differs, but the client was never promised"),
        "{changed}"
    );
}

#[test]
fn a_list_that_is_the_same_is_not_announced_even_in_another_order_and_other_pages() {
    let mut desk = Desk::in_session();
    desk.lost();
    desk.started();
    desk.answer(desk.asked()[0]["id"].clone(), GREETED);
    let id = desk.asked()[1]["id"].clone();
    desk.answer(id, r#"{"tools":[{"name":"add"},{"annotations":{"idempotentHint":true},"name":"set"}],"nextCursor":"n\""}"#);
    let more = desk.asked().pop().unwrap();
    assert_eq!(more["params"], json!({"cursor": "n\""}));
    desk.answer(
        more["id"].clone(),
        r#"{"tools":[{"name":"look","annotations":{"readOnlyHint":true}}]}"#,
    );
    assert!(desk.to_client.is_empty(), "{:?}", desk.to_client);
    assert_eq!(desk.relay.state(), ChannelState::Ready);
}

#[test]
fn a_list_that_does_not_come_holds_nobody_up_for_long_and_counts_as_changed() {
    let mut desk = Desk::in_session();
    desk.lost();
    desk.started();
    desk.answer(desk.asked()[0]["id"].clone(), GREETED);
    desk.client(call(5, "add"));
    desk.pass(4 * SECOND);
    assert_eq!(desk.relay.state(), ChannelState::Syncing);
    desk.pass(2 * SECOND);
    assert_eq!(desk.relay.state(), ChannelState::Ready);
    assert_eq!(desk.told()[0]["method"], "notifications/tools/list_changed");
    assert_eq!(desk.methods().last().unwrap(), "tools/call");
    let late = desk.asked()[1]["id"].clone();
    desk.to_client.clear();
    desk.answer(late, TOOLS);
    assert!(desk.to_client.is_empty() && desk.notices.is_empty());
}

#[test]
fn a_server_that_dies_while_it_is_restored_costs_one_attempt_and_the_next_gets_everything() {
    let mut desk = with_settings();
    desk.lost();
    desk.started();
    desk.answer(desk.asked()[0]["id"].clone(), GREETED);
    desk.lost();
    desk.clear();
    desk.recover();
    assert_eq!(desk.reports.len(), 1);
    assert_eq!(desk.reports[0].attempts, 2);
    assert_eq!(desk.reports[0].subscriptions, 2);
}

#[test]
fn a_subscription_two_servers_die_of_is_left_out() {
    let mut desk = Desk::in_session();
    subscribe(&mut desk, 12, "a:1");
    subscribe(&mut desk, 13, "a:deadly");
    desk.lost();
    for _ in 0..2 {
        desk.clear();
        desk.started();
        desk.answer(desk.asked()[0]["id"].clone(), GREETED);
        let asked = desk.asked();
        let list = asked.iter().find(|request| request["method"] == "tools/list").unwrap();
        desk.answer(list["id"].clone(), TOOLS);
        desk.lost();
    }
    desk.clear();
    desk.started();
    desk.answer(desk.asked()[0]["id"].clone(), GREETED);
    let uris: Vec<_> = desk
        .asked()
        .iter()
        .filter_map(|r| r["params"]["uri"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(uris, ["a:1"]);
    desk.restore_with(TOOLS);
    assert!(desk.reports[0].changed.join(" ").contains("resources/subscribe was left out"));
    let letter = desk.letters[0].clone();
    assert_eq!((letter.method.as_str(), &letter.over), ("resources/subscribe", &None));
    assert_eq!(letter.about["uri"], "a:deadly");
    assert_eq!(letter.generations, [Generation(2), Generation(3)]);
    assert_eq!(desk.relay.requeue(letter.number, desk.now, &mut Vec::new()), Ok(()));
    desk.clear();
    desk.lost();
    desk.started();
    desk.answer(desk.asked()[0]["id"].clone(), GREETED);
    let asked = desk.asked();
    assert!(asked.iter().any(|request| request["params"]["uri"] == "a:deadly"), "{asked:?}");
    assert!(desk.relay.requeue(letter.number, desk.now, &mut Vec::new()).is_err(), "only once");
}

#[test]
fn a_server_that_refuses_the_session_or_speaks_another_revision_is_replaced() {
    for (answer, word) in [
        (r#""error":{"code":-1,"message":"no room"}"#, "no room"),
        (r#""result":{"protocolVersion":"2024-11-05","capabilities":{}}"#, "2024-11-05"),
        (r#""result":{}"#, "cannot be read"),
    ] {
        let mut desk = Desk::in_session();
        desk.lost();
        desk.client(call(5, "add"));
        desk.started();
        let id = desk.asked()[0]["id"].clone();
        desk.server(format!(r#"{{"jsonrpc":"2.0","id":{id},{answer}}}"#));
        assert!(
            desk.orders[0].starts_with("restart: ") && desk.orders[0].contains(word),
            "{:?}",
            desk.orders
        );
        assert_eq!(desk.methods(), ["initialize"]);
        desk.lost_by(Loss::Replaced("x".to_owned()));
        desk.recover();
        assert_eq!(desk.methods(), ["tools/call"], "what waited waits on");
    }
}

#[test]
fn a_server_that_does_not_answer_the_handshake_is_replaced() {
    let mut desk = Desk::in_session();
    desk.lost();
    desk.started();
    desk.pass(29 * SECOND);
    assert!(desk.orders.is_empty());
    desk.pass(2 * SECOND);
    assert_eq!(desk.orders, ["restart: the new server did not answer the handshake for 30 s"]);
}

#[test]
fn what_the_new_server_offers_differently_is_reported() {
    let mut desk = with_settings();
    desk.lost();
    desk.started();
    let other = r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{},"completions":{}},"serverInfo":{"name":"s","version":"2"}}"#;
    desk.answer(desk.asked()[0]["id"].clone(), other);
    assert_eq!(desk.methods(), ["initialize", "notifications/initialized", "tools/list"]);
    desk.restore_with(TOOLS);
    let changed = desk.reports[0].changed.join("; ");
    for word in [
        "logging is gone",
        "prompts is gone",
        "resources is gone",
        "tools differs",
        "completions is new",
        "version 2 instead of 1",
    ] {
        assert!(changed.contains(word), "{word}: {changed}");
    }
}

#[test]
fn a_client_that_had_not_yet_said_that_it_is_ready_says_so_itself() {
    let mut desk = Desk::new();
    desk.started();
    desk.client(INITIALIZE);
    desk.answer(0, GREETED);
    desk.lost();
    desk.client(INITIALIZED);
    desk.clear();
    desk.started();
    assert_eq!(desk.methods(), ["initialize"]);
    desk.restore_with(TOOLS);
    assert_eq!(desk.methods(), ["notifications/initialized"]);
    desk.lost();
    desk.clear();
    desk.started();
    desk.answer(desk.asked()[0]["id"].clone(), GREETED);
    assert_eq!(desk.methods(), ["initialize", "notifications/initialized"], "and only once");
}

#[test]
fn a_greeting_no_server_answered_is_given_to_the_next_one_and_answered_once() {
    let mut desk = Desk::new();
    desk.client(INITIALIZE);
    desk.started();
    assert_eq!(desk.to_server, [INITIALIZE]);
    desk.lost();
    desk.lost_by(Loss::NotStarted("no such file".to_owned()));
    desk.clear();
    desk.started();
    let again = desk.asked().remove(0);
    desk.answer(again["id"].clone(), GREETED);
    assert_eq!(desk.told().len(), 1);
    assert_eq!(desk.told()[0]["id"], 0);
    assert_eq!(desk.reports[0].attempts, 2);
}

#[test]
fn log_messages_below_the_level_of_the_session_do_not_slip_through_while_it_is_restored() {
    let mut desk = with_settings();
    desk.lost();
    desk.started();
    let log = |level: &str| {
        json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": level, "data": 1}}).to_string()
    };
    desk.server(log("info"));
    desk.server(log("error"));
    assert_eq!(desk.to_client, [log("error")]);
}

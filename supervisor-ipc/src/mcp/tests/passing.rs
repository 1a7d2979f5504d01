//! While nothing is wrong.

use super::*;

#[test]
fn what_both_sides_say_passes_byte_for_byte() {
    let mut desk = Desk::in_session();
    let from_client = [
        r#"{ "id" : 7, "params":{"b":1,"a":1.50}, "jsonrpc":"2.0", "method":"not/known" , "more":null}"#,
        r#"{"jsonrpc":"2.0","id":"ä\u0041","method":"tools/call","params":{"name":"add","_meta":{"progressToken":"t"}}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/unheard","params":[ ]}"#,
        r#"[{"jsonrpc":"2.0","id":8,"method":"ping"}, {"jsonrpc":"2.0","method":"notifications/x"}]"#,
    ];
    for message in from_client {
        desk.client(message);
    }
    assert_eq!(desk.to_server, from_client);
    let from_server = [
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t","progress":2}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t","progress":1}}"#,
        r#"{"result" : {"x":1e2}, "jsonrpc":"2.0","id":7}"#,
        r#"{"jsonrpc":"2.0","id":0,"method":"sampling/createMessage","params":{"_meta":{"progressToken":0}}}"#,
        r#"[{"jsonrpc":"2.0","id":8,"result":{}},  {"jsonrpc":"2.0","method":"notifications/message"}]"#,
        r#"{"jsonrpc":"2.0","id":"äA","error":{"code":1,"message":"x"}}"#,
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"x"}}"#,
    ];
    for message in from_server {
        desk.server(message);
    }
    assert_eq!(desk.to_client, from_server);
    assert_eq!(desk.relay.kept_bytes(), Desk::in_session().relay.kept_bytes(), "all is forgotten");
}

#[test]
fn a_client_that_never_greets_is_served_all_the_same() {
    let mut desk = Desk::new();
    desk.client(read(1));
    desk.started();
    assert_eq!(desk.to_server, [read(1)]);
    desk.lost();
    desk.started();
    assert_eq!(desk.asked().len(), 2);
    desk.answer(desk.asked()[1]["id"].clone(), "1");
    assert_eq!(desk.told()[0], json!({"jsonrpc": "2.0", "id": 1, "result": 1}));
}

#[test]
fn nothing_but_a_ping_overtakes_a_greeting_that_is_unanswered() {
    let mut desk = Desk::new();
    desk.started();
    desk.client(INITIALIZE);
    desk.client(INITIALIZED);
    desk.client(call(1, "add"));
    desk.client(r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#);
    assert_eq!(desk.methods(), ["initialize", "ping"]);
    desk.answer(0, GREETED);
    assert_eq!(desk.methods(), ["initialize", "ping", "notifications/initialized", "tools/call"]);
    assert_eq!(desk.orders, ["ready"]);
}

#[test]
fn a_cancelled_request_is_cancelled_where_it_is() {
    let mut desk = Desk::in_session();
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5,"reason":"x"}}"#;
    desk.client(call(5, "add"));
    desk.client(cancel);
    assert_eq!(desk.to_server[1], cancel);
    desk.answer(5, "{}");
    desk.lost();
    assert!(desk.to_client.is_empty(), "who cancels wants no answer: {:?}", desk.to_client);
}

#[test]
fn the_end_of_the_client_ends_the_server_and_nothing_is_started_any_more() {
    let mut desk = Desk::in_session();
    desk.input(Input::ClientGone);
    assert_eq!(desk.orders, ["end", "stop"]);
    desk.client(read(6));
    desk.lost();
    desk.started();
    assert!(desk.to_client.is_empty() && desk.to_server.is_empty());
    assert_eq!(desk.relay.deadline(), None);
    assert!(desk.reports.is_empty(), "the end of a server whose client left is no incident");
}

#[test]
fn a_client_that_left_with_open_requests_gets_its_answers_before_the_server_is_ended() {
    let mut desk = Desk::new();
    desk.started();
    desk.client(INITIALIZE);
    desk.client(INITIALIZED);
    desk.client(call(5, "add"));
    desk.input(Input::ClientGone);
    assert_eq!(desk.orders, ["end"]);
    desk.answer(0, GREETED);
    assert_eq!(desk.methods().last().unwrap(), "tools/call");
    desk.answer(5, "{}");
    assert_eq!(desk.orders, ["end", "ready", "stop"]);
    assert_eq!(desk.to_client.len(), 2);
}

#[test]
fn a_client_that_left_waits_for_a_slow_answer_only_a_moment() {
    let mut desk = Desk::in_session();
    desk.client(call(5, "add"));
    desk.input(Input::ClientGone);
    desk.pass(SECOND);
    assert_eq!(desk.orders, ["end"]);
    desk.pass(SECOND);
    assert_eq!(desk.orders, ["end", "stop"]);
    desk.answer(5, "{}");
    assert_eq!(desk.told()[0]["id"], 5, "what comes before the server has ended is passed on");
    desk.lost();
    assert_eq!(desk.relay.state(), supervisor_core::message::ChannelState::Closed);
}

#[test]
fn a_client_that_left_is_told_when_the_server_dies_before_it_has_answered() {
    let mut desk = Desk::in_session();
    desk.client(call(5, "add"));
    desk.client(read(6));
    desk.input(Input::ClientGone);
    desk.lost();
    assert_eq!(desk.told().len(), 2);
    assert_eq!(desk.orders, ["end"], "the loss was the end");
}

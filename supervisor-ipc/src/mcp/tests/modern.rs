//! Revision 2026-07-28: no handshake, every request says who asks.

use super::*;

const META: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"}}"#;

fn ask(id: u64, method: &str, more: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"_meta":{META}{more}}}}}"#
    )
}

fn in_session() -> Desk {
    let mut desk = Desk::new();
    desk.started();
    desk.client(ask(1, "server/discover", ""));
    desk.answer(
        1,
        r#"{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{"listChanged":true}}}"#,
    );
    desk.client(ask(2, "tools/list", ""));
    desk.answer(2, TOOLS);
    desk.clear();
    desk
}

fn listening() -> Desk {
    let mut desk = in_session();
    desk.client(ask(7, "subscriptions/listen", r#","notifications":{"toolsListChanged":true,"promptsListChanged":false,"resourceSubscriptions":["a:1"]}"#));
    desk.server(acknowledged(7));
    desk.clear();
    desk
}

fn acknowledged(id: u64) -> String {
    json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": {"_meta": {"io.modelcontextprotocol/subscriptionId": id}}}).to_string()
}

#[test]
fn without_a_handshake_the_lists_are_compared_before_anything_is_repeated() {
    let mut desk = in_session();
    desk.client(ask(5, "tools/call", r#","name":"look""#));
    desk.client(ask(6, "tools/call", r#","name":"add""#));
    desk.lost();
    assert_eq!(desk.told().len(), 1);
    assert_eq!(desk.told()[0]["id"], 6);
    desk.clear();
    desk.started();
    assert_eq!(desk.methods(), ["server/discover"]);
    let discover = desk.asked().remove(0);
    assert_eq!(discover["params"]["_meta"], serde_json::from_str::<Value>(META).unwrap());
    desk.answer(discover["id"].clone(), "{}");
    assert_eq!(desk.methods(), ["server/discover", "tools/list"]);
    let list = desk.asked().remove(1);
    assert_eq!(list["params"]["_meta"], serde_json::from_str::<Value>(META).unwrap());
    desk.answer(list["id"].clone(), TOOLS);
    assert_eq!(desk.methods(), ["server/discover", "tools/list", "tools/call"]);
    assert_eq!(desk.reports.len(), 1);
}

#[test]
fn a_server_killed_while_it_starts_has_been_given_nothing_that_it_could_have_died_of() {
    let mut desk = in_session();
    for id in 10..20 {
        desk.killed();
        desk.started();
        assert_eq!(desk.methods(), ["server/discover"]);
        desk.client(ask(id, "tools/call", r#","name":"add""#));
        assert_eq!(desk.methods(), ["server/discover"], "a call waits until somebody listens");
        desk.clear();
    }
    desk.killed();
    desk.recover();
    assert!(
        desk.told().is_empty(),
        "neither a failed call nor a list that differs: {:?}",
        desk.told()
    );
    assert_eq!(desk.asked().last().unwrap()["method"], "tools/call");
}

#[test]
fn a_server_that_knows_no_discovery_is_listening_too() {
    let mut desk = in_session();
    desk.lost();
    desk.started();
    let id = desk.asked()[0]["id"].clone();
    desk.server(
        json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no"}}).to_string(),
    );
    assert_eq!(desk.methods(), ["server/discover", "tools/list"]);
}

#[test]
fn who_listens_listens_on_under_the_same_id_and_is_told_to_look() {
    let mut desk = listening();
    desk.lost();
    assert!(desk.to_client.is_empty(), "a listener is no call that failed");
    desk.started();
    desk.restore_with(r#"{"tools":[]}"#);
    let told = desk.told();
    assert_eq!(told[0]["method"], "notifications/tools/list_changed");
    assert_eq!(told[0]["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 7);
    assert_eq!(told[1]["method"], "notifications/resources/updated");
    assert_eq!(told[1]["params"]["uri"], "a:1");
    assert_eq!(told.len(), 2);
    assert_eq!(desk.methods(), ["subscriptions/listen"]);
    assert_eq!(desk.asked()[0]["id"], 7, "what it is told carries this id");
    desk.clear();
    desk.server(acknowledged(7));
    assert!(desk.to_client.is_empty(), "it knows");
}

#[test]
fn a_listener_is_neither_blamed_nor_expired_nor_taken_for_a_debt() {
    let mut desk = listening();
    for _ in 0..10 {
        desk.pass(4000 * SECOND);
        assert!(!desk.orders.iter().any(|order| order.starts_with("restart")), "{:?}", desk.orders);
        desk.lost();
        desk.pass(100 * SECOND);
        desk.recover();
        desk.server(acknowledged(7));
    }
    assert!(
        desk.told().iter().all(|message| message.get("error").is_none()),
        "{:?}",
        desk.to_client
    );
}

#[test]
fn a_sign_of_life_is_asked_for_in_the_words_of_the_revision() {
    let mut desk = in_session();
    desk.pass(31 * SECOND);
    assert_eq!(desk.methods(), ["server/discover"]);
    assert!(desk.asked()[0]["params"]["_meta"].is_object());
}

#[test]
fn a_client_that_falls_back_to_the_handshake_has_a_session_like_any_other() {
    let mut desk = Desk::new();
    desk.started();
    desk.client(ask(1, "server/discover", ""));
    desk.server(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no"}}"#);
    desk.client(INITIALIZE);
    desk.answer(0, GREETED);
    desk.client(INITIALIZED);
    desk.lost();
    desk.clear();
    desk.started();
    assert_eq!(desk.methods(), ["initialize"]);
}

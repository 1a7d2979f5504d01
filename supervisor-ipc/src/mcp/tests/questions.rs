//! What servers ask of the client: sampling, elicitation, roots, signs of life.

use super::*;

fn ask(id: u64, method: &str) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {"_meta": {"progressToken": id}}}).to_string()
}

fn reply(id: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "result": {"roots": []}}).to_string()
}

#[test]
fn questions_of_a_lost_server_are_taken_back_and_late_answers_dropped() {
    let mut desk = Desk::in_session();
    for (id, method) in
        ["roots/list", "sampling/createMessage", "elicitation/create"].into_iter().enumerate()
    {
        desk.server(ask(id as u64, method));
    }
    desk.client(reply(&json!(1)));
    desk.clear();
    desk.lost();
    let told = desk.told();
    assert_eq!(told.len(), 2);
    for (message, id) in told.iter().zip([0, 2]) {
        assert_eq!(message["method"], "notifications/cancelled");
        assert_eq!(message["params"]["requestId"], id);
    }
    desk.recover();
    desk.clear();
    desk.client(reply(&json!(0)));
    desk.client(r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":0,"progress":1}}"#);
    assert!(desk.to_server.is_empty(), "{:?}", desk.to_server);
}

#[test]
fn a_new_server_that_counts_from_the_same_beginning_gets_its_own_answers() {
    let mut desk = Desk::in_session();
    desk.server(ask(0, "roots/list"));
    desk.lost();
    desk.recover();
    desk.clear();
    desk.server(ask(0, "roots/list"));
    let asked = desk.told().remove(0);
    assert_ne!(asked["id"], 0);
    assert_ne!(asked["params"]["_meta"]["progressToken"], 0);
    desk.client(reply(&json!(0)));
    desk.client(json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": asked["params"]["_meta"]["progressToken"], "progress": 1}}).to_string());
    desk.client(reply(&asked["id"]));
    let given: Vec<Value> =
        desk.to_server.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    assert_eq!(given[0]["params"], json!({"progressToken": 0, "progress": 1}));
    assert_eq!(given[1], json!({"jsonrpc": "2.0", "id": 0, "result": {"roots": []}}));
    assert_eq!(given.len(), 2);
}

#[test]
fn a_server_takes_its_question_back_under_the_id_the_client_knows() {
    let mut desk = Desk::in_session();
    let back = |id: u64| {
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})
            .to_string()
    };
    desk.server(ask(4, "roots/list"));
    desk.server(back(4));
    assert_eq!(desk.to_client, [ask(4, "roots/list"), back(4)]);
    desk.lost();
    desk.recover();
    desk.clear();
    desk.server(ask(4, "roots/list"));
    desk.server(back(4));
    desk.server(back(4));
    let told = desk.told();
    assert_eq!(told[1]["params"]["requestId"], told[0]["id"]);
    assert_eq!(told.len(), 2);
    desk.client(reply(&told[0]["id"]));
    assert!(desk.to_server.is_empty());
}

#[test]
fn a_question_asked_while_the_session_is_restored_is_answered_at_once() {
    let mut desk = Desk::in_session();
    desk.lost();
    desk.started();
    desk.server(ask(0, "roots/list"));
    desk.client(call(5, "add"));
    desk.client(reply(&json!(0)));
    assert_eq!(desk.methods(), ["initialize"]);
    assert_eq!(
        desk.to_server.last().unwrap(),
        &reply(&json!(0)),
        "a server may wait for this before it greets"
    );
}

#[test]
fn questions_are_bounded_and_one_id_is_used_once() {
    let mut desk = Desk::in_session();
    for id in 0..300 {
        desk.server(ask(id, "roots/list"));
    }
    desk.server(ask(0, "roots/list"));
    assert_eq!(desk.to_client.len(), 256);
    assert_eq!(desk.to_server.len(), 45);
    let last: Value = serde_json::from_str(desk.to_server.last().unwrap()).unwrap();
    assert_eq!((last["id"].as_u64(), last["error"]["code"].as_i64()), (Some(0), Some(-32600)));
}

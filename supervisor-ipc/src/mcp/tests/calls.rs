//! What becomes of the client's requests.

use super::*;
use crate::mcp::{DEAD_LETTERED, EXPIRED, INDETERMINATE, NOT_SENT};

#[test]
fn reads_are_asked_again_in_their_order_under_new_ids_and_answered_once() {
    let mut desk = Desk::in_session();
    let methods = [
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "tasks/list",
        "resources/read",
        "prompts/get",
        "completion/complete",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
    ];
    for (id, method) in (20..).zip(methods) {
        desk.client(
            json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {"uri": "u:u"}})
                .to_string(),
        );
    }
    desk.clear();
    desk.lost();
    assert!(desk.to_client.is_empty(), "{:?}", desk.to_client);
    desk.recover();
    assert_eq!(desk.methods(), methods);
    let asked = desk.asked();
    for request in asked.iter().rev() {
        assert!(request["id"].as_str().unwrap().starts_with("ide-supervisor/2/"));
        desk.answer(request["id"].clone(), "{}");
    }
    let ids: Vec<_> =
        desk.told().iter().rev().map(|message| message["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, (20..31).collect::<Vec<_>>());
    assert_eq!(desk.reports[0].messages.asked_again, 11);
}

#[test]
fn a_tool_that_promises_nothing_fails_at_once_and_says_that_it_was_sent() {
    let mut desk = Desk::in_session();
    desk.client(call(5, "add"));
    desk.client(json!({"jsonrpc": "2.0", "id": 6, "method": "x/unknown"}).to_string());
    desk.lost();
    let told = desk.told();
    assert_eq!(told.len(), 2);
    let error = &told[0]["error"];
    assert_eq!((told[0]["id"].as_u64(), error["code"].as_i64()), (Some(5), Some(INDETERMINATE)));
    let data = &error["data"];
    assert_eq!(data["outcome"], "indeterminate");
    assert_eq!(data["sent"], true);
    assert_eq!(data["tool"], "add");
    assert_eq!(data["generation"], 1);
    assert_eq!(data["retryable"], false);
    assert!(error["message"].as_str().unwrap().contains("may have been carried out"));
    assert_eq!(told[1]["error"]["data"]["method"], "x/unknown");
    desk.clear();
    desk.recover();
    assert!(desk.methods().is_empty(), "and it is never written again");
    assert_eq!(desk.reports[0].messages.failed_maybe_done, 2);
}

#[test]
fn a_tool_that_reads_or_may_be_repeated_is_called_again() {
    let mut desk = Desk::in_session();
    desk.client(call(5, "look"));
    desk.client(call(6, "set"));
    desk.lost();
    desk.clear();
    desk.recover();
    let asked = desk.asked();
    assert_eq!(asked.len(), 2);
    desk.answer(asked[0]["id"].clone(), r#"{"content":[]}"#);
    assert_eq!(desk.to_client, [r#"{"jsonrpc":"2.0","id":5,"result":{"content":[]}}"#]);
}

#[test]
fn a_tool_is_not_called_again_when_the_new_server_does_not_promise_what_the_old_one_did() {
    let mut desk = Desk::in_session();
    desk.client(call(5, "look"));
    desk.lost();
    desk.started();
    desk.clear();
    desk.input(Input::Tick);
    desk.lost();
    desk.started();
    desk.restore_with(r#"{"tools":[{"name":"look"}]}"#);
    assert!(desk.methods().is_empty());
    let told = desk.told();
    assert_eq!(told[1]["error"]["code"], INDETERMINATE);
    assert_eq!(told[1]["error"]["data"]["generation"], 1);
}

#[test]
fn a_call_that_makes_a_task_is_not_repeated_whatever_its_tool_says() {
    let mut desk = Desk::in_session();
    desk.client(r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"look","task":{"ttl":1}}}"#);
    desk.lost();
    assert_eq!(desk.told()[0]["error"]["code"], INDETERMINATE);
}

#[test]
fn a_call_that_came_while_no_server_ran_is_held_and_sent_once() {
    let mut desk = Desk::in_session();
    desk.lost();
    desk.client(call(5, "add"));
    assert!(desk.to_client.is_empty());
    assert_eq!(desk.relay.held(), 1);
    desk.recover();
    assert_eq!(desk.to_server, [call(5, "add")], "under its own id, byte for byte");
}

#[test]
fn what_waits_longer_than_its_deadline_fails_and_says_whether_it_was_sent() {
    let mut desk = Desk::in_session();
    desk.client(read(5));
    desk.lost();
    desk.pass(10 * SECOND);
    desk.client(call(6, "add"));
    desk.pass(19 * SECOND);
    assert!(desk.to_client.is_empty());
    desk.pass(2 * SECOND);
    desk.pass(9 * SECOND);
    let told = desk.told();
    let facts: Vec<_> = told
        .iter()
        .map(|m| {
            (m["id"].as_u64(), m["error"]["code"].as_i64(), m["error"]["data"]["sent"].as_bool())
        })
        .collect();
    assert_eq!(
        facts,
        [(Some(5), Some(EXPIRED), Some(true)), (Some(6), Some(EXPIRED), Some(false))]
    );
}

#[test]
fn a_long_call_that_makes_progress_keeps_its_deadline_alive() {
    let mut desk = Desk::in_session();
    desk.client(r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"look","_meta":{"progressToken":5}}}"#);
    for step in 1..5 {
        desk.pass(20 * SECOND);
        desk.server(format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":5,"progress":{step}}}}}"#));
    }
    desk.clear();
    desk.lost();
    desk.recover();
    assert_eq!(desk.methods(), ["tools/call"]);
}

#[test]
fn progress_only_grows_for_the_client_across_servers_and_a_lost_call_makes_none() {
    let mut desk = Desk::in_session();
    let token = |id: u64, tool: &str| {
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "_meta": {"progressToken": id}}}).to_string()
    };
    let progress = |token: u64, progress: u64| {
        json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": progress}}).to_string()
    };
    desk.client(token(5, "look"));
    desk.server(progress(5, 1));
    desk.server(progress(5, 2));
    desk.lost();
    desk.recover();
    desk.clear();
    for step in 1..4 {
        desk.server(progress(5, step));
    }
    assert_eq!(desk.to_client, [progress(5, 3)]);
}

#[test]
fn a_cancel_follows_a_repeated_request_under_its_new_id_and_removes_one_that_waits() {
    let mut desk = Desk::in_session();
    let cancel = |id: u64| {
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})
            .to_string()
    };
    desk.client(read(5));
    desk.client(read(6));
    desk.client(read(7));
    desk.client(cancel(6));
    desk.lost();
    desk.client(call(8, "add"));
    desk.client(cancel(8));
    desk.client(cancel(7));
    desk.clear();
    desk.recover();
    let asked = desk.asked();
    assert_eq!(asked.len(), 1);
    desk.client(cancel(5));
    let sent: Value = serde_json::from_str(desk.to_server.last().unwrap()).unwrap();
    assert_eq!(sent["params"]["requestId"], asked[0]["id"]);
    assert!(desk.to_client.is_empty());
}

#[test]
fn an_answer_of_a_server_that_is_gone_reaches_nobody() {
    let mut desk = Desk::in_session();
    desk.client(read(5));
    desk.lost();
    let old = desk.generation;
    desk.recover();
    desk.clear();
    let late = Bytes::from_static(br#"{"jsonrpc":"2.0","id":5,"result":{}}"#);
    desk.input(Input::FromServer { generation: old, message: late.clone() });
    desk.input(Input::FromServer { generation: desk.generation, message: late });
    for late in [
        r#"{"jsonrpc":"2.0","id":1,"method":"roots/list"}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#,
        "junk",
    ] {
        let message = Bytes::from_static(late.as_bytes());
        desk.input(Input::FromServer { generation: old, message });
    }
    assert!(desk.notices.len() < 2, "{:?}", desk.notices);
    assert!(desk.to_client.is_empty(), "the new server knows the request by another id");
}

#[test]
fn a_request_two_servers_in_a_row_die_of_is_dead_lettered_and_the_others_live() {
    let mut desk = Desk::in_session();
    desk.client(read(5));
    desk.client(read(6));
    desk.lost();
    desk.recover();
    assert_eq!(desk.asked().len(), 2);
    desk.to_client.clear();
    desk.lost();
    assert_eq!(desk.told().len(), 1);
    assert_eq!(desk.told()[0]["id"], 6);
    assert_eq!(desk.told()[0]["error"]["code"], DEAD_LETTERED);
    assert_eq!(desk.letters.len(), 1);
    let letter = desk.letters[0].clone();
    assert_eq!(letter.method, "resources/read");
    assert_eq!(letter.generations, [Generation(1), Generation(2)]);
    let mut out = Vec::new();
    let refused = desk.relay.requeue(letter.number, desk.now, &mut out).unwrap_err();
    assert!(refused.contains("waits for no answer") && out.is_empty(), "{refused}");
    assert_eq!(letter.over, Some(refused.as_str()));
    desk.clear();
    desk.recover();
    desk.answer(desk.asked()[0]["id"].clone(), "{}");
    assert_eq!(desk.told()[0]["id"], 5);
}

#[test]
fn kills_over_a_request_may_be_somebody_elses_and_it_takes_five_of_them() {
    let mut desk = Desk::in_session();
    desk.client(r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"look","arguments":{"key":"secret"}}}"#);
    for _ in 0..4 {
        desk.killed();
        desk.recover();
    }
    assert!(desk.told().is_empty() && desk.letters.is_empty(), "{:?}", desk.to_client);
    desk.killed();
    assert_eq!(desk.told()[0]["error"]["code"], DEAD_LETTERED);
    let letter = format!("{:?}", desk.letters[0]);
    assert!(letter.contains("look") && !letter.contains("secret"), "{letter}");
}

#[test]
fn a_request_is_not_blamed_when_another_one_was_the_last_word_between() {
    let mut desk = Desk::in_session();
    desk.client(read(5));
    desk.lost();
    for id in 6..9 {
        desk.recover();
        desk.client(call(id, "add"));
        desk.lost();
    }
    let failed: Vec<_> =
        desk.told().iter().map(|message| message["id"].as_u64().unwrap()).collect();
    assert_eq!(failed, [6, 7, 8]);
    desk.recover();
    desk.client(call(9, "add"));
    desk.to_client.clear();
    desk.lost();
    assert_eq!(desk.told()[0]["id"], 5, "but five servers are enough");
    assert_eq!(desk.told()[0]["error"]["code"], DEAD_LETTERED);
}

#[test]
fn when_no_server_is_tried_any_more_everybody_is_told_and_a_later_request_tries_again() {
    let mut desk = Desk::in_session();
    desk.client(read(5));
    desk.lost();
    desk.client(call(6, "add"));
    desk.input(Input::RestartGaveUp { reason: "it died 5 times".to_owned() });
    let told = desk.told();
    let facts: Vec<_> = told
        .iter()
        .map(|m| (m["error"]["code"].as_i64(), m["error"]["data"]["sent"].as_bool()))
        .collect();
    assert_eq!(facts, [(Some(INDETERMINATE), Some(true)), (Some(NOT_SENT), Some(false))]);
    desk.clear();
    desk.client(call(7, "add"));
    let text = desk.told()[0]["error"]["message"].as_str().unwrap().to_owned();
    assert!(text.contains("it died 5 times") && text.contains("61 s"), "{text}");
    desk.pass(60 * SECOND);
    desk.clear();
    desk.client(call(8, "add"));
    assert_eq!(desk.orders, ["try again"]);
    assert!(desk.to_client.is_empty());
    desk.recover();
    assert_eq!(desk.methods(), ["tools/call"]);
}

#[test]
fn everything_unanswered_has_one_end_in_the_very_step_in_which_the_server_is_lost() {
    let mut desk = Desk::in_session();
    for id in 10..60 {
        desk.client(if id % 2 == 0 { call(id, "add") } else { read(id) });
    }
    desk.lost();
    assert_eq!(desk.told().len(), 25);
    assert_eq!(desk.relay.held(), 25);
}

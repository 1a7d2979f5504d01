//! One behaviour each.

use super::*;

pub(super) fn sync() -> Value {
    json!({ "textDocumentSync": 2, "semanticTokensProvider": {} })
}

pub(super) fn hover(id: u64, uri: &str) -> Value {
    let zero = json!({ "line": 0, "character": 0 });
    ask(id, "textDocument/hover", &json!({ "textDocument": { "uri": uri }, "position": zero }))
}

#[test]
fn a_silent_server_is_probed_then_suspect_and_replaced_only_when_it_owes_and_does_nothing() {
    let mut bench = Bench::greeted(&sync());
    bench.pass(600 * SECOND);
    assert!(bench.orders.is_empty() && bench.to_server.is_empty(), "an idle server is left alone");
    bench.client(&hover(5, "file:///a"));
    bench.pass(31 * SECOND);
    assert_eq!(bench.relay.state(), supervisor_core::message::ChannelState::Suspect);
    assert!(!bench.orders.iter().any(|order| order.starts_with("restart")));
    bench.pass(30 * SECOND);
    assert!(
        bench.orders.iter().any(|order| order.contains("silent for 60 s")),
        "{:?}",
        bench.orders
    );
}

#[test]
fn a_server_that_works_or_reports_progress_may_be_silent_for_minutes() {
    for progress in [false, true] {
        let mut bench = Bench::greeted(&sync());
        if progress {
            let begin = json!({ "token": 1, "value": { "kind": "begin", "title": "indexing" } });
            bench.server(&tell("$/progress", &begin));
        }
        bench.client(&hover(5, "file:///a"));
        for _ in 0..29 {
            bench.pass(10 * SECOND);
            let generation = bench.generation;
            bench.input(Input::ServerSeen { generation, busy: !progress, stopped: false });
        }
        assert!(!bench.orders.iter().any(|order| order.starts_with("restart")), "{progress}");
        bench.pass(20 * SECOND);
        assert!(bench.orders.iter().any(|order| order.starts_with("restart")), "{progress}");
    }
}

#[test]
fn a_suspect_server_that_answers_late_is_ready_again_without_a_restart() {
    let mut bench = Bench::greeted(&sync());
    bench.client(&hover(5, "file:///a"));
    bench.pass(35 * SECOND);
    bench.server(&json!({ "jsonrpc": "2.0", "id": 5, "result": null }));
    assert_eq!(bench.relay.state(), supervisor_core::message::ChannelState::Ready);
    assert_eq!(bench.reply(5)["result"], Value::Null);
    bench.pass(600 * SECOND);
    assert!(!bench.orders.iter().any(|order| order.starts_with("restart")), "{:?}", bench.orders);
}

#[test]
fn our_own_standstill_blames_nobody() {
    let mut bench = Bench::greeted(&sync());
    bench.client(&hover(5, "file:///a"));
    bench.now = bench.now + 8 * 3600 * SECOND;
    bench.input(Input::Tick);
    assert!(bench.orders.is_empty(), "{:?}", bench.orders);
    bench.pass(15 * SECOND);
    assert!(
        bench.to_server.iter().any(|m| m["method"].as_str().unwrap().starts_with("$/")),
        "one probe"
    );
}

#[test]
fn configuration_asked_for_during_the_restoration_is_answered_by_the_client_meanwhile() {
    let mut bench = Bench::greeted(&sync());
    bench.client(&open("file:///a", "x"));
    bench.crash();
    bench.clear();
    bench.start();
    let (id, greeting) = bench.asked("initialize");
    assert_eq!(greeting["params"]["processId"], 42);
    assert_eq!(
        greeting["params"]["capabilities"]["general"]["positionEncodings"],
        json!(["utf-16"])
    );
    bench.greet(id, &sync());
    bench.server(&ask(9, "workspace/configuration", &json!({ "items": [] })));
    assert_eq!(bench.told("workspace/configuration").len(), 1);
    bench.client(&json!({ "jsonrpc": "2.0", "id": 9, "result": ["c"] }));
    assert_eq!(bench.to_server.last().unwrap()["result"], json!(["c"]));
}

#[test]
fn what_a_server_asks_before_it_can_answer_shutdown_is_answered_by_the_client() {
    let mut bench = Bench::greeted(&sync());
    bench.client(&ask(7, "shutdown", &Value::Null));
    assert_eq!(bench.relay.state(), supervisor_core::message::ChannelState::Draining);
    bench.server(&ask(9, "workspace/configuration", &json!({ "items": [] })));
    assert_eq!(bench.told("workspace/configuration").len(), 1);
    bench.client(&json!({ "jsonrpc": "2.0", "id": 9, "result": ["c"] }));
    assert_eq!(bench.to_server.last().unwrap()["result"], json!(["c"]));
    bench.server(&json!({ "jsonrpc": "2.0", "id": 7, "result": null }));
    assert_eq!(bench.reply(7)["result"], Value::Null);
}

#[test]
fn settings_come_before_documents_and_the_newest_document_comes_first() {
    let mut bench = Bench::greeted(&sync());
    bench.client(&open("file:///old", "1"));
    bench.client(&open("file:///new", "2"));
    let alive = json!({ "uri": "file:///new", "diagnostics": [] });
    bench.server(&tell("textDocument/publishDiagnostics", &alive));
    bench.client(&tell("workspace/didChangeConfiguration", &json!({ "settings": 1 })));
    bench.client(&tell("workspace/didChangeConfiguration", &json!({ "settings": 2 })));
    bench.crash();
    bench.clear();
    bench.recover(&sync());
    let methods: Vec<_> = bench.to_server.iter().map(|m| m["method"].as_str().unwrap()).collect();
    assert_eq!(
        methods,
        [
            "initialize",
            "initialized",
            "workspace/didChangeConfiguration",
            "textDocument/didOpen",
            "textDocument/didOpen",
            "$/ideSupervisor/alive",
        ]
    );
    assert_eq!(bench.to_server[2]["params"]["settings"], 2);
    assert_eq!(bench.to_server[3]["params"]["textDocument"]["uri"], "file:///new");
    assert_eq!(bench.reports[0].documents, 2);
    assert_eq!(bench.told("workspace/semanticTokens/refresh").len(), 1);
}

#[test]
fn a_registration_the_client_knows_is_answered_here_and_one_that_is_not_given_again_is_taken_back()
{
    let registration = |id: &str, glob: &str| json!({ "id": id, "method": "workspace/didChangeWatchedFiles", "registerOptions": { "watchers": [glob] } });
    let mut bench = Bench::greeted(&sync());
    let both = json!({ "registrations": [registration("a", "*.x"), registration("b", "*.y")] });
    bench.server(&ask(1, "client/registerCapability", &both));
    bench.client(&json!({ "jsonrpc": "2.0", "id": 1, "result": null }));
    bench.crash();
    bench.clear();
    bench.client(&tell(
        "workspace/didChangeWatchedFiles",
        &json!({ "changes": [{ "uri": "f", "type": 2 }] }),
    ));
    bench.recover(&sync());
    bench.clear();
    let again =
        json!({ "registrations": [registration("other-id", "*.x"), registration("c", "*.z")] });
    bench.server(&ask(1, "client/registerCapability", &again));
    let told = bench.told("client/registerCapability");
    assert_eq!(told[0]["params"]["registrations"], json!([registration("c", "*.z")]));
    assert_eq!(
        bench.asked("workspace/didChangeWatchedFiles").1["params"]["changes"][0]["uri"],
        "f"
    );
    bench.pass(11 * SECOND);
    let gone = bench.told("client/unregisterCapability");
    assert_eq!(gone[0]["params"]["unregisterations"][0]["id"], "b");
    bench.clear();
    let all = json!({ "unregisterations": [{ "id": "other-id", "method": "workspace/didChangeWatchedFiles" }] });
    bench.server(&ask(2, "client/unregisterCapability", &all));
    let gone = bench.told("client/unregisterCapability");
    assert_eq!(gone[0]["params"]["unregisterations"][0]["id"], "a", "the id the client knows");
}

#[test]
fn diagnostics_of_a_dead_server_go_after_a_grace_unless_they_are_renewed() {
    let mut bench = Bench::greeted(&sync());
    for uri in ["file:///a", "file:///b"] {
        let found = json!({ "uri": uri, "diagnostics": [{ "message": "m" }] });
        bench.server(&tell("textDocument/publishDiagnostics", &found));
    }
    bench.crash();
    bench.recover(&sync());
    bench.clear();
    let renewed = json!({ "uri": "file:///a", "diagnostics": [{ "message": "n" }] });
    bench.server(&tell("textDocument/publishDiagnostics", &renewed));
    bench.pass(SECOND);
    assert_eq!(bench.told("textDocument/publishDiagnostics").len(), 1, "no flicker");
    bench.pass(2 * SECOND);
    let told = bench.told("textDocument/publishDiagnostics");
    assert_eq!(told.len(), 2);
    assert_eq!(told[1]["params"], json!({ "uri": "file:///b", "diagnostics": [] }));
}

#[test]
fn progress_of_a_dead_server_ends_and_its_questions_are_cancelled() {
    let mut bench = Bench::greeted(&sync());
    bench.server(&tell(
        "$/progress",
        &json!({ "token": "t", "value": { "kind": "begin", "title": "x" } }),
    ));
    bench.server(&ask(3, "window/showMessageRequest", &json!({})));
    bench.clear();
    bench.crash();
    assert_eq!(
        bench.told("$/progress")[0]["params"],
        json!({ "token": "t", "value": { "kind": "end" } })
    );
    assert_eq!(bench.told("$/cancelRequest")[0]["params"]["id"], 3);
    bench.recover(&sync());
    bench.clear();
    bench.server(&ask(3, "window/showMessageRequest", &json!({})));
    let known = bench.told("window/showMessageRequest")[0]["id"].clone();
    assert_ne!(known, 3, "the client has not answered the first one yet");
    bench.client(&json!({ "jsonrpc": "2.0", "id": 3, "result": "late" }));
    assert!(bench.to_server.is_empty(), "an answer to a dead server");
    bench.client(&json!({ "jsonrpc": "2.0", "id": known, "result": "now" }));
    assert_eq!(bench.to_server[0]["id"], 3);
}

#[test]
fn late_answers_of_a_dead_server_reach_nobody() {
    let mut bench = Bench::greeted(&sync());
    bench.client(&hover(5, "file:///a"));
    let dead = bench.generation;
    bench.crash();
    bench.recover(&sync());
    bench.clear();
    let late = json!({ "jsonrpc": "2.0", "id": 5, "result": "late" }).to_string();
    bench.input(Input::FromServer { generation: dead, message: late.into() });
    assert!(bench.to_client.is_empty());
    bench.server(&json!({ "jsonrpc": "2.0", "id": 5, "result": "new" }));
    assert_eq!(bench.reply(5)["result"], "new");
    bench.server(&json!({ "jsonrpc": "2.0", "id": 5, "result": "again" }));
    assert_eq!(bench.reply(5)["result"], "new", "a second answer is nobody's");
}

#[test]
fn a_cancelled_request_is_answered_as_cancelled_wherever_it_was() {
    let mut bench = Bench::greeted(&sync());
    bench.client(&hover(5, "file:///a"));
    bench.client(&tell("$/cancelRequest", &json!({ "id": 5 })));
    assert_eq!(bench.to_server.last().unwrap()["method"], "$/cancelRequest");
    bench.crash();
    assert_eq!(bench.reply(5)["error"]["code"], -32800);
    bench.client(&hover(6, "file:///a"));
    bench.client(&tell("$/cancelRequest", &json!({ "id": 6 })));
    assert_eq!(bench.reply(6)["error"]["code"], -32800);
    bench.recover(&sync());
    assert!(!bench.to_server.iter().any(|message| message["id"] == 6));
}

#[test]
fn another_encoding_after_a_restart_never_spoils_a_text() {
    let mut bench = Bench::greeted(&json!({ "textDocumentSync": 2, "positionEncoding": "utf-8" }));
    bench.client(&open("file:///a", "a\u{1F600}b"));
    bench.crash();
    bench.recover(&json!({ "textDocumentSync": 2 }));
    bench.clear();
    let place = json!({ "line": 0, "character": 5 });
    let change = json!({
        "textDocument": { "uri": "file:///a", "version": 2 },
        "contentChanges": [{ "range": { "start": place, "end": place }, "text": "!" }],
    });
    bench.client(&tell("textDocument/didChange", &change));
    let (_, sent) = bench.asked("textDocument/didChange");
    assert_eq!(sent["params"]["contentChanges"], json!([{ "text": "a\u{1F600}!b" }]));
}

#[test]
fn what_another_server_offers_is_adapted_to_and_told() {
    let mut bench = Bench::greeted(&json!({ "textDocumentSync": 2, "hoverProvider": true }));
    bench.client(&open("file:///a", "x"));
    bench.crash();
    bench.recover(&json!({ "textDocumentSync": { "openClose": false, "change": 0 } }));
    assert_eq!(bench.reports[0].changed, ["hoverProvider is gone", "textDocumentSync differs"]);
    assert_eq!(bench.reports[0].documents, 0, "it wants no documents");
    assert_eq!(bench.told("window/showMessage").len(), 1);
    let selector = json!([{ "language": "x", "scheme": "file" }]);
    let wanted = json!({ "registrations": [{ "id": "o", "method": "textDocument/didOpen", "registerOptions": { "documentSelector": selector } }] });
    bench.clear();
    bench.server(&ask(1, "client/registerCapability", &wanted));
    assert_eq!(
        bench.told("client/registerCapability").len(),
        1,
        "the client opens what it is told of now"
    );
}

#[test]
fn data_of_a_dead_process_is_not_given_to_another() {
    let mut bench = Bench::greeted(&sync());
    bench.client(&open("file:///a", "x"));
    bench.crash();
    bench.recover(&sync());
    bench.clear();
    bench.client(&ask(5, "completionItem/resolve", &json!({ "label": "l", "data": 7 })));
    assert_eq!(bench.reply(5)["result"], json!({ "label": "l", "data": 7 }), "as it was");
    bench.client(&ask(6, "callHierarchy/incomingCalls", &json!({ "item": {} })));
    assert_eq!(bench.reply(6)["error"]["code"], -32801);
    assert!(bench.to_server.is_empty());
    let delta = json!({ "textDocument": { "uri": "file:///a" }, "previousResultId": "1" });
    bench.client(&ask(7, "textDocument/semanticTokens/full/delta", &delta));
    let (_, full) = bench.asked("textDocument/semanticTokens/full");
    assert_eq!(full["params"], json!({ "textDocument": { "uri": "file:///a" } }));
    bench.server(&json!({ "jsonrpc": "2.0", "id": 7, "result": { "resultId": "1", "data": [] } }));
    bench.client(&ask(8, "textDocument/semanticTokens/full/delta", &delta));
    assert_eq!(bench.asked("textDocument/semanticTokens/full/delta").1["params"], delta);
}

#[test]
fn an_edit_for_a_version_that_is_not_the_newest_is_refused_in_the_clients_place() {
    let mut bench = Bench::greeted(&sync());
    bench.client(&open("file:///a", "x"));
    bench.clear();
    let edit = |version| json!({ "edit": { "documentChanges": [{ "textDocument": { "uri": "file:///a", "version": version }, "edits": [] }] } });
    bench.server(&ask(1, "workspace/applyEdit", &edit(0)));
    assert_eq!(bench.to_server[0]["result"]["applied"], false);
    bench.server(&ask(2, "workspace/applyEdit", &edit(1)));
    assert_eq!(bench.told("workspace/applyEdit").len(), 1);
}

#[test]
fn giving_up_answers_everything_and_a_later_request_makes_it_be_tried_once_more() {
    let mut bench = Bench::greeted(&sync());
    bench.crash();
    bench.client(&hover(5, "file:///a"));
    bench.input(Input::RestartGaveUp { reason: "it is broken".to_owned() });
    assert_eq!(bench.reply(5)["error"]["code"], -32803);
    assert_eq!(bench.relay.state(), supervisor_core::message::ChannelState::Open);
    bench.client(&hover(6, "file:///a"));
    bench.client(&hover(7, "file:///a"));
    assert!(bench.reply(6)["error"]["message"].as_str().unwrap().contains("it is broken"));
    assert_eq!(bench.orders.iter().filter(|order| *order == "TryAgain").count(), 1);
    bench.recover(&sync());
    assert_eq!(bench.relay.state(), supervisor_core::message::ChannelState::Ready);
}

#[test]
fn the_person_is_told_once_that_the_server_is_down_until_one_was_ready_again() {
    let mut bench = Bench::greeted(&sync());
    for round in 1..3 {
        bench.clear();
        for attempt in 0..4 {
            if attempt > 0 {
                bench.start();
            }
            bench.crash();
            bench.input(Input::RestartGaveUp { reason: "it is broken".to_owned() });
            assert_eq!(bench.told("window/showMessage").len(), 1, "round {round}");
        }
        bench.clear();
        bench.recover(&sync());
    }
}

#[test]
fn a_request_held_too_long_fails_and_too_many_fail_at_once() {
    let mut bench = Bench::greeted(&sync());
    bench.crash();
    for id in 0..1001 {
        bench.client(&hover(100 + id, "file:///a"));
    }
    assert!(bench.reply(1100)["error"]["message"].as_str().unwrap().contains("too many"));
    assert_eq!(bench.relay.held(), 1000);
    bench.pass(31 * SECOND);
    assert_eq!(bench.relay.held(), 0);
    assert_eq!(bench.reply(100)["error"]["code"], -32803);
}

#[test]
fn leaving_while_no_server_runs_is_answered_at_once_and_starts_none() {
    let mut bench = Bench::greeted(&sync());
    bench.crash();
    bench.client(&hover(4, "file:///a"));
    bench.client(&json!({ "jsonrpc": "2.0", "id": 5, "method": "shutdown" }));
    assert_eq!(bench.reply(5)["result"], Value::Null);
    assert_eq!(bench.reply(4)["error"]["code"], -32803);
    assert!(bench.orders.contains(&"EndServer".to_owned()));
}

#[test]
fn a_server_that_ignores_shutdown_does_not_keep_the_client_waiting() {
    let mut bench = Bench::greeted(&sync());
    bench.client(&json!({ "jsonrpc": "2.0", "id": 5, "method": "shutdown" }));
    bench.pass(6 * SECOND);
    assert_eq!(bench.reply(5)["result"], Value::Null);
    bench.client(&json!({ "jsonrpc": "2.0", "method": "exit" }));
    assert!(bench.orders.contains(&"StopServer".to_owned()));
}

#[test]
fn hostile_messages_of_either_side_reach_nobody_else() {
    let mut bench = Bench::greeted(&sync());
    let deep = format!("{{\"id\":1,\"result\":{}", "[".repeat(100_000));
    for text in [
        "\u{feff}{}",
        "[]",
        "{}",
        "null",
        "{\"id\":{},\"method\":1}",
        deep.as_str(),
        "{\"id\":null,\"method\":\"x\"}",
    ] {
        bench.clear();
        bench.input(Input::FromClient(Bytes::copy_from_slice(text.as_bytes())));
        assert!(bench.to_server.is_empty(), "{text:.20}");
        assert_eq!(bench.to_client.len(), 1, "{text:.20}");
        bench.clear();
        let (generation, message) = (bench.generation, Bytes::copy_from_slice(text.as_bytes()));
        bench.input(Input::FromServer { generation, message });
        assert!(bench.to_client.is_empty() && bench.to_server.is_empty(), "{text:.20}");
    }
    bench.server(&json!({ "jsonrpc": "2.0", "id": 99, "result": "nobody asked" }));
    bench.client(&json!({ "jsonrpc": "2.0", "id": 99, "result": "nobody asked" }));
    assert!(bench.to_client.is_empty() && bench.to_server.is_empty());
    for params in [
        json!(1),
        json!({ "textDocument": 1 }),
        json!({ "textDocument": { "uri": "a" }, "contentChanges": [{ "range": { "start": -1 } }] }),
    ] {
        bench.client(&tell("textDocument/didChange", &params));
    }
}

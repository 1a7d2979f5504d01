//! A server that dies.

use serde_json::json;

use crate::client::{Client, children_of};
use crate::plumbing::{Place, alive, kill, pause, within};

const A: &str = "file:///w/a.x";
const B: &str = "file:///w/b.x";

#[test]
fn without_a_crash_the_session_ends_with_the_servers_own_exit_code() {
    let place = Place::new(&json!([{}]));
    let mut client = Client::start(&place);
    let answer = client.initialize();
    assert_eq!(answer["result"]["run"], 0);
    client.open(A, "one");
    assert_eq!(client.texts(), json!({ A: [1, "one"] }));
    assert_eq!(client.leave(), Some(0));
    assert_eq!(place.pids().len(), 1);
    assert!(!alive(place.pids()[0]));
}

#[test]
fn a_killed_server_is_back_with_the_newest_texts_and_the_client_saw_no_error() {
    let place = Place::new(&json!([{}]));
    let mut client = Client::start(&place);
    client.initialize();
    client.open(A, "one");
    client.open(B, "two");
    client.insert(A, 2, "1\n");
    assert_eq!(client.texts(), json!({ A: [2, "1\none"], B: [1, "two"] }));
    kill(place.pids()[0]);
    client.insert(A, 3, "0\n");
    client.close(B);
    let hover = client.hover(A);
    assert_eq!(client.answer(hover)["result"]["contents"], "run 1");
    assert_eq!(client.texts(), json!({ A: [3, "0\n1\none"] }));
    client.hears("recovered in");
    assert_eq!(client.leave(), Some(0));
    assert!(within(|| place.pids().iter().all(|pid| !alive(*pid))));
}

#[test]
fn reads_in_flight_are_asked_again_and_requests_with_effects_fail_saying_that_they_may_have_been_done()
 {
    let place = Place::new(&json!([{ "mute_from": "textDocument/hover" }, {}]));
    let mut client = Client::start(&place);
    client.initialize();
    let documents = [A, B, "file:///w/c.x"];
    for uri in documents {
        client.open(uri, "as saved");
        client.insert(uri, 2, "not ");
    }
    let hovers: Vec<_> =
        documents.into_iter().cycle().take(50).map(|uri| client.hover(uri)).collect();
    let command = client.ask("workspace/executeCommand", json!({ "command": "x" }));
    assert!(within(|| place.seen_of("workspace/executeCommand").len() == 1));
    kill(place.pids()[0]);
    for hover in hovers {
        assert_eq!(client.answer(hover)["result"]["contents"], "run 1");
    }
    let failed = client.answer(command);
    assert_eq!(failed["error"]["code"], -32803, "{failed}");
    assert_eq!(failed["error"]["data"]["wasSent"], true);
    assert_eq!(place.seen_of("workspace/executeCommand").len(), 1, "an effect was asked for twice");
    let newest = json!([2, "not as saved"]);
    assert_eq!(client.texts(), json!({ A: newest, B: newest, "file:///w/c.x": newest }));
    let reopened = place.seen_of("textDocument/didOpen").into_iter().filter(|(run, _)| *run == 1);
    let texts: Vec<_> = reopened.map(|(_, it)| it["textDocument"]["text"].clone()).collect();
    assert_eq!(texts, ["not as saved"; 3], "each once, with what nobody had saved");
    client.catch_up();
    assert_eq!(client.aside.iter().filter(|message| message["method"].is_null()).count(), 0);
    client.hears("50 requests asked again");
    client.hears("1 requests failed that may have been carried out");
}

#[test]
fn a_read_about_a_text_that_changed_meanwhile_fails_with_content_modified() {
    let place = Place::new(&json!([{ "mute_on": "textDocument/hover" }, {}]));
    let mut client = Client::start(&place);
    client.initialize();
    client.open(A, "one");
    let hover = client.hover(A);
    client.insert(A, 2, "x");
    assert_eq!(client.texts(), json!({ A: [2, "xone"] }));
    kill(place.pids()[0]);
    let failed = client.answer(hover);
    assert_eq!(failed["error"]["code"], -32801, "{failed}");
}

#[test]
fn typing_during_a_restart_gives_one_open_with_the_newest_text_and_later_edits_in_order() {
    let place = Place::new(&json!([{}, { "late_on": "initialize", "late_ms": 300 }]));
    let mut client = Client::start(&place);
    client.initialize();
    client.open(A, "");
    client.open(B, "closed in the gap");
    assert_eq!(client.texts().as_object().unwrap().len(), 2);
    kill(place.pids()[0]);
    for version in 2..40 {
        client.insert(A, version, "x");
        if version == 3 {
            client.close(B);
            client.open("file:///w/c.x", "opened in the gap");
        }
        // poll: typing takes time; 380 ms in all, around the restart.
        pause(10);
    }
    let expected = json!({ A: [39, "x".repeat(38)], "file:///w/c.x": [1, "opened in the gap"] });
    assert_eq!(client.texts(), expected);
    let opens = place.seen_of("textDocument/didOpen").into_iter().filter(|(run, _)| *run == 1);
    let opens: Vec<_> = opens.map(|(_, params)| params["textDocument"]["uri"].clone()).collect();
    assert_eq!(opens.len(), 2, "{opens:?}");
    assert!(place.seen_of("textDocument/didClose").is_empty(), "the new server never had it open");
    let versions = |method: &str| {
        let all = place.seen_of(method).into_iter().filter(|(run, _)| *run == 1);
        let of = all.map(|(_, params)| params["textDocument"].clone()).filter(|it| it["uri"] == A);
        of.map(|it| it["version"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    let (opened, changed) = (versions("textDocument/didOpen"), versions("textDocument/didChange"));
    assert_eq!(opened.len(), 1);
    assert_eq!(
        changed,
        (opened[0] + 1..40).collect::<Vec<_>>(),
        "what is in the opening is not sent again"
    );
    assert_eq!(place.pids().len(), 2);
}

#[test]
fn a_notebook_is_back_with_its_cells_in_order_and_their_newest_texts() {
    let place = Place::new(&json!([{ "capabilities": { "notebookDocumentSync": {} } }]));
    let mut client = Client::start(&place);
    client.initialize();
    let cell = |name: &str| json!({ "kind": 2, "document": name });
    let text = |name: &str, text: &str| json!({ "uri": name, "languageId": "x", "version": 1, "text": text });
    client.notify("notebookDocument/didOpen", json!({
        "notebookDocument": {
            "uri": A, "notebookType": "jupyter-notebook", "version": 1, "metadata": { "kernel": "x" },
            "cells": [cell("cell:1"), cell("cell:2")],
        },
        "cellTextDocuments": [text("cell:1", "one"), text("cell:2", "two")],
    }));
    client.open(A, "the file itself, as a text");
    assert_eq!(client.texts().as_object().unwrap().len(), 3);
    kill(place.pids()[0]);
    let zero = json!({ "line": 0, "character": 0 });
    let typed = json!([{ "range": { "start": zero, "end": zero }, "text": "\u{1F600} " }]);
    client.notify("notebookDocument/didChange", json!({
        "notebookDocument": { "uri": A, "version": 2 },
        "change": { "cells": {
            "structure": {
                "array": { "start": 0, "deleteCount": 0, "cells": [cell("cell:3")] },
                "didOpen": [text("cell:3", "three")],
            },
            "textContent": [{ "document": { "uri": "cell:2", "version": 2 }, "changes": typed }],
        } },
    }));
    // What is about no document does not wait for one that was just given to a server that died.
    let about_a_cell = client.hover("cell:2");
    assert_eq!(client.answer(about_a_cell)["result"]["contents"], "run 1");
    let expected = json!({
        A: [1, "the file itself, as a text"],
        "cell:1": [1, "one"], "cell:2": [2, "\u{1F600} two"], "cell:3": [1, "three"],
    });
    assert_eq!(client.texts(), expected);
    let opens = place.seen_of("notebookDocument/didOpen");
    let (run, notebook) = opens.last().unwrap();
    assert_eq!((*run, opens.len()), (1, 2));
    let notebook = &notebook["notebookDocument"];
    assert_eq!(notebook["version"], 2);
    assert_eq!(notebook["metadata"]["kernel"], "x");
    assert_eq!(notebook["cells"], json!([cell("cell:3"), cell("cell:1"), cell("cell:2")]));
    assert!(place.seen_of("notebookDocument/didChange").is_empty(), "the change is in the opening");
}

#[test]
fn a_death_in_the_middle_of_a_restoration_starts_it_anew() {
    let place = Place::new(&json!([{}, { "crash_on_nth": 9 }, {}]));
    let mut client = Client::start(&place);
    client.initialize();
    for number in 0..20 {
        client.open(&format!("file:///w/{number}.x"), &number.to_string());
    }
    assert_eq!(client.texts().as_object().unwrap().len(), 20);
    kill(place.pids()[0]);
    let texts = client.texts();
    assert_eq!(texts.as_object().unwrap().len(), 20);
    assert_eq!(place.pids().len(), 3);
    for run in 1..3 {
        let opens = place.seen_of("textDocument/didOpen").into_iter().filter(|(of, _)| *of == run);
        let uris: Vec<_> = opens.map(|(_, p)| p["textDocument"]["uri"].to_string()).collect();
        let distinct: std::collections::BTreeSet<_> = uris.iter().collect();
        assert_eq!(distinct.len(), uris.len(), "opened twice in run {run}");
    }
    client.hears("1 failed starts; 20 documents restored");
}

#[test]
fn a_document_that_kills_every_server_is_held_back_until_it_changes() {
    let place = Place::new(&json!([{ "crash_on_text": "poison" }]));
    let mut client = Client::start(&place);
    client.initialize();
    client.open(B, "healthy");
    assert_eq!(client.texts(), json!({ B: [1, "healthy"] }));
    client.open(A, "poison");
    client.hears("is held back until its text changes");
    assert_eq!(client.texts(), json!({ B: [1, "healthy"] }));
    let about_it = client.hover(A);
    assert_eq!(client.answer(about_it)["error"]["code"], -32803);
    let about_the_other = client.hover(B);
    assert!(client.answer(about_the_other)["error"].is_null());
    let deaths = place.pids().len() - 1;
    assert_eq!(deaths, 2, "it takes two deaths to hold a document back");
    client.notify(
        "textDocument/didChange",
        json!({ "textDocument": { "uri": A, "version": 2 }, "contentChanges": [{ "text": "cured" }] }),
    );
    assert_eq!(client.texts(), json!({ A: [2, "cured"], B: [1, "healthy"] }));
    assert_eq!(place.pids().len() - 1, deaths);
}

#[test]
fn a_server_that_dies_before_it_is_of_use_is_given_up_and_the_client_is_told() {
    let place = Place::new(&json!([{ "crash_on": "initialize" }]));
    let mut client = Client::start(&place);
    let answer = client.call("initialize", json!({ "capabilities": {} }));
    assert_eq!(answer["error"]["code"], -32803, "{answer}");
    assert_eq!(client.ended(), Some(1));
    assert_eq!(place.pids().len(), 5);
    assert!(client.said().contains("died 5 times in a row"), "{}", client.said());
}

#[test]
fn a_server_that_was_of_use_and_then_dies_in_six_starts_in_a_row_still_answers_what_waited() {
    let crash = json!({ "crash_on": "initialize" });
    let mut runs = vec![json!({})];
    runs.extend(std::iter::repeat_n(crash, 6));
    runs.push(json!({}));
    let place = Place::new(&json!(runs));
    let mut client = Client::start(&place);
    client.initialize();
    client.open(A, "one");
    client.texts();
    kill(place.pids()[0]);
    let hover = client.hover(A);
    assert_eq!(client.answer(hover)["result"]["contents"], "run 7");
    client.hears("6 failed starts");
}

#[test]
fn a_server_that_answers_and_then_dies_by_itself_twelve_times_is_always_there_again() {
    let place = Place::new(&json!([{ "crash_on": "workspace/executeCommand" }]));
    let mut client = Client::start(&place);
    client.initialize();
    for _ in 0..12 {
        client.texts();
        // While a server is being restored it is refused and not sent.
        assert!(within(|| {
            let command = client.call("workspace/executeCommand", json!({ "command": "x" }));
            command["error"]["data"]["wasSent"] == true
        }));
    }
    client.texts();
    assert_eq!(place.pids().len(), 13);
}

#[test]
fn a_crash_in_the_first_handshake_is_not_seen_by_the_client() {
    let place = Place::new(&json!([{ "crash_on": "initialize" }, {}]));
    let mut client = Client::start(&place);
    assert_eq!(client.initialize()["result"]["run"], 1);
    client.open(A, "one");
    assert_eq!(client.texts(), json!({ A: [1, "one"] }));
}

#[test]
fn a_grandchild_that_holds_the_output_open_neither_hides_the_death_nor_survives_it() {
    let place = Place::new(&json!([{ "grandchild": true }, {}]));
    let mut client = Client::start(&place);
    client.initialize();
    client.open(A, "one");
    client.texts();
    let server = place.pids()[0];
    let child = children_of(server);
    assert_eq!(child.len(), 1);
    kill(server);
    assert_eq!(client.texts(), json!({ A: [1, "one"] }));
    assert!(within(|| !alive(child[0])), "a process of the dead server is left");
    assert_eq!(client.servers(), place.pids()[1..], "it was not reaped");
}

#[test]
fn a_server_that_closes_its_output_and_lives_on_is_replaced() {
    let place = Place::new(&json!([{ "close_output_on": "textDocument/hover" }, {}]));
    let mut client = Client::start(&place);
    client.initialize();
    client.open(A, "one");
    let hover = client.hover(A);
    assert_eq!(client.answer(hover)["result"]["contents"], "run 1");
    assert!(within(|| !alive(place.pids()[0])));
    client.hears("the server closed its output");
}

#[test]
fn stderr_passes_through_and_a_program_that_is_not_there_is_one_clear_error() {
    let place = Place::new(&json!([{}]));
    let shell = ["sh", "-c", "echo out loud >&2; exec cat >/dev/null"].map(str::to_owned);
    let mut client = Client::start_with(&place, &[], &shell);
    client.hears("out loud\n");
    client.hang_up();
    client.ended();
    let mut client = Client::start_with(&place, &[], &["/no/such/server".to_owned()]);
    assert_eq!(client.ended(), Some(1));
    assert!(client.said().contains("/no/such/server"), "{}", client.said());
}

#[test]
fn a_server_that_counts_in_another_encoding_is_believed_about_files_that_are_ascii_alone() {
    let place = Place::new(&json!([{}]));
    let file = |name: &str, text: &str| {
        let path = place.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!("file://{}", path.display())
    };
    let there = json!({ "line": 0, "character": 1 });
    let answers = |uri: &str| json!({ "uri": uri, "range": { "start": there, "end": there } });
    for (name, text, passes) in [("ascii.x", "ab", true), ("emoji.x", "a\u{1F600}b", false)] {
        let uri = file(name, text);
        let runs = json!([
            { "encoding": "utf-8", "definition": answers(&uri) },
            { "encoding": "utf-32", "definition": answers(&uri) },
        ]);
        let place = Place::new(&runs);
        let mut client = Client::start(&place);
        client.initialize();
        client.open(A, "one");
        let definition = |client: &mut Client| {
            client.call("textDocument/definition", json!({ "textDocument": { "uri": A } }))
        };
        assert_eq!(definition(&mut client)["result"], answers(&uri));
        kill(place.pids()[0]);
        let answer = definition(&mut client);
        assert_eq!(answer.get("result").is_some(), passes, "{answer}");
        if !passes {
            let text = answer["error"]["message"].as_str().unwrap();
            assert!(text.contains("counts columns in utf-32"), "{text}");
        }
        assert_eq!(client.leave(), Some(0));
    }
}

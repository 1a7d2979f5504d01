//! A server that counts columns in another way than its predecessor.

use super::scenarios::hover;
use super::*;
use crate::lsp::Files;

fn range() -> Value {
    let place = json!({ "line": 0, "character": 1 });
    json!({ "start": place, "end": place })
}

fn assert_refused(bench: &Bench, id: u64) {
    let error = bench.reply(id)["error"].clone();
    assert_eq!(error["code"], -32803, "{error}");
    let text = error["message"].as_str().unwrap();
    assert!(text.contains("utf-32") && text.contains("promised utf-8"), "{text}");
}

/// Files of which some hold other than ASCII, and some cannot be looked at.
#[derive(Debug)]
struct Disk;

impl Files for Disk {
    fn is_ascii(&self, uri: &str) -> Option<bool> {
        match uri {
            "file:///disk/ascii" => Some(true),
            "file:///disk/emoji" => Some(false),
            _ => None,
        }
    }
}

/// A session whose second server counts in UTF-32.
fn miscounting(files: Option<Box<dyn Files>>) -> Bench {
    let mut bench = Bench::greeted(&json!({ "textDocumentSync": 2, "positionEncoding": "utf-8" }));
    if let Some(files) = files {
        bench.relay = std::mem::replace(&mut bench.relay, LspRelay::new(LspOptions::default()))
            .looking_at(files);
    }
    bench.client(&open("file:///emoji", "a\u{1F600}b"));
    bench.client(&open("file:///ascii", "ab"));
    bench.crash();
    bench.recover(&json!({ "textDocumentSync": 2, "positionEncoding": "utf-32" }));
    bench.pass(SECOND);
    bench.clear();
    bench
}

const PLACES: [(&str, bool); 5] = [
    ("file:///ascii", true),
    ("file:///emoji", false),
    ("file:///disk/ascii", true),
    ("file:///disk/emoji", false),
    ("untitled:unknown", false),
];

#[test]
fn what_a_server_with_another_encoding_says_of_a_text_is_believed_only_where_all_encodings_agree() {
    let mut bench = Bench::greeted(&json!({ "textDocumentSync": 2, "positionEncoding": "utf-8" }));
    bench.client(&open("file:///emoji", "a\u{1F600}b"));
    bench.client(&open("file:///ascii", "ab"));
    bench.crash();
    bench.client(&hover(5, "file:///emoji"));
    bench.recover(&json!({ "textDocumentSync": 2, "positionEncoding": "utf-32" }));
    assert_refused(&bench, 5);
    bench.clear();
    bench.client(&hover(6, "file:///emoji"));
    bench.client(&hover(7, "file:///ascii"));
    assert_refused(&bench, 6);
    assert_eq!(bench.to_server.iter().filter(|sent| sent["id"] == 7).count(), 1);
    for uri in ["file:///emoji", "file:///ascii"] {
        let found = json!({ "uri": uri, "diagnostics": [{ "range": range(), "message": "m" }] });
        bench.server(&tell("textDocument/publishDiagnostics", &found));
    }
    let told: Vec<_> = bench.told("textDocument/publishDiagnostics");
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["params"]["uri"], "file:///ascii");

    bench.crash();
    bench.recover(&json!({ "textDocumentSync": 2, "positionEncoding": "utf-8" }));
    bench.clear();
    bench.client(&hover(9, "file:///emoji"));
    assert_eq!(bench.to_server.iter().filter(|sent| sent["id"] == 9).count(), 1);
}

#[test]
fn a_result_that_names_a_place_in_a_text_where_encodings_differ_is_not_passed_on_in_any_form() {
    let edits = json!([{ "range": range(), "newText": "x" }]);
    let forms: [fn(&str, &Value) -> Value; 6] = [
        |uri, _| json!([{ "uri": uri, "range": range() }]),
        |uri, _| json!({ "targetUri": uri, "targetRange": range(), "targetSelectionRange": range() }),
        |uri, edits| json!({ "changes": { (uri): edits } }),
        |uri, edits| json!({ "documentChanges": [{ "textDocument": { "uri": uri, "version": null }, "edits": edits }] }),
        |uri, edits| json!([{ "title": "fix", "edit": { "changes": { (uri): edits } } }]),
        |uri, _| json!({ "items": [{ "uri": uri, "kind": "full", "items": [{ "range": range(), "message": "m" }] }] }),
    ];
    let mut bench = miscounting(Some(Box::new(Disk)));
    let mut id = 100;
    for form in forms {
        for (uri, passes) in PLACES {
            id += 1;
            bench.client(&ask(
                id,
                "textDocument/rename",
                &json!({ "textDocument": { "uri": "file:///ascii" } }),
            ));
            let result = form(uri, &edits);
            bench.server(&json!({ "jsonrpc": "2.0", "id": id, "result": result }));
            if passes {
                assert_eq!(bench.reply(id)["result"], result);
            } else {
                assert_refused(&bench, id);
                assert_eq!(bench.reply(id)["error"]["data"]["wasSent"], true);
            }
        }
    }
    // A name without a column means the same everywhere.
    bench.client(&ask(9, "workspace/symbol", &json!({})));
    bench.server(&json!({ "jsonrpc": "2.0", "id": 9, "result": [{ "location": { "uri": "file:///emoji" } }] }));
    assert!(bench.reply(9).get("result").is_some());
}

#[test]
fn without_a_look_at_files_only_what_is_open_is_believed() {
    let mut bench = miscounting(None);
    for (id, (uri, _)) in (100..).zip(PLACES) {
        bench.client(&ask(
            id,
            "textDocument/definition",
            &json!({ "textDocument": { "uri": "file:///ascii" } }),
        ));
        bench.server(
            &json!({ "jsonrpc": "2.0", "id": id, "result": { "uri": uri, "range": range() } }),
        );
        if uri == "file:///ascii" {
            assert!(bench.reply(id).get("result").is_some());
        } else {
            assert_refused(&bench, id);
        }
    }
}

#[test]
fn an_edit_a_jump_or_a_finding_in_such_a_text_reaches_no_client_whatever_its_form() {
    let edits = json!([{ "range": range(), "newText": "x" }]);
    let mut bench = miscounting(Some(Box::new(Disk)));
    for (id, (uri, passes)) in (7..).step_by(10).zip(PLACES) {
        bench.clear();
        let by_name = json!({ "edit": { "changes": { (uri): edits } } });
        let in_order = json!({ "edit": { "documentChanges": [{ "textDocument": { "uri": uri, "version": null }, "edits": edits }] } });
        bench.server(&ask(id, "workspace/applyEdit", &by_name));
        bench.server(&ask(id + 1, "workspace/applyEdit", &in_order));
        bench.server(&ask(
            id + 2,
            "window/showDocument",
            &json!({ "uri": uri, "selection": range() }),
        ));
        let there = json!({ "location": { "uri": uri, "range": range() }, "message": "there" });
        let finding = json!({ "range": range(), "message": "m", "relatedInformation": [there] });
        bench.server(&tell(
            "textDocument/publishDiagnostics",
            &json!({ "uri": "file:///ascii", "diagnostics": [finding] }),
        ));
        let told = |method: &str| bench.told(method).len();
        let got = (
            told("workspace/applyEdit"),
            told("window/showDocument"),
            told("textDocument/publishDiagnostics"),
        );
        assert_eq!(got, if passes { (2, 1, 1) } else { (0, 0, 0) }, "{uri}");
        let refused: Vec<_> =
            bench.to_server.iter().map(|answer| answer["result"].clone()).collect();
        if !passes {
            assert_eq!(refused.len(), 3);
            assert_eq!(
                (&refused[0]["applied"], &refused[2]["success"]),
                (&json!(false), &json!(false))
            );
            assert!(refused[1]["failureReason"].as_str().unwrap().contains("utf-32"));
        }
    }
}

#[test]
fn an_answer_that_could_come_in_parts_is_asked_for_in_one_piece_so_that_all_of_it_is_judged() {
    let params = json!({ "textDocument": { "uri": "file:///ascii" }, "partialResultToken": "t" });
    let mut bench = miscounting(None);
    bench.client(&ask(5, "textDocument/references", &params));
    let (_, asked) = bench.asked("textDocument/references");
    assert_eq!(asked["params"], json!({ "textDocument": { "uri": "file:///ascii" } }));
    bench.pass(SECOND);
    bench.crash();
    bench.recover(&json!({ "textDocumentSync": 2, "positionEncoding": "utf-8" }));
    bench.clear();
    bench.client(&ask(6, "textDocument/references", &params));
    assert_eq!(bench.asked("textDocument/references").1["params"], params, "as it came");
}

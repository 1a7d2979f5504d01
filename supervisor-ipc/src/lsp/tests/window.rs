//! Documents are given to a new server as it takes them.

use super::*;

const TEXT: usize = 400 << 10;

fn sync() -> Value {
    json!({ "textDocumentSync": 2 })
}

fn uri(document: usize) -> String {
    format!("file:///{document}")
}

/// A session with this many documents whose second server was greeted just now.
fn greeted_again(documents: usize) -> Bench {
    let mut bench = Bench::greeted(&sync());
    for document in 0..documents {
        bench.client(&open(&uri(document), &"x".repeat(TEXT)));
    }
    // It shows that it survived them all.
    bench.client(&ask(2, "x/y", &json!({})));
    bench.server(&json!({ "jsonrpc": "2.0", "id": 2, "result": null }));
    bench.crash();
    bench.clear();
    bench.start();
    let (id, _) = bench.asked("initialize");
    bench.greet(id, &sync());
    bench
}

impl Bench {
    fn take(&mut self) {
        self.input(Input::Taken { generation: self.generation });
    }

    /// What was opened since the last time.
    fn opened(&mut self) -> Vec<String> {
        let all = self.to_server.extract_if(.., |it| it["method"] == "textDocument/didOpen");
        all.map(|it| it["params"]["textDocument"]["uri"].as_str().unwrap().to_owned()).collect()
    }

    fn is_probed(&self) -> bool {
        let probe = |it: &Value| it["method"].as_str().is_some_and(|it| it.starts_with("$/ide"));
        self.to_server.iter().any(probe)
    }
}

#[test]
fn what_waits_for_a_new_server_is_a_megabyte_of_documents_however_many_there_are() {
    let mut bench = greeted_again(8);
    for expected in [vec![7, 6, 5], vec![4, 3, 2]] {
        assert_eq!(bench.opened(), expected.into_iter().map(uri).collect::<Vec<_>>());
        assert_eq!(bench.orders.len(), 1, "{:?}", bench.orders);
        assert!(!bench.is_probed(), "there is more to come");
        bench.orders.clear();
        bench.take();
    }
    assert_eq!(bench.opened(), [uri(1), uri(0)]);
    assert!(bench.is_probed(), "it has everything");
    assert!(bench.orders.is_empty(), "{:?}", bench.orders);
    bench.take();
    assert!(bench.opened().is_empty());
    bench.answer_probes();
    assert_eq!(bench.reports[0].documents, 8);
}

#[test]
fn what_changes_before_its_turn_is_given_once_as_it_is_then() {
    let mut bench = greeted_again(5);
    assert_eq!(bench.opened().len(), 3);
    let named = |document| json!({ "uri": uri(document), "version": 2 });
    let changes = json!([{ "text": "new" }]);
    for document in [0, 4] {
        let params = json!({ "textDocument": named(document), "contentChanges": changes });
        bench.client(&tell("textDocument/didChange", &params));
    }
    bench.client(&tell("textDocument/didClose", &json!({ "textDocument": named(1) })));
    let zero = json!({ "line": 0, "character": 0 });
    let about = json!({ "textDocument": { "uri": uri(0) }, "position": zero });
    bench.client(&ask(9, "textDocument/hover", &about));
    let methods: Vec<_> = bench.to_server.iter().map(|it| &it["method"]).collect();
    assert_eq!(methods[methods.len() - 1], "textDocument/didChange", "of the one that is open");
    bench.clear();
    bench.take();
    let (_, opened) = bench.asked("textDocument/didOpen");
    assert_eq!(opened["params"]["textDocument"]["text"], "new");
    assert_eq!(opened["params"]["textDocument"]["version"], 2);
    let (id, _) = bench.asked("textDocument/hover");
    bench.server(&json!({ "jsonrpc": "2.0", "id": id, "result": null }));
    bench.reply(9);
}

#[test]
fn a_server_that_dies_before_it_took_everything_is_followed_by_one_that_gets_everything() {
    let mut bench = greeted_again(4);
    assert_eq!(bench.opened().len(), 3);
    let old = bench.generation;
    bench.lose(Loss::EndOfOutput);
    bench.clear();
    bench.start();
    bench.input(Input::Taken { generation: old });
    let (id, _) = bench.asked("initialize");
    assert!(bench.opened().is_empty());
    bench.greet(id, &sync());
    // Nobody knows which of them it died of: they go one by one.
    assert_eq!(bench.opened().len(), 1);
    bench.answer_probes();
    assert_eq!(bench.opened().len(), 3);
    assert!(bench.reports.last().is_some_and(|report| report.documents == 4));
}

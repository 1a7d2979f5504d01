//! What servers died of, and what is kept of it.

use super::scenarios::{hover, sync};
use super::*;

#[test]
fn a_document_that_is_held_back_is_a_dead_letter_that_says_which_and_never_what_it_holds() {
    let mut bench = Bench::greeted(&sync());
    bench.client(&open("file:///p?token=secret", "poison secret"));
    bench.crash();
    bench.start();
    let (id, _) = bench.asked("initialize");
    bench.greet(id, &sync());
    bench.crash();
    assert_eq!(bench.letters.len(), 1);
    let letter = bench.letters[0].clone();
    assert_eq!(letter.method, "textDocument/didOpen");
    assert_eq!(letter.generations, [Generation(1), Generation(2)]);
    assert_eq!((&letter.about["uri"], &letter.about["version"]), (&json!("file:///p"), &json!(1)));
    assert_eq!(letter.about["bytes"], 13);
    assert_eq!(
        letter.about["sha256"],
        "94378a14776fa74164bff375b8ace6fcd6d8ba0bd3df176c189bf8f7a008e73a"
    );
    assert!(!format!("{letter:?}").contains("secret"), "{letter:?}");

    // Somebody asks that it be tried again while there is no server: the next one gets it, last and alone.
    let mut out = Vec::new();
    assert_eq!(bench.relay.requeue(letter.number, bench.now, &mut out), Ok(()));
    bench.clear();
    bench.recover(&sync());
    bench.asked("textDocument/didOpen");
    assert!(bench.relay.requeue(letter.number, bench.now, &mut out).is_err(), "only once");

    // It kills once more, and is held back at once; while a server runs it is given to that one.
    bench.crash();
    assert_eq!(bench.letters.len(), 2);
    bench.clear();
    bench.recover(&sync());
    assert!(!bench.to_server.iter().any(|message| message["method"] == "textDocument/didOpen"));
    out.clear();
    let second = bench.letters[1].number;
    assert_eq!(bench.relay.requeue(second, bench.now, &mut out), Ok(()));
    assert!(matches!(&out[..], [Output::Notice(_), Output::ToServer { .. }]), "{out:?}");
    bench.pass(SECOND);
    let about_it = hover(9, "file:///p?token=secret");
    bench.client(&about_it);
    bench.asked("textDocument/hover");
    bench.crash();
    assert_eq!(bench.letters.len(), 2, "it was survived: nothing is held against it any more");
}

#[test]
fn a_dead_letter_whose_text_changed_or_that_was_closed_cannot_be_tried_again() {
    for change in [true, false] {
        let mut bench = Bench::greeted(&sync());
        bench.client(&open("file:///p", "poison"));
        bench.crash();
        bench.start();
        let (id, _) = bench.asked("initialize");
        bench.greet(id, &sync());
        bench.crash();
        let about = json!({ "uri": "file:///p", "version": 2 });
        bench.client(&if change {
            let changes = json!([{ "text": "cured" }]);
            tell(
                "textDocument/didChange",
                &json!({ "textDocument": about, "contentChanges": changes }),
            )
        } else {
            tell("textDocument/didClose", &json!({ "textDocument": about }))
        });
        let refused = bench.relay.requeue(1, bench.now, &mut Vec::new()).unwrap_err();
        assert!(refused.contains("its text changed, or it was closed"), "{refused}");
    }
}

/// Lets servers answer hovers until nothing is left to answer; each dies at once of the one on line 13. Gives how many died.
fn serve_hovers(bench: &mut Bench, loss: &Loss) -> u32 {
    let mut deaths = 0;
    loop {
        bench.pass(SECOND);
        let asked = std::mem::take(&mut bench.to_server);
        let hovers: Vec<_> =
            asked.iter().filter(|sent| sent["method"] == "textDocument/hover").collect();
        if hovers.is_empty() {
            return deaths;
        }
        if hovers.iter().any(|hover| hover["params"]["position"]["line"] == 13) {
            deaths += 1;
            assert!(deaths < 10, "it never ends");
            bench.lose(loss.clone());
            bench.recover(&sync());
            continue;
        }
        for hover in hovers {
            bench.server(&json!({ "jsonrpc": "2.0", "id": hover["id"], "result": null }));
        }
    }
}

fn hover_on(id: u64, line: u64) -> Value {
    let place = json!({ "line": line, "character": 0 });
    let document = json!({ "uri": "file:///a" });
    ask(id, "textDocument/hover", &json!({ "textDocument": document, "position": place }))
}

const CRASH: Loss = Loss::Exited(ExitStatus::Signal(11));
const KILL: Loss = Loss::Exited(ExitStatus::Signal(9));

/// A session with a document its server has shown to survive.
fn with_document() -> Bench {
    let mut bench = Bench::greeted(&sync());
    bench.client(&open("file:///a", "x"));
    bench.server(&tell(
        "textDocument/publishDiagnostics",
        &json!({ "uri": "file:///a", "diagnostics": [] }),
    ));
    bench.clear();
    bench
}

#[test]
fn a_request_two_servers_in_a_row_die_of_is_given_to_no_third_and_is_a_dead_letter() {
    let mut bench = with_document();
    bench.client(&hover_on(5, 13));
    assert_eq!(serve_hovers(&mut bench, &CRASH), 2);
    let error = &bench.reply(5)["error"];
    assert_eq!((&error["code"], &error["data"]["wasSent"]), (&json!(-32803), &json!(true)));
    let letter = bench.letters[0].clone();
    assert_eq!(letter.method, "textDocument/hover");
    assert_eq!(letter.about, json!({ "uri": "file:///a", "version": 1 }));
    assert_eq!(letter.generations, [Generation(1), Generation(2)]);
    let refused = bench.relay.requeue(letter.number, bench.now, &mut Vec::new());
    assert!(refused.is_err() && letter.over.is_some());
    bench.client(&hover_on(6, 1));
    assert_eq!(serve_hovers(&mut bench, &CRASH), 0);
    assert!(bench.reply(6).get("result").is_some(), "the document is not held back for it");
}

#[test]
fn a_request_that_kills_is_found_among_others_which_all_have_their_answers() {
    let mut bench = with_document();
    for id in 5..25 {
        bench.client(&hover_on(id, if id == 11 { 13 } else { 1 }));
    }
    assert_eq!(serve_hovers(&mut bench, &CRASH), 3);
    for id in 5..25 {
        assert_eq!(bench.reply(id).get("error").is_some(), id == 11, "{id}");
    }
    assert_eq!(bench.letters.len(), 1);
}

#[test]
fn a_request_that_kills_right_after_an_edit_is_told_from_the_text_that_does_not() {
    let mut bench = with_document();
    let about = json!({ "uri": "file:///a", "version": 2 });
    let change = json!({ "textDocument": about, "contentChanges": [{ "text": "y" }] });
    bench.client(&tell("textDocument/didChange", &change));
    bench.client(&hover_on(5, 13));
    // The second server dies before it is known to have survived the text.
    bench.crash();
    bench.recover(&sync());
    bench.crash();
    bench.clear();
    bench.recover(&sync());
    bench.asked("textDocument/didOpen");
    assert!(bench.letters.is_empty(), "neither is convicted: {:?}", bench.letters);
    assert!(!bench.to_server.iter().any(|sent| sent["method"] == "textDocument/hover"));
    assert_eq!(serve_hovers(&mut bench, &CRASH), 1);
    assert_eq!(bench.letters.len(), 1);
    assert_eq!(bench.letters[0].method, "textDocument/hover");
    assert!(bench.reply(5).get("error").is_some());
}

#[test]
fn a_text_that_kills_a_moment_after_it_is_opened_is_told_from_a_request_that_does_not() {
    let mut bench = with_document();
    let about = json!({ "uri": "file:///a", "version": 2 });
    let change = json!({ "textDocument": about, "contentChanges": [{ "text": "poison" }] });
    bench.client(&tell("textDocument/didChange", &change));
    bench.client(&hover_on(5, 1));
    bench.crash();
    for _ in 0..2 {
        assert!(bench.letters.is_empty());
        bench.clear();
        bench.recover(&sync());
        bench.crash();
    }
    assert_eq!(bench.letters[0].method, "textDocument/didOpen");
    bench.to_server.clear();
    bench.recover(&sync());
    let text = bench.reply(5)["error"]["message"].as_str().unwrap();
    assert!(text.contains("held back until its text changes"), "{text}");
}

#[test]
fn kills_are_somebody_elses_until_eight_of_them_hit_the_same_request() {
    let mut bench = with_document();
    bench.client(&hover_on(5, 13));
    assert_eq!(serve_hovers(&mut bench, &KILL), 8);
    assert_eq!(bench.letters.len(), 1);
}

#[test]
fn kills_are_not_held_against_a_text_that_was_survived_in_between() {
    let mut bench = Bench::greeted(&sync());
    bench.client(&open("file:///a", "x"));
    bench.lose(KILL);
    for _ in 0..6 {
        bench.to_server.clear();
        bench.start();
        let (id, _) = bench.asked("initialize");
        bench.greet(id, &sync());
        bench.lose(KILL);
        bench.to_server.clear();
        bench.recover(&sync());
        bench.lose(KILL);
    }
    assert!(bench.letters.is_empty(), "{:?}", bench.letters);
    for _ in 0..7 {
        bench.to_server.clear();
        bench.start();
        let (id, _) = bench.asked("initialize");
        bench.greet(id, &sync());
        bench.lose(KILL);
    }
    assert!(bench.letters.is_empty(), "{:?}", bench.letters);
    bench.to_server.clear();
    bench.start();
    let (id, _) = bench.asked("initialize");
    bench.greet(id, &sync());
    bench.lose(KILL);
    assert_eq!(bench.letters.len(), 1, "but eight in a row are enough");
}

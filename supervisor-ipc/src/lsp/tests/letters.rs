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

//! What servers died of, as a person finds it and lets it be tried again.

use serde_json::json;

use crate::client::Client;
use crate::plumbing::{Place, within};
use crate::shared::State;

const A: &str = "file:///w/a.x";
const B: &str = "file:///w/b.x";
const POISON: &str = "poison, and a secret";

/// A session with a document that kills the first two servers, and is held back.
fn held_back(then: &serde_json::Value) -> (Place, State, Client) {
    let poison = json!({ "crash_on_text": "poison" });
    let place = Place::new(&json!([poison, poison, then]));
    let state = State::of(&place);
    let mut client = state.start(&place, Some("mine"));
    client.open(B, POISON);
    client.hears("is held back until its text changes");
    assert_eq!(client.texts(), json!({ A: [1, "one"] }));
    assert!(within(|| state.json(&["dead-letters", "list", "--json"]) != json!([])));
    (place, state, client)
}

#[test]
fn a_document_held_back_is_a_dead_letter_that_is_given_to_the_server_again_on_request() {
    let (place, state, mut client) = held_back(&json!({}));
    let letters = state.json(&["dead-letters", "list", "--json"]);
    let letter = &letters[0];
    assert_eq!(letter["channel"], "mine");
    assert_eq!(letter["message"]["message_type"], "textDocument/didOpen");
    let about = &letter["message"]["payload"];
    assert_eq!((&about["uri"], &about["version"]), (&json!(B), &json!(1)));
    assert_eq!(about["bytes"], POISON.len());
    assert_eq!(letter["generations"], json!([1, 2]));
    assert!(letter["cause"].as_str().unwrap().contains("exit code 70"), "{letter}");
    let told = || state.says(&["events", "--json"]).contains("DeadLettered");
    assert!(within(told), "{}", state.says(&["events", "--json"]));
    for command in
        [&["dead-letters", "list", "--json"][..], &["events", "--json"], &["audit", "list"]]
    {
        let said = state.says(command);
        assert!(!said.contains("secret"), "what the text holds is nobody's business: {said}");
    }
    let count = || state.json(&["status", "--json"])["channels"][0]["dead_letters"].clone();
    assert_eq!(count(), 1);

    let id = letter["message"]["id"].as_str().unwrap();
    let (said, code) = state.asked(&["dead-letters", "requeue", id]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(client.texts(), json!({ A: [1, "one"], B: [1, POISON] }));
    assert_eq!((count(), place.pids().len()), (json!(0), 3), "by the server that ran already");
    assert_eq!(state.json(&["dead-letters", "list", "--json"]), json!([]));
    let (said, code) = state.asked(&["dead-letters", "requeue", id]);
    assert!(code == Some(1) && said.contains("named no dead letter"), "{said}");
    assert_eq!(client.leave(), Some(0));
}

#[test]
fn a_dead_letter_survives_its_session_and_is_then_only_kept_until_it_is_purged() {
    let (_place, state, client) = held_back(&json!({}));
    let letters = state.json(&["dead-letters", "list", "--json"]);
    let id = letters[0]["message"]["id"].as_str().unwrap();
    assert!(letters[0].get("kept_because").is_none(), "while its session runs: {letters}");
    assert_eq!(client.leave(), Some(0));
    let mut kept = letters.clone();
    kept[0]["kept_because"] =
        "its session is over, and a new one gives it to its server by itself".into();
    let refused = |of: &State| {
        let (said, code) = of.asked(&["dead-letters", "requeue", id]);
        assert!(code == Some(1) && said.contains("its session is over"), "{said}");
    };
    refused(&state);
    assert_eq!(state.json(&["dead-letters", "list", "--json"]), kept, "nothing was changed");
    let there = Place::new(&json!([{}]));
    let client = state.start(&there, Some("mine"));
    let count = || state.json(&["status", "--json"])["channels"][0]["dead_letters"].clone();
    assert!(within(|| count() == 1), "the next session of that name shows it");
    refused(&state);
    assert_eq!(state.json(&["dead-letters", "purge", "--all", "--json"])["count"], 1);
    assert_eq!(count(), 0);
    assert_eq!(client.leave(), Some(0));
}

#[test]
fn a_document_that_still_kills_when_it_is_tried_again_is_held_back_at_once_and_kept_again() {
    let (place, state, mut client) = held_back(&json!({ "crash_on_text": "poison" }));
    let list = || state.json(&["dead-letters", "list", "--json"]);
    let id = list()[0]["message"]["id"].as_str().unwrap().to_owned();
    assert_eq!(state.asked(&["dead-letters", "requeue", &id]).1, Some(0));
    assert!(within(|| list()[0]["generations"] == json!([1, 2, 3])), "{}", list());
    assert_eq!(list().as_array().map(Vec::len), Some(1));
    assert_eq!(client.texts(), json!({ A: [1, "one"] }));
    assert_eq!(place.pids().len(), 4, "one more death, not two");
    let id = list()[0]["message"]["id"].as_str().unwrap().to_owned();
    client.insert(B, 2, "x");
    assert_eq!(client.texts(), json!({ A: [1, "one"] }));
    assert_eq!(place.pids().len(), 5, "another text has one more chance");
    let (said, code) = state.asked(&["dead-letters", "requeue", &id]);
    assert!(code == Some(1) && said.contains("its text changed"), "{said}");
}

#[test]
fn without_a_state_directory_a_dead_letter_is_written_nowhere() {
    let place = Place::new(&json!([{ "crash_on_text": "poison" }]));
    let mut client = Client::start(&place);
    client.initialize();
    client.open(B, POISON);
    client.hears("is held back until its text changes");
    assert_eq!(client.leave(), Some(0));
    let mut names: Vec<_> = std::fs::read_dir(place.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["log.jsonl", "runs", "script.json", "stderr"]);
}

#[test]
fn a_request_that_kills_every_server_is_found_among_others_given_up_and_a_dead_letter() {
    let place = Place::new(&json!([{ "crash_on": "textDocument/references" }]));
    let state = State::of(&place);
    let mut client = state.start(&place, Some("mine"));
    let about = json!({ "textDocument": { "uri": A }, "position": { "line": 0, "character": 0 } });
    let deadly = client.ask("textDocument/references", about);
    let hovers: Vec<_> = (0..5).map(|_| client.hover(A)).collect();
    let failed = client.answer(deadly);
    assert_eq!(failed["error"]["code"], -32803, "{failed}");
    assert!(failed["error"]["message"].as_str().unwrap().contains("given up"), "{failed}");
    for hover in hovers {
        assert!(client.answer(hover).get("result").is_some());
    }
    let deaths = place.pids().len() - 1;
    assert!((2..=3).contains(&deaths), "{deaths}");
    let list = || state.json(&["dead-letters", "list", "--json"]);
    assert!(within(|| list() != json!([])));
    let letter = list()[0].clone();
    assert_eq!(letter["message"]["message_type"], "textDocument/references");
    assert_eq!(letter["message"]["payload"], json!({ "uri": A, "version": 1 }));
    let id = letter["message"]["id"].as_str().unwrap();
    let (said, code) = state.asked(&["dead-letters", "requeue", id]);
    assert!(code == Some(1) && said.contains("waits for no answer"), "{said}");
    assert_eq!(client.leave(), Some(0));
}

//! Calls that servers died of, as a person finds them.

use serde_json::{Value, json};

use crate::client::Client;
use crate::plumbing::{Place, within};

/// Gives what a command about a state directory said, and how it ended.
fn asked(state: &str, command: &[&str]) -> (String, Option<i32>) {
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_ide-supervisor"));
    let output = program.args(command).args(["--state-dir", state]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    (said + &String::from_utf8(output.stderr).unwrap(), output.status.code())
}

pub(crate) fn json_of(state: &str, command: &[&str]) -> Value {
    let (said, _) = asked(state, command);
    // What is said to people follows.
    let first = serde_json::Deserializer::from_str(&said).into_iter().next();
    first.unwrap().unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[test]
fn a_call_that_kills_every_server_is_a_dead_letter_without_its_arguments_that_nobody_sends_again() {
    let place = Place::new(&json!([{"crash_on": "look"}]));
    let state = place.dir.path().join("state").display().to_string();
    let options = ["--state-dir", &state, "--name", "tools"];
    let mut client = Client::in_session_with(&place, &options);
    let look = client.ask("tools/call", json!({"name": "look", "arguments": {"key": "a secret"}}));
    assert_eq!(client.answer(look)["error"]["code"], -32074);
    assert_eq!(client.state()["run"], 2);
    let list = || json_of(&state, &["dead-letters", "list", "--json"]);
    assert!(within(|| list() != json!([])));
    let letters = list();
    let letter = &letters[0];
    assert_eq!(letter["channel"], "tools");
    assert_eq!(letter["message"]["message_type"], "tools/call");
    assert_eq!(letter["message"]["payload"], json!({"tool": "look"}));
    assert_eq!(letter["generations"], json!([1, 2]));
    assert!(letter["cause"].as_str().unwrap().contains("signal 6"), "{letter}");
    assert!(!letters.to_string().contains("a secret"));
    let status = json_of(&state, &["status", "--json"]);
    assert_eq!(status["channels"][0]["dead_letters"], 1);

    let id = letter["message"]["id"].as_str().unwrap();
    let refused = || {
        let (said, code) = asked(&state, &["dead-letters", "requeue", id]);
        assert!(code == Some(1) && said.contains("waits for no answer"), "{said}");
        assert_eq!(list(), letters, "and nothing was changed");
    };
    refused();
    assert_eq!(place.count("look"), 2);
    assert_eq!(client.leave(), Some(0));
    refused();
    assert_eq!(
        json_of(&state, &["dead-letters", "purge", "--channel", "tools", "--json"])["count"],
        1
    );
    assert_eq!(list(), json!([]));
}

//! Servers that owe an answer and say nothing.

use serde_json::{Value, json};

use crate::client::Client;
use crate::letters::json_of;
use crate::plumbing::{Place, alive, go_on, within};

/// Long enough that a server at work gets some of a busy machine between two looks.
const LIMIT: [&str; 2] = ["--silence", "6s"];

type Ask = fn(&mut Client) -> i64;

/// A session in which the first server does this when it is asked something, and the answer.
fn asked(first: &Value, ask: impl FnOnce(&mut Client) -> i64) -> (Place, Client, Value) {
    let place = Place::new(&json!([first, {}]));
    let mut client = Client::in_session_with(&place, &LIMIT);
    let id = ask(&mut client);
    let answer = client.answer(id);
    (place, client, answer)
}

/// Sees that the session went on with the second server, and gives for how many seconds the first was silent.
fn was_replaced(place: &Place, mut client: Client, answer: &Value, how: &str) -> u64 {
    assert_eq!(answer["result"]["run"], 1);
    assert_eq!(client.state()["run"], 1);
    client.hears("; recovered in");
    let said = client.said();
    let silent = said.split_once("the server has said nothing for ").map(|(_, rest)| rest);
    let (secs, rest) =
        silent.and_then(|rest| rest.split_once(' ')).unwrap_or_else(|| panic!("{said}"));
    assert!(rest.starts_with(how), "{said}");
    assert!(within(|| !alive(place.pids()[0])));
    assert_eq!(client.leave(), Some(0));
    assert_eq!(place.pids().len(), 2);
    secs.parse().unwrap()
}

#[test]
fn a_server_that_is_silent_and_does_nothing_is_replaced_after_the_time_that_was_named() {
    let mute = json!({"mute_from": "resources/read"});
    let read = |client: &mut Client| client.ask("resources/read", json!({"uri": "a:1"}));
    let (place, client, answer) = asked(&mute, read);
    let silent = was_replaced(&place, client, &answer, "s;");
    assert!(place.count("ping") > 0, "it was asked for a sign of life");
    assert!((6..20).contains(&silent), "{silent}");
}

#[test]
fn a_server_that_is_stopped_is_replaced_in_a_third_of_that() {
    let stop = json!({"stop_on": "resources/read"});
    let read = |client: &mut Client| client.ask("resources/read", json!({"uri": "a:1"}));
    let (place, client, answer) = asked(&stop, read);
    let silent = was_replaced(&place, client, &answer, "s and is stopped;");
    assert!((2..6).contains(&silent), "{silent}");
}

#[test]
fn a_server_that_is_silent_and_works_or_runs_a_tool_is_left_alone_beyond_the_limit() {
    let runs: [(Value, Ask); 2] = [
        (json!({"busy_on": "resources/read", "busy_ms": 8000}), |client| {
            client.ask("resources/read", json!({"uri": "a:1"}))
        }),
        (json!({"late_on": "add", "late_ms": 8000}), |client| client.tool("add")),
    ];
    let sessions = runs.map(|(first, ask)| std::thread::spawn(move || asked(&first, ask)));
    for session in sessions {
        let (place, mut client, answer) = session.join().unwrap();
        assert_eq!(answer["result"]["run"], 0, "{answer} {}", client.said());
        assert_eq!(client.leave(), Some(0));
        assert_eq!(place.pids().len(), 1);
    }
}

#[test]
fn a_server_that_is_stopped_is_suspected_and_its_late_answer_counts_when_it_goes_on() {
    let place = Place::new(&json!([{"stop_on": "resources/read"}]));
    let state = place.dir.path().join("state").display().to_string();
    let mut client = Client::in_session_with(
        &place,
        &["--state-dir", &state, "--name", "it", "--silence", "36s"],
    );
    let read = client.ask("resources/read", json!({"uri": "a:1"}));
    let is = |wanted: &str| json_of(&state, &["channels", "--json"])[0]["state"] == wanted;
    assert!(within(|| is("suspect")), "{}", client.said());
    go_on(place.pids()[0]);
    assert_eq!(client.answer(read)["result"]["run"], 0);
    assert!(within(|| is("ready")));
    assert_eq!(client.state()["run"], 0);
    assert_eq!(place.pids().len(), 1, "and nothing was restarted");
    assert_eq!(client.leave(), Some(0));
}

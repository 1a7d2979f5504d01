//! Wrapped servers in state directories.

use serde_json::{Value, json};

use crate::client::Client;
use crate::plumbing::{Place, kill, within};

const A: &str = "file:///w/a.x";

/// A state directory and the commands about it.
pub(crate) struct State(pub(crate) String);

impl State {
    pub(crate) fn of(place: &Place) -> Self {
        Self(place.dir.path().join("state").display().to_string())
    }

    /// Starts a session that is recorded here, with a server that says its name on standard error.
    pub(crate) fn start(&self, place: &Place, name: Option<&str>) -> Client {
        let mut options = vec!["--state-dir", self.0.as_str()];
        options.extend(name.map(|name| ["--name", name]).into_iter().flatten());
        let mut server = Place::command();
        server[2] = format!("echo I am {} >&2; {}", name.unwrap_or("nameless"), server[2]);
        let mut client = Client::start_with(place, &options, &server);
        client.initialize();
        client.open(A, "one");
        assert_eq!(client.texts(), json!({ A: [1, "one"] }));
        client
    }

    /// Gives what a command said and how it ended.
    pub(crate) fn asked(&self, command: &[&str]) -> (String, Option<i32>) {
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_ide-supervisor"));
        let output = program.args(command).args(["--state-dir", &self.0]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        (said + &String::from_utf8(output.stderr).unwrap(), output.status.code())
    }

    pub(crate) fn says(&self, command: &[&str]) -> String {
        self.asked(command).0
    }

    pub(crate) fn json(&self, command: &[&str]) -> Value {
        let said = self.says(command);
        // What is said to people follows.
        let first = serde_json::Deserializer::from_str(&said).into_iter().next();
        first.unwrap().unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    fn ids(&self) -> Vec<String> {
        let status = self.json(&["status", "--json"]);
        let ids = status["services"].as_array().unwrap().iter();
        ids.map(|service| service["id"].as_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn a_state_directory_shows_the_wrapped_server_and_what_happened_to_it() {
    let place = Place::new(&json!([{}]));
    let state = State::of(&place);
    let mut client = state.start(&place, Some("mine"));
    kill(place.pids()[0]);
    assert_eq!(client.texts(), json!({ A: [1, "one"] }));
    client.hears("recovered in");
    let status = state.json(&["status", "--json"]);
    assert_eq!(status["services"][0]["id"], "mine");
    assert_eq!(status["services"][0]["restarts"], 1);
    let layers = status["supervisor"]["containment"].as_array().unwrap();
    assert!(!layers.is_empty() && !layers.contains(&json!("guardian")), "{layers:?}");
    let guardian = place.dir.path().join("state/wrap/mine/guardian.sock");
    assert!(!guardian.exists(), "what guards nothing was started");
    let service = &status["services"][0];
    assert_eq!(service["last_exit"], json!({ "code": null, "signal": 9, "reason": "crash" }));
    let reason = "restarted, because run 1 was lost: the server ended: signal 9";
    assert_eq!(service["reason"], reason);
    assert!(state.says(&["status"]).contains(reason));
    let channels = state.json(&["channels", "--json"]);
    assert_eq!(channels[0]["state"], "ready", "{channels}");
    assert_eq!(channels[0]["last_recovery"]["attempts"], 1, "{channels}");
    assert!(within(|| state.says(&["events", "--json"]).contains("ChannelRecovered")));
    assert!(within(|| state.says(&["audit", "list"]).contains("signal 9")));
    assert_eq!(client.leave(), Some(0));
}

#[test]
fn servers_that_share_a_state_directory_are_shown_asked_restarted_and_ended_by_name() {
    let (here, there) = (Place::new(&json!([{}])), Place::new(&json!([{}])));
    let state = State::of(&here);
    let (mut one, mut two) = (state.start(&here, Some("one")), state.start(&there, Some("two")));
    assert_eq!(state.ids(), ["one", "two"]);
    let channels = state.json(&["channels", "--json"]);
    let names: Vec<_> = channels.as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, ["one", "two"]);
    assert!(within(|| state.says(&["logs", "one"]).contains("I am one")));
    assert!(within(|| state.says(&["logs", "two"]).contains("I am two")));

    let (said, code) = state.asked(&["restart", "two"]);
    assert_eq!(code, Some(0), "{said}");
    let restarts = state.json(&["status", "--json"])["services"][1]["restarts"].clone();
    assert_eq!(restarts, 1, "it was answered before there was another server");
    assert_eq!(two.texts(), json!({ A: [1, "one"] }));
    assert_eq!(there.pids().len(), 2);
    two.hears("somebody asked for a restart; recovered in");
    assert_eq!(here.pids().len(), 1, "and the other one was left alone");
    let (said, code) = state.asked(&["stop", "two"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("its client decides how long"), "{said}");
    assert_eq!(state.asked(&["restart", "three"]).1, Some(5));

    kill(here.pids()[0]);
    assert_eq!(one.texts(), json!({ A: [1, "one"] }));
    for command in [&["events", "--json"][..], &["audit", "list", "--json"]] {
        let tells = |of: &str| within(|| state.says(command).contains(of));
        assert!(tells("signal 9") && tells("somebody asked for a restart"), "{command:?}");
    }
    let (said, code) = state.asked(&["audit", "verify"]);
    assert_eq!((code, said.lines().count()), (Some(0), 2), "{said}");

    assert_eq!(state.asked(&["down"]).1, Some(0));
    assert!(one.ended().is_some() && two.ended().is_some());
    assert_eq!(state.asked(&["status"]).1, Some(4));
    assert!(
        state.says(&["audit", "list"]).contains("signal 9"),
        "what was recorded stays readable"
    );
}

#[test]
fn a_second_session_of_one_name_is_refused_and_one_without_a_name_gets_a_number() {
    let (here, there) = (Place::new(&json!([{}])), Place::new(&json!([{}])));
    let state = State::of(&here);
    let _one = state.start(&here, Some("mine"));
    let options = ["--name", "mine", "--state-dir", &state.0];
    let mut refused = Client::start_with(&there, &options, &Place::command());
    assert_eq!(refused.ended(), Some(6));
    let said = refused.said();
    assert!(said.contains("named mine runs already") && said.contains("--name"), "{said}");
    assert!(there.pids().is_empty(), "and no server was started for it");
    let _nameless = state.start(&here, None);
    let _another = state.start(&there, None);
    assert_eq!(state.ids(), ["mine", "sh", "sh-2"]);
}

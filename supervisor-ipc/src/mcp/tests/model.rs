//! Any order of events, against what a client is entitled to.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use supervisor_core::message::ChannelState;

use super::*;

/// What may happen next.
#[derive(Debug, Clone)]
enum Step {
    Ask(Kind),
    Cancel(usize),
    /// The server answers one of what it was asked.
    Answer(usize),
    /// The server answers everything that restores its session.
    Restore,
    Kill,
    Start,
    Question,
    Reply(usize),
    Pass(u64),
    Late(usize),
    Junk(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Look,
    Add,
    Unknown,
    Batch,
}

fn step() -> impl Strategy<Value = Step> {
    let kind =
        prop::sample::select(vec![Kind::Read, Kind::Look, Kind::Add, Kind::Unknown, Kind::Batch]);
    prop_oneof![
        6 => kind.prop_map(Step::Ask),
        1 => any::<usize>().prop_map(Step::Cancel),
        4 => any::<usize>().prop_map(Step::Answer),
        4 => Just(Step::Restore),
        2 => Just(Step::Kill),
        4 => Just(Step::Start),
        1 => Just(Step::Question),
        1 => any::<usize>().prop_map(Step::Reply),
        1 => (0_u64..4000).prop_map(Step::Pass),
        1 => any::<usize>().prop_map(Step::Late),
        1 => any::<usize>().prop_map(Step::Junk),
    ]
}

#[derive(Debug, Default)]
struct Asked {
    repeatable: bool,
    cancelled: bool,
    outcomes: u32,
    /// The generations it was written to.
    written: Vec<u64>,
}

struct World {
    desk: Desk,
    asked: BTreeMap<u64, Asked>,
    alive: bool,
    /// Whether the running server has the session, and so may be given anything.
    restored: bool,
    last_written: u64,
    /// What the running server has not answered: its id, and which request it is.
    open: Vec<(Value, Option<u64>)>,
    /// Ids of the running server's unanswered questions, and all the client was ever asked.
    questions: HashSet<u64>,
    next_question: u64,
    client_questions: Vec<Value>,
    seen_questions: HashSet<String>,
    /// What servers that are gone left unanswered.
    dead: Vec<(Generation, Value, Option<u64>)>,
    greetings: u32,
}

impl World {
    fn new() -> Self {
        Self {
            desk: Desk::in_session(),
            asked: BTreeMap::new(),
            alive: true,
            restored: true,
            last_written: 0,
            open: Vec::new(),
            questions: HashSet::new(),
            next_question: 0,
            client_questions: Vec::new(),
            seen_questions: HashSet::new(),
            dead: Vec::new(),
            greetings: 0,
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Ask(kind) => self.ask(*kind),
            Step::Cancel(at) => {
                let Some(id) = pick(&self.asked.keys().copied().collect::<Vec<_>>(), *at) else {
                    return;
                };
                if self.asked[&id].outcomes == 0 {
                    self.asked.entry(id).or_default().cancelled = true;
                }
                self.desk.client(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}).to_string());
            }
            Step::Answer(at) if self.alive && !self.open.is_empty() => {
                let at = at % self.open.len();
                self.answer(at);
            }
            Step::Restore if self.alive => self.restore(),
            Step::Kill if self.alive => {
                self.alive = false;
                let generation = self.desk.generation;
                self.dead.extend(self.open.drain(..).map(|(id, n)| (generation, id, n)));
                self.questions.clear();
                self.desk.lost();
            }
            Step::Start if !self.alive => {
                self.alive = true;
                self.restored = false;
                self.last_written = 0;
                self.next_question = 0;
                self.desk.started();
            }
            Step::Question if self.alive => {
                self.questions.insert(self.next_question);
                let message =
                    json!({"jsonrpc": "2.0", "id": self.next_question, "method": "roots/list"});
                self.next_question += 1;
                self.desk.server(message.to_string());
            }
            Step::Reply(at) => {
                let Some(id) = pick(&self.client_questions, *at) else { return };
                self.desk
                    .client(json!({"jsonrpc": "2.0", "id": id, "result": {"to": id}}).to_string());
            }
            Step::Pass(milliseconds) => self.desk.pass(Duration::from_millis(*milliseconds)),
            Step::Late(at) => {
                let Some((generation, id, n)) = pick(&self.dead, *at) else { return };
                let message = Bytes::from(result(&id, n, generation));
                self.desk.input(Input::FromServer { generation, message });
            }
            Step::Junk(at) => {
                let junk = ["", "{}", "x", "[[]]", r#"{"jsonrpc":"2.0","id":77777,"result":{}}"#];
                self.desk.server(junk[at % junk.len()]);
            }
            _ => {}
        }
        self.look();
    }

    fn ask(&mut self, kind: Kind) {
        let mut one = |kind: Kind| {
            let id = 100 + self.asked.len() as u64;
            let repeatable = matches!(kind, Kind::Read | Kind::Look);
            self.asked.insert(id, Asked { repeatable, ..Asked::default() });
            let (method, tool) = match kind {
                Kind::Read => ("resources/read", Value::Null),
                Kind::Look => ("tools/call", json!("look")),
                Kind::Add | Kind::Batch => ("tools/call", json!("add")),
                Kind::Unknown => ("x/y", Value::Null),
            };
            json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {"name": tool, "n": id}})
        };
        let message = match kind {
            Kind::Batch => json!([one(Kind::Read), one(Kind::Add), one(Kind::Look)]),
            kind => one(kind),
        };
        self.desk.client(message.to_string());
    }

    fn answer(&mut self, at: usize) {
        let (id, n) = self.open.remove(at);
        self.desk.server(result(&id, n, self.desk.generation));
    }

    fn restore(&mut self) {
        for _ in 0..10 {
            let Some(at) = self.open.iter().position(|(_, n)| n.is_none()) else { return };
            self.answer(at);
            self.look();
        }
    }

    /// Looks at everything that was written since, and holds it against what is promised.
    fn look(&mut self) {
        let written = std::mem::take(&mut self.desk.to_server);
        for text in written {
            assert!(self.alive, "written to nobody: {text}");
            let message: Value = serde_json::from_str(&text).unwrap();
            match message {
                Value::Array(messages) => {
                    messages.iter().for_each(|message| self.server_got(message));
                }
                message => self.server_got(&message),
            }
        }
        let state = self.desk.relay.state();
        self.restored |= matches!(state, ChannelState::Ready | ChannelState::Suspect);
        for text in std::mem::take(&mut self.desk.to_client) {
            match serde_json::from_str(&text).unwrap() {
                Value::Array(messages) => {
                    messages.iter().for_each(|message| self.client_got(message));
                }
                message => self.client_got(&message),
            }
        }
        assert!(self.desk.relay.kept_bytes() <= 8 << 20);
    }

    fn server_got(&mut self, message: &Value) {
        let id = &message["id"];
        let method = message["method"].as_str();
        let ours = id.as_str().is_some_and(|id| id.starts_with("ide-supervisor/"));
        let n = message["params"]["n"].as_u64();
        match (method, n) {
            (Some(_), Some(n)) => {
                let ready = self.desk.relay.state() == ChannelState::Ready;
                assert!(self.restored || ready, "before the session is restored: {message}");
                let generation = self.desk.generation.get();
                let asked = self.asked.get_mut(&n).unwrap();
                assert!(!asked.written.contains(&generation), "twice to one server: {message}");
                assert!(asked.repeatable || asked.written.is_empty(), "repeated: {message}");
                assert_eq!(asked.outcomes, 0, "written after its end: {message}");
                assert!(!asked.cancelled, "written after it was cancelled: {message}");
                asked.written.push(generation);
                assert!(n > self.last_written, "overtaken: {message}");
                self.last_written = n;
                self.open.push((id.clone(), Some(n)));
            }
            (Some(_), None) if ours => {
                let settled = message["method"] == "initialize"
                    || message["method"] == "ping"
                    || message["method"] == "tools/list";
                assert!(settled, "{message}");
                self.open.push((id.clone(), None));
            }
            (Some("notifications/initialized" | "notifications/cancelled"), None) => {}
            (None, _) => {
                let question = id.as_u64().unwrap();
                assert!(
                    self.questions.remove(&question),
                    "an answer to no question of this server: {message}"
                );
            }
            _ => panic!("unexpected at the server: {message}"),
        }
    }

    fn client_got(&mut self, message: &Value) {
        let id = &message["id"];
        match message["method"].as_str() {
            Some("roots/list") => {
                assert!(
                    self.seen_questions.insert(id.to_string()),
                    "an id is used twice: {message}"
                );
                self.client_questions.push(id.clone());
            }
            Some("notifications/cancelled" | "notifications/tools/list_changed") => {}
            Some(_) => panic!("unexpected at the client: {message}"),
            None => {
                self.greetings += u32::from(message["result"]["protocolVersion"].is_string());
                assert_eq!(self.greetings, 0, "greeted again");
                let n = id.as_u64().unwrap();
                let asked = self.asked.get_mut(&n).unwrap();
                asked.outcomes += 1;
                assert_eq!(asked.outcomes, 1, "answered twice: {message}");
                if !message["result"].is_null() {
                    assert_eq!(message["result"]["n"], n);
                    let generation = self.desk.generation.get();
                    assert_eq!(message["result"]["g"], generation, "from a server that is gone");
                    assert!(asked.written.contains(&generation));
                }
            }
        }
    }

    /// From here on nothing goes wrong.
    fn settle(&mut self) {
        self.take(&Step::Start);
        for _ in 0..1000 {
            self.take(&Step::Restore);
            if self.open.is_empty() {
                break;
            }
            self.take(&Step::Answer(0));
        }
        assert_eq!(self.desk.relay.state(), ChannelState::Ready);
        for (id, asked) in &self.asked {
            assert!(asked.outcomes == 1 || asked.cancelled, "{id} has no end: {asked:?}");
        }
        assert_eq!(self.desk.relay.held(), 0);
    }
}

fn pick<T: Clone>(of: &[T], at: usize) -> Option<T> {
    (!of.is_empty()).then(|| of[at % of.len()].clone())
}

fn result(id: &Value, n: Option<u64>, generation: Generation) -> String {
    let mut result: Value = match n {
        Some(n) => json!({"n": n, "g": generation.get()}),
        None => serde_json::from_str(GREETED).unwrap(),
    };
    if n.is_none() {
        // One answer that serves every question of the restoring.
        result["tools"] = serde_json::from_str::<Value>(TOOLS).unwrap()["tools"].take();
    }
    json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_request_has_one_end_whatever_happens(steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        world.settle();
    }
}

/// Pieces that make messages, half of them wrong.
fn odd() -> impl Strategy<Value = Vec<u8>> {
    let member = prop::sample::select(vec![
        r#""jsonrpc":"2.0""#,
        r#""id":1"#,
        r#""id":"1""#,
        r#""id":null"#,
        r#""id":1e400"#,
        r#""id":[]"#,
        r#""id":-0.5"#,
        r#""id":"ide-supervisor/1/1""#,
        r#""id":"ide-supervisor\/2\/1""#,
        r#""method":"initialize""#,
        r#""method":"tools/call""#,
        r#""method":"tools/list""#,
        r#""method":"resources/subscribe""#,
        r#""method":"notifications/cancelled""#,
        r#""method":"notifications/progress""#,
        r#""method":"\ud800""#,
        r#""params":{"requestId":1,"progressToken":1,"uri":"a","name":"look","level":"x"}"#,
        r#""params":{"requestId":"ide-supervisor/1/1","_meta":{"progressToken":"ide-supervisor/2/ask/1"}}"#,
        r#""params":{"cursor":{},"uri":[],"name":7,"_meta":3,"progress":"x"}"#,
        r#""params":[[[{"#,
        r#""result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true}},"tools":[{"name":"look"},7],"nextCursor":"n"}"#,
        r#""result":{"protocolVersion":7,"capabilities":[],"tools":{}}"#,
        r#""error":null"#,
        "\u{fffd}\"",
    ]);
    let object = prop::collection::vec(member, 0..5).prop_map(|m| format!("{{{}}}", m.join(",")));
    let list =
        prop::collection::vec(object.clone(), 0..4).prop_map(|o| format!("[{}]", o.join(",")));
    prop_oneof![
        6 => object.prop_map(String::into_bytes),
        2 => list.prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

#[derive(Debug, Clone)]
enum Odd {
    Client(Vec<u8>),
    Server(Vec<u8>),
    Lost,
    Started,
    Pass(u64),
}

fn odd_step() -> impl Strategy<Value = Odd> {
    prop_oneof![
        6 => odd().prop_map(Odd::Client),
        6 => odd().prop_map(Odd::Server),
        1 => Just(Odd::Lost),
        2 => Just(Odd::Started),
        1 => (0_u64..40).prop_map(Odd::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_either_side_writes_the_other_gets_json_and_memory_is_bounded(
        steps in prop::collection::vec(odd_step(), 0..60),
    ) {
        let mut desk = Desk::in_session();
        let mut alive = true;
        for step in steps {
            match step {
                Odd::Client(message) => desk.client(message),
                Odd::Server(message) if alive => desk.server(message),
                Odd::Lost if alive => {
                    alive = false;
                    desk.lost();
                }
                Odd::Started if !alive => {
                    alive = true;
                    desk.started();
                }
                Odd::Pass(seconds) => desk.pass(Duration::from_secs(seconds)),
                Odd::Server(_) | Odd::Lost | Odd::Started => {}
            }
            if desk.orders.iter().any(|order| order.starts_with("restart")) {
                desk.orders.clear();
                alive = false;
                desk.lost_by(Loss::Replaced("x".to_owned()));
            }
            // Numbers beyond what serde_json holds pass as they came, too.
            let json = |text: &String| serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok();
            let wrong = desk.to_client.iter().chain(&desk.to_server).find(|text| !json(text) && !text.contains("[[[{") && !text.contains("ud800"));
            prop_assert!(wrong.is_none(), "{wrong:?}");
            prop_assert!(desk.relay.kept_bytes() <= 8 << 20);
        }
    }
}

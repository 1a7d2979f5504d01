//! Silence, and what is made of it.

use supervisor_core::message::ChannelState;

use super::*;

fn pings(desk: &Desk) -> Vec<Value> {
    desk.asked().into_iter().filter(|request| request["method"] == "ping").collect()
}

#[test]
fn a_server_with_nothing_to_do_is_asked_for_a_sign_of_life_now_and_then() {
    let mut desk = Desk::in_session();
    desk.pass(29 * SECOND);
    assert!(desk.to_server.is_empty());
    desk.pass(2 * SECOND);
    let ping = pings(&desk).remove(0);
    desk.answer(ping["id"].clone(), "{}");
    assert!(desk.to_client.is_empty(), "the client sees nothing of it");
    desk.pass(29 * SECOND);
    assert_eq!(pings(&desk).len(), 1);
    desk.pass(2 * SECOND);
    assert_eq!(pings(&desk).len(), 2);
}

#[test]
fn an_unanswered_request_is_followed_by_one_ping_and_silence_ends_the_server() {
    let mut desk = Desk::in_session();
    desk.client(read(5));
    desk.pass(6 * SECOND);
    assert_eq!(pings(&desk).len(), 1);
    desk.pass(12 * SECOND);
    assert_eq!(pings(&desk).len(), 1, "a server that is stopped is not filled with pings");
    assert_eq!(desk.relay.state(), ChannelState::Suspect);
    assert!(desk.orders.contains(&"look".to_owned()));
    desk.pass(40 * SECOND);
    assert!(!desk.orders.iter().any(|order| order.starts_with("restart")));
    desk.pass(3 * SECOND);
    assert_eq!(desk.orders.last().unwrap(), "restart: the server has said nothing for 60 s");
    desk.client(call(6, "add"));
    desk.lost_by(Loss::Replaced("it hangs".to_owned()));
    desk.clear();
    desk.recover();
    assert_eq!(desk.methods(), ["tools/call"], "what came after the verdict is kept for the next");
}

#[test]
fn a_suspect_that_speaks_again_is_ready_and_its_late_answer_counts() {
    let mut desk = Desk::in_session();
    desk.client(read(5));
    desk.pass(20 * SECOND);
    assert_eq!(desk.relay.state(), ChannelState::Suspect);
    desk.answer(5, "{}");
    assert_eq!(desk.told()[0]["id"], 5);
    assert_eq!(desk.relay.state(), ChannelState::Ready);
}

#[test]
fn a_stopped_server_is_ended_sooner() {
    let mut desk = Desk::in_session();
    desk.client(call(5, "add"));
    desk.pass(16 * SECOND);
    desk.input(Input::ServerSeen { generation: desk.generation, busy: false, stopped: true });
    desk.pass(5 * SECOND);
    assert!(desk.orders.last().unwrap().contains("is stopped"), "{:?}", desk.orders);
}

#[test]
fn a_server_that_runs_a_tool_or_uses_the_processor_has_five_minutes() {
    for tool in [true, false] {
        let mut desk = Desk::in_session();
        desk.client(if tool { call(5, "add") } else { read(5) });
        for _ in 0..29 {
            desk.pass(10 * SECOND);
            desk.input(Input::ServerSeen {
                generation: desk.generation,
                busy: !tool,
                stopped: false,
            });
            assert!(
                !desk.orders.iter().any(|order| order.starts_with("restart")),
                "{:?}",
                desk.orders
            );
        }
        desk.pass(11 * SECOND);
        assert!(desk.orders.last().unwrap().contains("for 300 s"), "{:?}", desk.orders);
    }
}

#[test]
fn progress_is_a_sign_of_life() {
    let mut desk = Desk::in_session();
    desk.client(call(5, "add"));
    for step in 0..100 {
        desk.pass(20 * SECOND);
        desk.server(format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":1,"progress":{step}}}}}"#));
    }
    assert!(!desk.orders.iter().any(|order| order.starts_with("restart")));
}

#[test]
fn a_server_that_never_answers_pings_is_not_ended_for_having_nothing_to_do() {
    let mut desk = Desk::in_session();
    desk.pass(3600 * SECOND);
    assert!(!desk.orders.iter().any(|order| order.starts_with("restart")));
    assert_eq!(pings(&desk).len(), 1);
}

#[test]
fn a_server_that_once_answered_pings_is_ended_when_it_falls_silent_with_nothing_to_do() {
    let mut desk = Desk::in_session();
    desk.pass(31 * SECOND);
    desk.answer(pings(&desk)[0]["id"].clone(), "{}");
    desk.pass(89 * SECOND);
    assert!(!desk.orders.iter().any(|order| order.starts_with("restart")));
    desk.pass(3 * SECOND);
    assert!(desk.orders.last().unwrap().starts_with("restart"));
}

#[test]
fn a_refused_ping_is_a_sign_of_life_too() {
    let mut desk = Desk::in_session();
    for round in 0..5 {
        desk.pass(31 * SECOND);
        let ping = pings(&desk).pop().unwrap();
        desk.server(
            json!({"jsonrpc": "2.0", "id": ping["id"], "error": {"code": -32601, "message": "no"}})
                .to_string(),
        );
        assert_eq!(pings(&desk).len(), round + 1);
    }
    assert!(desk.to_client.is_empty());
}

#[test]
fn eight_hours_of_sleep_blame_nobody_and_expire_nothing() {
    let mut desk = Desk::in_session();
    desk.client(read(5));
    desk.pass(20 * SECOND);
    desk.sleep(8 * 3600 * SECOND);
    assert!(!desk.orders.iter().any(|order| order.starts_with("restart")), "{:?}", desk.orders);
    desk.lost();
    desk.sleep(8 * 3600 * SECOND);
    assert!(desk.to_client.is_empty(), "{:?}", desk.to_client);
    desk.clear();
    desk.started();
    desk.sleep(8 * 3600 * SECOND);
    assert!(desk.orders.is_empty());
    desk.restore_with(TOOLS);
    assert_eq!(desk.methods(), ["resources/read"]);
}

#[test]
fn signs_of_life_are_no_traffic_and_are_never_asked_for_twice_at_once() {
    let mut desk = Desk::in_session();
    for _ in 0..3 {
        desk.pass(45 * SECOND);
        assert!(pings(&desk).len() <= 1);
    }
    desk.clear();
    desk.lost();
    desk.recover();
    assert!(desk.methods().is_empty(), "a ping of ours is not asked again");
    assert_eq!(desk.reports[0].messages, crate::relay::MessageCounts::default());
}

#[test]
fn a_server_that_loads_for_minutes_before_it_greets_is_left_alone() {
    let mut desk = Desk::new();
    desk.started();
    desk.client(INITIALIZE);
    desk.pass(290 * SECOND);
    assert_eq!(desk.methods(), ["initialize"], "and is asked nothing before it has greeted");
    assert!(desk.orders.is_empty());
    desk.answer(0, GREETED);
    assert_eq!(desk.told()[0]["id"], 0);
}

#[test]
fn a_server_that_takes_forty_seconds_to_start_is_waited_for_after_a_crash_too() {
    let mut desk = Desk::new();
    desk.started();
    desk.client(INITIALIZE);
    desk.pass(40 * SECOND);
    desk.answer(0, GREETED);
    desk.client(INITIALIZED);
    desk.lost();
    desk.client(call(5, "add"));
    let held = desk.relay.held_until().map(|until| until.since(desk.now));
    assert_eq!(held, Some(Duration::from_secs(80)), "twice what it took");
    desk.clear();
    desk.started();
    desk.pass(40 * SECOND);
    assert!(desk.to_client.is_empty(), "nobody was told to give up: {:?}", desk.to_client);
    assert!(!desk.orders.iter().any(|order| order.contains("restart")), "{:?}", desk.orders);
    desk.answer(desk.asked()[0]["id"].clone(), GREETED);
    assert_eq!(desk.asked().last().unwrap()["params"]["name"], "add", "what waited is sent");
}

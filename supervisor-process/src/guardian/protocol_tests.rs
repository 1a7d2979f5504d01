//! What the protocol promises, said without a guardian.

use supervisor_core::config::HostDeathPolicy;
use supervisor_core::exit::ExitStatus;
use supervisor_core::status::DroppedOutput;
use supervisor_core::{Incarnation, ServiceId, Signal};

use super::protocol::*;
use super::wire::{FRAME_MAX, Incoming};
use crate::capture::DropCause;

fn body(frame: Option<Vec<u8>>) -> Vec<u8> {
    let mut incoming = Incoming::default();
    incoming.push(&frame.unwrap());
    incoming.next(FRAME_MAX).unwrap().unwrap().to_vec()
}

fn spawn() -> Request {
    Request::Spawn(Box::new(Spawn {
        service: ServiceId::new("svc").unwrap(),
        incarnation: Incarnation(7),
        policy: HostDeathPolicy::Outlive,
        program: b"/bin/\xff".to_vec(),
        arguments: vec![b"a".to_vec(), Vec::new()],
        environment: vec![b"A=1".to_vec()],
        working_dir: b"/".to_vec(),
        channel: true,
        limits: vec![(7, 16, 32)],
        nice: Some(-20),
        oom_score_adj: None,
        capture: Capture {
            directory: b"/logs".to_vec(),
            max_bytes: 1,
            files: 2,
            max_line: 3,
            max_rate: Some(4),
            secrets: vec![b"hunter2".to_vec()],
        },
    }))
}

fn requests() -> Vec<Request> {
    let mut all = vec![
        spawn(),
        Request::Kill { set: 1, confirm_ms: 5000, forget: true },
        Request::List,
        Request::Forget { set: 2 },
        Request::Attach { set: 3 },
        Request::Ping,
        Request::ForgetExits { upto: 8 },
        Request::Dropped,
    ];
    all.extend(Signal::ALL.iter().map(|signal| Request::Signal { set: 4, signal: *signal }));
    all
}

fn replies() -> Vec<Reply> {
    let dropped = DroppedOutput {
        rate_lines: 1,
        rate_bytes: 2,
        cut_lines: 3,
        cut_bytes: 4,
        unwritten_lines: 5,
        aged_bytes: u64::MAX,
    };
    let exit = |status| Exit { status, empty: true, lines: vec!["last words".into()] };
    let held = Held {
        set: 1,
        service: ServiceId::new("svc").unwrap(),
        incarnation: Incarnation(7),
        policy: HostDeathPolicy::Die,
        pid: 42,
        start_time: 99,
        channel: false,
        exit: Some(exit(ExitStatus::Signal(9))),
    };
    vec![
        Reply::Started { set: 1, pid: 2, start_time: 3, channel: true, refused: [13, 0] },
        Reply::NotStarted { step: 4, errno: 2 },
        Reply::Done { errno: 1 },
        Reply::Killed { killed: 2, left: vec![Left { pid: 5, start_time: 6, state: 'D' }] },
        Reply::Sets(vec![held.clone(), Held { exit: None, ..held }]),
        Reply::Exited { set: 1, exit: exit(ExitStatus::Code(-1)) },
        Reply::Exited { set: 1, exit: exit(ExitStatus::Unknown) },
        Reply::Emptied { set: 9 },
        Reply::Handles(vec![7, u64::MAX]),
        Reply::Dropping { set: 10, cause: DropCause::Unwritten },
        Reply::Dropped(vec![(ServiceId::new("svc").unwrap(), dropped)]),
    ]
}

#[test]
fn whatever_is_said_is_heard_as_it_was_said() {
    for request in requests() {
        assert_eq!(Request::decode(&body(request.encode(3))), Ok((3, request)));
    }
    for reply in replies() {
        assert_eq!(Reply::decode(&body(reply.encode(4))), Ok((4, reply)));
    }
    let accepted = Welcome::Accepted { version: 1, pid: 2, start_time: 3, build: "b".to_owned() };
    assert_eq!(Welcome::decode(&body(accepted.encode())), Ok(accepted));
    for why in [Refusal::Version, Refusal::Owned, Refusal::Elsewhere, Refusal::Unfit] {
        let refused = Welcome::Refused { why, text: "no".to_owned() };
        assert_eq!(Welcome::decode(&body(refused.encode())), Ok(refused));
    }
}

#[test]
fn a_frame_cut_anywhere_or_with_a_byte_too_many_is_refused_and_nothing_panics() {
    for whole in requests().iter().map(|request| body(request.encode(3))) {
        for end in 0..whole.len() {
            assert!(Request::decode(&whole[..end]).is_err(), "{end} of {whole:?}");
        }
        assert!(Request::decode(&[whole.as_slice(), &[0]].concat()).is_err());
    }
    for whole in replies().iter().map(|reply| body(reply.encode(3))) {
        for end in 0..whole.len() {
            assert!(Reply::decode(&whole[..end]).is_err(), "{end} of {whole:?}");
        }
    }
}

#[test]
fn every_byte_that_is_changed_is_heard_as_something_or_refused_but_never_panics() {
    for whole in requests().iter().map(|request| body(request.encode(3))) {
        for at in 0..whole.len() {
            for value in [0, 1, 2, 9, 127, 128, 255] {
                let mut changed = whole.clone();
                changed[at] = value;
                drop(Request::decode(&changed));
                drop(Reply::decode(&changed));
                drop(Hello::decode(&changed));
                drop(Welcome::decode(&changed));
            }
        }
    }
}

#[test]
fn the_newest_version_both_speak_is_taken_and_without_one_there_is_none() {
    let hello = |oldest, newest| Hello { oldest, newest, build: String::new() };
    assert_eq!(common(&Hello::ours()), Some(VERSION_MAX));
    assert_eq!(common(&hello(VERSION_MIN, VERSION_MAX + 5)), Some(VERSION_MAX));
    assert_eq!(common(&hello(VERSION_MAX + 1, VERSION_MAX + 5)), None);
    assert_eq!(common(&hello(0, VERSION_MIN - 1)), None);
}

#[test]
fn the_greeting_of_a_newer_build_that_says_more_is_still_understood() {
    let mut greeting = body(Hello { oldest: 2, newest: 9, build: "new".into() }.encode());
    greeting.extend_from_slice(b"and more");
    assert_eq!(Hello::decode(&greeting).unwrap().oldest, 2);
    assert!(Hello::decode(b"GET / HTTP/1.1").is_err());
}

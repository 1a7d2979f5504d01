//! Tests of looking for what is left of sets.

use super::*;

#[test]
fn the_numbers_given_out_since_are_found_across_the_end_of_the_circle() {
    let straight = Circle { after: 10, last: 13, end: 100 };
    assert_eq!(straight.iter().collect::<Vec<_>>(), [11, 12, 13]);
    let across = Circle { after: 97, last: 2, end: 100 };
    assert_eq!(across.iter().collect::<Vec<_>>(), [98, 99, 1, 2]);
    for circle in [straight, across, Circle { after: 99, last: 1, end: 100 }] {
        assert_eq!(circle.len(), circle.iter().count() as u64);
        assert!((1..100).all(|pid| circle.contains(pid) == circle.iter().any(|p| p == pid)));
    }
    assert_eq!(Circle { after: 5, last: 5, end: 100 }.len(), 0);
}

fn key() -> SetKey {
    let service = supervisor_core::ServiceId::new("svc").unwrap();
    SetKey {
        mark: "mark".into(),
        service,
        incarnation: supervisor_core::Incarnation::default().next(),
    }
}

#[test]
fn whoever_may_descend_from_a_set_by_what_is_known_of_parents_is_kin_and_others_are_not() {
    let census = Census::new(false);
    let mut known = census.lock();
    let range = Circle { after: 100, last: 200, end: 1000 };
    let mut knows = |pid, owner| drop(known.owners.insert(pid, owner));
    let stranger = |parent| Owner::Stranger { parent };
    knows(110, stranger(100));
    knows(111, stranger(110));
    knows(120, stranger(7));
    knows(121, stranger(120));
    knows(130, Owner::Set("svc".into(), 1));
    knows(140, Owner::Set("other".into(), 1));
    knows(150, stranger(199));
    knows(160, stranger(160));
    knows(170, Owner::Nobody);
    for (parent, foreign, why) in [
        (100, false, "a child of the leader"),
        (110, false, "a grandchild of the leader"),
        (111, false, "and its child"),
        (7, true, "a child of somebody older than the leader"),
        (120, true, "a grandchild of such"),
        (121, true, "and its child"),
        (130, false, "a child of somebody with the set's marks"),
        (140, true, "a child of somebody with another set's marks"),
        (150, false, "a grandchild of nobody knows whom"),
        (160, false, "a circle, which cannot be"),
        (170, false, "a child of somebody who is gone"),
        (201, true, "a number given out before the leader's, a round ago"),
    ] {
        assert_eq!(known.is_foreign(parent, &key(), range), foreign, "{why}");
    }
}

#[test]
fn a_child_without_marks_makes_its_leaders_set_look_for_kin_and_no_other() {
    let census = Census::new(false);
    let start = |script: &str| {
        let born = census.moment();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]).stdin(std::process::Stdio::piped());
        command.stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Its first line says that it is ready.
        let mut line = [0];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        (child, born)
    };
    let child = "exec 3<&0; env -i /bin/sh -c 'echo; read x' <&3 & wait";
    let (mut with, with_born) = start(child);
    let (mut without, without_born) = start("echo; read x");
    let kin_of = |leader: &std::process::Child, born| {
        (0..2).map(|_| census.left(&key(), leader.id(), born).kin).collect::<Vec<_>>()
    };
    assert_eq!(kin_of(&with, with_born), [true, true], "its child carries no marks");
    // What others start meanwhile may lose its parent while it is looked at, and is nobody's child at the next look.
    let deadline = Instant::now() + Duration::from_secs(30);
    while kin_of(&without, without_born) != [false, false] {
        assert!(Instant::now() < deadline, "nobody came of it");
    }
    for child in [&mut with, &mut without] {
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}

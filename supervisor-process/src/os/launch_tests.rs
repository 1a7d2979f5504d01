//! Tests of starting programs, on systems that refuse one or the other way to do it too.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use rustix::io::{Errno, FdFlags};
use rustix::pipe::PipeFlags;

use super::*;

/// Starts a shell with its output in a pipe and gives what it wrote until nobody holds the pipe any more.
fn said(slots: &Slots, script: &str, limits: &[(u32, u64, u64)]) -> String {
    let (reads, writes) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
    let arguments = [c"sh".to_owned(), c"-c".to_owned(), CString::new(script).unwrap()];
    let environment = [c"PATH=/usr/bin:/bin".to_owned()];
    let plan = Plan {
        program: c"/bin/sh",
        arguments: &arguments,
        environment: &environment,
        working_dir: Some(c"/"),
        stdio: [None, Some(writes.as_fd()), None],
        limits,
        nice: None,
        oom_score_adj: None,
        umask: Some(0o027),
        leads: Leads::Session,
    };
    let launched = launch_from(slots, &plan).unwrap();
    drop(writes);
    let mut text = String::new();
    File::from(reads).read_to_string(&mut text).unwrap();
    let ended =
        rustix::process::waitid(WaitId::PidFd(launched.pidfd.as_fd()), WaitIdOptions::EXITED);
    assert_eq!(ended.unwrap().unwrap().exit_status(), Some(0), "{text}");
    text
}

impl Slot {
    fn holds_nothing(&self) -> bool {
        let target = |number| std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
        self.numbers().into_iter().all(|number| target(number).as_os_str() == "/dev/null")
    }
}

/// Everything a program can see of how it was started.
const LOOK: &str = "grep -E '^Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd | tr '\\n' ' '; \
    umask; ulimit -n; pwd; ls -l /proc/self/fd/0 /proc/self/fd/2 | grep -c /dev/null";

fn starts_clean(slots: &Slots) {
    // What a careless host leaves to be inherited, once at a low number and once above what is borrowed.
    let stray: Vec<File> = (0..40).map(|_| File::open("/dev/null").unwrap()).collect();
    for file in &stray {
        rustix::io::fcntl_setfd(file, FdFlags::empty()).unwrap();
    }
    let text = said(slots, LOOK, &[(libc::RLIMIT_NOFILE, 77, 88)]);
    let zeros = "0000000000000000";
    // `ls` has the directory itself open as the fourth.
    let wanted = format!("SigBlk:\t{zeros}\nSigIgn:\t{zeros}\n0 1 2 3 0027\n77\n/\n2\n");
    assert_eq!(text, wanted);
}

#[test]
fn a_program_gets_its_three_descriptors_clean_signals_and_its_limits_and_nothing_else() {
    let slots = Slots::new();
    starts_clean(&slots);
    assert_eq!(slots.way(), Way::Shared, "this kernel has the quick way");
}

#[test]
fn the_other_ways_to_start_a_program_leave_it_with_the_same() {
    for way in [Way::Copied, Way::Listed] {
        let slots = Slots::with_way(way);
        starts_clean(&slots);
        assert_eq!(slots.way(), way);
    }
}

/// Refuses system calls to the calling thread, and to what it starts: those of this number, only with this bit in their
/// first argument unless it is 0.
fn refuse(call: libc::c_long, bit: c_int, errno: Errno) {
    let op = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt,
        jf,
        k,
    };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let refused = libc::SECCOMP_RET_ERRNO | errno.raw_os_error().unsigned_abs();
    let test = if bit == 0 {
        op(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, 0)
    } else {
        op(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, bit.unsigned_abs())
    };
    let mut filter = [
        op(load, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 3, u32::try_from(call).unwrap()),
        // The lower half of the first argument.
        op(load, 0, 0, 16),
        test,
        op(libc::BPF_RET | libc::BPF_K, 0, 0, refused),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 6, filter: filter.as_mut_ptr() };
    #[expect(unsafe_code, reason = "a filter of system calls is set by prctl alone")]
    // SAFETY: the kernel copies the program, whose length is right, and keeps no pointer.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
    }
}

/// Starts programs in a thread of its own to which a call is refused, and gives the way that was found.
fn way_without(call: libc::c_long, bit: c_int, errno: Errno) -> Way {
    let thread = std::thread::spawn(move || {
        refuse(call, bit, errno);
        let slots = Slots::new();
        starts_clean(&slots);
        slots.way()
    });
    thread.join().unwrap()
}

#[test]
fn where_a_filter_refuses_to_close_many_descriptors_at_once_they_are_closed_one_by_one() {
    for errno in [Errno::NOSYS, Errno::PERM] {
        assert_eq!(way_without(libc::SYS_close_range, 0, errno), Way::Listed);
    }
}

#[test]
fn where_a_filter_refuses_to_share_descriptors_they_are_copied() {
    assert_eq!(way_without(libc::SYS_clone, libc::CLONE_FILES, Errno::PERM), Way::Copied);
}

#[test]
fn where_no_process_may_be_made_that_is_said() {
    let refused = std::thread::spawn(|| {
        refuse(libc::SYS_clone, 0, Errno::PERM);
        failed(c"/bin/sh", Some(c"/"), &[])
    });
    let errno = Errno::PERM.raw_os_error();
    assert_eq!(refused.join().unwrap(), Refused { step: Step::Fork, errno });
}

fn failed(program: &CStr, dir: Option<&CStr>, limits: &[(u32, u64, u64)]) -> Refused {
    let plan = Plan {
        program,
        arguments: &[],
        environment: &[],
        working_dir: dir,
        stdio: [None; 3],
        limits,
        nice: None,
        oom_score_adj: None,
        umask: None,
        leads: Leads::Group,
    };
    launch_from(&Slots::new(), &plan).unwrap_err()
}

#[test]
fn a_start_that_fails_says_where_and_why_and_leaves_no_child() {
    let cases = [
        (failed(c"/nonexistent", None, &[]), Step::Exec, Errno::NOENT),
        (failed(c"/etc", None, &[]), Step::Exec, Errno::ACCESS),
        (failed(c"/bin/sh", Some(c"/nonexistent"), &[]), Step::WorkingDir, Errno::NOENT),
        (failed(c"/bin/sh", None, &[(9999, 0, 0)]), Step::Limit, Errno::INVAL),
    ];
    for (refused, step, errno) in cases {
        assert_eq!(refused, Refused { step, errno: errno.raw_os_error() });
    }
    // Other tests have children; of these starts none is left to be waited for.
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    assert_eq!(children.trim(), "");
}

#[test]
fn a_slot_is_used_again_at_its_low_numbers_and_is_the_null_device_in_between() {
    let slots = Slots::new();
    slots.fill(1);
    let looked = |slots: &Slots| {
        let slot = slots.take(&[None; 3]).unwrap();
        let (numbers, null) = (slot.numbers(), slot.holds_nothing());
        slots.put_back(slot, &[None; 3]);
        (numbers, null)
    };
    let before = looked(&slots);
    assert!(before.1);
    assert_eq!(said(&slots, "echo hello", &[]), "hello\n");
    assert_eq!(looked(&slots), before);
}

//! macOS: kernel event queues, as far as they are needed here.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::kqueue::{
    Event, EventFilter, EventFlags, ProcessEvents, UserDefinedFlags, UserFlags,
};
use rustix::io::Errno;
use rustix::process::Pid;
use supervisor_core::exit::ExitStatus;

use crate::os::unix::from_wait_status;

/// No time at all.
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
/// `NOTE_EXITSTATUS`: how a process ended is told with its end; its parent and who may signal it may ask for that.
const EXIT_STATUS: ProcessEvents = ProcessEvents::from_bits_retain(libc::NOTE_EXITSTATUS);

/// Makes a queue; it is closed at exec, and a fork does not copy it.
pub(in crate::os) fn queue() -> io::Result<OwnedFd> {
    let queue = rustix::event::kqueue::kqueue()?;
    rustix::io::fcntl_setfd(&queue, rustix::io::FdFlags::CLOEXEC)?;
    Ok(queue)
}

/// Makes an event that gives `token` back.
fn event(filter: EventFilter, flags: EventFlags, token: u64) -> Event {
    let address = usize::try_from(token).unwrap_or(usize::MAX);
    Event::new(filter, flags, std::ptr::without_provenance_mut::<c_void>(address))
}

/// Gives what an event was made with.
pub(in crate::os) fn token(event: &Event) -> u64 {
    event.udata().addr() as u64
}

/// Tells a queue one thing.
fn change(queue: &OwnedFd, event: Event) -> Result<(), Errno> {
    let mut none: [Event; 0] = [];
    take(queue, &[event], &mut none[..], Some(&NOW)).map(drop)
}

/// Tells a queue what is wanted of it, and waits for what it has.
#[expect(
    unsafe_code,
    reason = "descriptors are named in the list of changes, which nothing checks"
)]
pub(in crate::os) fn take<B: rustix::buffer::Buffer<Event>>(
    queue: &OwnedFd,
    changes: &[Event],
    events: B,
    limit: Option<&Timespec>,
) -> Result<B::Output, Errno> {
    // SAFETY: the descriptors in `changes` are borrowed by our callers when they are added, and the kernel takes a
    // descriptor's events out of every queue when it is closed, so none names a descriptor that is another by then.
    // The kernel never follows the pointer in an event, which is a number and not an address.
    unsafe { rustix::event::kqueue::kevent_timespec(queue, changes, events, limit) }
}

/// Begins or ends to wait for a descriptor to become readable.
pub(in crate::os) fn reading(
    queue: &OwnedFd,
    fd: impl AsFd,
    token: u64,
    on: bool,
) -> io::Result<()> {
    let flags = if on { EventFlags::ADD } else { EventFlags::DELETE };
    let filter = EventFilter::Read(fd.as_fd().as_raw_fd());
    change(queue, event(filter, flags, token)).map_err(Into::into)
}

/// Begins or ends to wait for a descriptor to become writable.
pub(in crate::os) fn writing(
    queue: &OwnedFd,
    fd: impl AsFd,
    token: u64,
    on: bool,
) -> io::Result<()> {
    let flags = if on { EventFlags::ADD } else { EventFlags::DELETE };
    let filter = EventFilter::Write(fd.as_fd().as_raw_fd());
    change(queue, event(filter, flags, token)).map_err(Into::into)
}

/// Makes a queue's own event ready, once it was made with [`wakeable`].
pub(in crate::os) fn wake(queue: &OwnedFd, token: u64) -> io::Result<()> {
    let filter = EventFilter::User {
        ident: 0,
        flags: UserFlags::TRIGGER,
        user_flags: UserDefinedFlags::new(0),
    };
    change(queue, event(filter, EventFlags::ADD, token)).map_err(Into::into)
}

/// Adds an event that nothing but [`wake`] makes ready.
pub(in crate::os) fn wakeable(queue: &OwnedFd, token: u64) -> io::Result<()> {
    let filter = EventFilter::User {
        ident: 0,
        flags: UserFlags::empty(),
        user_flags: UserDefinedFlags::new(0),
    };
    change(queue, event(filter, EventFlags::ADD, token)).map_err(Into::into)
}

/// Asks a queue to tell of a process's end; tells whether it is there to end.
///
/// # Errors
/// What the system said, unless that is that there is no such process.
pub(in crate::os) fn watch(queue: &OwnedFd, pid: Pid) -> io::Result<bool> {
    let ask = |flags| change(queue, event(EventFilter::Proc { pid, flags }, EventFlags::ADD, 0));
    let asked = match ask(ProcessEvents::EXIT | EXIT_STATUS) {
        Err(Errno::ACCESS | Errno::PERM) => ask(ProcessEvents::EXIT),
        asked => asked,
    };
    match asked {
        Ok(()) => Ok(true),
        Err(Errno::SRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives a descriptor that becomes readable, and stays so, when a child of ours has ended or is about to have.
///
/// A queue of its own for one process: queues can be waited for like any descriptor, by other queues too.
pub(in crate::os) fn end_of(pid: Pid) -> io::Result<OwnedFd> {
    let queue = queue()?;
    // Nothing tells of what has ended already; it is our child, so that is the only reason not to find it.
    if !watch(&queue, pid)? {
        wakeable(&queue, 0)?;
        wake(&queue, 0)?;
    }
    Ok(queue)
}

/// Reads how a process ended out of the queue [`end_of`] gave, once; nothing if the kernel did not say.
pub(in crate::os) fn told(queue: &OwnedFd) -> Option<ExitStatus> {
    let mut events = Vec::with_capacity(1);
    take(queue, &[], rustix::buffer::spare_capacity(&mut events), Some(&NOW)).ok()?;
    let event = events.first()?;
    match event.filter() {
        EventFilter::Proc { flags, .. } if flags.contains(EXIT_STATUS) => {
            Some(from_wait_status(i32::try_from(event.data()).ok()?))
        }
        _ => None,
    }
}

/// Tells whether a queue has something, and leaves it there.
pub(in crate::os) fn is_ready(queue: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags};
    let mut fds = [PollFd::new(queue, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&NOW)).is_ok_and(|ready| ready > 0)
}

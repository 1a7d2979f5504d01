//! Linux: descriptors with low numbers, lent to whatever is being started.
//!
//! A child that is being started borrows our table of descriptors and lets go of it with a copy of its lower part, up to
//! the numbers it needs. What it needs is put at low numbers before, in a slot: three descriptors that are the null device
//! the rest of the time, opened before a fleet takes all the low numbers.

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::io::{DupFlags, Errno, FdFlags};

/// Bytes of stack a child gets until it is the program; it calls a dozen system calls and nothing deep.
const STACK: usize = 64 * 1024;
/// Slots kept, at most; a start beyond them makes one for itself, at a number that costs more.
const KEPT_MAX: usize = 8;

/// How a child comes by a table of descriptors of its own. The ways after the first are for kernels, and filters of
/// system calls, that refuse the ones before; what the program is left with is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Way {
    /// Ours, of which it copies the lowest few numbers (`close_range`, Linux 5.9).
    Shared,
    /// A copy of the whole, of which it closes all but the lowest three.
    Copied,
    /// A copy of the whole, of which it closes what is on a list; what another thread opens meanwhile, to be inherited,
    /// is inherited.
    Listed,
}

impl Way {
    pub(super) const LAST: Self = Self::Listed;

    /// Tells whether an error means that something is not allowed or not known here, now and later.
    pub(super) fn is_refusal(errno: i32) -> bool {
        [Errno::NOSYS, Errno::PERM, Errno::ACCESS, Errno::INVAL, Errno::OPNOTSUPP]
            .iter()
            .any(|refusal| refusal.raw_os_error() == errno)
    }
}

/// The slots of this process.
#[derive(Debug)]
pub(super) struct Slots {
    null: OnceLock<File>,
    free: Mutex<Vec<Slot>>,
    way: AtomicU8,
}

/// Room for one start: where its descriptors are put, and the stack of its first moments.
#[derive(Debug)]
pub(super) struct Slot {
    ends: [OwnedFd; 3],
    stack: Box<[MaybeUninit<u128>]>,
}

impl Slots {
    pub(super) const fn new() -> Self {
        Self::with_way(Way::Shared)
    }

    pub(super) const fn with_way(way: Way) -> Self {
        Self { null: OnceLock::new(), free: Mutex::new(Vec::new()), way: AtomicU8::new(way as u8) }
    }

    fn null(&self) -> io::Result<BorrowedFd<'_>> {
        if let Some(null) = self.null.get() {
            return Ok(null.as_fd());
        }
        let null = File::options().read(true).write(true).open("/dev/null")?;
        Ok(self.null.get_or_init(|| null).as_fd())
    }

    fn free(&self) -> MutexGuard<'_, Vec<Slot>> {
        // Every statement under the lock leaves the list valid.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the slots that are kept, as far as there are descriptors.
    pub(super) fn fill(&self, slots: usize) {
        let mut free = self.free();
        while free.len() < slots.min(KEPT_MAX) {
            match self.null().and_then(Slot::new) {
                Ok(slot) => free.push(slot),
                Err(_) => return,
            }
        }
    }

    /// Gives a slot with these descriptors in it, the null device where there is none.
    pub(super) fn take(&self, stdio: &[Option<BorrowedFd<'_>>; 3]) -> io::Result<Slot> {
        let kept = self.free().pop();
        if let Some(mut slot) = kept
            && slot.place(stdio).is_ok()
        {
            return Ok(slot);
        }
        // The limit may have been lowered below the numbers of the one that was kept.
        let mut slot = Slot::new(self.null()?)?;
        slot.place(stdio)?;
        Ok(slot)
    }

    /// Takes a slot back, emptied of the descriptors that were put in it; what cannot be emptied is closed.
    pub(super) fn put_back(&self, mut slot: Slot, stdio: &[Option<BorrowedFd<'_>>; 3]) {
        if self.null().and_then(|null| slot.clear(stdio, null)).is_ok() {
            let mut free = self.free();
            if free.len() < KEPT_MAX {
                free.push(slot);
            }
        }
    }

    /// Gives the way that was not refused so far.
    pub(super) fn way(&self) -> Way {
        match self.way.load(Ordering::Relaxed) {
            0 => Way::Shared,
            1 => Way::Copied,
            _ => Way::Listed,
        }
    }

    /// Goes another way from now on.
    pub(super) fn give_up(&self, way: Way) {
        self.way.fetch_max(way as u8 + 1, Ordering::Relaxed);
    }
}

impl Slot {
    fn new(null: BorrowedFd<'_>) -> io::Result<Self> {
        let copy = || rustix::io::fcntl_dupfd_cloexec(null, 3);
        let ends = [copy()?, copy()?, copy()?];
        Ok(Self { ends, stack: Box::new_uninit_slice(STACK / size_of::<u128>()) })
    }

    fn place(&mut self, stdio: &[Option<BorrowedFd<'_>>; 3]) -> io::Result<()> {
        for (end, wanted) in self.ends.iter_mut().zip(stdio) {
            if let Some(wanted) = wanted {
                rustix::io::dup3(wanted, end, DupFlags::CLOEXEC)?;
            }
        }
        Ok(())
    }

    fn clear(
        &mut self,
        stdio: &[Option<BorrowedFd<'_>>; 3],
        null: BorrowedFd<'_>,
    ) -> io::Result<()> {
        for (end, _) in self.ends.iter_mut().zip(stdio).filter(|(_, wanted)| wanted.is_some()) {
            rustix::io::dup3(null, end, DupFlags::CLOEXEC)?;
        }
        Ok(())
    }

    pub(super) fn numbers(&self) -> [RawFd; 3] {
        [self.ends[0].as_raw_fd(), self.ends[1].as_raw_fd(), self.ends[2].as_raw_fd()]
    }

    /// The lowest number above its own.
    pub(super) fn above(&self) -> u32 {
        let highest = self.numbers().into_iter().max().unwrap_or(RawFd::MAX);
        highest.unsigned_abs().saturating_add(1)
    }

    /// The end of its stack, where a stack that grows downwards begins.
    pub(super) fn stack_end(&mut self) -> *mut MaybeUninit<u128> {
        self.stack.as_mut_ptr_range().end
    }
}

/// Lists the descriptors above standard error that a program would inherit.
pub(super) fn inheritable() -> Vec<c_int> {
    let numbers = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    numbers
        .filter_map(|entry| entry.file_name().to_str()?.parse::<c_int>().ok())
        .filter(|number| *number > 2 && is_inheritable(*number))
        .collect()
}

#[expect(unsafe_code, reason = "a number of the table is looked at, whoever owns it")]
fn is_inheritable(number: RawFd) -> bool {
    // SAFETY: the descriptor is only asked for its flags; one that was closed meanwhile gives an error.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_getfd(descriptor).is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC))
}

//! Linux: descriptors kept back, so that running out of them never stops anything from being looked at or ended.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Descriptors kept back. One is enough to go on one process at a time; some more let a sweep hold several.
const KEPT: usize = 8;
/// Tries to use a freed descriptor before somebody else does.
const TRIES: usize = 100;

static SPARE: Mutex<Vec<File>> = Mutex::new(Vec::new());
/// Whether some were given away and not replaced yet.
static SHORT: AtomicBool = AtomicBool::new(false);

/// Keeps descriptors back, as far as there are any; done once by whoever starts services.
pub(crate) fn fill() {
    refill(&mut SPARE.lock().unwrap_or_else(PoisonError::into_inner));
}

fn refill(spare: &mut Vec<File>) {
    while spare.len() < KEPT {
        match File::open("/dev/null") {
            Ok(file) => spare.push(file),
            Err(_) => return,
        }
    }
    SHORT.store(false, Ordering::Relaxed);
}

/// Does what needs a descriptor for a moment, with one that was kept back if there is no other.
pub(super) fn with<T>(mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let first = open();
    if !first.as_ref().is_err_and(is_exhausted) {
        if SHORT.load(Ordering::Relaxed) {
            fill();
        }
        return first;
    }
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    SHORT.store(true, Ordering::Relaxed);
    let mut result = first;
    for _ in 0..TRIES {
        drop(spare.pop());
        result = open();
        if !result.as_ref().is_err_and(is_exhausted) {
            break;
        }
        // Somebody else took it; as soon as one is free again it is kept back again.
        refill(&mut spare);
        std::thread::yield_now();
    }
    result
}

/// Tells whether descriptors are used up, here or in the whole system.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

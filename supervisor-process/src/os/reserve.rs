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

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::atomic::AtomicUsize;

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    /// Descriptors the process of this test may have.
    const LIMIT: u64 = 60;

    fn hoard() -> Vec<File> {
        std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
    }

    fn kept() -> usize {
        SPARE.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    #[test]
    #[ignore = "run by another test as a process of its own: its limit is every thread's"]
    fn at_the_limit() {
        fill();
        assert_eq!(kept(), KEPT);
        let low = Rlimit { current: Some(LIMIT), maximum: getrlimit(Resource::Nofile).maximum };
        setrlimit(Resource::Nofile, low).unwrap();
        let mut hoarded = hoard();
        let refused = File::open("/dev/null").unwrap_err();
        assert!(is_exhausted(&refused), "{refused}");
        // What needs one for a moment has it, however often, and what was kept back is not used up by that.
        for _ in 0..50 {
            with(|| std::fs::read_to_string("/proc/self/stat")).unwrap();
        }
        // Several at a time, as a sweep holds them.
        let held: Vec<File> =
            (0..KEPT / 2).map(|_| with(|| File::open("/dev/null")).unwrap()).collect();
        drop(held);
        with(|| std::fs::read_to_string("/proc/self/stat")).unwrap();
        // Whatever else is wrong is told at once, with nothing given away for it.
        let before = kept();
        let calls = AtomicUsize::new(0);
        let missing = with(|| {
            calls.fetch_add(1, Ordering::Relaxed);
            std::fs::metadata("/nonexistent")
        });
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!((calls.load(Ordering::Relaxed), kept()), (1, before));
        // Somebody takes every descriptor there ever is: it gives up, and says why.
        let stolen = with(|| {
            hoarded.extend(hoard());
            File::open("/dev/null")
        });
        assert!(is_exhausted(&stolen.unwrap_err()));
        // When they come back, so does the reserve, with nobody's help.
        hoarded.clear();
        with(|| File::open("/dev/null")).unwrap();
        assert_eq!(kept(), KEPT);
        println!("kept its reserve");
    }

    #[test]
    fn a_process_out_of_descriptors_can_still_look_and_end_and_gets_its_reserve_back() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "os::reserve::tests::at_the_limit", "--ignored", "--nocapture"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("kept its reserve"), "{said}{complained}");
    }
}

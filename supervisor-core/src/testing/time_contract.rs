//! What every clock and every source of randomness promises. Each function panics with what was expected.

use std::collections::HashSet;

use crate::ports::{Clock, Entropy};

/// Runs the promises of [`Clock`]; `pass` lets some time go by, more than the clock's resolution.
///
/// # Panics
/// When a promise is not kept.
pub fn clock(clock: &dyn Clock, mut pass: impl FnMut()) {
    let (first, boot) = (clock.monotonic(), clock.since_boot());
    let mut last = first;
    for _ in 0..1000 {
        let now = clock.monotonic();
        assert!(now >= last, "monotonic time went back from {last:?} to {now:?}");
        last = now;
    }
    pass();
    assert!(clock.monotonic() > first, "monotonic time passes");
    assert!(clock.since_boot() > boot, "and so does the time since boot");
}

/// Runs the promises of [`Entropy`]; `again` is made like `one`, from the same seed if it takes one.
///
/// # Panics
/// When a promise is not kept.
pub fn entropy(one: &dyn Entropy, again: &dyn Entropy, seeded: bool) {
    let draw = |from: &dyn Entropy| (0..64).map(|_| from.next_u64()).collect::<Vec<_>>();
    let (first, second) = (draw(one), draw(again));
    assert_eq!(first == second, seeded, "the same seed gives the same numbers, and only that");
    let different: HashSet<_> = first.iter().collect();
    assert_eq!(different.len(), first.len(), "64 draws of 64 bits do not repeat");
}

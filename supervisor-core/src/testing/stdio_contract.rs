//! What whoever takes over the pipes of a service's channel promises. The function panics with what was expected.

use crate::ports::{ChildStdio, StdioReceiver};
use crate::{Incarnation, ServiceId};

/// Runs the promises of [`StdioReceiver`]; `pipes` makes a pair of pipes, and what tells whether their output is still held
/// by whoever got them. Nobody may take over what is attached meanwhile.
///
/// # Panics
/// When a promise is not kept.
pub fn stdio<H: FnMut() -> bool>(
    receiver: &dyn StdioReceiver,
    service: &ServiceId,
    mut pipes: impl FnMut() -> (ChildStdio, H),
) {
    let mut attach = |incarnation| {
        let (stdio, held) = pipes();
        receiver.attach(service, Incarnation(incarnation), stdio);
        held
    };
    let mut first = attach(1);
    assert!(first(), "what nobody took over yet is kept");
    let mut second = attach(2);
    assert!(second() && !first(), "a new incarnation's pipes replace those of the one before");
    let mut late = attach(1);
    assert!(!late(), "the pipes of an earlier incarnation that come late are closed");
    assert!(second(), "and change nothing about those of a later one");
    let mut newest = attach(9);
    assert!(newest() && !second(), "numbers may be left out");
}

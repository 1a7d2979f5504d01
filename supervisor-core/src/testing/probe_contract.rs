//! What every runner of probes promises. Each function panics with what was expected.

use std::time::Duration;

use crate::ports::{ProbeRequest, ProbeRunner};

/// Longest answer, in characters.
const DETAIL_MAX: usize = 200;

/// Runs the promises of [`ProbeRunner`]: `passes` asks something that answers, `fails` something that refuses, and `hangs`
/// something that never answers within its timeout of at most a second. `elapsed` gives how long since it was made.
///
/// # Panics
/// When a promise is not kept.
pub async fn probes(
    runner: &dyn ProbeRunner,
    passes: ProbeRequest,
    fails: ProbeRequest,
    hangs: ProbeRequest,
    elapsed: impl Fn() -> Duration,
) {
    for _ in 0..2 {
        let outcome = runner.run(passes.clone()).await;
        assert!(outcome.passed, "what answers passes: {}", outcome.detail);
        assert!(outcome.latency <= passes.timeout);
    }
    let outcome = runner.run(fails).await;
    assert!(!outcome.passed, "what refuses does not pass");
    assert!(!outcome.detail.is_empty(), "and it is said why");
    assert!(outcome.detail.chars().count() <= DETAIL_MAX, "in a line: {}", outcome.detail);
    let (before, timeout) = (elapsed(), hangs.timeout);
    let outcome = runner.run(hangs).await;
    assert!(!outcome.passed, "what does not answer does not pass");
    let took = elapsed().saturating_sub(before);
    // Generous: a loaded machine answers late, a runner that waits for the peer never does.
    assert!(took < timeout + Duration::from_secs(20), "answered after {took:?}, not {timeout:?}");
}

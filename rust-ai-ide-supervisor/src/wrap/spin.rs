//! When it pays to look again and again for an answer before going to sleep.
//!
//! A server that answers within microseconds costs its client most of the time in waking up whoever sleeps: a core that has
//! nothing to do takes 20 to 30 us to come back. So while a server has been answering at once, its next answer is looked
//! for without sleeping, for a moment; and so is the next message of a client that has been asking as soon as it was answered.
//! Operating systems and databases do the same where they wait for locks or packets.

use std::convert::Infallible;
use std::time::Duration;

use supervisor_core::Monotonic;
use supervisor_core::ports::Clock;

/// An answer that comes within this time comes at once, and is looked for no longer: about what it takes two cores to
/// wake up, each after the other, and twice that for the server.
pub(super) const MOMENT: Duration = Duration::from_micros(100);
/// Answers in a row that came at once before the next one is looked for.
const PROOF: u32 = 4;
/// The most such answers that are asked for, after looking was in vain again and again.
const PROOF_MAX: u32 = 4096;

/// Decides, from how long the last answers of a side took, whether the next one is looked for. What a client says once
/// it has all its answers counts as its answer to them.
///
/// **Invariants**: nothing is looked for unless the side was given something; an answer costs at most [`MOMENT`] of looking; looking
/// that was in vain comes after [`PROOF`] answers at once in a row, and after twice as many each time, until some found
/// something.
#[derive(Debug)]
pub(super) struct Spin {
    /// Whether somebody else can run meanwhile.
    allowed: bool,
    /// Answers in a row that came at once.
    at_once: u32,
    /// How many of them it takes.
    proof: u32,
    /// When the side was given what it has not answered.
    asked: Option<Monotonic>,
}

impl Spin {
    /// Begins with nothing known. With one core looking would only keep the server from answering.
    pub(super) const fn new(cores: usize) -> Self {
        Self { allowed: cores > 1, at_once: 0, proof: PROOF, asked: None }
    }

    /// The side has got something, and has not answered it.
    pub(super) fn asked(&mut self, now: Monotonic) {
        match self.asked {
            // It is looked for already, and for no longer.
            Some(asked) if now.since(asked) <= MOMENT => return,
            Some(asked) => self.judge(now.since(asked)),
            None => {}
        }
        self.asked = Some(now);
    }

    /// The side said something.
    pub(super) fn heard(&mut self, now: Monotonic) {
        if let Some(asked) = self.asked.take() {
            self.judge(now.since(asked));
        }
    }

    /// Gives until when the answer is looked for, if it is.
    pub(super) fn until(&self) -> Option<Monotonic> {
        self.asked.filter(|_| self.looks()).map(|asked| asked + MOMENT)
    }

    const fn looks(&self) -> bool {
        self.allowed && self.at_once >= self.proof
    }

    fn judge(&mut self, took: Duration) {
        let looked = self.looks();
        if took <= MOMENT {
            self.at_once = self.at_once.saturating_add(1);
            if looked {
                self.proof = (self.proof / 2).max(PROOF);
            }
            return;
        }
        self.at_once = 0;
        if looked {
            self.proof = (self.proof * 2).min(PROOF_MAX);
        }
    }
}

/// Keeps whoever waits beside it from sleeping until then, and never ends.
///
/// Each time around everything else that waits is looked at, too.
pub(super) async fn awake(until: Option<Monotonic>, clock: &dyn Clock) -> Infallible {
    if let Some(until) = until {
        while clock.monotonic() < until {
            tokio::task::yield_now().await;
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAST: u64 = 40;
    const SLOW: u64 = 2000;

    /// A server that is asked and answers, over and over.
    struct Asked {
        spin: Spin,
        now: Monotonic,
    }

    impl Asked {
        fn new(cores: usize) -> Self {
            Self { spin: Spin::new(cores), now: Monotonic::ZERO }
        }

        /// Asks and is answered after so many microseconds; gives whether that was looked for.
        fn ask(&mut self, took: u64) -> bool {
            assert_eq!(self.spin.until(), None, "nothing is asked");
            self.spin.asked(self.now);
            let until = self.spin.until();
            assert!(until.is_none_or(|until| until <= self.now + MOMENT));
            self.now = self.now + Duration::from_micros(took);
            self.spin.heard(self.now);
            until.is_some()
        }
    }

    #[test]
    fn answers_are_looked_for_once_some_came_at_once_and_no_longer_when_one_did_not() {
        let mut server = Asked::new(2);
        (0..PROOF).for_each(|_| assert!(!server.ask(FAST)));
        assert!(server.ask(FAST));
        assert!(server.ask(SLOW), "nobody knew");
        (0..2 * PROOF).for_each(|_| assert!(!server.ask(FAST)));
        assert!(server.ask(FAST));
    }

    #[test]
    fn a_single_core_is_left_to_the_server() {
        let mut server = Asked::new(1);
        assert!((0..1000).all(|_| !server.ask(FAST)));
    }

    #[test]
    fn what_is_asked_before_the_answer_makes_nobody_look_longer() {
        let mut server = Asked::new(2);
        (0..PROOF).for_each(|_| assert!(!server.ask(FAST)));
        server.spin.asked(server.now);
        let until = server.spin.until().unwrap();
        server.spin.asked(server.now + MOMENT / 2);
        assert_eq!(server.spin.until(), Some(until));
        server.spin.asked(until + MOMENT);
        assert_eq!(server.spin.until(), None, "it was in vain");
    }

    proptest! {
        #[test]
        fn looking_is_rare_unless_it_finds_something(
            answers in prop::collection::vec((0..8_u32, 0..120_u64), 1..2000),
        ) {
            let mut server = Asked::new(2);
            let (mut found, mut in_vain, mut fast) = (0_u32, 0_u32, 0_u32);
            for (kind, took) in answers {
                // Mostly below the bound and around it, which is where it errs most.
                let took = if kind == 0 { SLOW } else { took };
                let (looked, at_once) = (server.ask(took), took <= 100);
                fast += u32::from(at_once);
                found += u32::from(looked && at_once);
                in_vain += u32::from(looked && !at_once);
            }
            prop_assert!(in_vain * PROOF <= fast, "{in_vain} in vain, {fast} at once");
            // Each that found nothing doubles what has to come first, each that found something halves it.
            prop_assert!(in_vain <= found + PROOF_MAX.ilog2(), "{in_vain} in vain, {found} found");
        }

        #[test]
        fn a_server_that_is_slow_now_and_then_is_looked_at_ever_less(
            pattern in PROOF..40_u32, rounds in 1..400_u32,
        ) {
            let mut server = Asked::new(2);
            let mut in_vain = 0_u32;
            for _ in 0..rounds {
                // As many at once as it takes, and then one that is not: the worst that can happen.
                for _ in 0..pattern {
                    if server.spin.at_once < server.spin.proof {
                        server.ask(FAST);
                    }
                }
                in_vain += u32::from(server.ask(SLOW));
            }
            prop_assert!(in_vain <= 4, "{in_vain} in vain");
        }
    }
}

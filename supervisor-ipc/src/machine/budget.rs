//! How many repetitions a channel may write, so that many retries never become a flood of their own.

use std::time::Duration;

use supervisor_core::Monotonic;

/// Seconds of the floor that may be saved up (Finagle and tower look at the last 10 s).
const SAVED: u64 = 10;
/// One repetition, in the thousandths that are counted.
const ONE: u64 = 1000;

/// Pays for repetitions with fresh messages, and with a floor that time adds.
///
/// **Invariant:** it holds at most ten seconds of the floor and one whole flight: what was in flight is repeated at once, by a
/// channel that keeps breaking only once.
#[derive(Debug)]
pub(super) struct RetryBudget {
    tokens: u64,
    most: u64,
    percent: u64,
    floor: u64,
    refilled: Option<Monotonic>,
}

impl RetryBudget {
    pub(super) fn new(percent: u32, floor: u32, max_in_flight: usize) -> Self {
        let floor = u64::from(floor);
        let flight = if percent == 0 { 0 } else { max_in_flight as u64 };
        // Full at first: the first loss repeats what was in flight at once.
        let most = (floor * SAVED + flight) * ONE;
        Self { tokens: most, most, percent: u64::from(percent), floor, refilled: None }
    }

    /// A message was written for the first time.
    pub(super) fn fresh(&mut self) {
        self.tokens = (self.tokens + self.percent * ONE / 100).min(self.most);
    }

    /// Takes the price of one repetition, or says when it can be paid; never, if nothing pays but fresh messages.
    pub(super) fn spend(&mut self, now: Monotonic) -> Result<(), Option<Monotonic>> {
        self.refill(now);
        if self.tokens >= ONE {
            self.tokens -= ONE;
            return Ok(());
        }
        // `floor` repetitions a second are `floor` thousandths a millisecond.
        let missing = (ONE - self.tokens).checked_div(self.floor);
        Err(missing.map(|millis| now + Duration::from_millis(millis + 1)))
    }

    fn refill(&mut self, now: Monotonic) {
        let since = *self.refilled.get_or_insert(now);
        let millis = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
        if millis > 0 {
            self.refilled = Some(since + Duration::from_millis(millis));
            self.tokens =
                self.tokens.saturating_add(millis.saturating_mul(self.floor)).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_millis(millis))
    }

    fn paid(budget: &mut RetryBudget, now: Monotonic) -> usize {
        (0..100_000).take_while(|_| budget.spend(now).is_ok()).count()
    }

    #[test]
    fn a_quiet_channel_repeats_ten_seconds_of_the_floor_and_then_the_floor() {
        let mut budget = RetryBudget::new(20, 10, 256);
        assert_eq!(paid(&mut budget, at(0)), 356, "one whole flight comes first");
        let next = budget.spend(at(0)).unwrap_err().unwrap();
        assert_eq!(next, at(101));
        assert_eq!(paid(&mut budget, next), 1);
        assert_eq!(paid(&mut budget, at(1_000)), 9, "ten in the first second");
        assert_eq!(paid(&mut budget, at(3_600_000)), 356, "an hour saves no more than the bound");
    }

    #[test]
    fn a_busy_channel_repeats_a_fifth_of_what_it_wrote_up_to_a_whole_flight() {
        let mut budget = RetryBudget::new(20, 0, 256);
        assert_eq!(paid(&mut budget, at(0)), 256);
        assert_eq!(budget.spend(at(0)), Err(None), "time alone pays nothing");
        (0..500).for_each(|_| budget.fresh());
        assert_eq!(paid(&mut budget, at(0)), 100);
        (0..100_000).for_each(|_| budget.fresh());
        assert_eq!(paid(&mut budget, at(0)), 256);
    }
}

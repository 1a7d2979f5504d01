//! The restart budget that spans all services.

use std::time::Duration;

use crate::Monotonic;

/// Fewest restarts the full bucket holds.
const CAPACITY_MIN: f64 = 50.0;
/// Share of the services refilled every second.
const REFILL_SHARE: f64 = 0.2;
/// Fewest restarts refilled every second.
const REFILL_MIN: f64 = 10.0;

/// A token bucket over the restarts of all services.
///
/// Holds one restart for every service (at least 50), refilled by 20 % of the services a second (at
/// least 10): all services may die at once and be back at once, but not again and again (the shape is Finagle's retry budget).
#[derive(Debug, Clone, PartialEq)]
pub struct RestartBudget {
    tokens: f64,
    services: usize,
    refilled_at: Monotonic,
}

impl RestartBudget {
    /// Makes a full bucket for this many services.
    #[must_use]
    pub fn new(services: usize, now: Monotonic) -> Self {
        let mut budget = Self { tokens: 0.0, services, refilled_at: now };
        budget.tokens = budget.capacity();
        budget
    }

    /// Follows a change in the number of services; a larger bucket starts with its new part full.
    pub fn set_services(&mut self, services: usize, now: Monotonic) {
        self.refill(now);
        let before = self.capacity();
        self.services = services;
        self.tokens = (self.tokens + (self.capacity() - before).max(0.0)).min(self.capacity());
    }

    /// Takes one restart.
    ///
    /// # Errors
    /// How long to wait before asking again, when the bucket is empty.
    pub fn take(&mut self, now: Monotonic) -> Result<(), Duration> {
        self.refill(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.tokens) / self.refill_per_second())
            .max(Duration::from_millis(1)))
    }

    #[expect(clippy::cast_precision_loss, reason = "service counts are far below 2^52")]
    fn capacity(&self) -> f64 {
        (self.services as f64).max(CAPACITY_MIN)
    }

    #[expect(clippy::cast_precision_loss, reason = "service counts are far below 2^52")]
    fn refill_per_second(&self) -> f64 {
        (self.services as f64 * REFILL_SHARE).max(REFILL_MIN)
    }

    fn refill(&mut self, now: Monotonic) {
        let passed = now.since(self.refilled_at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.refill_per_second()).min(self.capacity());
        self.refilled_at = self.refilled_at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_services_may_restart_at_once_but_then_at_the_refill_rate() {
        let start = Monotonic::ZERO;
        let mut budget = RestartBudget::new(1000, start);
        for _ in 0..1000 {
            budget.take(start).unwrap();
        }
        let wait = budget.take(start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(5));
        let later = start + Duration::from_secs(1);
        assert_eq!((0..500).take_while(|_| budget.take(later).is_ok()).count(), 200);
    }

    #[test]
    fn few_services_still_have_fifty() {
        let mut budget = RestartBudget::new(1, Monotonic::ZERO);
        assert_eq!((0..100).take_while(|_| budget.take(Monotonic::ZERO).is_ok()).count(), 50);
        budget.set_services(60, Monotonic::ZERO);
        assert_eq!((0..100).take_while(|_| budget.take(Monotonic::ZERO).is_ok()).count(), 10);
    }
}

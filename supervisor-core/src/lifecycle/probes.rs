//! What the answers of a service's probes add up to.

use std::time::Duration;

use crate::Monotonic;
use crate::config::{ProbeKind, ProbeRole, ServiceSpec};

/// One probe of the run under way.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ProbeFold {
    pub(super) role: ProbeRole,
    pub(super) kind: ProbeKind,
    initial_delay: Duration,
    period: Duration,
    pub(super) timeout: Duration,
    success_threshold: u32,
    pub(super) failure_threshold: u32,
    passes: u32,
    pub(super) failures: u32,
    /// Last settled verdict; nothing before the first.
    pub(super) healthy: Option<bool>,
    pub(super) in_flight: bool,
    /// Whether the answer under way is void if it is a failure, because we ourselves stood still.
    forgiven: bool,
    /// What a passed check takes lately, the longest one weighing most.
    pub(super) usual: Duration,
    /// Whether the service reported since the last look (heartbeat only).
    beaten: bool,
    due: Option<Monotonic>,
}

impl ProbeFold {
    pub(super) fn all(spec: &ServiceSpec, default_period: Duration) -> Vec<Self> {
        spec.probes
            .iter()
            .map(|probe| Self {
                role: probe.role,
                kind: probe.kind,
                initial_delay: probe.initial_delay,
                period: probe.period.unwrap_or(default_period),
                timeout: probe.effective_timeout(spec.health_check_timeout),
                success_threshold: probe.success_threshold,
                failure_threshold: probe.failure_threshold,
                passes: 0,
                failures: 0,
                healthy: None,
                in_flight: false,
                forgiven: false,
                usual: Duration::ZERO,
                beaten: false,
                due: None,
            })
            .collect()
    }

    pub(super) fn reset(&mut self) {
        self.passes = 0;
        self.failures = 0;
        self.healthy = None;
        self.in_flight = false;
        self.forgiven = false;
        self.usual = Duration::ZERO;
        self.beaten = false;
        self.due = None;
    }

    /// Begins probing; `offset` in `0..1` spreads the liveness probes of many services over their period.
    pub(super) fn begin(&mut self, now: Monotonic, offset: f64) {
        let first = match (self.kind, self.role) {
            // A heartbeat that gates a start is noticed when it comes; there is nothing to look for.
            (ProbeKind::Heartbeat, ProbeRole::Startup | ProbeRole::Readiness) => return,
            (ProbeKind::Heartbeat, ProbeRole::Liveness) => self.initial_delay + self.period,
            (_, ProbeRole::Liveness) => self.initial_delay + self.period.mul_f64(offset),
            _ => self.initial_delay,
        };
        self.due = Some(now + first);
    }

    /// The time this probe alone may take to fail for good while starting.
    pub(super) fn startup_allowance(&self) -> Duration {
        self.initial_delay.saturating_add(self.period.saturating_mul(self.failure_threshold))
    }

    pub(super) const fn due(&self) -> Option<Monotonic> {
        self.due
    }

    pub(super) fn is_due(&self, now: Monotonic) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Plans the next look one period after `now`: never a burst to make up for lost time.
    pub(super) fn rearm(&mut self, now: Monotonic) {
        self.due = Some(now + self.period);
    }

    /// Puts the next look a full period away and voids a failure under way.
    pub(super) fn forgive(&mut self, now: Monotonic) {
        self.forgiven = self.in_flight;
        self.beaten = self.beaten || self.kind == ProbeKind::Heartbeat;
        if self.due.is_some() {
            self.rearm(now);
        }
    }

    /// Remembers what a passed check took; a longer one at once, shorter ones by and by.
    pub(super) fn note_latency(&mut self, latency: Duration) {
        self.usual = latency.max(self.usual - self.usual / 8);
    }

    /// Takes a lost verdict back: the failures were not the service's.
    pub(super) const fn doubt(&mut self) {
        self.failures = 0;
        self.healthy = None;
    }

    pub(super) const fn beat(&mut self) {
        self.beaten = true;
    }

    /// Looks whether a heartbeat came since the last look.
    pub(super) const fn take_beat(&mut self) -> bool {
        std::mem::replace(&mut self.beaten, false)
    }

    /// Folds an answer in; tells whether it counted.
    pub(super) fn fold(&mut self, passed: bool) -> bool {
        self.in_flight = false;
        if std::mem::replace(&mut self.forgiven, false) && !passed {
            return false;
        }
        if passed {
            self.failures = 0;
            self.passes = self.passes.saturating_add(1);
            if self.passes >= self.success_threshold {
                self.healthy = Some(true);
            }
        } else {
            self.passes = 0;
            self.failures = self.failures.saturating_add(1);
            if self.failures >= self.failure_threshold {
                self.healthy = Some(false);
            }
        }
        true
    }
}

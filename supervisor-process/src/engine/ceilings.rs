//! Measuring a set that has ceilings, and saying so when one is exceeded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use supervisor_core::config::ResourceLimits;
use supervisor_core::lifecycle::{Ceiling, Event};
use supervisor_core::text::ByteSize;
use supervisor_core::{Incarnation, ServiceId};

use super::usage::{Measured, Meter};
use crate::os;

/// Pause between two measurements of a service that has ceilings.
const MEASURE_PERIOD: Duration = Duration::from_secs(2);
/// Measurements in a row over the processor ceiling before it counts: one is a burst.
const CPU_SAMPLES: u32 = 3;

/// Measures one run that has ceilings.
#[derive(Debug)]
pub(super) struct LimitWatch {
    incarnation: Incarnation,
    service: ServiceId,
    meter: Arc<Meter>,
    memory: Option<u64>,
    cpu: Option<u32>,
    last_cpu: Option<(Instant, u64)>,
    over_cpu: u32,
    told: bool,
}

impl LimitWatch {
    pub(super) fn new(
        incarnation: Incarnation,
        service: &ServiceId,
        meter: Arc<Meter>,
        limits: &ResourceLimits,
    ) -> Option<Self> {
        if limits.memory.is_none() && limits.cpu.is_none() {
            return None;
        }
        Some(Self {
            incarnation,
            service: service.clone(),
            meter,
            memory: limits.memory.map(ByteSize::bytes),
            cpu: limits.cpu.map(|cpu| cpu.0),
            last_cpu: None,
            over_cpu: 0,
            told: false,
        })
    }

    /// Waits until a ceiling is exceeded; each run is told once.
    ///
    /// Cancel-safe: a measurement that is cut short is made again.
    pub(super) async fn exceeded(&mut self) -> Event {
        while !self.told {
            tokio::time::sleep(MEASURE_PERIOD).await;
            let measured = self.meter.read().await.get(&self.service).copied();
            if let Some((ceiling, detail)) = measured.and_then(|now| self.judge(now)) {
                self.told = true;
                return Event::LimitExceeded { incarnation: self.incarnation, ceiling, detail };
            }
        }
        std::future::pending().await
    }

    fn judge(&mut self, measured: Measured) -> Option<(Ceiling, String)> {
        let memory = measured.usage.memory;
        if let Some(limit) = self.memory.filter(|limit| memory > *limit) {
            let mib = |bytes: u64| bytes >> 20;
            return Some((Ceiling::Memory, format!("{} MiB of {} MiB", mib(memory), mib(limit))));
        }
        let limit = self.cpu?;
        let now = Instant::now();
        let (then, before) = self.last_cpu.replace((now, measured.ticks))?;
        let used = os::ticks(measured.ticks.saturating_sub(before)).as_secs_f64();
        let percent = used / (now - then).as_secs_f64() * 100.0;
        self.over_cpu = if percent > f64::from(limit) { self.over_cpu + 1 } else { 0 };
        (self.over_cpu >= CPU_SAMPLES)
            .then(|| (Ceiling::Cpu, format!("{percent:.0} % of {limit} %")))
    }
}

//! Restart policies as pure data: the sliding window, the spacing beyond it, the budget over all services, jitter.

mod budget;
mod intensity;
mod jitter;

pub use budget::RestartBudget;
pub use intensity::{IntensityWindow, SLOW_DELAY_BASE, SLOW_DELAY_MAX, slow_delay};
pub use jitter::{SplitMix, jittered};

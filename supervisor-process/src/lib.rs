#![doc = include_str!("../README.md")]

mod capture;
mod child;
mod clock;
mod command;
mod engine;
pub mod guardian;
mod notify;
mod os;
mod probe;
mod scan;
mod secrets;
mod spawner;
mod table;

pub use clock::{SystemClock, SystemEntropy};
pub use command::{INCARNATION_VARIABLE, MARK_VARIABLE, SERVICE_VARIABLE, find_program};
pub use engine::{Engine, EngineBuilder};
pub use probe::{ChannelPing, SystemProbes};
pub use spawner::SystemSpawner;
pub use table::{Activity, SystemProcessTable};

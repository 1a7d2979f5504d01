//! Hand-written fakes and one contract suite per family of traits, for your tests and for ours.
//!
//! A contract suite is a plain asynchronous function: run it on your own implementation of a trait, as
//! `supervisor-persist` runs [`store_contract`] on SQLite, `supervisor-process` runs [`process_contract`], [`table_contract`] and
//! [`probe_contract`] on real processes, `rust-ai-ide-supervisor` runs [`event_contract`] and [`control_contract`], and each of them runs [`time_contract`] on its clock; this crate runs them on its fakes.
//! `supervisor-ipc` runs [`stdio_contract`] on what its channels take pipes from; there is no fake of that, the mock does.
//! [`fuzz`] drives decoders with bytes that nobody would write.

pub mod control_contract;
pub mod event_contract;
pub mod fuzz;
mod manual_clock;
mod memory_events;
mod memory_store;
mod memory_table;
pub mod probe_contract;
pub mod process_contract;
mod scripted_spawner;
pub mod stdio_contract;
pub mod store_contract;
pub mod sync_contract;
pub mod table_contract;
pub mod time_contract;

pub use manual_clock::{ManualClock, SeededEntropy};
pub use memory_events::MemoryEvents;
pub use memory_store::MemoryStore;
pub use memory_table::MemoryTable;
pub use scripted_spawner::ScriptedSpawner;

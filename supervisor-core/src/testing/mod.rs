//! Hand-written fakes and one contract suite per family of traits, for your tests and for ours.
//!
//! A contract suite is a plain asynchronous function: run it on your own implementation of a trait, as
//! `supervisor-persist` runs [`store_contract`] on SQLite and this crate runs it on [`MemoryStore`].

mod manual_clock;
mod memory_store;
pub mod store_contract;

pub use manual_clock::{ManualClock, SeededEntropy};
pub use memory_store::MemoryStore;

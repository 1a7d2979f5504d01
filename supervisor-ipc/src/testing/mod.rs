//! What breaks on purpose, for tests (feature `test-util`).

mod proxy;

pub use proxy::{Fault, FaultProxy};

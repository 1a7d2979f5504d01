//! The lifecycle machine against a simulated world: properties over random histories, and named traces.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod asking;
mod flapping;
mod healing;
mod properties;
mod scenarios;
mod watching;
mod world;

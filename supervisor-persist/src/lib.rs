#![doc = include_str!("../README.md")]

mod anchor;
mod audit;
mod checkpoint;
mod clock;
mod errors;
mod events;
mod files;
mod journal;
mod lock;
mod open;
mod outbox;
mod paths;
mod readers;
mod row;
mod schema;
mod store;
mod writer;

pub use paths::validate_secure_path;
pub use store::{StatePersistence, StatePersistenceBuilder};

#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod checkpoint;
pub mod config;
pub mod error;
pub mod event;
pub mod exit;
mod id;
mod identity;
pub mod journal;
pub mod lifecycle;
pub mod message;
pub mod policy;
pub mod ports;
mod signal;
pub mod state;
pub mod status;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
pub mod text;
mod time;

pub use id::{
    CheckpointId, CommandId, Generation, Incarnation, SERVICE_ID_LEN_MAX, Sequence, ServiceId,
    time_ordered_id,
};
pub use identity::ProcessIdentity;
pub use signal::Signal;
pub use time::Monotonic;

//! The control socket: a supervisor answers on it, the program and editors ask.

mod client;
#[cfg(test)]
mod fuzz_tests;
mod os;
pub mod protocol;
mod server;
mod wire;

pub use client::{ClientError, ControlClient, Followed};
pub use server::{ControlServer, Faces, Reloader, StorageControl};

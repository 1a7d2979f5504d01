//! The control socket: a supervisor answers on it, the program and editors ask.

mod client;
mod os;
pub mod protocol;
mod server;
mod wire;

pub use client::{ClientError, ControlClient, Followed};
pub use server::{ControlServer, Faces, Reloader, StorageControl};

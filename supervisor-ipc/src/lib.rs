#![doc = include_str!("../README.md")]

mod channel;
mod clock;
mod connection;
mod durable;
mod endpoint;
mod framing;
mod inbox;
mod incoming;
mod listener;
pub mod lsp;
mod machine;
pub mod mcp;
mod message;
mod monitor;
mod os;
mod protocol;
mod receipt;
mod recent;
pub mod relay;
mod session;
mod share;
mod task;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
mod transport;

pub use channel::{Channel, ChannelOptions};
pub use endpoint::{Endpoint, Handler, Pusher};
pub use incoming::Incoming;
pub use listener::{Listener, Stream};
pub use machine::SendOptions;
pub use monitor::{IpcMonitor, IpcMonitorBuilder};
#[cfg(windows)]
pub use os::PipeTransport;
#[cfg(unix)]
pub use os::UnixTransport;
pub use receipt::{Acceptance, Receipt};
pub use transport::{Connection, MemoryPeer, MemoryTransport, StdioSlot, TcpTransport, Transport};

//! One behaviour for every transport that runs here.

use supervisor_ipc::{StdioSlot, TcpTransport};
use tokio::net::TcpListener;

use super::*;

/// Starts a service that can be reached once, and again.
trait Place {
    /// What reaches it.
    fn transport(&self) -> Arc<dyn Transport>;
    /// Serves the next connection with the endpoint.
    fn serve(
        &mut self,
        endpoint: Arc<Endpoint<impl Handler>>,
    ) -> impl Future<Output = tokio::task::JoinHandle<()>> + Send;
}

struct Memory(supervisor_ipc::MemoryPeer, Arc<dyn Transport>);

impl Place for Memory {
    fn transport(&self) -> Arc<dyn Transport> {
        Arc::clone(&self.1)
    }

    async fn serve(
        &mut self,
        endpoint: Arc<Endpoint<impl Handler>>,
    ) -> tokio::task::JoinHandle<()> {
        let stream = self.0.accept().await.unwrap();
        tokio::spawn(async move { drop(endpoint.serve(stream).await) })
    }
}

struct Tcp(TcpListener);

impl Place for Tcp {
    fn transport(&self) -> Arc<dyn Transport> {
        Arc::new(TcpTransport::new(self.0.local_addr().unwrap().to_string()))
    }

    async fn serve(
        &mut self,
        endpoint: Arc<Endpoint<impl Handler>>,
    ) -> tokio::task::JoinHandle<()> {
        let (stream, _) = self.0.accept().await.unwrap();
        tokio::spawn(async move { drop(endpoint.serve(stream).await) })
    }
}

#[cfg(unix)]
struct Unix(tokio::net::UnixListener, std::path::PathBuf);

#[cfg(unix)]
impl Place for Unix {
    fn transport(&self) -> Arc<dyn Transport> {
        Arc::new(supervisor_ipc::UnixTransport::new(&self.1))
    }

    async fn serve(
        &mut self,
        endpoint: Arc<Endpoint<impl Handler>>,
    ) -> tokio::task::JoinHandle<()> {
        let (stream, _) = self.0.accept().await.unwrap();
        tokio::spawn(async move { drop(endpoint.serve(stream).await) })
    }
}

/// Pipes as a child has them.
#[cfg(unix)]
struct Pipes(Arc<StdioSlot>, u64);

#[cfg(unix)]
impl Place for Pipes {
    fn transport(&self) -> Arc<dyn Transport> {
        Arc::clone(&self.0) as Arc<dyn Transport>
    }

    async fn serve(
        &mut self,
        endpoint: Arc<Endpoint<impl Handler>>,
    ) -> tokio::task::JoinHandle<()> {
        use supervisor_core::ports::{ChildStdio, StdioReceiver};
        use supervisor_core::{Incarnation, ServiceId};
        let (to, their_input) = std::io::pipe().unwrap();
        let (our_input, from) = std::io::pipe().unwrap();
        let (stdin, stdout): (std::os::fd::OwnedFd, std::os::fd::OwnedFd) =
            (their_input.into(), our_input.into());
        self.1 += 1;
        let stdio = ChildStdio { stdin: stdin.into(), stdout: stdout.into() };
        self.0.attach(&ServiceId::new("svc").unwrap(), Incarnation(self.1), stdio);
        let (to, from): (std::os::fd::OwnedFd, std::os::fd::OwnedFd) = (to.into(), from.into());
        let reader = tokio::process::ChildStdout::from_std(to.into()).unwrap();
        let writer = tokio::process::ChildStdin::from_std(from.into()).unwrap();
        tokio::spawn(async move { drop(endpoint.serve(tokio::io::join(reader, writer)).await) })
    }
}

/// Waits for what the peer says, survives its death and its return, twice, in order, and nothing is lost or doubled.
async fn behaves(mut place: impl Place) {
    let effects = Effects::default();
    let endpoint = Arc::new(service(&effects));
    let (monitor, channel) = channel(RecoveryConfig::default(), place.transport()).await;
    for round in 0..3_u64 {
        let first = 1 + round * 100;
        let sending = exchange(&channel, &effects, first, 50);
        let ((), service) = tokio::join!(sending, place.serve(Arc::clone(&endpoint)));
        assert_eq!(channel.status().generation.get(), round + 1);
        service.abort();
        drop(service.await);
    }
    monitor.shutdown(LIMIT).await;
}

#[tokio::test]
async fn a_channel_in_memory_behaves() {
    let (transport, peer) = MemoryTransport::new(256);
    behaves(Memory(peer, Arc::new(transport))).await;
}

#[tokio::test]
async fn a_channel_over_tcp_behaves() {
    behaves(Tcp(TcpListener::bind("127.0.0.1:0").await.unwrap())).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_channel_over_a_unix_socket_behaves() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("svc.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    behaves(Unix(listener, path)).await;
}

#[cfg(unix)]
#[test]
fn what_a_channel_takes_pipes_from_keeps_every_promise() {
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use supervisor_core::ports::ChildStdio;
    let pipes = || {
        let (_, stdin) = std::io::pipe().unwrap();
        let (stdout, mut from) = std::io::pipe().unwrap();
        let (stdin, stdout): (OwnedFd, OwnedFd) = (stdin.into(), stdout.into());
        let stdio = ChildStdio { stdin: stdin.into(), stdout: stdout.into() };
        (stdio, move || from.write(b"x").is_ok())
    };
    let service = supervisor_core::ServiceId::new("svc").unwrap();
    supervisor_core::testing::stdio_contract::stdio(&StdioSlot::default(), &service, pipes);
}

#[cfg(unix)]
#[tokio::test]
async fn a_channel_over_a_childs_pipes_behaves() {
    behaves(Pipes(Arc::default(), 0)).await;
}

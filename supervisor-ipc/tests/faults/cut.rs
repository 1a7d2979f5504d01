//! A recorded session, cut at every byte in both directions.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use supervisor_core::error::IpcError;
use supervisor_ipc::Connection;
use supervisor_ipc::testing::{Fault, FaultProxy};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;

const MESSAGES: u64 = 7;

/// Counts what passes.
#[derive(Debug)]
struct Counting {
    inner: Arc<dyn Transport>,
    to: Arc<AtomicUsize>,
    from: Arc<AtomicUsize>,
}

struct Counted<T>(T, Arc<AtomicUsize>);

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = std::pin::Pin::new(&mut this.0).poll_read(cx, buffer);
        this.1.fetch_add(buffer.filled().len() - before, Ordering::Relaxed);
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        let written = std::pin::Pin::new(&mut this.0).poll_write(cx, bytes);
        if let std::task::Poll::Ready(Ok(count)) = &written {
            this.1.fetch_add(*count, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

#[async_trait]
impl Transport for Counting {
    async fn connect(&self) -> Result<Connection, IpcError> {
        let Connection { reader, writer } = self.inner.connect().await?;
        Ok(Connection {
            reader: Box::new(Counted(reader, Arc::clone(&self.from))),
            writer: Box::new(Counted(writer, Arc::clone(&self.to))),
        })
    }

    fn describe(&self) -> String {
        "counting".to_owned()
    }
}

async fn run(script: (Fault, Fault)) {
    let effects = Effects::default();
    let (transport, peer) = served(&effects, 64);
    let proxy = Arc::new(FaultProxy::new(transport, [script]));
    let (monitor, channel) = channel(RecoveryConfig::default(), proxy).await;
    exchange(&channel, &effects, 1, MESSAGES).await;
    monitor.shutdown(LIMIT).await;
    peer.abort();
}

#[tokio::test]
async fn a_session_cut_at_any_byte_in_either_direction_loses_and_doubles_nothing() {
    let (to, from) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let effects = Effects::default();
    let (inner, peer) = served(&effects, 64);
    let counting = Counting { inner, to: Arc::clone(&to), from: Arc::clone(&from) };
    let (monitor, channel) = channel(RecoveryConfig::default(), Arc::new(counting)).await;
    exchange(&channel, &effects, 1, MESSAGES).await;
    monitor.shutdown(LIMIT).await;
    peer.abort();
    let (to, from) = (to.load(Ordering::Relaxed), from.load(Ordering::Relaxed));
    assert!(to > 500 && from > 100, "{to} and {from} bytes");
    for after in 0..=to {
        run((Fault::Cut { after }, Fault::None)).await;
    }
    for after in 0..=from {
        run((Fault::None, Fault::Cut { after })).await;
    }
}

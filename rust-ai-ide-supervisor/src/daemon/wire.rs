//! Frames of JSON on a stream, after the version byte.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// How long the peer may take for its version byte, and one frame for being written.
///
/// Both happen on one machine within microseconds; a peer that needs seconds is stopped or hostile.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// A stream that carries frames of JSON.
#[derive(Debug)]
pub(super) struct Frames<S> {
    framed: Framed<S, LengthDelimitedCodec>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// Refuses frames over `incoming_max` before anything is allocated for them.
    pub(super) fn new(stream: S, incoming_max: usize) -> Self {
        let codec = LengthDelimitedCodec::builder()
            .length_field_type::<u32>()
            .max_frame_length(incoming_max)
            .new_codec();
        Self { framed: Framed::new(stream, codec) }
    }

    /// Writes one frame of at most `outgoing_max` bytes.
    ///
    /// Not cancel-safe: a dropped write leaves half a frame, so the connection must be dropped with it.
    pub(super) async fn send<T: Serialize>(
        &mut self,
        value: &T,
        outgoing_max: usize,
    ) -> io::Result<()> {
        let text = serde_json::to_vec(value)?;
        if text.len() > outgoing_max {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("an answer of {} bytes exceeds {outgoing_max}", text.len()),
            ));
        }
        self.framed.codec_mut().set_max_frame_length(outgoing_max);
        let sent = tokio::time::timeout(PATIENCE, self.framed.send(Bytes::from(text))).await;
        sent.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the peer does not read"))?
    }

    /// Reads one frame; nothing at the end of the stream.
    ///
    /// Cancel-safe.
    pub(super) async fn receive<T: DeserializeOwned>(
        &mut self,
        incoming_max: usize,
    ) -> io::Result<Option<T>> {
        self.framed.codec_mut().set_max_frame_length(incoming_max);
        match self.framed.next().await {
            None => Ok(None),
            Some(Err(error)) => Err(error),
            Some(Ok(frame)) => serde_json::from_slice(&frame)
                .map(Some)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}

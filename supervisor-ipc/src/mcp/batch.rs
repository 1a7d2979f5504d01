//! Several messages in one, which revision 2025-03-26 allows.
//!
//! While nothing is wrong a batch passes as it came. What waits or is asked again goes by itself, and so does its
//! answer: both are allowed.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde_json::value::RawValue;
use supervisor_core::Monotonic;

use super::McpRelay;
use crate::relay::{Envelope, INVALID_REQUEST, Malformed, Output, PARSE_ERROR, failure};

/// Messages in one batch; one with more is refused whole.
const BATCH_MAX: usize = 1000;

/// What becomes of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Passage {
    AsItCame,
    Instead(Bytes),
    /// It goes no further, at least not now.
    Taken,
}

impl McpRelay {
    pub(super) fn client_batch(&mut self, message: &Bytes, now: Monotonic, out: &mut Vec<Output>) {
        let pieces = match pieces(message) {
            Ok(pieces) => pieces,
            Err((code, text)) => {
                out.push(Output::ToClient(failure(None, code, text, None)));
                return;
            }
        };
        let mut passages = Vec::with_capacity(pieces.len());
        for piece in &pieces {
            passages.push(match Envelope::read(piece) {
                Ok(envelope) => self.client_message(piece, &envelope, now, out),
                Err(error) => {
                    self.client_junk(piece, error, out);
                    Passage::Taken
                }
            });
        }
        if let Some(message) = joined(message, &pieces, passages) {
            self.to_server(message, out);
        }
    }

    pub(super) fn server_batch(&mut self, message: &Bytes, now: Monotonic, out: &mut Vec<Output>) {
        let Ok(pieces) = pieces(message) else {
            self.server_junk(message, Malformed::Batch, out);
            return;
        };
        let mut passages = Vec::with_capacity(pieces.len());
        for piece in &pieces {
            passages.push(match Envelope::read(piece) {
                Ok(envelope) => self.server_message(piece, &envelope, now, out),
                Err(error) => {
                    self.server_junk(piece, error, out);
                    Passage::Taken
                }
            });
        }
        if let Some(message) = joined(message, &pieces, passages) {
            out.push(Output::ToClient(message));
        }
    }
}

fn pieces(message: &Bytes) -> Result<Vec<Bytes>, (i64, &'static str)> {
    let pieces: Vec<&RawValue> =
        serde_json::from_slice(message).map_err(|_| (PARSE_ERROR, "the batch is no JSON"))?;
    match pieces.len() {
        0 => Err((INVALID_REQUEST, "the batch is empty")),
        1..=BATCH_MAX => {
            Ok(pieces.iter().map(|piece| message.slice_ref(piece.get().as_bytes())).collect())
        }
        _ => Err((INVALID_REQUEST, "the batch has more than 1000 messages")),
    }
}

/// What is left of a batch; the whole as it came if nothing was taken out.
fn joined(whole: &Bytes, pieces: &[Bytes], passages: Vec<Passage>) -> Option<Bytes> {
    if passages.iter().all(|passage| *passage == Passage::AsItCame) {
        return Some(whole.clone());
    }
    let mut left = BytesMut::new();
    for (piece, passage) in pieces.iter().zip(passages) {
        let piece = match passage {
            Passage::AsItCame => piece.clone(),
            Passage::Instead(piece) => piece,
            Passage::Taken => continue,
        };
        left.put_u8(if left.is_empty() { b'[' } else { b',' });
        left.put_slice(&piece);
    }
    if left.is_empty() {
        return None;
    }
    left.put_u8(b']');
    Some(left.freeze())
}

//! The portable form of a savepoint: one text file that describes itself.
//!
//! Line 1 is a header in JSON, line 2 the snapshot in JSON, line 3 a seal over both. The seal finds damage and files
//! made by hand. It is no signature: who can read this source can make it.

use std::io::Read;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use supervisor_core::checkpoint::{CHECKPOINT_SCHEMA, Checkpoint};
use supervisor_core::error::DatabaseError;
use supervisor_core::{CheckpointId, Sequence};

use crate::{checkpoint, sealed};

/// Version of the file's form.
const VERSION: u32 = 1;
/// What the header says the file is.
const FORMAT: &str = "ide-supervisor savepoint";
/// Names the kind of file in its seal.
const KIND: &str = "ide-supervisor savepoint v1";
/// Room for header and seal, in bytes.
const FRAME_MAX: u64 = 64 << 10;
/// Longest note, in bytes.
pub(super) const NOTE_MAX: usize = 4096;

/// The first line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) format: String,
    pub(super) version: u32,
    pub(super) name: String,
    pub(super) note: String,
    pub(super) created_at: DateTime<Utc>,
    /// The version of the program that made it.
    pub(super) producer: String,
    pub(super) schema: u32,
    pub(super) checkpoint: CheckpointId,
    pub(super) sequence: Sequence,
    pub(super) services: u64,
    pub(super) pending_operations: u64,
    pub(super) channels: u64,
    pub(super) bytes: u64,
    pub(super) blake3: String,
}

/// What decides whether the rest can be understood.
#[derive(Deserialize)]
struct Opening {
    format: String,
    version: u32,
    schema: u32,
    producer: String,
}

/// Describes a snapshot.
pub(super) fn header(name: &str, note: &str, snapshot: &Checkpoint, payload: &[u8]) -> Header {
    Header {
        format: FORMAT.to_owned(),
        version: VERSION,
        name: name.to_owned(),
        note: note.to_owned(),
        created_at: snapshot.created_at,
        producer: env!("CARGO_PKG_VERSION").to_owned(),
        schema: snapshot.schema,
        checkpoint: snapshot.id,
        sequence: snapshot.sequence,
        services: snapshot.services.len() as u64,
        pending_operations: snapshot.pending_operations.len() as u64,
        channels: snapshot.channels.len() as u64,
        bytes: payload.len() as u64,
        blake3: blake3::hash(payload).to_hex().to_string(),
    }
}

/// Writes the file's text.
pub(super) fn encode(header: &Header, payload: &[u8]) -> Result<Vec<u8>, DatabaseError> {
    let mut text = serde_json::to_vec(header)
        .map_err(|error| crate::errors::unreadable("a savepoint's header", &error))?;
    text.push(b'\n');
    text.extend_from_slice(payload);
    let seal = sealed::seal(KIND, &text);
    text.extend_from_slice(format!("\nblake3 {seal}\n").as_bytes());
    Ok(text)
}

/// Reads a file's text, at most as much as a savepoint can have.
pub(super) fn read_all(file: impl Read) -> Result<Vec<u8>, String> {
    let limit = checkpoint::PAYLOAD_MAX + FRAME_MAX;
    let mut text = Vec::new();
    file.take(limit + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > limit {
        return Err(format!("it is larger than {limit} bytes"));
    }
    Ok(text)
}

/// Reads the text of a savepoint, every byte of which has to be as it was written.
pub(super) fn decode(text: &[u8]) -> Result<(Header, Checkpoint, &[u8]), String> {
    let hand_made = "it is no savepoint written by this program";
    let mut lines = text.splitn(3, |byte| *byte == b'\n');
    let (Some(first), Some(payload), Some(rest)) = (lines.next(), lines.next(), lines.next())
    else {
        return Err(hand_made.to_owned());
    };
    let opening: Opening = serde_json::from_slice(first).map_err(|_| hand_made.to_owned())?;
    if opening.format != FORMAT {
        return Err(hand_made.to_owned());
    }
    // Before the seal: a newer form may be sealed in another way, and says so only here.
    if opening.version > VERSION || opening.schema > CHECKPOINT_SCHEMA {
        return Err(format!(
            "it has form {} and schema {}, written by version {}; this program knows {VERSION} and {CHECKPOINT_SCHEMA}: use the newer program",
            opening.version, opening.schema, opening.producer
        ));
    }
    let sealed = &text[..first.len() + 1 + payload.len()];
    if rest != format!("blake3 {}\n", sealed::seal(KIND, sealed)).as_bytes() {
        return Err(
            "its seal does not fit its content: damaged, cut short or made by hand".to_owned()
        );
    }
    let found: Header = serde_json::from_slice(first).map_err(|error| error.to_string())?;
    let hash = blake3::hash(payload);
    if hash.to_hex().as_str() != found.blake3 {
        return Err("its snapshot does not fit its header".to_owned());
    }
    let snapshot = checkpoint::parse(payload, hash.as_bytes())?;
    let told = Header {
        producer: found.producer.clone(),
        ..header(&found.name, &found.note, &snapshot, payload)
    };
    if told != found {
        return Err("its header does not describe its snapshot".to_owned());
    }
    if let Some((id, _)) = snapshot.services.iter().find(|(id, state)| state.id != **id) {
        return Err(format!("the state it holds of {id} is that of another service"));
    }
    Ok((found, snapshot, payload))
}
